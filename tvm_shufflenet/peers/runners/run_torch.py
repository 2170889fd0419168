"""PyTorch: the module itself, as it is."""

import torch
import torch.utils._pytree as pytree
from common import Engine, serve


class Eager(Engine):
    """``artifact`` is the pickled module, or for a module that only its own file can load, the exported program."""

    def __init__(self, options):
        super().__init__(options)
        torch.set_num_threads(options.threads)
        torch.set_num_interop_threads(1)
        self.module = self.prepared(load(options.artifact))
        self.given = [torch.from_numpy(data) for data in self.inputs]

    def prepared(self, module):
        return module

    def run(self):
        with torch.inference_mode():
            self.found = self.module(*self.given)

    def outputs(self):
        return [found.numpy() for found in pytree.tree_leaves(self.found)]

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
