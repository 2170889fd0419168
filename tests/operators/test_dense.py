"""The fully connected operator against PyTorch, with and without the mean before it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.kernels import MACHINES, check, check_default, draw, schedules, spoil
from helpers.laid_out import Dense
from helpers.references import operands


@st.composite
def kernels(drawn):
    return Dense(
        batch=drawn(st.integers(1, 3)),
        inputs=drawn(st.integers(1, 70)),
        outputs=drawn(st.sampled_from((1, 10, 16, 48, 100, 129))),
        relu=drawn(st.booleans()),
        plane=drawn(st.sampled_from((None, (7, 7), (1, 1), (3, 5)))),
    )


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@settings(deadline=None, max_examples=8, derandomize=True)
@given(kernel=kernels())
def test_it_computes_what_torch_computes(machine, kernel):
    arguments, expected, before = operands(kernel)
    check_default(kernel, machine, arguments, expected, before)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("kernel", [Dense(1, 96, 1000, plane=(7, 7)), Dense(3, 33, 100, relu=True)], ids=str)
def test_a_random_point_of_every_variant_is_right(kernel, machine):
    arguments, expected, before = operands(kernel)
    for seed in (3, 4):
        for point in schedules(kernel, machine, seed):
            check(point, arguments, expected, before)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("plane", [None, (3, 3)])
def test_nan_and_infinity_pass_through_as_in_torch(plane, relu):
    kernel = Dense(3, 20, 24, relu, plane)
    arguments, expected, before = operands(kernel, spoil(draw(3, 20, *(plane or ()))))
    assert np.isnan(expected).any()
    check_default(kernel, MACHINES[-1], arguments, expected, before)
