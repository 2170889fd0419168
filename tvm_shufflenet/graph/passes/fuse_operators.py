"""Pass: replaces the network's operators by calls of the fused operators of ``tvm_shufflenet.operators``."""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import relax

from ...errors import DeployError
from ...hardware.machine import machine_for
from ...hardware.targets import Target
from ..bindings import Bindings
from ..fuser import Fuser

# A pass that raises it does so through TVM.
tvm_ffi.register_error(DeployError)


@tvm.transform.module_pass(opt_level=0, name="FuseOperators")
class FuseOperators:
    """Everything that ``tvm_shufflenet.operators`` computes becomes calls of it; what it does not know is left alone.

    Weights are packed for the templates' tiles on ``target``. Runs after batch norms are folded and shuffles
    canonicalised, before LegalizeOps.
    """

    def __init__(self, target: Target):
        self.machine = machine_for(target)

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        result = mod.clone()  # a pass that writes to its input changes the caller's module
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function) and Bindings(function).straight:
                fused = Fuser(function, self.machine).run(name.name_hint)
                for variable, body in fused.functions_items():
                    result[name if variable.name_hint == name.name_hint else variable] = body
        return relax.transform.DeadCodeElimination()(result)
