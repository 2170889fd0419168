"""convert_litert.py FOLDER ARTIFACT: the exported program in FOLDER becomes a .tflite file that takes channels last."""

import sys
from pathlib import Path

import litert_torch
import numpy as np
import torch

folder, artifact = sys.argv[1:]
given = [torch.from_numpy(np.load(path)) for path in sorted(Path(folder).glob("input[0-9]*.npy"))]
images = [index for index, data in enumerate(given) if data.dim() == 4]
given = [data.permute(0, 2, 3, 1).contiguous() if data.dim() == 4 else data for data in given]
module = torch.export.load(f"{folder}/model.pt2").module()
last = litert_torch.to_channel_last_io(module, args=images)
litert_torch.convert(last, tuple(given), strict_export=False).export(artifact)
