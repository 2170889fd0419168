"""How far off PyTorch a library may be, and where agreement proves nothing."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.tensors import OUTPUT, only, signature
from tvm_shufflenet.devices.difference import largest_error
from tvm_shufflenet.devices.operands import digest
from tvm_shufflenet.models import Model
from tvm_shufflenet.precision import FLOAT32
from tvm_shufflenet.verification import answers
from tvm_shufflenet.verification.answers import (
    AMPLIFIES,
    FACTOR,
    Answer,
    Answers,
    Difference,
    answers_of,
)
from tvm_shufflenet.verification.networks import verification
from tvm_shufflenet.verification.outcome import Verification
from tvm_shufflenet.verification.probes import INFINITE, NAN, OTHER, PROBES, REFERENCE, probe, reference_inputs

SHAPE = (1, 3, 12, 12)
EPSILON = float(np.finfo(np.float32).eps)


class Net(nn.Module):
    """Two convolutions; ``scale`` is that of its outputs."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.first, self.second, self.scale = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 4, 1), scale

    def forward(self, data):
        return self.second(torch.relu(self.first(data))) * self.scale


class Amplifying(Net):
    """What is left of numbers near 4096 when 4096 is taken away."""

    def forward(self, data):
        return (super().forward(data) + 4096) - 4096


class Chaotic(Net):
    """Sines of large numbers: their rounding decides the answer."""

    def forward(self, data):
        return torch.sin(1e7 * super().forward(data))


class Constant(Net):
    def forward(self, data):
        return super().forward(data) * 0 + 3


class Single(Net):
    """Fixed to float32 by its own check."""

    def forward(self, data):
        if data.dtype is not torch.float32:
            raise TypeError("float32 only")
        return super().forward(data)


class Picky(Net):
    def forward(self, data):
        if not bool(torch.isfinite(data).all()):
            raise ValueError("NaN")
        return super().forward(data)


def found(network: nn.Module) -> Answers:
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    model = Model("net", SHAPE, network.eval())
    return asked(model)


def asked(model: Model) -> Answers:
    takes = signature(SHAPE, (1,))
    inputs = reference_inputs(takes.inputs, 0)
    return answers_of(model, takes, inputs, dict(zip([OUTPUT], model(*inputs.values()), strict=True)))


def figures(answers: Answers) -> tuple[np.ndarray, float, float, float | None]:
    """Of the only output: PyTorch's own for the reference inputs, its scale, its tolerance, its rounding."""
    reference = answers.reference
    return only(reference.expected), answers.scales[OUTPUT], reference.tolerances[OUTPUT], answers.roundings[OUTPUT]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_the_tolerance_follows_the_scale_of_the_output(scale):
    ours = found(Net(scale))
    expected, largest, tolerance, _ = figures(ours)
    assert FLOAT32.units * EPSILON * largest <= tolerance < 3e-5 * largest
    assert ours.blind is None and ours.note is None
    assert [answer.probe for answer in ours.each] == list(PROBES)
    halved = ours.reference.difference({OUTPUT: expected / 2})
    assert halved.error > 1e4 * tolerance and not halved.right


def test_a_network_that_amplifies_rounding_says_so_and_is_judged_by_that():
    plain, ours = found(Net()), found(Amplifying())
    expected, scale, tolerance, rounding = figures(ours)
    assert rounding > AMPLIFIES * scale and tolerance >= FACTOR * rounding
    np.testing.assert_allclose(only(plain.reference.expected), expected, atol=5e-4)
    difference = ours.reference.difference(plain.reference.expected)
    assert difference.right, "what is exact passes"
    assert difference.error > FLOAT32.units * EPSILON * scale
    assert "amplifies rounding" in ours.note and f"{rounding:.2g} from its float64" in ours.note
    said = str(verification("board", replace(difference, error=1e-4), ours, 7))
    assert "amplifies rounding" in said and said.startswith("verified on board")


def test_where_rounding_decides_nothing_is_verified():
    ours = found(Chaotic())
    _, _, tolerance, _ = figures(ours)
    verified = verification("board", Difference(OUTPUT, tolerance / 2, tolerance), ours, 7)
    assert ours.blind and not verified.holds and verified.ran
    assert str(verified).startswith("not verified: PyTorch's answers to two inputs differ by ")
    assert "amplifies rounding" in str(verified)


def test_a_network_that_ignores_its_input_is_legal_and_not_verified():
    ours = found(Constant())
    assert ours.sensitivities == {OUTPUT: 0} and "a library that ignores its input could pass" in ours.blind
    verified = verification("board", Difference(OUTPUT, 0.0, 1e-6), ours, 7)
    assert not verified.holds and str(verified).startswith("not verified: ") and "next: " in str(verified)


@pytest.mark.parametrize(("factor", "blind"), [(FLOAT32.telling - 1, True), (FLOAT32.telling + 1, False)])
def test_two_answers_must_differ_by_a_hundred_tolerances(factor, blind):
    zeros, allowed = {OUTPUT: np.zeros((1, 4), np.float32)}, {OUTPUT: 2.0**-10}
    each = tuple(Answer(name, zeros, allowed) for name in (REFERENCE, OTHER))
    answers = Answers({}, each, {OUTPUT: 0.0}, {OUTPUT: factor * 2.0**-10})
    assert bool(answers.blind) is blind
    deaf = {output: 0.0 for output in ("anchors", *answers.sensitivities)}
    two = [replace(answer, tolerances=dict.fromkeys(deaf, 2.0**-10)) for answer in each]
    answers = replace(answers, each=tuple(two), sensitivities=deaf | answers.sensitivities)
    assert bool(answers.blind) is blind, "one output that tells is enough"


