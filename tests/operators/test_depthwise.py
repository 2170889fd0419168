"""The depthwise operator against PyTorch, unscheduled and in every variant of its template."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.kernels import MACHINES, check, check_default, draw, schedules, spoil
from helpers.laid_out import Depthwise
from helpers.references import operands

PLANES = ((1, 1), (7, 7), (5, 9), (14, 14), (1, 6), (8, 33), (2, 7), (28, 28))


@st.composite
def kernels(drawn):
    kernel = drawn(st.sampled_from(((3, 3), (5, 5), (1, 3), (2, 2), (7, 7))))
    height, width = drawn(st.sampled_from(PLANES))
    return Depthwise(
        batch=drawn(st.integers(1, 2)),
        channels=drawn(st.integers(1, 9)),
        height=max(height, kernel[0]),
        width=max(width, kernel[1]),
        kernel=kernel,
        stride=drawn(st.sampled_from(((1, 1), (2, 2), (1, 2), (3, 3)))),
        padding=drawn(st.sampled_from(((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 2, 1), (0, 3, 1, 2)))),
        relu=drawn(st.booleans()),
    )


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@settings(deadline=None, max_examples=8, derandomize=True)
@given(kernel=kernels())
def test_it_computes_what_torch_computes(machine, kernel):
    arguments, expected, before = operands(kernel)
    check_default(kernel, machine, arguments, expected, before)


SPACES = {
    "rows of whole vectors": Depthwise(1, 4, 16, 16),
    "rows of 14": Depthwise(1, 6, 14, 14, relu=True),
    "rows of 7, from 14": Depthwise(2, 8, 14, 14, stride=(2, 2)),
    "odd rows": Depthwise(1, 3, 9, 35, stride=(2, 2), padding=(1, 0, 0, 1)),
    "a plane too large for the cache": Depthwise(1, 2, 112, 112, stride=(2, 2)),
}


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_a_random_point_of_every_variant_is_right(name, machine):
    arguments, expected, before = operands(SPACES[name])
    for point in schedules(SPACES[name], machine)[::2]:
        check(point, arguments, expected, before)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_pass_through_as_in_torch(relu, stride):
    kernel = Depthwise(1, 4, 9, 14, stride=stride, relu=relu)
    arguments, expected, before = operands(kernel, spoil(draw(1, 4, 9, 14)))
    assert np.isnan(expected).any()
    check_default(kernel, MACHINES[-1], arguments, expected, before)
