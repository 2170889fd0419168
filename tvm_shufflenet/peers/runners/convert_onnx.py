"""convert_onnx.py FOLDER ARTIFACT: the exported program in FOLDER becomes an ONNX file."""

import sys

import torch

folder, artifact = sys.argv[1:]
program = torch.export.load(f"{folder}/model.pt2")
torch.onnx.export(program, f=artifact, dynamo=True, external_data=False)
