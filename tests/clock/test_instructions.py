"""What instruction words are taken for. Encodings by llvm-mc."""

from __future__ import annotations

import pytest

from tvm_shufflenet.clock.instructions import multiply_add_lanes

LANES = {
    "fmla v2.8h, v5.8h, v1.h[7]": (0x4F3118A2, 8),
    "fmls v2.4h, v5.4h, v1.h[0]": (0x0F0150A2, 4),
    "fmla v2.8h, v5.8h, v31.8h": (0x4E5F0CA2, 8),
    "fmls v2.4h, v5.4h, v1.4h": (0x0EC10CA2, 4),
    "fmla v2.4s, v5.4s, v31.s[3]": (0x4FBF18A2, 4),
    "fmls v2.4s, v5.4s, v1.4s": (0x4EA1CCA2, 4),
    "fmul v2.8h, v5.8h, v1.h[7]": (0x4F3198A2, 0),
    "fadd v2.8h, v5.8h, v1.8h": (0x4E4114A2, 0),
    "mla v2.8h, v5.8h, v1.8h": (0x4E6194A2, 0),
    "mla v2.8h, v5.8h, v1.h[3]": (0x6F7100A2, 0),
    "fmlal v2.4s, v5.4h, v1.4h": (0x4E21ECA2, 0),
    "fmlal v2.4s, v5.4h, v1.h[3]": (0x4FB100A2, 0),
    "fmax v1.8h, v2.8h, v3.8h": (0x4E433441, 0),
    "frecps v0.8h, v1.8h, v2.8h": (0x4E423C20, 0),
    "fmulx v0.8h, v1.8h, v2.h[1]": (0x6F129020, 0),
    "sqdmulh v0.8h, v1.8h, v2.h[1]": (0x4F52C020, 0),
    "sdot v0.4s, v1.16b, v2.4b[1]": (0x4FA2E020, 0),
}


@pytest.mark.parametrize("text", LANES)
def test_lanes_of_a_multiply_add(text):
    word, lanes = LANES[text]
    assert multiply_add_lanes(word) == lanes
