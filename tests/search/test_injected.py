"""Injection with a whole search at each cross section: efficiencies that rise, resumable trainings, a limit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from l1ad.errors import InputError
from l1ad.search import injected, jets, methods
from l1ad.search.config import SearchConfig
from l1ad.search.errors import FitError
from l1ad.search.methods import Tagged
from l1ad.search.stats import dijet, injection, limits
from l1ad.search.stats.crystal_ball import CrystalBall

CONFIG = SearchConfig.model_validate(
    {
        "window": "A3",
        "features": ["m", "tau21"],
        "fraction": 0.05,
        "folds": {"outer": 2, "inner": 2},
        "trees": {"members": 1, "max_iterations": 20, "max_leaf_nodes": 8, "min_samples_leaf": 10},
        "fit": {"low": 1500, "high": 5500, "bin_width": 50, "orders": [2]},
        "peak": {"mean": 1.0, "sigma": 0.033},
        "systematics": None,
    }
)


def _dijets(mass: np.ndarray, signal: bool, seed: int) -> jets.Dijets:
    rng = np.random.default_rng(seed)
    n = mass.size
    table = np.zeros((n, 2, 6))
    table[:, :, 1] = rng.uniform(-0.5, 0.5, (n, 2))
    table[:, :, 3] = rng.normal([400, 170], 12, (n, 2)) if signal else rng.exponential(70, (n, 2)) + 20
    table[:, :, 0] = (mass / (2 * np.cosh(0.5 * (table[:, 0, 1] - table[:, 1, 1]))))[:, None]
    table[:, :, 4] = 0.5
    table[:, :, 5] = 0.5 * (rng.beta(2, 8, (n, 2)) if signal else rng.beta(6, 3, (n, 2)))
    names = ("pt", "eta", "phi", "m", "tau1", "tau2")
    return jets.Dijets(table.astype(np.float32), names, mass, np.full(n, signal, np.int8), np.ones(n))


@pytest.fixture(scope="module")
def what() -> injected.Injection:
    rng = np.random.default_rng(1)
    background = _dijets(1450 * rng.uniform(size=9000) ** (-1 / 5.5), False, 2)
    return injected.Injection(background, _dijets(rng.normal(2700, 90, 600), True, 3), CONFIG, 2700.0, 10.0)


def test_scan(what: injected.Injection, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = injected.scan(what, [0.0, 2.0, 12.0], tmp_path, executor=pool)
    eps = found.values["efficiency"]
    # With no signal the selection knows nothing; with much it finds it.
    assert eps[0] < 0.4
    assert eps[2] > 0.6
    assert found.values["injected"][0] == 0
    assert found.values["z"][2] > 2 * found.values["z_inclusive"][2] > 0
    assert found.limit is not None
    assert 0 < found.limit.limit <= 12.0
    paths = injected.write(found, tmp_path)
    assert json.loads(paths[0].read_text())["limit_fb"] == found.limit.limit
    assert "limit:" in injected.table(found)
    # Everything is there already, and the result is the same without an executor.
    said: list[str] = []
    again = injected.scan(what, [0.0, 2.0, 12.0], tmp_path, progress=said.append)
    assert any("3 trainings were there" in line for line in said)
    np.testing.assert_array_equal(again.values["efficiency"], eps)
    # On another machine: what it gets through a pickle does the same.
    elsewhere = pickle.loads(pickle.dumps(what))
    task = injection.tasks([0.0, 2.0, 12.0], seed=CONFIG.seed)[1]
    assert elsewhere(task)["efficiency"] == eps[1]
    # Other settings are other trainings.
    other = replace(what, config=CONFIG.model_copy(update={"fraction": 0.1}))
    assert injection._stored(tmp_path, injection.tasks([0.0], seed=CONFIG.seed)[0], other.context) is None


def test_expected_significance_of_a_counting_experiment() -> None:
    # A peak as wide as one bin on a flat, well-known background is a counting experiment.
    edges = np.linspace(2000, 4000, 81)
    shape = dijet.integrate(np.array([0.0, 8.0, 5.0]), edges)
    background = shape * 4e6 / shape.sum()
    peak = CrystalBall(3012.5, 6.0, 3.0, 5.0, 3.0, 5.0).probabilities(edges)
    one = int(np.argmax(peak))
    n = 200.0
    expected = n * np.sqrt(np.sum(peak**2 / background))
    z = injected.expected_significance(background, edges, peak, n, 3012.5, orders=(2,))
    assert peak[one] > 0.9
    assert z == pytest.approx(expected, rel=0.03)


def test_which_variations_need_a_training(what: injected.Injection) -> None:
    varied = injected.variations(what.signal, scale=0.05)
    found = injected.retrained(what.signal, varied, ["m", "tau21"], 200.0)
    assert "mass scale up" in found
    assert "m" in found["mass scale up"]
    assert "tau21" not in found["mass scale up"]
    assert injected.retrained(what.signal, {"none": what.signal}, ["m", "tau21"], 200.0) == {}


def test_variations_that_could_be_seen_are_trained_again(what: injected.Injection, tmp_path: Path) -> None:
    section = {"background_function": False, "jet_mass_scale": 0.003, "jet_mass_resolution": 0.0, "resolution": 0.0}
    config = SearchConfig.model_validate({**CONFIG.model_dump(), "systematics": section})
    moving = replace(what, config=config)
    said: list[str] = []
    found = injected.scan(moving, [0.0, 0.5, 12.0], tmp_path, progress=said.append)
    # 5 events cannot show a shift of 0.3 %, 120 can.
    assert set(found.moved) == {"mass scale up", "mass scale down"}
    assert all(set(own) == {12.0} and "m" in own[12.0] for own in found.moved.values())
    assert [p.name for p in (tmp_path / "mass_scale_up").iterdir()] == ["injection_002_000.json"]
    assert list(found.uncertainty[:2]) == [0.0, 0.0]
    largest = max(abs(found.changes[name][2]) for name in found.moved)
    assert found.uncertainty[2] == pytest.approx(largest)
    # By hand: the varied signal is injected and measured, with the same random numbers.
    task = injection.tasks([0.0, 0.5, 12.0], seed=config.seed)[2]
    after = replace(moving, signal=injected.variations(what.signal, scale=0.003, seed=config.seed)["mass scale up"])(
        task
    )
    assert found.changes["mass scale up"][2] == after["efficiency"] / found.values["efficiency"][2] - 1.0
    # The limit knows it: between those without and with 10 %.
    low, high = found.values["n95"][2] - moving(task)["n95"], found.values["n95 10 %"][2]
    assert low >= 0
    assert moving(task)["n95"] < high
    # Everything is taken up again, and the files say it.
    said.clear()
    again = injected.scan(moving, [0.0, 0.5, 12.0], tmp_path, progress=said.append)
    assert any("3 trainings were there" in line for line in said)
    np.testing.assert_array_equal(again.values["n95"], found.values["n95"])
    content = json.loads(injected.write(found, tmp_path)[0].read_text())
    assert content["systematics"]["mass scale up"]["features_moved"]["12 fb"]["m"] > 0.2
    assert "mass scale up: trained again at 1 cross sections" in injected.table(found)


def test_bad_input(what: injected.Injection, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="range of the fit"):
        replace(what, mass=9000.0)
    with pytest.raises(InputError, match="luminosity"):
        replace(what, luminosity=0.0)
    with pytest.raises(InputError, match="luminosity"):
        replace(what, luminosity=np.inf)
    with pytest.raises(InputError, match="to inject"):
        what(injection.Task(0, 0, 100.0, 1))
    with pytest.raises(InputError, match="increasing"):
        injected.scan(what, [2.0, 1.0], tmp_path)


def test_signal_outside_of_the_signal_region_weakens_the_limit(what: injected.Injection, tmp_path: Path) -> None:
    # As many events again that no search looks at: half of what is produced is injected and half is efficient.
    outside = what.signal.jets.copy()
    outside[:, 0, 1], outside[:, 1, 1] = 1.5, -1.5
    both = jets.concatenate([what.signal, replace(what.signal, jets=outside)])
    half = replace(what, signal=both)
    whole_scan = injected.scan(what, [0.0, 12.0], tmp_path / "whole")
    half_scan = injected.scan(half, [0.0, 24.0], tmp_path / "half")
    # The same mean number is injected, from the same random numbers.
    np.testing.assert_array_equal(half_scan.values["injected"], whole_scan.values["injected"])
    np.testing.assert_allclose(half_scan.values["efficiency"], 0.5 * whole_scan.values["efficiency"], rtol=1e-12)
    assert half_scan.limit is not None
    assert whole_scan.limit is not None
    np.testing.assert_allclose(half_scan.limit.excluded, 2.0 * whole_scan.limit.excluded, rtol=1e-9)
    np.testing.assert_allclose(half_scan.values["z"], whole_scan.values["z"], rtol=1e-9)


@pytest.mark.parametrize("how", ["too uncertain", "failed"])
def test_an_efficiency_that_is_not_known_gives_no_limit(
    what: injected.Injection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    section = {"background_function": False, "jet_mass_scale": 0.003, "jet_mass_resolution": 0.0, "resolution": 0.0}
    moving = replace(what, config=SearchConfig.model_validate({**CONFIG.model_dump(), "systematics": section}))
    nominal = moving.signal

    def fake(self: injected.Injection, task: injection.Task) -> dict[str, float]:
        varied = self.signal is not nominal
        if varied and how == "failed":
            raise FitError("did not converge")
        names = (n + p for n in ("n95", "observed") for p in ("", " 10 %", " 30 %", " 60 %"))
        return {"injected": 1.0, "efficiency": 0.9 if varied else 0.3, "selected": 9.0, "z": 1.0, "z_inclusive": 1.0,
                **dict.fromkeys(names, 20.0)}  # fmt: skip

    monkeypatch.setattr(injected.Injection, "__call__", fake)
    found = injected.scan(moving, [0.0, 12.0], tmp_path)
    # Without injection nothing varies; with it the efficiency is uncertain by 200 %, or not known.
    assert found.uncertainty[0] == 0.0
    assert found.uncertainty[1] == (pytest.approx(2.0) if how == "too uncertain" else np.inf)
    assert found.values["n95"][0] == 20.0
    assert np.isinf(found.values["n95"][1])
    content = json.loads(injected.write(found, tmp_path)[0].read_text())
    assert content["values"]["n95"] == [20.0, None]
    assert "unknown" in (tmp_path / "hepdata" / "injection.yaml").read_text()
    assert "inf" in injected.table(found)


def test_weighted_events_are_refused(what: injected.Injection) -> None:
    with pytest.raises(InputError, match=r"injection: data: weight: found 0\.01 for event 0"):
        replace(what, data=replace(what.data, weight=np.full(len(what.data), 0.01)))


def test_a_stored_training_knows_its_constituents(what: injected.Injection) -> None:
    some = np.ones((len(what.signal), 2, 3, 3), np.float32)
    one = replace(what, signal=replace(what.signal, constituents=some))
    two = replace(what, signal=replace(what.signal, constituents=2 * some))
    names = replace(what, signal=replace(what.signal, names=("pt", "eta", "phi", "m", "tau2", "tau1")))
    assert len({w.context["events"] for w in (what, one, two, names)}) == 4


def test_the_peak_is_that_of_the_signal(what: injected.Injection) -> None:
    config, found = injected.with_peak_of(what.signal, CONFIG, 2700.0)
    peak = config.peak.at(2700.0)
    assert list(vars(peak).values()) == pytest.approx(list(vars(found.peak).values()))
    # A Gaussian of 90 GeV.
    assert peak.mean == pytest.approx(2700.0, abs=15.0)
    assert peak.sigma == pytest.approx(90.0, rel=0.1)
    with pytest.raises(InputError, match="a peak at 2"):
        injected.with_peak_of(what.signal, CONFIG, 5000.0)


def test_observed_limits_are_those_of_the_data(what: injected.Injection, tmp_path: Path) -> None:
    found = injected.scan(what, [0.0, 2.0, 12.0], tmp_path)
    assert found.observed is not None
    assert found.limit is not None
    # By hand, from the training without injection.
    alone = what(injection.tasks([0.0, 2.0, 12.0], seed=CONFIG.seed)[0])
    by_hand = injection.limit(found.cross_sections, found.values["efficiency"], alone["observed"], luminosity=10.0)
    assert found.observed.limit == pytest.approx(by_hand.limit)
    np.testing.assert_allclose(found.observed.excluded, by_hand.excluded)
    content = json.loads(injected.write(found, tmp_path)[0].read_text())
    assert content["observed_limit_fb"] == found.observed.limit
    assert "observed" in injected.table(found)
    without = injected.scan(what, [2.0, 12.0], tmp_path / "without")
    assert without.observed is None


def test_categories_are_fitted_together(what: injected.Injection, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SearchConfig.model_validate({**CONFIG.model_dump(), "method": "vae_qr"})

    def run(chosen: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> dict[str, float]:
        def tag(used: jets.Dijets, *_: object, **__: object) -> Tagged:
            category = chosen(used.label, np.arange(len(used))).astype(np.int8)
            return Tagged("vae_qr", category.astype(float), category >= 1, category)

        monkeypatch.setattr(methods, "tag", tag)
        return dict(replace(what, config=config)(injection.Task(0, 0, 0.0, 1)))

    # Half of all events, by chance in three categories of which each is like the whole.
    one = run(lambda _label, row: np.where(row % 2 == 0, 1 + row // 2 % 3, 0))
    assert one["efficiency"] == pytest.approx(0.5, abs=0.05)
    model = limits.DijetModel(np.linspace(1500, 5500, 81), CONFIG.peak.at(2700.0).probabilities(
        np.linspace(1500, 5500, 81)), 2)  # fmt: skip
    kept = what.data.m_jj[::2]
    together = limits.asymptotic_limit(model, np.histogram(kept, model.edges)[0]).expected[2]
    assert one["n95"] == pytest.approx(together, rel=0.1)
    # The signal in the purest one only: a better limit.
    pure = run(
        lambda label, row: np.where(
            label == 1, 3, np.where(row % 2 == 0, np.where(row % 20 == 0, 3, 1 + row // 2 % 2), 0)
        )
    )
    assert pure["n95"] < 0.7 * one["n95"]


def test_a_mass_outside_of_the_window_is_refused(what: injected.Injection) -> None:
    with pytest.raises(InputError, match="window A3"):
        replace(what, mass=4000.0)


def test_tables_of_a_scan_are_a_submission(what: injected.Injection, tmp_path: Path) -> None:
    found = injected.scan(what, [0.0, 12.0], tmp_path)
    injected.write(found, tmp_path, energy=13_000.0)
    first, *tables = yaml.safe_load_all((tmp_path / "hepdata" / "submission.yaml").read_text())
    assert "comment" in first
    assert [(tmp_path / "hepdata" / t["data_file"]).is_file() for t in tables] == [True]
    assert tables[0]["keywords"][0]["values"] == [13_000.0]
