"""The K x K convolution against PyTorch, unscheduled and in every variant of its template."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.kernels import MACHINES, check, check_default, draw, schedules, spoil
from helpers.laid_out import Convolution
from helpers.references import operands


@st.composite
def kernels(drawn):
    kernel = drawn(st.sampled_from(((3, 3), (5, 5), (1, 3), (2, 2), (1, 1), (11, 11))))
    groups = drawn(st.sampled_from((1, 1, 2, 3)))
    return Convolution(
        batch=drawn(st.integers(1, 2)),
        in_channels=groups * drawn(st.integers(1, 5)),
        height=kernel[0] + drawn(st.integers(0, 13)),
        width=kernel[1] + drawn(st.integers(0, 29)),
        out_channels=groups * drawn(st.sampled_from((1, 3, 7, 8, 24))),
        groups=groups,
        kernel=kernel,
        stride=drawn(st.sampled_from(((1, 1), (2, 2), (1, 2), (4, 4)))),
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
    "a stem": Convolution(1, 3, 32, 32, 24, stride=(2, 2), relu=True),
    "a grouped one": Convolution(2, 6, 13, 13, 16, groups=2, kernel=(5, 5), padding=(2, 2, 2, 2)),
}


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_a_random_point_of_every_variant_is_right(name, machine):
    arguments, expected, before = operands(SPACES[name])
    for point in schedules(SPACES[name], machine)[::2]:
        check(point, arguments, expected, before)


@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_pass_through_as_in_torch(relu):
    kernel = Convolution(1, 3, 12, 22, 8, stride=(2, 2), relu=relu)
    arguments, expected, before = operands(kernel, spoil(draw(1, 3, 12, 22)))
    assert np.isnan(expected).any()
    check_default(kernel, MACHINES[-1], arguments, expected, before)
