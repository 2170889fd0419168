"""PyTorch's own compiler, with the weights as constants."""

import torch
import torch._inductor.config
from common import serve
from run_torch import Eager


class Compiled(Eager):
    def prepared(self, module):
        torch._inductor.config.freezing = True
        return torch.compile(module, dynamic=False)

    def run(self):
        with torch.no_grad():  # what freezing asks for
            self.found = self.module(*self.given)


serve(Compiled)
