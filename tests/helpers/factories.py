"""Models as a user has them: in a file, named by --model."""

from __future__ import annotations

# A ShuffleNet unit of three operators.
FACTORY = """
import torch
from tvm_shufflenet.models import randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit

def unit():
    torch.manual_seed(0)
    made = ShuffleUnit(48, 48, 3, 1, 3)
    randomise_batch_norms(made)
    return made
"""
