"""Every way people write a channel shuffle becomes one operation; what only looks like one is left alone."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from einops import rearrange
from einops.layers.torch import Rearrange
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from tvm import relax, tirx
from tvm.relax.frontend.torch import from_exported_program

from helpers.networks import calls, run
from helpers.tensors import only
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.graph.passes.canonicalize_shuffles import CanonicalizeShuffles
from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.build import build
from tvm_shufflenet.library.scheduling import schedule_tuned
from tvm_shufflenet.models import Model, exporting, randomise_batch_norms
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.verification.networks import check
from tvm_shufflenet.workflow.imported import import_model

LOCAL = find_target("local")


# The spellings: data (N, C, H, W) and the number of groups, which divides C


def view_transpose_view(x, groups):
    """torchvision's."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, channels, height, width)


def data_size(x, groups):
    batch, channels, height, width = x.data.size()
    per_group = channels // groups
    x = x.view(batch, groups, per_group, height, width).permute(0, 2, 1, 3, 4).contiguous()
    return x.view(batch, -1, height, width)


def folded_batch(x, groups):
    """Leaves the batch to -1 and reads the sizes from the shape tuple."""
    channels, height, width = x.shape[1:]
    return x.reshape(-1, groups, channels // groups, height, width).swapaxes(1, 2).reshape(-1, channels, height, width)


def permutation(channels, groups):
    return torch.arange(channels).reshape(groups, -1).T.reshape(-1)


def listed(channels, groups):
    """The same as a list of Python's."""
    return [channel for first in range(channels // groups) for channel in range(first, channels, channels // groups)]


class Permuted(nn.Module):
    """The permutation is a buffer, as in a traced model."""

    def __init__(self, channels, groups):
        super().__init__()
        self.register_buffer("order", permutation(channels, groups))

    def forward(self, x):
        return x[:, self.order]


def split(x, groups):
    return x.unflatten(1, (groups, -1))


def flat_planes(x, groups):
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height * width).permute(0, 2, 1, 3).contiguous()
    return x.view(batch, channels, height, width)


def gathered(x, groups):
    return torch.gather(x, 1, permutation(x.shape[1], groups).reshape(1, -1, 1, 1).expand(x.shape))


def channels_last(x, groups):
    x = x.permute(0, 2, 3, 1)
    return x.unflatten(3, (groups, -1)).transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


def one_by_one(x, groups):
    return torch.cat([x[:, channel : channel + 1] for channel in listed(x.shape[1], groups)], 1)


def long_way(x, groups):
    x = x.unsqueeze(1).reshape(x.shape[0], groups, -1, 1, *x.shape[2:]).squeeze(3)
    return x.clone().to(torch.float32).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[3:])


SPELLINGS = {
    "view, transpose, view": view_transpose_view,
    "view, permute, view": data_size,
    "reshape": lambda x, g: split(x, g).transpose(2, 1).reshape(x.shape),
    "swapaxes": folded_batch,
    "nn.ChannelShuffle": lambda x, g: nn.ChannelShuffle(g)(x),
    "F.channel_shuffle": F.channel_shuffle,
    "einops": lambda x, g: rearrange(x, "b (c1 c2) h w -> b (c2 c1) h w", c1=g),
    "einops over ...": lambda x, g: rearrange(x, "b (c1 c2) ... -> b (c2 c1) ...", c1=g),
    "einops.layers": lambda x, g: Rearrange("b (c1 c2) h w -> b (c2 c1) h w", c1=g)(x),
    "einsum": lambda x, g: torch.einsum("ngchw->ncghw", split(x, g)).flatten(1, 2),
    "flat planes": flat_planes,
    "flatten and movedim": lambda x, g: split(x, g).movedim(1, 2).flatten(1, 2),
    "two moves": lambda x, g: split(x, g).transpose(0, 1).permute(1, 2, 0, 3, 4).reshape(x.shape),
    "six axes": lambda x, g: x.reshape(x.shape[0], 1, g, -1, *x.shape[2:]).transpose(2, 3).reshape(x.shape),
    "unsqueeze, squeeze, clone": long_way,
    "channels last": channels_last,
    "rows as channels": lambda x, g: (
        x.transpose(1, 2).unflatten(2, (g, -1)).transpose(2, 3).flatten(2, 3).transpose(1, 2)
    ),
    "fancy index": lambda x, g: x[:, permutation(x.shape[1], g)],
    "index of a list": lambda x, g: x[:, listed(x.shape[1], g)],
    "index_select": lambda x, g: torch.index_select(x, 1, permutation(x.shape[1], g)),
    "gather": gathered,
    "chunks stacked": lambda x, g: torch.stack(x.chunk(g, 1), 2).flatten(1, 2),
    "slices concatenated": lambda x, g: torch.cat([x[:, i :: x.shape[1] // g] for i in range(x.shape[1] // g)], 1),
    "items concatenated": lambda x, g: torch.cat(split(x, g).unbind(2), 1),
    "channels concatenated": one_by_one,
}


class Between(nn.Module):
    """``body`` between two ReLUs, which no move passes through."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, data):
        return F.relu(self.body(F.relu(data)))


def draw(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape, dtype=np.float32))


def imported(body, shape) -> tvm.IRModule:
    """``body`` between ReLUs as folded Relax."""
    return frontend.to_relax(exporting.export(Between(body).eval(), shape))


@functools.cache
def canonical(shape, groups: int) -> tvm.IRModule:
    return imported(nn.ChannelShuffle(groups), shape)


def raw(body, shape) -> tvm.IRModule:
    """The same before any pass."""
    program = exporting.export(Between(body).eval(), shape).run_decompositions()
    return from_exported_program(program, keep_params_as_input=False)


CANONICAL = ["relax.nn.relu", "relax.reshape", "relax.permute_dims", "relax.reshape", "relax.nn.relu"]


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_becomes_the_canonical_one(name):
    shape, groups, spelling = (2, 8, 3, 3), 4, SPELLINGS[name]
    data = draw(*shape)
    torch.testing.assert_close(spelling(data, groups), nn.ChannelShuffle(groups)(data), rtol=0, atol=0)
    module = imported(lambda x: spelling(x, groups), shape)
    assert calls(module) == CANONICAL
    tvm.ir.assert_structural_equal(module, canonical(shape, groups))


class Shuffled(nn.Module):
    """A grouped convolution, ReLU and shuffle, as in a unit."""

    def __init__(self, spelling):
        super().__init__()
        self.conv, self.spelling = nn.Conv2d(12, 12, 1, groups=3), spelling
        nn.init.constant_(self.conv.weight, 0.5)
        nn.init.constant_(self.conv.bias, 0.1)

    def forward(self, data):
        return self.spelling(F.relu(self.conv(data)), 3)


@functools.cache
def shuffled(spelling) -> tvm.IRModule:
    return frontend.to_relax(exporting.export(Shuffled(spelling).eval(), (1, 12, 4, 5)))


@pytest.mark.parametrize("name", SPELLINGS)
def test_no_shuffle_is_left_behind_a_convolution(name):
    module = shuffled(SPELLINGS[name])
    tvm.ir.assert_structural_equal(module, shuffled(F.channel_shuffle))
    assert calls(pipeline.fuse(module, LOCAL).module) == ["pointwise"]


def test_the_canonical_one_computes_what_torch_computes():
    data = draw(2, 12, 4, 5)
    module = pipeline.fuse(imported(nn.ChannelShuffle(3), data.shape), LOCAL).module
    np.testing.assert_array_equal(run(module, data.numpy()), Between(nn.ChannelShuffle(3))(data).numpy())


def test_a_permutation_that_is_a_buffer():
    module = imported(Permuted(12, 4), (1, 12, 2, 3))
    tvm.ir.assert_structural_equal(module, canonical((1, 12, 2, 3), 4))


def test_a_second_run_changes_nothing():
    module = imported(lambda x: F.relu(flat_planes(x, 3)) + gathered(x, 4), (1, 12, 4, 4))
    tvm.ir.assert_structural_equal(CanonicalizeShuffles()(module), module)


# Shuffles that are part of something


def test_shuffles_in_a_row_become_one_where_they_are_one():
    """A shuffle by g of C channels multiplies positions by g, modulo C - 1."""
    shape = (1, 12, 4, 5)
    twice = imported(lambda x: F.channel_shuffle(F.channel_shuffle(x, 2), 3), shape)
    tvm.ir.assert_structural_equal(twice, canonical(shape, 6))
    undone = imported(lambda x: flat_planes(view_transpose_view(x, 3), 4), shape)
    assert calls(undone) == ["relax.nn.relu", "relax.nn.relu"]
    apart = imported(lambda x: F.channel_shuffle(flat_planes(x, 3), 3), shape)
    assert calls(apart).count("relax.permute_dims") == 2


def test_reshapes_that_do_nothing_vanish():
    module = imported(lambda x: x.reshape(1, 4, 3, 20).flatten(1).unsqueeze(0).view(x.shape), (1, 12, 4, 5))
    assert calls(module) == ["relax.nn.relu", "relax.nn.relu"]


def test_other_readers_see_what_they_saw():
    def body(x):
        grouped = x.view(1, 3, 4, 20)
        swapped = grouped.transpose(1, 2)
        return swapped.reshape(x.shape) + (2 * grouped).reshape(x.shape) + (3 * swapped).reshape(x.shape)

    data = draw(1, 12, 4, 5)
    module = imported(body, data.shape)
    np.testing.assert_allclose(run(module, data.numpy()), Between(body)(data).numpy(), rtol=1e-6)


def halves(x):
    """The shuffle of MEGVII's ShuffleNetV2, which comes before the split: even channels, odd channels."""
    batch, channels, height, width = x.data.size()
    x = x.reshape(batch * channels // 2, 2, height * width).permute(1, 0, 2)
    return x.reshape(2, -1, channels // 2, height, width)


SPLITS = {
    "MEGVII's": lambda x: (halves(x)[0], halves(x)[1]),
    "strided": lambda x: (x[:, ::2], x[:, 1::2]),
    "unbound": lambda x: split(x, x.shape[1] // 2).unbind(2),
    "chunked": lambda x: F.channel_shuffle(x, x.shape[1] // 2).chunk(2, 1),
}


@pytest.mark.parametrize("shape", [(1, 12, 4, 5), (3, 8, 2, 2)], ids=str)
@pytest.mark.parametrize("name", SPLITS)
def test_channels_taken_apart_are_a_split_of_a_shuffle(name, shape):
    def body(x):
        kept, changed = SPLITS[name](x)
        return torch.cat([kept, F.relu(changed - 1)], 1)

    data, module = draw(*shape), imported(body, shape)
    expected = [*CANONICAL[:-1], "relax.split", "relax.subtract", "relax.nn.relu", "relax.concat", "relax.nn.relu"]
    assert calls(module) == expected
    np.testing.assert_array_equal(run(module, data.numpy()), Between(body)(data).numpy())


def test_slices_of_all_channels_are_a_split():
    def body(x, cut=6):
        return torch.cat([x[:, :cut], F.relu(x[:, cut:] - 1)], 1)

    assert calls(imported(body, (1, 12, 4, 5)))[:2] == ["relax.nn.relu", "relax.split"]
    uneven = calls(imported(lambda x: body(x, 4), (1, 12, 4, 5)))
    assert "relax.split" not in uneven


@pytest.mark.parametrize("parts", [2, 3])
def test_tensors_that_are_stacked_are_concatenated_and_shuffled(parts):
    def body(x, join):
        return join([F.relu(x - shift) for shift in range(parts)])

    data = draw(2, 4, 3, 5)
    stacked = imported(lambda x: body(x, lambda all_: torch.stack(all_, 2).flatten(1, 2)), data.shape)
    plain = imported(lambda x: body(x, lambda all_: F.channel_shuffle(torch.cat(all_, 1), parts)), data.shape)
    tvm.ir.assert_structural_equal(stacked, plain)


def test_what_one_block_computes_is_no_source_in_another():
    """Two dataflow blocks with a binding between them: whole shuffles in each, and one across the border."""
    x = relax.Var("x", relax.TensorType((1, 6, 2, 2), "float32"))
    builder = relax.BlockBuilder()

    def grouped_and_swapped():
        return builder.emit(relax.op.permute_dims(builder.emit(relax.op.reshape(x, (1, 2, 3, 4))), [0, 2, 1, 3]))

    with builder.function("main", [x]):
        with builder.dataflow():
            half_way = builder.emit_output(grouped_and_swapped())
            first = builder.emit_output(relax.op.reshape(grouped_and_swapped(), (1, 6, 2, 2)))
        between = builder.emit(relax.op.nn.relu(first))
        with builder.dataflow():
            across = builder.emit(relax.op.reshape(half_way, (1, 6, 2, 2)))
            second = builder.emit(relax.op.reshape(grouped_and_swapped(), (1, 6, 2, 2)))
            total = builder.emit_output(builder.emit(across + second) + between)
        builder.emit_func_output(total)
    module = CanonicalizeShuffles()(builder.get())
    relax.analysis.well_formed(module)
    assert calls(module).count("relax.permute_dims") == 3
    data = draw(1, 6, 2, 2)
    shuffled = nn.ChannelShuffle(2)(data)
    np.testing.assert_allclose(run(module, data.numpy()), (2 * shuffled + F.relu(shuffled)).numpy(), rtol=1e-6)


# What is no shuffle of channels


def swapped_two(x):
    order = permutation(12, 3)
    order[[4, 5]] = order[[5, 4]]
    return x[:, order]


ALMOST = {
    "groups with rows": lambda x: split(x, 3).transpose(1, 3).reshape(x.shape),
    "channels with rows": lambda x: split(x, 3).transpose(2, 3).reshape(x.shape),
    "rows and columns too": lambda x: split(x, 3).permute(0, 2, 1, 4, 3).reshape(x.shape),
    "rows alone": lambda x: x.unflatten(2, (2, 2)).transpose(2, 3).flatten(2, 3),
    "columns alone": lambda x: x.unflatten(3, (2, 2)).transpose(3, 4).flatten(3),
    "images": lambda x: x.unflatten(0, (2, 2)).transpose(0, 1).flatten(0, 1),
    "across images": lambda x: x.reshape(3, 16, 4, 4).transpose(0, 1).reshape(x.shape),
    "images with channels": lambda x: x.transpose(0, 1).reshape(x.shape),
    "to another shape": lambda x: split(x, 3).transpose(1, 2).reshape(4, 6, 8, 4),
    "groups in another order": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "two channels swapped": swapped_two,
    "a channel twice": lambda x: x[:, [0, 0, *range(2, 12)]],
    "more channels": lambda x: x[:, [*range(12), 0]],
    "rounded on the way": lambda x: split(x, 3).half().float().transpose(1, 2).reshape(x.shape),
    "changed on the way": lambda x: (2 * split(x, 3)).transpose(1, 2).reshape(x.shape),
    "half of it": lambda x: x[:, ::2],
    "a half twice": lambda x: torch.cat([x[:, ::2], x[:, ::2] - 1], 1),
    "pixels": lambda x: F.pixel_shuffle(x, 2),
    "five axes": lambda x: x.unflatten(1, (2, 2, 3)).transpose(1, 2).flatten(1, 2),
    "flat": lambda x: x.unflatten(1, (3, 4)).transpose(1, 2).flatten(1),
    "planes of three tensors": lambda x: torch.stack([x, x + 1, x + 2], 3).flatten(2, 3),
    "a tensor stacked with itself": lambda x: torch.stack([x, x], 2).flatten(1, 2),
}


@pytest.mark.parametrize("name", ALMOST)
def test_almost_shuffles_are_left_alone(name):
    module = raw(ALMOST[name], (4, 12, 4, 4))
    tvm.ir.assert_structural_equal(CanonicalizeShuffles()(module), module)


def test_across_images_of_one_image_is_a_shuffle():
    module = imported(lambda x: x.reshape(3, 4, 4, 4).transpose(0, 1).reshape(x.shape), (1, 12, 4, 4))
    tvm.ir.assert_structural_equal(module, canonical((1, 12, 4, 4), 3))


def function(shape, body, *others: relax.Var) -> tvm.IRModule:
    """``main`` of what ``body`` makes of a builder and a tensor of ``shape``, between ReLUs."""
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, *others]):
        with builder.dataflow():
            made = body(builder, builder.emit(relax.op.nn.relu(x)))
            output = builder.emit_output(relax.op.nn.relu(made))
        builder.emit_func_output(output)
    return builder.get()


def test_what_is_not_known_when_compiling_is_left_alone():
    order = relax.Var("order", relax.TensorType((12,), "int64"))
    negative = relax.const(permutation(12, 3).numpy() - 12)
    dynamic = tirx.Var("n", "int64")

    def shuffled(builder, x):
        grouped = builder.emit(relax.op.reshape(x, (dynamic, 3, 4, 2, 2)))
        swapped = builder.emit(relax.op.permute_dims(grouped, [0, 2, 1, 3, 4]))
        return builder.emit(relax.op.reshape(swapped, (dynamic, 12, 2, 2)))

    modules = [
        function((1, 12, 2, 2), lambda builder, x: builder.emit(relax.op.take(x, order, axis=1)), order),
        function((1, 12, 2, 2), lambda builder, x: builder.emit(relax.op.take(x, negative, axis=1))),
        function((dynamic, 12, 2, 2), shuffled),
    ]
    for module in modules:
        tvm.ir.assert_structural_equal(CanonicalizeShuffles()(module), module)


# Any chain of reshapes and transposes


@st.composite
def chains(draw):
    """A shape, and steps from it back to it: ("reshape", shape) and ("permute", axes).

    Axes are split into factors, which are permuted and merged again, over and over. The swap of the first two factors
    of the channels is drawn more often than others.
    """
    batch, height, width = draw(st.sampled_from([(1, 2, 2), (1, 1, 1), (2, 1, 3), (2, 2, 2), (1, 4, 3)]))
    factors = draw(st.sampled_from([(2, 3), (3, 2), (2, 2), (2, 2, 3), (3, 2, 2), (4, 3), (2, 4), (5,)]))
    shape = (batch, int(np.prod(factors)), height, width)
    current, steps = [batch, *factors, height, width], []
    swap = [0, 2, 1, *range(3, len(current))]
    for _ in range(draw(st.integers(0, 3))):
        steps.append(("reshape", tuple(current)))
        axes = draw(st.sampled_from([swap, swap, None])) or list(draw(st.permutations(range(len(current)))))
        steps.append(("permute", tuple(axes)))
        current = [current[axis] for axis in axes]
        steps.append(("reshape", draw(merged(current))))
        if draw(st.booleans()):
            steps.append(("reshape", shape))
            current = [batch, *factors, height, width]
    return shape, [*steps, ("reshape", shape)]


@st.composite
def merged(draw, dims):
    """``dims`` with some neighbours multiplied, and perhaps an axis of 1."""
    result = [dims[0]]
    for dim in dims[1:]:
        if draw(st.booleans()):
            result[-1] *= dim
        else:
            result.append(dim)
    return tuple(result + [1] * draw(st.integers(0, 1)))


def apply(steps, data: np.ndarray) -> np.ndarray:
    for kind, argument in steps:
        data = data.reshape(argument) if kind == "reshape" else data.transpose(argument)
    return data


def chain(shape, steps) -> tvm.IRModule:
    def body(builder, x):
        for kind, argument in steps:
            move = relax.op.reshape if kind == "reshape" else relax.op.permute_dims
            x = builder.emit(move(x, argument))
        return x

    return function(shape, body)


def shuffle_steps(shape, groups):
    batch, channels, height, width = shape
    split_shape = (batch, groups, channels // groups, height, width)
    return [("reshape", split_shape), ("permute", (0, 2, 1, 3, 4)), ("reshape", shape)]


def steps_of(module: tvm.IRModule):
    """The moves between the two ReLUs of ``main``."""
    (block,) = module["main"].body.blocks
    steps = []
    for value in (binding.value for binding in block.bindings[1:-1]):
        if value.op.name == "relax.reshape":
            steps.append(("reshape", tuple(int(dim) for dim in value.ty.shape)))
        else:
            steps.append(("permute", tuple(int(axis) for axis in value.attrs.axes)))
    return steps


@settings(max_examples=150, deadline=None)
@given(chains())
def test_a_chain_is_a_shuffle_if_numpy_says_so(drawn):
    shape, steps = drawn
    data = np.arange(np.prod(shape)).reshape(shape)
    result, found = apply(steps, data), steps_of(CanonicalizeShuffles()(chain(shape, steps)))
    np.testing.assert_array_equal(apply(found, data), result)
    if np.array_equal(result, data):
        assert found == []
        return
    counts = [count for count in range(2, shape[1]) if shape[1] % count == 0]
    same = [count for count in counts if np.array_equal(apply(shuffle_steps(shape, count), data), result)]
    if same:
        assert found == shuffle_steps(shape, *same)
    elif all(len(argument) != 4 for _, argument in steps[:-1]):  # else a part of the chain may be something
        assert found == steps


# Random networks of units


class Unit1(nn.Module):
    """A ShuffleNet v1 unit with a shuffle of any spelling."""

    def __init__(self, inputs, outputs, groups, stride, spelling):
        super().__init__()
        middle = groups * max(1, outputs // groups // 4) * 2
        branch = outputs - inputs if stride == 2 else outputs
        self.compress, self.norm1 = nn.Conv2d(inputs, middle, 1, groups=groups), nn.BatchNorm2d(middle)
        self.depthwise = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.expand, self.norm3 = nn.Conv2d(middle, branch, 1, groups=groups, bias=False), nn.BatchNorm2d(branch)
        self.groups, self.stride, self.spelling = groups, stride, spelling

    def forward(self, x):
        branch = SPELLINGS[self.spelling](F.relu(self.norm1(self.compress(x))), self.groups)
        branch = self.norm3(self.expand(self.norm2(self.depthwise(branch))))
        if self.stride == 2:
            return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), branch], 1))
        return F.relu(x + branch)


class Unit2(nn.Module):
    """A ShuffleNet v2 unit of stride 1 with a shuffle of any spelling after it, or MEGVII's before it."""

    def __init__(self, channels, spelling):
        super().__init__()
        half = channels // 2
        self.pointwise1, self.norm1 = nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half)
        self.depthwise, self.norm2 = nn.Conv2d(half, half, 3, 1, 1, groups=half), nn.BatchNorm2d(half)
        self.pointwise2, self.norm3 = nn.Conv2d(half, half, 1), nn.BatchNorm2d(half)
        self.spelling = spelling

    def forward(self, x):
        kept, branch = x.chunk(2, 1) if self.spelling in SPELLINGS else SPLITS[self.spelling](x)
        branch = self.norm2(self.depthwise(F.relu(self.norm1(self.pointwise1(branch)))))
        joined = torch.cat([kept, F.relu(self.norm3(self.pointwise2(branch)))], 1)
        return SPELLINGS[self.spelling](joined, 2) if self.spelling in SPELLINGS else joined


@st.composite
def stacks(draw):
    """Units that fit each other, and the shape of their input."""
    spelling = st.sampled_from([name for name in SPELLINGS if name != "channels concatenated"])
    groups = draw(st.sampled_from([2, 3, 4]))
    channels = 2 * groups * draw(st.integers(1, 3))
    shape = (draw(st.sampled_from([1, 1, 2])), channels, draw(st.integers(4, 11)), draw(st.integers(4, 11)))
    units = []
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.booleans()):
            units.append(Unit2(channels, draw(st.one_of(spelling, st.sampled_from(sorted(SPLITS))))))
            continue
        stride = draw(st.sampled_from([1, 2]))
        outputs = channels + 2 * groups * draw(st.integers(1, 2)) if stride == 2 else channels
        units.append(Unit1(channels, outputs, groups, stride, draw(spelling)))
        channels = outputs
    return nn.Sequential(*units), shape


@pytest.fixture(scope="module")
def device():
    with find_device("local", LOCAL) as device:
        yield device


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=stacks(), seed=st.integers(0, 2**16))
def test_random_networks_compute_what_torch_computes(device, tmp_path, drawn, seed):
    module, shape = drawn
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    randomise_batch_norms(module)
    network = import_model(Model("stack", shape, module.eval()))
    assume(np.abs(only(network.reference)).max() > 1e-3)
    shuffles = sum(name == "relax.permute_dims" for name in calls(network.module))
    assert shuffles <= len(module)
    store, library = RecordStore(tmp_path / "records", LOCAL.tvm()), tmp_path / "stack.so"
    build(schedule_tuned(fuse(network.module, LOCAL), store.database()), library)
    with Network(device, library, network.signature) as runner:
        check(runner, network.answers, "random")
