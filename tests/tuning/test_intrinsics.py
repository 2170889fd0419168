"""Loading TVM's intrinsics of CPUs alone."""

from __future__ import annotations

import subprocess
import sys

SOURCE = """
import sys
from tvm.s_tir import TensorIntrin
from tvm_shufflenet.tuning.search.intrinsics import FOREIGN, PACKAGE, load_intrinsics
load_intrinsics()
assert PACKAGE in sys.modules and not set(FOREIGN) & set(sys.modules)
import tvm.s_tir.tensor_intrin  # as a TuneContext does
from tvm.s_tir.tensor_intrin import arm_cpu, x86
for name in (arm_cpu.ARM_DOT_4x4_i8_NEON_INTRIN, x86.VNNI_DOT_16x4_INTRIN):
    assert TensorIntrin.get(name) is not None
from tvm.s_tir.tensor_intrin import rocm
assert rocm.AMDGPU_SDOT4_INTRIN and PACKAGE + ".rocm" in sys.modules
"""


def test_intrinsics_of_cpus_are_there_and_others_can_be_had():
    done = subprocess.run([sys.executable, "-c", SOURCE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
