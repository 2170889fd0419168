"""PyTorch: the module itself, as it is."""

import numpy as np
import torch
from common import Engine, serve


class Eager(Engine):
    """``artifact`` is the pickled module, or for a module that only its own file can load, the exported program."""

    def __init__(self, options):
        super().__init__(options)
        torch.set_num_threads(options.threads)
        torch.set_num_interop_threads(1)
        self.module = self.prepared(load(options.artifact))
        self.data = torch.from_numpy(np.load(options.input))

    def prepared(self, module):
        return module

    def run(self):
        with torch.inference_mode():
            self.found = self.module(self.data)

    def output(self):
        found = self.found[0] if isinstance(self.found, (tuple, list)) else self.found
        return found.numpy()

    def facts(self):
        settings = {"num_threads": torch.get_num_threads(), "num_interop_threads": torch.get_num_interop_threads()}
        return {"version": torch.__version__, "settings": settings}


def load(artifact: str):
    try:
        return torch.load(artifact, weights_only=False)
    except (ImportError, AttributeError, FileNotFoundError):
        return torch.export.load(artifact.removesuffix(".pickle") + ".pt2").module()


if __name__ == "__main__":
    serve(Eager)
