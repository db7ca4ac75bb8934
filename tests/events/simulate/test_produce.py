"""`simulate`: the same to the bit for any number of workers, weights, metadata, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed (extra simulate)")

from l1ad.errors import InputError
from l1ad.events.simulate import produce, simulate
from l1ad.events.store import Events

STRATA = ["soft", "qcd_20", "qcd_30", "qcd_50"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "CHUNK", 100)


def run(folder: Path, process: str = "zero_bias", n: int = 250, **options: object) -> Events:
    arguments = {"seed": 5, "mu": 20.0, "library": folder, "background": STRATA} | options
    return simulate(process, n, **arguments)  # type: ignore[arg-type]


def test_workers_do_not_matter(toy_folder: Path) -> None:
    one = run(toy_folder, stratified=True)
    two = run(toy_folder, stratified=True, workers=2)
    np.testing.assert_array_equal(one.hw, two.hw)
    assert set(one.columns) == set(two.columns)
    for name in one.columns:
        np.testing.assert_array_equal(one.columns[name], two.columns[name], err_msg=name)
    assert one.meta == two.meta


def test_seed_matters_and_first_chunks_agree(toy_folder: Path) -> None:
    events = run(toy_folder)
    assert not np.array_equal(events.hw, run(toy_folder, seed=6).hw)
    np.testing.assert_array_equal(events.hw[:200], run(toy_folder, n=200).hw)


def test_file_round_trip(toy_folder: Path, tmp_path: Path) -> None:
    events = run(toy_folder, stratified=True)
    events.write(tmp_path / "zb.h5", compression="gzip")
    again = Events.read(tmp_path / "zb.h5")
    np.testing.assert_array_equal(again.hw, events.hw)
    np.testing.assert_array_equal(again.weight, events.weight)
    assert again.meta["strata"] == events.meta["strata"]
    assert again.columns["hardest"].max() < len(again.meta["strata"])
    assert {"ht", "met_hf", "n_pv", "n_pu", "pthat_max", "hardest", "weight"} == set(again.columns)


def test_signal_sits_on_pile_up(toy_folder: Path) -> None:
    signal, background = run(toy_folder, "haa4b_ma15", mu=2.0), run(toy_folder, mu=2.0)
    assert signal.objects("jet")[:, :, 0].sum() > 1.5 * background.objects("jet")[:, :, 0].sum()
    assert "weight" not in signal.columns


def test_no_pile_up(toy_folder: Path) -> None:
    events = run(toy_folder, mu=0.0)
    assert not events.columns["n_pu"].any()
    # only noise: nothing that would pass a seed
    assert events.hw[:, :, 0].max() < 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"process": "nonsense"}, "process: found 'nonsense'"),
        ({"process": "haa4b_ma15", "stratified": True}, "stratified: found process haa4b_ma15"),
        ({"n": 0}, "n: found 0"),
        ({"mu": -1.0}, "mu: found -1.0"),
        ({"mu_spread": -1.0}, "mu_spread: found -1.0"),
        ({"mu_spread": float("nan")}, "mu_spread: found nan"),
        ({"workers": 0}, "workers: found 0"),
    ],
)
def test_refusals(toy_folder: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(toy_folder, **arguments)


def test_a_library_under_a_wrong_name(toy_folder: Path) -> None:
    (toy_folder / "qcd_30.h5").write_bytes((toy_folder / "qcd_50.h5").read_bytes())
    with pytest.raises(InputError, match=r"qcd_30.h5: process: found qcd_50, expected qcd_30"):
        run(toy_folder)
