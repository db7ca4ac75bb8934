"""Library files: round trip, joining, cutting, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.events.simulate.library import Library, concatenate, describe_library, read_library, write_library


def test_round_trip(tmp_path: Path, toy_libraries: list[Library], same: Callable[..., None]) -> None:
    write_library(tmp_path / "a.h5", toy_libraries[0])
    same(read_library(tmp_path / "a.h5"), toy_libraries[0])
    about = describe_library(tmp_path / "a.h5")
    assert about == {"process": "soft", "sigma_mb": 77.8, "n": 1500, "seed": 3, "tune": "toy"}


def test_head_and_concatenate_are_inverse(toy_libraries: list[Library], same: Callable[..., None]) -> None:
    whole = toy_libraries[0]
    first = whole.head(400)
    assert len(first) == 400
    assert len(first.et) == whole.offset[400]
    joined = concatenate([first, first])
    same(joined.head(400), replace(first, n_tried=2 * first.n_tried))
    assert joined.offset[-1] == 2 * first.offset[-1]
    np.testing.assert_array_equal(joined.mu_pt[len(first.mu_pt) :], first.mu_pt)


def test_cross_section_is_the_mean_over_what_was_tried(toy_libraries: list[Library]) -> None:
    a = replace(toy_libraries[0], sigma_mb=10.0, n_tried=100)
    b = replace(toy_libraries[0], sigma_mb=20.0, n_tried=300)
    assert concatenate([a, b]).sigma_mb == pytest.approx(17.5)


def test_refused_files(tmp_path: Path, toy_libraries: list[Library]) -> None:
    with pytest.raises(InputError, match=r"missing\.h5"):
        read_library(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("no library")
    with pytest.raises(InputError, match=r"text.h5.*expected a generator library"):
        read_library(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = "something"
    with pytest.raises(InputError, match=r"other.h5: format: found format 'something'"):
        read_library(tmp_path / "other.h5")
    write_library(tmp_path / "a.h5", toy_libraries[1])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["kind"]
    with pytest.raises(InputError, match=r"a.h5: kind: found no such dataset"):
        read_library(tmp_path / "a.h5")
