"""Pooling against PyTorch, unscheduled and in every variant of its template; and the schedule of copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.kernels import MACHINES, check, draw, module, schedules, spoil
from helpers.laid_out import Copy, Pooling
from helpers.references import operands
from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.schedules import rules

WINDOWS = (None, Window(5, 9, offset=2), Window(5, 9, scattered=True), Window(5, 8, offset=3, first=True))


def check_pooling(mod, kernel: Pooling, data: np.ndarray | None = None) -> None:
    check(mod, *operands(kernel, data))


@st.composite
def kernels(drawn):
    kernel = drawn(st.sampled_from(((3, 3), (2, 2), (5, 5), (3, 2))))
    padding = drawn(st.integers(0, 1))
    return Pooling(
        batch=drawn(st.integers(1, 2)),
        channels=5,
        height=kernel[0] + drawn(st.integers(0, 13)),
        width=kernel[1] + drawn(st.integers(0, 29)),
        kind=drawn(st.sampled_from(("max", "average"))),
        kernel=kernel,
        stride=drawn(st.sampled_from(((1, 1), (2, 2), (1, 2), (3, 3)))),
        padding=(padding,) * 4,
        count_include_pad=drawn(st.booleans()),
        ceil_mode=drawn(st.booleans()),
        relu=drawn(st.booleans()),
        window=drawn(st.sampled_from(WINDOWS)),
    )


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@settings(deadline=None, max_examples=6, derandomize=True)
@given(kernel=kernels())
def test_it_computes_what_torch_computes(machine, kernel):
    check_pooling(module(kernel), kernel)
    check_pooling(rules.default_schedule(module(kernel), machine).mod, kernel)


SPACES = {
    "maximum": Pooling(1, 3, 23, 37),
    "mean into a window": Pooling(2, 5, 14, 14, "average", relu=True, window=WINDOWS[1]),
    "maximum of a large plane": Pooling(1, 2, 112, 112, relu=True),
}


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_a_random_point_of_every_variant_is_right(name, machine):
    for point in schedules(SPACES[name], machine)[::2]:
        check_pooling(point, SPACES[name])


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinity_pass_through_as_in_torch(kind, relu):
    kernel = Pooling(1, 4, 9, 23, kind, relu=relu)
    data = spoil(draw(1, 4, 9, 23))
    data[0, 1, 4] = np.nan  # a whole row: every place in the window
    data[0, 2] = -np.inf
    assert np.isnan(operands(kernel, data)[1]).any()
    check_pooling(module(kernel), kernel, data)
    for machine in MACHINES:
        check_pooling(rules.default_schedule(module(kernel), machine).mod, kernel, data)


def test_a_maximum_of_bit_patterns_is_torch_s():
    """Both zeros, beside numbers as well, both signs of NaN, infinity."""
    kernel = Pooling(1, 4, 9, 23, non_negative=True)
    data = np.maximum(draw(1, 4, 9, 23), 0)
    data[data == 0] = -0.0
    data[0, 1, 4], data[0, 2, 3] = np.nan, -np.float32(np.nan)
    data[0, 3], data[0, 0, 5] = -0.0, np.inf
    assert np.isnan(operands(kernel, data)[1]).any()
    check_pooling(module(kernel), kernel, data)
    for machine in MACHINES:
        check_pooling(rules.default_schedule(module(kernel), machine).mod, kernel, data)


COPIES = [Copy(1, 6, 5, 7, 5, False, window or Window(5, 5)) for window in WINDOWS]


@pytest.mark.parametrize("kernel", [*COPIES, replace(COPIES[1], relu=True), Copy(2, 7, 4, 16, 5, True, WINDOWS[2])])
@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_a_scheduled_copy_copies(kernel, machine):
    data = spoil(draw(kernel.batch, kernel.planes, kernel.height, kernel.width))
    check(rules.default_schedule(module(kernel), machine).mod, *operands(kernel, data))
