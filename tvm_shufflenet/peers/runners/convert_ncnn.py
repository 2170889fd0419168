"""convert_ncnn.py FOLDER ARTIFACT: the traced module in FOLDER becomes ncnn's .param and .bin, with float32 weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pnnx

folder, artifact = sys.argv[1:]
not_traced = Path(folder, "not-traced.txt")
if not_traced.exists():
    sys.exit(not_traced.read_text())
stem = artifact.removesuffix(".param")
given = [np.load(path, mmap_mode="r") for path in sorted(Path(folder).glob("input[0-9]*.npy"))]
shapes = ",".join(f"[{','.join(map(str, data.shape))}]" for data in given)
outputs = {"pnnxparam": ".pnnx.param", "pnnxbin": ".pnnx.bin", "pnnxpy": "_pnnx.py", "pnnxonnx": ".pnnx.onnx"}
outputs |= {"ncnnparam": ".param", "ncnnbin": ".bin", "ncnnpy": "_ncnn.py"}
command = [pnnx.EXEC_PATH, f"{folder}/model.pt", f"inputshape={shapes}", "fp16=0"]
done = subprocess.run([*command, *(f"{name}={stem}{suffix}" for name, suffix in outputs.items())])
if done.returncode or not Path(artifact).exists():
    sys.exit("pnnx failed")
unknown = [line.split()[0] for line in Path(artifact).read_text().splitlines() if line.startswith("pnnx.")]
if unknown:
    sys.exit(f"ncnn has no layer for: {', '.join(sorted(set(unknown)))}")
