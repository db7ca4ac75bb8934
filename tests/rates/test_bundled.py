"""Bundled natural and weighted zero bias are two views of the same crossings: the same thresholds within intervals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from l1ad.events import Events
from l1ad.events.bundled import bundled
from l1ad.menu import load_menu
from l1ad.rates.calibrate import Calibration, calibrate
from tests.rates.conftest import make_trigger

TARGETS = {"20kHz": 20e3, "100kHz": 100e3}


def thresholds(path: Path, work: Path, kind: str) -> Calibration:
    return calibrate(make_trigger(), [path], TARGETS, kind=kind, menu=load_menu("run3_lite"), work=work / "work")


def pull(one: Calibration, other: Calibration, name: str) -> float:
    """Difference of the two rates at the threshold of the first, over the error of both."""
    threshold = next(item.threshold for item in one.thresholds if item.name == name)
    rates = [sample.zero_bias.rate_at(threshold, sample.kind) for sample in (one, other)]
    errors = [0.5 * (rate.interval_68.high - rate.interval_68.low) for rate in rates]
    return abs(rates[0].hz - rates[1].hz) / math.hypot(*errors)


@pytest.mark.parametrize("kind", ["total", "pure"])
def test_natural_and_weighted_zero_bias_agree(kind: str, tmp_path: Path) -> None:
    natural = thresholds(bundled("zero_bias"), tmp_path, kind)
    weighted = thresholds(bundled("zero_bias_weighted"), tmp_path, kind)
    assert (natural.content["sample"]["weighted"], weighted.content["sample"]["weighted"]) == (False, True)
    for one, other in zip(natural.thresholds, weighted.thresholds, strict=True):
        assert one.interval_95 is not None
        assert other.interval_95 is not None
        # The integers that either sample allows have some in common.
        assert max(one.interval_95[0], other.interval_95[0]) <= min(one.interval_95[1], other.interval_95[1])
        assert pull(natural, weighted, one.name) < 3.0
        assert pull(weighted, natural, one.name) < 3.0


def test_the_check_sees_weights_that_are_forgotten(tmp_path: Path) -> None:
    natural = thresholds(bundled("zero_bias"), tmp_path, "total")
    scores = make_trigger().score(Events.read(bundled("zero_bias_weighted")))
    for item in natural.thresholds:
        assert (scores >= item.threshold).mean() * natural.zero_bias.base.hz > 2.0 * item.rate.interval_95.high
