"""Latency samples: their statistics, and what is refused."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_shufflenet.latency import HUNDREDTH, TENTH, Latency, disagreement

SAMPLES = st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=50)


def test_statistics_of_known_samples():
    latency = Latency((5.0, 1.0, 4.0, 2.0, 3.0, 100.0, 7.0, 8.0, 6.0, 9.0), "measured")
    assert latency.median_us == 5.5
    assert latency.min_us == 1.0
    assert latency.percentile_us(50) == 5.0
    assert latency.percentile_us(90) == 9.0
    assert latency.percentile_us(91) == latency.percentile_us(100) == 100.0
    assert latency.percentile_us(0) == 1.0


def test_one_sample_is_every_statistic():
    latency = Latency((2.5,), "modelled")
    assert {latency.median_us, latency.min_us, latency.percentile_us(1), latency.percentile_us(99)} == {2.5}


def test_seconds_become_microseconds():
    assert Latency.from_seconds([0.001, 0.002], "measured").samples_us == pytest.approx((1000.0, 2000.0))


@pytest.mark.parametrize("kind", ["measured", "modelled"])
def test_every_form_names_the_kind_of_clock(kind):
    latency = Latency((1500.0, 2500.0, 3500.0), kind)
    assert str(latency) == f"2.500 ms ({kind}, median of 3)"
    assert msgspec.to_builtins(latency.summary) == {
        "median": 2500.0,
        "min": 1500.0,
        "p90": 3500.0,
        "p99": 3500.0,
        "samples": 3,
        "kind": kind,
    }


@pytest.mark.parametrize("samples", [(), (math.nan,), (1.0, math.inf), (0.0,), (1.0, -1.0)])
def test_what_no_clock_can_show_is_refused(samples):
    with pytest.raises(ValueError, match="not a latency"):
        Latency(samples, "measured")


@given(SAMPLES, st.floats(0, 100))
def test_a_percentile_is_a_sample_that_so_many_do_not_exceed(samples, percent):
    value = Latency(tuple(samples), "measured").percentile_us(percent)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= percent / 100 * len(samples) - 1e-9
    below = [sample for sample in samples if sample < value]
    assert len(below) < max(percent / 100 * len(samples), 1)


@given(SAMPLES)
def test_statistics_are_ordered(samples):
    latency = Latency(tuple(samples), "measured")
    assert latency.min_us <= latency.median_us <= max(samples)
    assert latency.percentile_us(90) <= latency.percentile_us(99)


def test_samples_that_do_not_agree_are_said_to():
    """A median of 1.1 ms beside a 99th percentile of 21 is a median of nothing."""
    quiet, tail = (1.1,) * 29 + (1.15,), (1.1,) * 29 + (21.0,)
    assert Latency(quiet, "measured").noise is None
    assert "the 99th percentile is 19.09 times the median" in Latency(tail, "measured").noise
    assert "the 90th percentile is 1.20" in Latency((1.0,) * 8 + (1.2,) * 2, "measured").noise
    assert Latency(tail, "modelled").noise is None


def test_the_rule_is_about_ratios():
    assert disagreement(1.0, TENTH - 0.01, HUNDREDTH - 0.01) is None
    for unit in (1e-3, 1.0, 1e6):
        assert disagreement(unit, TENTH * unit, unit) and disagreement(unit, unit, HUNDREDTH * unit)
    assert disagreement(1.0, None, None) is None and "99th" not in disagreement(1.0, 3.0, None)