def test_the_worst_output_is_that_which_comes_closest_to_its_tolerance():
    zeros = np.zeros(3, np.float32)
    answer = Answer(REFERENCE, {"large": zeros, "small": zeros}, {"large": 1.0, "small": 1e-6})
    assert answer.difference({"large": zeros + 0.5, "small": zeros}) == Difference("large", 0.5, 1.0)
    wrong = answer.difference({"large": zeros + 0.5, "small": zeros + np.float32(1e-5)})
    assert wrong.output == "small" and not wrong.right
    lost = answer.difference({"large": zeros * np.nan, "small": zeros})
    assert lost.output == "large" and not lost.right
    assert answer.difference({"large": zeros * np.nan, "small": zeros}, {"large": zeros == 0}).right


def test_a_network_that_float64_does_not_run_has_a_stated_bound():
    ours = found(Single())
    _, scale, tolerance, rounding = figures(ours)
    assert rounding is None and tolerance == pytest.approx(1e-4 * scale)
    assert "does not run in float64" in ours.note
    assert [answer.probe for answer in ours.each] == [name for name in PROBES if name not in (NAN, INFINITE)]


def test_a_probe_that_the_network_refuses_is_left_out():
    assert [answer.probe for answer in found(Picky()).each] == [name for name in PROBES if name not in (NAN, INFINITE)]


def test_an_exported_program_has_the_same_answers():
    torch.manual_seed(0)
    network = Net().eval()
    program = torch.export.export(network, (torch.zeros(SHAPE),))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    models = Model("net", SHAPE, network), Model("net", SHAPE, program=torch.export.load(file))
    ours = [asked(model) for model in models]
    assert figures(ours[0])[-1] == pytest.approx(figures(ours[1])[-1], rel=0.5) and ours[1].note is None
    for one, other in zip(*(each.each for each in ours), strict=True):
        np.testing.assert_array_equal(only(one.expected), only(other.expected))


def test_dtypes_that_a_network_names_become_float64():
    class Named(Net):
        def forward(self, data):
            ones = torch.ones(1, 4, 1, 1, dtype=torch.float32)
            return (super().forward(data.to(torch.float32)) + ones + torch.zeros(1)).float()

    ours = found(Named())
    assert 0 < ours.roundings[OUTPUT] < 1e-5 and ours.note is None


def test_every_probe_is_another_input_and_denormals_are_denormal():
    inputs = reference_inputs(signature(SHAPE, (1,)).inputs, 0)
    before = only(inputs).tobytes()
    made = {name: only(probe(name, inputs)) for name in PROBES}
    assert all(each.shape == SHAPE and each.dtype == np.float32 for each in made.values())
    assert len({each.tobytes() for each in made.values()}) == len(PROBES)
    assert np.abs(made["denormal"]).max() < np.finfo(np.float32).smallest_normal and made["denormal"].any()
    assert np.isnan(made[NAN]).sum() == 2 and set(made[INFINITE][np.isinf(made[INFINITE])]) == {-np.inf, np.inf}
    assert only(inputs).tobytes() == before, "none of them changes it"


@pytest.mark.parametrize(
    ("ours", "theirs", "spoilt", "passes"),
    [
        (np.nan, np.nan, False, True),
        (1.0, np.nan, False, False),
        (np.nan, 1.0, False, False),
        (np.inf, np.inf, False, True),
        (-np.inf, np.inf, False, False),
        (np.inf, 1.0, False, False),
        (np.nan, np.inf, True, True),
        (np.nan, 6.0, True, True),
        (3e38, np.inf, True, False),
        (0.0, 6.0, True, False),
        (np.inf, np.nan, True, True),
    ],
)
def test_what_is_not_finite_must_be_the_same(ours, theirs, spoilt, passes):
    """But for a NaN where infinity has been before: orders of operations differ there."""
    output, reference = np.array([1, ours], np.float32), np.array([1, theirs], np.float32)
    where = np.array([False, True]) if spoilt else None
    assert (largest_error(output, reference, where) <= 1e-6) is passes


def test_outputs_without_elements_agree():
    empty = np.zeros((1, 0), np.float32)
    assert largest_error(empty, empty) == 0 and answers.scale_of(empty) == 0


def test_a_verification_of_before_is_read_as_it_was():
    assert Verification("board", 1e-7, 1e-4).holds and str(Verification("board", 1e-7, 1e-4)).startswith("verified on")


# Digests


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3000), st.data())
def test_exchanged_elements_show_in_a_digest(count, data):
    array = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    one, other = (data.draw(st.integers(0, count - 1)) for _ in range(2))
    changed = array.copy()
    changed[[one, other]] = changed[[other, one]]
    off = np.abs(digest(changed) - digest(array)).max()
    assert (off > 1e-9) == (one != other)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 400), st.integers(1, 64), st.data())
def test_a_shifted_or_permuted_tensor_shows_in_a_digest(rows, width, data):
    """Also by multiples of the number of sums, where every element stays in its sum."""
    array = np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)
    order = data.draw(st.permutations(range(min(rows, 40))))
    moved = array.copy()
    moved[: len(order)] = array[list(order)]
    shifted = np.roll(array, data.draw(st.integers(1, rows - 1)), 0)
    for changed in (moved, shifted):
        off = np.abs(digest(changed) - digest(array)).max()
        assert (off > 1e-6) == (changed.tobytes() != array.tobytes())
