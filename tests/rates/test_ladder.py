"""Names, prescales and menu lines of several thresholds."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import InputError
from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias, find_threshold
from l1ad.rates.ladder import (
    MAX_PRESCALE,
    combined_rate,
    ladder_rates,
    menu_fragment,
    parse_rates,
    prescales_for_budget,
)


def test_rates_as_people_write_them() -> None:
    assert parse_rates("0.25,1, 5") == {"0p25kHz": 250.0, "1kHz": 1000.0, "5kHz": 5000.0}
    assert parse_rates("Tight=1,Loose=5") == {"Tight": 1000.0, "Loose": 5000.0}
    for text, message in (
        ("", "nothing"),
        ("1,x", "found x"),
        ("0", "found 0"),
        ("nan", "found nan"),
        ("1,1", "1kHz twice"),
    ):
        with pytest.raises(InputError, match=message):
            parse_rates(text)


def test_a_ladder_has_five_rungs() -> None:
    assert ladder_rates([250, 1000, 500, 5000, 10000]) == {
        "VLoose": 10000,
        "Loose": 5000,
        "Nominal": 1000,
        "Tight": 500,
        "VTight": 250,
    }
    with pytest.raises(InputError, match="4 different rates"):
        ladder_rates([1, 2, 3, 4, 4])


def test_combined_rate_agrees_with_drawing_events() -> None:
    rates, prescales = [10.0, 4.0, 1.0], [5, 2, 1]
    # Events from 0 to 10 Hz of depth: those within the first 1 Hz pass all three seeds.
    rng = np.random.default_rng(1)
    depth = rng.uniform(0, 10, 400_000)
    kept = np.zeros(len(depth), dtype=bool)
    for rate, prescale in zip(rates, prescales):
        kept |= (depth < rate) & (rng.random(len(depth)) < 1 / prescale)
    assert combined_rate(rates, prescales) == pytest.approx(10 * kept.mean(), rel=0.01)
    # By hand: 1 + 3 (1 - 4/5 1/2) + 6 / 5.
    assert combined_rate(rates, prescales) == pytest.approx(1 + 3 * 0.6 + 1.2)
    assert combined_rate([10.0, 4.0], [0, 1]) == 4.0


@given(st.lists(st.floats(1.0, 1e5), min_size=1, max_size=6, unique=True), st.floats(0.5, 2e5))
@settings(max_examples=100, deadline=None)
def test_the_budget_is_kept_and_the_tightest_come_first(rates: list[float], budget: float) -> None:
    named = {str(i): rate for i, rate in enumerate(rates)}
    prescales = prescales_for_budget(named, budget)
    assert combined_rate(list(named.values()), [prescales[n] for n in named]) <= budget * (1 + 1e-9)
    assert all(0 <= p <= MAX_PRESCALE for p in prescales.values())
    for name, rate in named.items():
        if rate <= budget:
            assert prescales[name] == 1


def test_no_budget() -> None:
    with pytest.raises(InputError, match="budget"):
        prescales_for_budget({"a": 1.0}, float("nan"))


def test_the_fragment_is_yaml_with_the_integers() -> None:
    histogram = ScoreHistogram()
    histogram.fill(np.arange(1000))
    sample = ZeroBias(histogram, BaseRate(1e6))
    items = [find_threshold(sample, hz, name=name) for name, hz in parse_rates("Loose=50,Tight=20").items()]
    text = menu_fragment(items, trigger_name="AXO", trigger_hash="ab" * 32, prescales={"Loose": 3, "Tight": 1})
    content = yaml.safe_load(text)
    assert content["trigger_hash"] == "ab" * 32
    assert content["seeds"] == [
        {"name": "L1_AXO_Loose", "threshold": 950, "prescale": 3},
        {"name": "L1_AXO_Tight", "threshold": 980, "prescale": 1},
    ]
    assert "total rate 50.000 kHz" in text
