"""LiteRT: its interpreter with the XNNPACK delegate, which it applies by itself."""

from importlib.metadata import version

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from common import Engine, serve


class LiteRT(Engine):
    def __init__(self, options):
        super().__init__(options)
        self.interpreter = Interpreter(options.artifact, num_threads=options.threads)
        self.interpreter.allocate_tensors()
        (source,), (result,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        data = np.load(options.input)
        if tuple(source["shape"]) != data.shape:  # converted for images with their channels last
            data = np.ascontiguousarray(data.transpose(0, 2, 3, 1))
        self.interpreter.set_tensor(source["index"], data)
        self.result = result["index"]

    def run(self):
        self.interpreter.invoke()

    def output(self):
        return self.interpreter.get_tensor(self.result)

    def facts(self):
        settings = {"num_threads": self.options.threads, "delegate": "XNNPACK"}
        return {"version": version("ai-edge-litert"), "settings": settings}


serve(LiteRT)
