"""ncnn on the CPU, in float32: packed layouts, Winograd and SGEMM on, as they are by default."""

import ncnn
import numpy as np
from common import Engine, serve

FLOAT32 = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
FAST = ("lightmode", "use_packing_layout", "use_winograd_convolution", "use_sgemm_convolution")


class Ncnn(Engine):
    """``artifact`` is the .param file; the weights lie beside it in the .bin file."""

    def __init__(self, options):
        super().__init__(options)
        self.net = ncnn.Net()
        self.net.opt.num_threads = options.threads
        for name in FLOAT32:
            setattr(self.net.opt, name, False)
        for name in FAST:
            setattr(self.net.opt, name, True)
        weights = options.artifact.removesuffix(".param") + ".bin"
        if self.net.load_param(options.artifact) or self.net.load_model(weights):
            raise RuntimeError("ncnn cannot load the network that pnnx wrote")
        if any(data.shape[0] != 1 for data in self.inputs):
            raise RuntimeError("ncnn's layers take one image at a time")
        given = [ncnn.Mat(np.ascontiguousarray(data[0])).clone() for data in self.inputs]
        self.given, self.results = list(zip(self.net.input_names(), given, strict=True)), self.net.output_names()

    def run(self):
        extractor = self.net.create_extractor()
        for name, data in self.given:
            extractor.input(name, data)
        self.found = [extractor.extract(name)[1] for name in self.results]

    def outputs(self):
        return [np.array(found)[None] for found in self.found]

    def facts(self):
        option = self.net.opt
        names = ("num_threads", *FLOAT32, *FAST)
        return {"version": ncnn.__version__, "settings": {name: getattr(option, name) for name in names}}


serve(Ncnn)
