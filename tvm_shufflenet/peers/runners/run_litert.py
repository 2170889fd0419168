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
        for source, data in zip(self.interpreter.get_input_details(), self.inputs, strict=True):
            if tuple(source["shape"]) != data.shape:  # converted for images with their channels last
                data = np.ascontiguousarray(data.transpose(0, 2, 3, 1))
            self.interpreter.set_tensor(source["index"], data)
        self.results = [result["index"] for result in self.interpreter.get_output_details()]

    def run(self):
        self.interpreter.invoke()

    def outputs(self):
        return [self.interpreter.get_tensor(index) for index in self.results]

    def facts(self):
        settings = {"num_threads": self.options.threads, "delegate": "XNNPACK"}
        return {"version": version("ai-edge-litert"), "settings": settings}


serve(LiteRT)
