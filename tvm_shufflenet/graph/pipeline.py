"""The passes from a folded Relax module to one that is ready to build: a table of contents."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax import transform

from ..targets import Target
from .fuse_operators import FuseOperators


def fused(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Our operators where they match, TVM's own fused operators elsewhere; every operator a PrimFunc to be scheduled."""
    passes = [
        FuseOperators(),  # convolution + bias + residual + ReLU + shuffle
        transform.LegalizeOps(),  # what is left becomes TVM's own operators
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ]
    with target.tvm():
        return tvm.transform.Sequential(passes)(module)


def stock(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """What TVM does with the network by itself, untuned: the baseline."""
    with target.tvm():
        return relax.get_pipeline("zero")(module)
