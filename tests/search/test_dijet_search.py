"""The whole dijet search on toy dijets: it finds what was put in and nothing else, and its files can be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from l1ad.configs import check_config
from l1ad.errors import ConfigError, InputError
from l1ad.report import search_page
from l1ad.search import dijet_search, jets, methods, outputs, weak
from l1ad.search.config import SearchConfig
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet, limits
from l1ad.search.stats.peak_model import spurious_signal

SMALL = {
    "window": "A3",
    "features": ["m", "tau21"],
    "fraction": 0.1,
    "folds": {"outer": 2, "inner": 2},
    "trees": {"members": 1, "max_iterations": 20, "max_leaf_nodes": 8, "min_samples_leaf": 40},
    "fit": {"low": 1460, "high": 5500, "bin_width": 40, "orders": [2, 3]},
    "toys": 0,
    "limits": False,
}


def _dijets(n: int, n_signal: int, seed: int = 1) -> jets.Dijets:
    """Falling background with jet features that do not know the mass, and a heavy two-prong signal at 2.7 TeV."""
    rng = np.random.default_rng(seed)
    mass = np.concatenate([1350 * rng.uniform(size=n) ** (-1 / 5.5), rng.normal(2700, 90, n_signal)])
    total = n + n_signal
    signal = np.arange(total) >= n
    table = np.zeros((total, 2, 6))
    eta = rng.uniform(-0.5, 0.5, (total, 2))
    phi = rng.uniform(-np.pi, np.pi, total)
    table[:, :, 1] = eta
    table[:, :, 2] = np.stack([phi, phi + np.pi], axis=1)
    table[:, :, 3] = np.where(
        signal[:, None], rng.normal([400, 170], 12, (total, 2)), rng.exponential(70, (total, 2)) + 20
    )
    table[:, :, 0] = (mass / (2 * np.cosh(0.5 * (eta[:, 0] - eta[:, 1]))))[:, None]
    table[:, :, 4] = 0.5
    table[:, :, 5] = table[:, :, 4] * np.where(signal[:, None], rng.beta(2, 8, (total, 2)), rng.beta(6, 3, (total, 2)))
    return jets.Dijets(
        jets=table.astype(np.float32),
        names=("pt", "eta", "phi", "m", "tau1", "tau2"),
        m_jj=mass,
        label=signal.astype(np.int8),
        weight=np.ones(total),
    )


def _config(**changes: object) -> SearchConfig:
    return SearchConfig.model_validate({**SMALL, **changes})


def test_a_signal_is_found_where_the_inclusive_search_sees_little() -> None:
    events = _dijets(20_000, 45)
    inclusive = dijet_search.search(events, _config(method="inclusive"))
    trees = {"members": 2, "max_iterations": 20, "max_leaf_nodes": 8, "min_samples_leaf": 10}
    result = dijet_search.search(events, _config(fraction=0.03, trees=trees, folds={"outer": 4, "inner": 2}))
    assert result.tagged.proof is not None
    assert result.tagged.proof.n_models == 8
    assert abs(result.mass - 2700) <= 100
    assert result.z_local > 2 * max(inclusive.z_local, 1.0)
    # What the selection has understood: the masses and prongs of the signal, and that the truth confirms it.
    study = result.study
    assert study is not None
    assert set(study.perturbation) == {"m", "tau21"}
    assert study.sic["cwola"].maximum > 2.0
    heavy = next(f for f in study.features if f.name == "m")
    middle = 0.5 * (heavy.edges[1:] + heavy.edges[:-1])
    assert heavy.anomalous @ middle > 1.5 * (heavy.ordinary @ middle)
    page = search_page.render(result, sample="Toy dijets.")
    for part in ("figure-fit", "figure-sic", "figure-features", "What the score depends on", "+1.00"):
        assert part in page
    # The curve with the peak is the fit with the peak: as many events as there are, and beside the peak fewer than the
    # fit without it, which has to bear the excess.
    fit = result.choice.fit
    grid = np.linspace(fit.edges[0], fit.edges[-1], 20_001)
    curve = search_page._with_peak(result, grid)
    assert np.trapezoid(curve, grid) == pytest.approx(fit.counts.sum(), rel=0.02)
    beside = (grid > result.mass + 500) & (grid < result.mass + 700)
    assert np.all(curve[beside] < fit.density(grid[beside]))
    # Far above the 3 % that a random selection would take.
    used = events[events.in_signal_region()]
    assert result.tagged.selected[used.label == 1].mean() > 0.4


def test_without_signal_there_is_no_excess_and_the_sidebands_stay_flat() -> None:
    result = dijet_search.search(_dijets(20_000, 0, seed=4), _config(toys=30, limits=True))
    assert abs(result.z_local) < 3
    assert result.tagged.flat is not None
    assert result.tagged.flat.p > 0.005
    assert result.p_window is not None
    assert result.p_global is not None
    assert result.p_window.p > 0.03
    assert result.choice.fit.chi2_p > 0.005
    assert all(isinstance(v, limits.Limit) for v in result.upper)


def test_what_another_function_feigns_is_that_of_a_richer_one() -> None:
    events = _dijets(12_000, 0, seed=2)
    counts, edges = dijet.histogram(events.m_jj, 1460, 5500, width=40)
    config = _config(systematics={}, fit={"orders": [2, 3]})
    found = {k: dijet_search.limit_model(counts, edges, config, k, 2700.0)[1] for k in (2, 3, 4)}
    # Also beyond the orders that are chosen from: what a poorer function feigns is nothing, it is part of the fit.
    for order in (2, 3):
        peak = config.peak.at(2700.0).probabilities(edges)
        assert found[order] == pytest.approx(abs(spurious_signal(counts, edges, peak, order, order + 1)))
        assert found[order] > 0.01
    assert spurious_signal(counts, edges, peak, 3, 2) == pytest.approx(0.0, abs=0.01)
    assert found[4] is None


def test_pair_of_jet_masses() -> None:
    result = dijet_search.search(_dijets(12_000, 90), _config(method="cwola_pair", features=["m"]))
    assert abs(result.mass - 2700) <= 100
    assert result.z_local > 3


def test_files_are_complete_and_readable(tmp_path: Path) -> None:
    result = dijet_search.search(_dijets(12_000, 0, seed=2), _config(method="inclusive", limits=True, mass_step=200.0))
    paths = outputs.write(result, tmp_path / "run")
    names = {"results.json", "workspace.json", "spectrum.yaml", "limits.yaml", "submission.yaml", "events.h5"}
    assert {p.name for p in paths} >= names
    documents = list(yaml.safe_load_all((tmp_path / "run" / "hepdata" / "submission.yaml").read_text()))
    assert all((tmp_path / "run" / "hepdata" / d["data_file"]).is_file() for d in documents[1:])
    assert all(p.stat().st_size > 200 for p in paths)
    assert not list((tmp_path / "run").rglob("*.part"))
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [p["mass_gev"] for p in content["scan"]] == [2600.0, 2800.0, 3000.0]
    assert content["scan"][0]["limit"]["observed"] > 0
    spectrum = yaml.safe_load((tmp_path / "run" / "hepdata" / "spectrum.yaml").read_text())
    values = spectrum["dependent_variables"][0]["values"]
    assert sum(v["value"] for v in values) == result.n_selected
    assert len(spectrum["independent_variables"][0]["values"]) == len(values)


def test_command_line(tmp_path: Path) -> None:
    from l1ad.cli import app

    _dijets(8000, 0).write(tmp_path / "events.h5")
    _dijets(10, 200).write(tmp_path / "signal.h5")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**SMALL, "method": "inclusive", "mass_step": 200}))
    arguments = [
        "search", "dijet", str(tmp_path / "small.yaml"), "--events", str(tmp_path / "events.h5"),
        "--signal", str(tmp_path / "signal.h5"), "--n-signal", "150", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "most significant" in done.output
    assert (tmp_path / "out" / "results.json").is_file()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "most significant mass" in page
    assert "http" not in page.split("<script>")[0]
    assert (tmp_path / "out" / "figures" / "fit.pdf").is_file()
    with pytest.raises(InputError, match="without --n-signal"):
        CliRunner().invoke(app, [a if a != "150" else "0" for a in arguments], catch_exceptions=False)
    with pytest.raises(InputError, match="at least 500 to inject"):
        CliRunner().invoke(app, [a if a != "150" else "500" for a in arguments], catch_exceptions=False)


def test_the_shipped_configuration_is_valid() -> None:
    from l1ad.configs import find_config

    config = SearchConfig.read(find_config("dijet_quickstart", "search"))
    assert config.window in jets.WINDOWS


def test_bad_input(tmp_path: Path) -> None:
    events = _dijets(3000, 0)
    with pytest.raises(InputError, match="window"):
        dijet_search.search(events, _config(window="C1"))
    with pytest.raises(InputError, match="feature"):
        dijet_search.search(events, _config(features=["tau54"]))
    with pytest.raises(InputError, match="upper sideband"):
        dijet_search.search(events[events.m_jj < 2500], _config())
    with pytest.raises(InputError, match="within the fit"):
        dijet_search.search(events, _config(method="inclusive", fit={"low": 1460, "high": 2000, "bin_width": 40}))
    far = events.jets.copy()
    far[:, 0, 1] = 2.5
    with pytest.raises(InputError, match="signal region"):
        dijet_search.search(jets.Dijets(far, events.names, events.m_jj, events.label, events.weight), _config())
    for section, field in (
        ({"low": 3000, "high": 2000}, "high"),
        ({"orders": [3, 2]}, "increase"),
        ({"orders": [5]}, "5"),
    ):
        (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"fit": section}))
        with pytest.raises(ConfigError, match=field):
            SearchConfig.read(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("windw: A3\n")
    with pytest.raises(ConfigError, match="windw"):
        SearchConfig.read(tmp_path / "bad.yaml")


def test_bad_events_leave_no_file(tmp_path: Path) -> None:
    from l1ad.cli import app

    fine = {"low": 1460, "high": 6800, "bin_width": 20, "orders": [2]}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump({**SMALL, "method": "inclusive", "fit": fine}))
    (tmp_path / "folds.yaml").write_text(yaml.safe_dump({**SMALL, "folds": {"outer": 5, "inner": 4}}))
    (tmp_path / "scores.yaml").write_text(yaml.safe_dump({**SMALL, "trees": {**SMALL["trees"], "members": 2}}))
    events = _dijets(6000, 0)

    def at(mass: list[float], times: list[int]) -> jets.Dijets:
        m = np.repeat(mass, times)
        return replace(events[: m.size], m_jj=m)

    alike = events.jets.copy()
    alike[:, :, 3:] = (100.0, 0.5, 0.25)
    cases = {
        # 5,000 events in one bin, and four far from it: no smooth function describes them.
        "fit": (at([1470, 1500, 2300, 2800, 3500], [5000, 1, 1, 1, 1]), FitError, "did not converge"),
        "folds": (at([2100, 2600, 3200], [4, 4, 4]), InputError, "at least 20 for 5 x 4 folds"),
        "scores": (replace(events, jets=alike), InputError, "identical scores"),
    }
    for name, (bad, kind, message) in cases.items():
        bad.write(tmp_path / "bad.h5")
        arguments = ["search", "dijet", str(tmp_path / f"{name}.yaml"), "--events", str(tmp_path / "bad.h5")]
        with pytest.raises(kind, match=message):
            CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")], catch_exceptions=False)
        assert not (tmp_path / "out").exists()


def _with_constituents(events: jets.Dijets, rng: np.random.Generator) -> jets.Dijets:
    """Jets of 8 particles; those of the signal are in two clusters."""
    n = len(events)
    kin = {c: events.feature(c)[:, :, None] for c in ("pt", "eta", "phi")}
    share = np.sort(rng.dirichlet(np.full(8, 1.0), (n, 2)), axis=2)[:, :, ::-1]
    side = 0.5 * (rng.integers(0, 2, (n, 2, 8)) - 0.5) * (events.label == 1)[:, None, None]
    eta = kin["eta"] + side + rng.normal(0, 0.04, (n, 2, 8))
    phi = kin["phi"] + rng.normal(0, 0.04, (n, 2, 8))
    pt = kin["pt"] * share
    points = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=3)
    return replace(events, constituents=points.astype(np.float32))


def test_the_autoencoder_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    region, side = _dijets(9000, 60), _dijets(800, 0, seed=5)
    # The sideband: the same jets further apart.
    side.jets[:, 0, 1], side.jets[:, 1, 1] = 1.1, -1.1
    events = _with_constituents(jets.concatenate([region, side]), rng)
    config = _config(
        method="vae_qr",
        vae={"particles": 8, "latent": 3, "epochs": 8, "batch_size": 64},
        quantile={"folds": 4},
        window="A3",
    )
    result = dijet_search.search(events, config)
    tagged = result.tagged
    assert tagged.category is not None
    truth = result.events.label == 1
    assert np.mean(tagged.category[~truth] >= 1) == pytest.approx(0.1, abs=0.02)
    assert np.mean(tagged.selected[truth]) > 0.6
    # 60 events above 2 TeV pull the cubic beyond the window up: flat is what has no signal.
    nothing = _with_constituents(jets.concatenate([_dijets(9000, 0), side]), rng)
    flat = dijet_search.search(nothing, config).tagged.flat
    assert flat is not None
    assert flat.p > 1e-3
    outputs.write(result, tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert sum(content["categories"]) == len(result.events)
    with pytest.raises(InputError, match="constituents"):
        dijet_search.search(region, config)
    with pytest.raises(InputError, match="sideband"):
        dijet_search.search(_with_constituents(region, rng), config)


def test_samples_are_put_together() -> None:
    a, b = _dijets(30, 0), _dijets(5, 5)
    fewer = jets.Dijets(b.jets[:, :, :5], b.names[:5], b.m_jj, b.label, b.weight)
    both = jets.concatenate([a, fewer])
    assert len(both) == 40
    assert both.names == b.names[:5]
    np.testing.assert_array_equal(both.m_jj, np.concatenate([a.m_jj, b.m_jj]))


def test_a_window_of_ones_own() -> None:
    window = {"low": 2465, "high": 3013, "below": 2017, "above": 3682}
    events = _dijets(12_000, 60)
    named, own = (dijet_search.search(events, _config(window=w, toys=20)) for w in ("A3", window))
    # The same window by numbers: the same scores; one window of the search instead of twelve.
    np.testing.assert_array_equal(own.tagged.scores, named.tagged.scores)
    assert own.z_local == named.z_local
    assert own.p_window is not None
    assert own.p_global is not None
    assert named.p_global == pytest.approx(min(12 * own.p_global, 1.0))
    page = search_page.render(own, sample="Toy dijets.")
    assert "2465 to 3013 GeV" in page
    assert "this window alone" in page
    with pytest.raises(ConfigError, match="below < low < high < above"):
        check_config(SearchConfig, {"window": {**window, "below": 2500}}, where="x.yaml")
    # Without a fraction: 1 % of the sidebands, as in every window of CATHODE.
    assert methods.selected_fraction(_config(window=window, fraction=None)) == 0.01
    assert methods.selected_fraction(_config(fraction=None)) == weak.PUBLISHED_FRACTIONS["A3"]


def test_a_signal_does_not_weaken_the_expected_limit() -> None:
    # The expected limit is that without signal: what is in the data enters through the fit to them only.
    def expected(n_signal: int) -> float:
        config = _config(method="inclusive", limits=True, systematics={}, mass_step=2700.0)
        found = dijet_search.search(_dijets(12_000, n_signal), config).upper[0]
        assert isinstance(found, limits.Limit)
        return found.expected[2]

    assert expected(150) < 1.6 * expected(0)


def test_a_range_that_starts_below_the_data_is_refused() -> None:
    events = _dijets(20_000, 0)
    with pytest.raises(InputError, match="range that starts where it falls"):
        dijet_search.search(events[events.m_jj > 2000.0], _config(method="inclusive", window="A3"))


def test_shapes_of_simulated_signals_from_the_command_line(tmp_path: Path) -> None:
    from l1ad.cli import app

    _dijets(0, 3000).write(tmp_path / "narrow.h5")
    out = tmp_path / "peaks.json"
    words = ["search", "peak", f"{tmp_path / 'narrow.h5'}=2700", "--out", str(out)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    config = _config(peak={"file": str(out)})
    peak = config.peak.at(2700.0)
    # A Gaussian of 90 GeV was put in.
    assert peak.mean == pytest.approx(2700.0, abs=10.0)
    assert peak.sigma == pytest.approx(90.0, rel=0.05)
    moved = config.peak.at(2700.0, scale=1.01, resolution=1.1)
    assert (moved.mean, moved.sigma) == pytest.approx((1.01 * peak.mean, 1.1 * peak.sigma))
    by_hand = _config().peak.at(2700.0, scale=1.01, resolution=1.1)
    plain = _config().peak.at(2700.0)
    assert (by_hand.mean, by_hand.sigma) == pytest.approx((1.01 * plain.mean, 1.1 * plain.sigma))
    for bad, message in (("narrow.h5", "FILE=MASS"), ("narrow.h5=x", "FILE=MASS"), ("narrow.h5=9000", "peak at 2")):
        with pytest.raises(InputError, match=message):
            CliRunner().invoke(app, ["search", "peak", f"{tmp_path}/{bad}", "--out", str(out)], catch_exceptions=False)


def test_what_is_injected_is_signal_and_no_event_counts_twice(tmp_path: Path) -> None:
    from l1ad.cli.search import _data

    events, signal = _dijets(2000, 0), _dijets(500, 40, seed=9)
    events.write(tmp_path / "events.h5")
    signal.write(tmp_path / "signal.h5")
    data, _ = _data(_config(), [tmp_path / "events.h5"], tmp_path / "signal.h5", 30)
    assert int(np.sum(data.label == 1)) == 30
    assert len(data) == 2030
    with pytest.raises(InputError, match="found 40, expected at least 41"):
        _data(_config(), [tmp_path / "events.h5"], tmp_path / "signal.h5", 41)
    with pytest.raises(InputError, match="background only"):
        _data(_config(), [tmp_path / "events.h5"], tmp_path / "events.h5", 5)
    with pytest.raises(InputError, match="2000 that are there twice"):
        _data(_config(), [tmp_path / "events.h5"] * 2, None, 0)


def test_a_place_that_cannot_be_written_is_found_before_the_search(tmp_path: Path) -> None:
    from l1ad.cli import app

    (tmp_path / "file").write_text("in the way")
    words = ["search", "dijet", "dijet_quickstart", "--out", str(tmp_path / "file" / "out"), "--events", "nothing.h5"]
    with pytest.raises(InputError, match="file: folder: found a file of that name"):
        CliRunner().invoke(app, words, catch_exceptions=False)
