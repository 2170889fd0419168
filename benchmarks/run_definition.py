"""One warm inference of an ncnn network given by its definition alone, between the counting plugin's marks.

    run_definition.py FILE.param SIZE

Its weights are zero and its input is constant, as ncnn's own benchmark has them. Runs in the emulated guest.
"""

import contextlib
import gc
import os
import sys

import ncnn

MARK = 0x7E57


def mark(number):
    with contextlib.suppress(OSError):  # the kernel refuses it; the plugin has seen it
        os.getpriority(MARK, number)


def outputs(layers):
    """Blobs that a layer writes and none reads."""
    read, written = set(), []
    for layer in layers:
        inputs, results = int(layer[2]), int(layer[3])
        read.update(layer[4 : 4 + inputs])
        written += layer[4 + inputs : 4 + inputs + results]
    return [name for name in written if name not in read]


definition, size = sys.argv[1], int(sys.argv[2])
with open(definition) as lines:
    layers = [fields for fields in map(str.split, lines) if len(fields) > 3]
source = next(layer[4] for layer in layers if layer[0] == "Input")
net = ncnn.Net()
net.opt.num_threads = 1
for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
    setattr(net.opt, name, False)
reader = ncnn.DataReaderFromEmpty()
if net.load_param(definition) or net.load_model(reader):
    raise SystemExit("ncnn cannot load the network")
image = ncnn.Mat(size, size, 3)
image.fill(0.01)


def run():
    extractor = net.create_extractor()
    extractor.input(source, image)
    for name in outputs(layers):
        extractor.extract(name)


run()
run()
gc.collect()
gc.disable()
mark(0)
run()
mark(1)
