"""Pooling against PyTorch, unscheduled and in every variant of its template; and the schedule of copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import MACHINES, UNTOUCHED, check, draw, module, schedules, spoil
from laid_out import Copy, Pooling

from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.schedules import rules

WINDOWS = (None, Window(5, 9, offset=2), Window(5, 9, scattered=True), Window(5, 8, offset=3, first=True))


def operands(kernel: Pooling, data: np.ndarray | None = None):
    """The operands in the function's order, what PyTorch computes, and what the result's tensor holds before."""
    if data is None:
        data = draw(kernel.batch, kernel.channels, kernel.height, kernel.width)
    source, padding, window = torch.from_numpy(data), kernel.padding[:2], kernel.destination
    if kernel.kind == "max":
        value = F.max_pool2d(source, kernel.kernel, kernel.stride, padding, ceil_mode=kernel.ceil_mode)
    else:
        value = F.avg_pool2d(source, kernel.kernel, kernel.stride, padding, kernel.ceil_mode, kernel.count_include_pad)
    value = (F.relu(value) if kernel.relu else value).numpy()
    assert value.shape[2:] == kernel.output_shape[2:]
    before = np.full(kernel.output_shape, UNTOUCHED, np.float32)
    return [data, *place(window, value, before)], before


def place(window: Window, value: np.ndarray, before: np.ndarray):
    """The operands that a window needs, then what its tensor holds once ``value`` is there."""
    planes = window.offset + np.arange(window.channels)
    if window.scattered:
        planes = np.random.default_rng(0).permutation(window.total)[: window.channels]
    after = before.copy()
    after[:, planes] = value
    table = [planes.astype(np.int32)] if window.scattered else []
    return [*table, *([before] if window.shared else []), after]


def check_pooling(mod, kernel: Pooling, data: np.ndarray | None = None) -> None:
    (*arguments, expected), before = operands(kernel, data)
    check(mod, arguments, expected, before)


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
    assert np.isnan(operands(kernel, data)[0][-1]).any()
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
    assert np.isnan(operands(kernel, data)[0][-1]).any()
    check_pooling(module(kernel), kernel, data)
    for machine in MACHINES:
        check_pooling(rules.default_schedule(module(kernel), machine).mod, kernel, data)


COPIES = [Copy(1, 6, 5, 7, 5, False, window or Window(5, 5)) for window in WINDOWS]


@pytest.mark.parametrize("kernel", [*COPIES, replace(COPIES[1], relu=True), Copy(2, 7, 4, 16, 5, True, WINDOWS[2])])
@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_a_scheduled_copy_copies(kernel, machine):
    data = spoil(draw(kernel.batch, kernel.planes, kernel.height, kernel.width))
    source = np.random.default_rng(1).permutation(kernel.planes)[: kernel.channels].astype(np.int32)
    value = np.maximum(data[:, source], 0) if kernel.relu else data[:, source]
    before = np.full(kernel.output_shape, UNTOUCHED, np.float32)
    *more, expected = place(kernel.window, value, before)
    check(rules.default_schedule(module(kernel), machine).mod, [data, source, *more], expected, before)
