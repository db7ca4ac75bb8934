"""Files of a search: pyhf finds the search's own limit in the workspace, and an old folder keeps nothing stale."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from l1ad.errors import InputError
from l1ad.report import search_page
from l1ad.search import dijet_search, jets, outputs
from l1ad.search.config import SearchConfig
from l1ad.search.stats import dijet, limits
from l1ad.search.stats.significance import z_from_p

SMALL = {
    "window": "A3",
    "method": "inclusive",
    "fit": {"low": 1460, "high": 5500, "bin_width": 80, "orders": [2]},
    "mass_step": 2700,
    "toys": 0,
    "limits": True,
}


def _search(n_signal: int, **changes: object) -> dijet_search.Result:
    """A falling spectrum of 9,000 events, with a signal at 2.7 TeV, which is the only mass that is tested."""
    rng = np.random.default_rng(2)
    mass = np.concatenate([1400 * rng.uniform(size=9000) ** (-1 / 5.5), rng.normal(2673, 90, n_signal)])
    table = np.zeros((mass.size, 2, 4), np.float32)
    table[:, :, 0] = mass[:, None] / 2
    table[:, :, 3] = rng.exponential(70, (mass.size, 2)) + 20
    label = (np.arange(mass.size) >= 9000).astype(np.int8)
    events = jets.Dijets(table, ("pt", "eta", "phi", "m"), mass, label, np.ones(mass.size))
    return dijet_search.search(events, SearchConfig.model_validate({**SMALL, **changes}))


@dataclass(frozen=True)
class _Pyhf:
    """What pyhf makes of a workspace, with no more than the workspace says."""

    pyhf: Any
    model: Any
    data: list[float]

    def cls(self, strength: float) -> tuple[float, float]:
        """Observed and median expected."""
        observed, band = self.pyhf.infer.hypotest(strength, self.data, self.model, return_expected_set=True)
        return float(observed), float(band[2])

    def z(self) -> float:
        return float(z_from_p(float(self.pyhf.infer.hypotest(0.0, self.data, self.model, test_stat="q0"))))


def _read(workspace: dict[str, Any]) -> _Pyhf:
    pyhf = pytest.importorskip("pyhf", reason="pyhf (extra: search) is not installed")
    pyhf.set_backend("numpy", "scipy")
    read = pyhf.Workspace(workspace)
    model = read.model()
    return _Pyhf(pyhf, model, read.data(model))


def _z_of_the_likelihood(result: dijet_search.Result) -> float:
    config = result.config
    counts, edges = dijet.histogram(
        result.events.m_jj, config.fit.low, config.fit.high, width=max(config.fit.bin_width, 20.0)
    )
    model, _ = dijet_search.limit_model(counts, edges, config, result.choice.order, result.mass)
    data = model.data(counts)
    return float(np.sqrt(model.fit(data, 0.0).nll2 - model.fit(data).nll2))


# pyhf 0.7.6 still asks for a class that jsonschema has deprecated.
@pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")
class TestWorkspace:
    @pytest.mark.parametrize("n_signal", [0, 135])
    def test_pyhf_finds_the_limits_of_the_search(self, n_signal: int, monkeypatch: pytest.MonkeyPatch) -> None:
        if n_signal:
            monkeypatch.setattr(dijet_search, "spurious_signal", lambda *_, **__: 25.0)
        result = _search(n_signal)
        theirs = self._agree(result)
        if n_signal:
            # The spurious signal counts: without it there is as much as in the scan.
            expected = _z_of_the_likelihood(result)
            assert 2.0 < expected < 0.97 * result.z_local
            assert theirs.z() == pytest.approx(expected, rel=0.02)

    @pytest.mark.parametrize("name", ["scale", "resolution", "luminosity"])
    def test_each_uncertainty_of_the_signal_is_there(self, name: str) -> None:
        nothing = {"scale": 0.0, "resolution": 0.0, "luminosity": 0.0, "background_function": False}
        size = {"scale": 0.08, "resolution": 0.45, "luminosity": 0.3}[name]
        result = _search(135, systematics={**nothing, name: size})
        (with_it,), (without,) = result.upper, _search(135, systematics=nothing).upper
        assert isinstance(with_it, limits.Limit)
        assert isinstance(without, limits.Limit)
        assert with_it.expected[2] > 1.03 * without.expected[2]
        self._agree(result)

    def _agree(self, result: dijet_search.Result) -> _Pyhf:
        (ours,) = result.upper
        assert isinstance(ours, limits.Limit)
        theirs = _read(outputs.workspace(result, result.mass))
        for i, limit in enumerate((ours.observed, ours.expected[2])):
            assert theirs.cls(0.98 * limit)[i] > 0.05 > theirs.cls(1.02 * limit)[i]
        return theirs

    def test_without_systematics_it_has_none(self) -> None:
        result = _search(100, systematics=None)
        (ours,) = result.upper
        assert isinstance(ours, limits.Limit)
        theirs = _read(outputs.workspace(result, result.mass))
        assert set(theirs.model.config.parameters) == {"strength", "background_0", "background_1", "background_2"}
        assert theirs.cls(0.98 * ours.observed)[0] > 0.05 > theirs.cls(1.02 * ours.observed)[0]
        # Nothing but the peak on its background: the significance of the scan.
        assert theirs.z() == pytest.approx(result.z_local, rel=0.01)

    def test_the_search_for_the_limit_needs_no_help(self) -> None:
        result = _search(0, systematics=None)
        (ours,) = result.upper
        assert isinstance(ours, limits.Limit)
        theirs = _read(outputs.workspace(result, result.mass))
        observed, band = theirs.pyhf.infer.intervals.upper_limits.upper_limit(theirs.data, theirs.model)
        assert float(observed) == pytest.approx(ours.observed, rel=0.01)
        np.testing.assert_allclose(np.array(band, np.float64), ours.expected, rtol=0.01)

    def test_the_background_is_the_dijet_function(self) -> None:
        result = _search(0, fit={**SMALL["fit"], "bin_width": 20, "orders": [3]}, systematics={})
        model = _read(outputs.workspace(result, result.mass)).model
        order = model.config.channels
        low, high = np.array([name.split("_")[1:] for name in order], float).T
        x = 0.5 * (low + high) / dijet.SQRT_S
        functions = np.stack([np.ones_like(x), np.log1p(-x), np.log(x), np.log(x) ** 2], axis=1)
        start = np.array(model.config.suggested_init())
        start[model.config.poi_index] = 0.0

        def rates(point: np.ndarray) -> np.ndarray:
            return np.asarray(model.expected_data(point, include_auxdata=False))

        nominal = rates(start)
        assert nominal.sum() == pytest.approx(result.n_selected, rel=0.01)
        # Every point in the range of the parameters is a dijet function: a logarithm that its terms compose, and 0.6
        # of a unit of a parameter is six statistical errors.
        moved = start.copy()
        for i, step in enumerate((0.6, -0.9, 0.3, 1.2)):
            moved[model.config.par_slice(f"background_{i}")] += step
        change = np.log(rates(moved) / nominal)
        left = change - functions @ np.linalg.lstsq(functions, change)[0]
        assert np.ptp(change) > 0.5
        assert np.abs(left).max() < 1e-3
        only = start.copy()
        only[model.config.par_slice("background_0")] += 0.1
        assert rates(only).sum() / nominal.sum() - 1.0 == pytest.approx(1.0 / np.sqrt(result.n_selected), rel=0.05)


def test_an_old_folder_keeps_nothing_of_the_search_before(tmp_path: Path) -> None:
    def write(result: dijet_search.Result, folder: Path) -> set[Path]:
        return {*outputs.write(result, folder), *search_page.write_search_report(result, folder)}

    def found(folder: Path) -> set[Path]:
        return {path for path in folder.rglob("*") if path.is_file()}

    with_limits, without = _search(0), _search(0, limits=False)
    first = write(with_limits, tmp_path / "out")
    assert found(tmp_path / "out") == first
    # What somebody else has put there stays, also where its name is nearly one of ours.
    own = [tmp_path / "out" / name for name in ("figures/limits.svg", "hepdata/limits.yaml.bak", "notes.txt")]
    for path in own:
        path.write_text("mine")
    old = tmp_path / "out" / "figures" / "sic.png"
    old.write_text("of an even earlier search, with a selection")
    second = write(without, tmp_path / "out")
    assert {path.name for path in first - second} == {"limits.yaml", "limits.png", "limits.pdf"}
    assert found(tmp_path / "out") == second | set(own)
    # What cannot be removed is said.
    old.mkdir()
    with pytest.raises(InputError, match=r"sic\.png"):
        search_page.write_search_report(without, tmp_path / "out")


def test_the_lists_of_files_are_complete() -> None:
    result = _search(0)
    assert set(outputs.hepdata(result)) == set(outputs.TABLES)
    source = Path(search_page.__file__).read_text()
    assert set(re.findall(r'Plot\("(\w+)"', source)) == set(search_page.PLOTS)


def test_hepdata_has_the_energy_of_the_collisions() -> None:
    def energies(result: dijet_search.Result) -> list[object]:
        documents = list(yaml.safe_load_all(outputs.hepdata(result)["submission.yaml"]))
        return [k["values"] for d in documents[1:] for k in d["keywords"] if k["name"] == "cmenergies"]

    result = _search(0, limits=False)
    assert energies(result) == [[13_600.0]] * 2
    assert energies(_search(0, limits=False, collision_energy=13_000.0)) == [[13_000.0]] * 2


def test_a_spectrum_that_is_not_described_is_marked() -> None:
    result = _search(450, limits=False)
    # A signal that is a twentieth of the events: no background follows it, background and peak together do.
    assert result.choice.fit.chi2_p < 0.01
    assert result.described > 0.01
    for found, bad in ((result, False), (replace(result, described=1e-6), True)):
        content = json.loads(json.dumps(outputs.to_json(found)))
        assert content["background"]["bad"] is bad
        assert content["background"]["chi2_p_with_peak"] == found.described
        page = search_page.render(found, sample="Toy dijets.")
        marked = re.findall(r'<span class="bad">([^<]*)</span>', page)
        assert marked == (["do not describe the spectrum: probability of the chi2 1e-06"] if bad else [])
