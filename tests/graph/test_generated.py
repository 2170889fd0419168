"""Random networks of far more parts than people combine, compiled with default and random schedules, against PyTorch.

``benchmarks/generated_networks.py`` does it for thousands.
"""

from __future__ import annotations

import pytest

from helpers.generated import Generated
from helpers.proving import wrong

# Each failed once.
KNOWN = (27, 122, 718, 5019, 5039)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*KNOWN, *range(24)])
def test_a_generated_network_computes_what_torch_computes(seed):
    network = Generated(seed)
    found = wrong(network, seed if seed % 2 else None)
    assert found is None, f"{found}; {network.shape}: {network.parts}"
