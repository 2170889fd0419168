"""convert_litert.py FOLDER ARTIFACT: the exported program in FOLDER becomes a .tflite file that takes channels last."""

import sys

import litert_torch
import numpy as np
import torch

folder, artifact = sys.argv[1:]
data = torch.from_numpy(np.load(f"{folder}/input.npy"))
module = torch.export.load(f"{folder}/model.pt2").module()
last = litert_torch.to_channel_last_io(module, args=[0])
litert_torch.convert(last, (data.permute(0, 2, 3, 1).contiguous(),), strict_export=False).export(artifact)
