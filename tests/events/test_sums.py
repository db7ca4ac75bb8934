"""HT against a loop, and where it comes from."""

from __future__ import annotations

import doctest

import numpy as np

import l1ad.events.sums
from l1ad import Events
from l1ad.events.sums import ht_codes


def test_doctests():
    assert doctest.testmod(l1ad.events.sums).failed == 0


def test_ht_is_the_loop_over_jets():
    rng = np.random.default_rng(1)
    hw = np.zeros((200, 19, 3), int)
    hw[:, 9:, 0] = np.sort(rng.integers(0, 200, (200, 10)), axis=1)[:, ::-1]
    hw[:, 9:, 1] = rng.integers(-114, 115, (200, 10))
    events = Events.from_arrays(hw)
    expected = [
        sum(int(pt) for pt, eta, _ in event[9:] if pt * 0.5 >= 30.0 and abs(eta) * 0.0435 <= 2.5) for event in events.hw
    ]
    codes, note = ht_codes(events)
    assert codes.tolist() == expected
    assert "jets" in note


def test_the_column_of_the_data_comes_first():
    events = Events.from_arrays(np.zeros((2, 19, 3), int), columns={"ht": np.array([7, 9])})
    codes, note = ht_codes(events)
    assert codes.tolist() == [7, 9]
    assert "column" in note
