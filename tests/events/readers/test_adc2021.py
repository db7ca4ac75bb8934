"""ADC2021: physical values onto the grid, and the view without it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.events import Events
from l1ad.events.readers.adc2021 import float_view


def test_values_are_the_nearest_codes(writers: SimpleNamespace, tmp_path: Path) -> None:
    floats = writers.adc_floats(500)
    events = Events.read(writers.write_adc(tmp_path / "a.h5", floats))
    assert events.layout.name == "adc2021"
    physical = events.physical()
    there = floats[:, :, 0] > 0
    # Rounding can bring two objects of nearly equal pt into one code, not out of order: rows stay in place.
    assert np.abs(physical[:, :, 0] - floats[:, :, 0])[floats[:, :, 0] < 255].max() <= 0.25
    lsb = np.array([0.0435] * 5 + [0.010875] * 4 + [0.0435] * 10)
    assert (np.abs(physical[:, 1:, 1] - floats[:, 1:, 1]) <= lsb[1:] / 2 + 1e-6).all()
    turn = np.abs((physical[:, :, 2] - floats[:, :, 2] + math.pi) % (2 * math.pi) - math.pi)
    assert turn[there].max() <= math.pi / 144 + 1e-6
    assert not events.hw[~there].any()
    assert events.meta["source_format"] == "adc2021"


def test_momenta_above_the_word_saturate_and_are_counted(writers: SimpleNamespace, tmp_path: Path) -> None:
    floats = writers.adc_floats(3)
    floats[:, 1:, :3] = 0
    floats[0, 1], floats[1, 9], floats[2, 0, 0] = (300, 0.1, 0.2, 2), (5000, 1, 1, 4), 9000
    events = Events.read(writers.write_adc(tmp_path / "a.h5", floats))
    assert (events.hw[0, 1, 0], events.hw[1, 9, 0], events.hw[2, 0, 0]) == (511, 2047, 4095)
    assert events.meta["counts"]["clipped_objects"] == 3
    assert events.meta["counts"]["saturated_objects"] == 3


def test_unsorted_rows_are_sorted_and_counted(writers: SimpleNamespace, tmp_path: Path) -> None:
    floats = np.zeros((2, 19, 4), dtype=np.float64)
    floats[:, 0, 3] = 1
    floats[0, 9:11] = [(20, 1, 1, 4), (30, -1, 1, 4)]
    events = Events.read(writers.write_adc(tmp_path / "a.h5", floats))
    assert events.hw[0, 9:11, 0].tolist() == [60, 40]
    assert events.meta["counts"]["unsorted_events"] == 1


def test_the_float_view_is_what_was_published(writers: SimpleNamespace, tmp_path: Path) -> None:
    floats = writers.adc_floats(40)
    path = writers.write_adc(tmp_path / "a.h5", floats)
    view = float_view(path)
    assert view.dtype == np.float32
    assert np.array_equal(view, floats[:, :, :3])
    assert np.array_equal(float_view(path, 10, 20), floats[10:20, :, :3])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((3, 9, 0), math.nan, "/Particles jet pT: found NaN or infinity, expected finite numbers"),
        ((3, 1, 0), -2.0, "/Particles eg pT: found -2, expected 0 or more"),
        ((3, 9, 1), 6.0, "/Particles jet eta: found 6, expected -5.568 to 5.5245"),
        ((3, 5, 1), -2.9, "/Particles mu eta: found -2.9, expected -2.784 to 2.7731"),
        ((3, 5, 3), 4.0, "/Particles class of event 3, row 5: found 4, expected 3"),
        ((3, 0, 3), 0.0, "/Particles class of event 3, row 0: found 0, expected 1"),
    ],
)
def test_values_that_cannot_be_are_named(
    writers: SimpleNamespace, tmp_path: Path, place: tuple[int, int, int], value: float, message: str
) -> None:
    floats = writers.adc_floats(10)
    floats[3, 5], floats[3, 9], floats[3, 1] = (5, 0, 0, 3), (50, 0, 0, 4), (10, 0, 0, 2)
    floats[place] = value
    path = writers.write_adc(tmp_path / "a.h5", floats)
    with pytest.raises(InputError) as caught:
        Events.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((5, 18, 4), np.float32), r"shape \(5, 18, 4\), expected \(N, 19, 4\)"),
        (np.zeros((5, 19, 4), np.int32), "values of type int32, expected floating point numbers"),
    ],
)
def test_another_schema_is_refused(writers: SimpleNamespace, tmp_path: Path, table: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Events.read(writers.write_adc(tmp_path / "a.h5", table))
