"""Simulated dijets: signals peak where their masses say, generator cuts do not sculpt, pieces make a sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.events.simulate.processes import Process
from l1ad.search import simulate as sim
from l1ad.search.jets import invariant_mass
from l1ad.search.readers import read

for _module, _extra in (("pythia8mc", "simulate"), ("numba", "simulate"), ("fastjet", "jets"), ("vector", "jets")):
    pytest.importorskip(_module, reason=f"{_module} is not installed (extra: {_extra})")

#: Events of a signal in these tests: enough for medians to a few per cent.
N = 60

#: Signal, masses, the masses expected of the heavier and the lighter jet (GeV; None: a quark), b quarks in the decay.
CASES = [
    ("x_yy_4q", 3000.0, {"y": 400.0, "y2": 170.0}, (400.0, 170.0), False),
    ("wp_bpt", 3000.0, {"b_prime": 400.0}, (400.0, 172.5), True),
    ("wkk_rw_3w", 3000.0, {"radion": 400.0}, (400.0, 80.4), False),
    ("zp_tptp", 4000.0, {"t_prime": 400.0}, (400.0, 400.0), True),
    ("y_hh_4t", 4000.0, {"h": 400.0}, (400.0, 400.0), True),
    ("qstar_qwp", 3000.0, {"w_prime": 170.0}, (170.0, None), False),
]


def small(process: Process, block: int = N) -> Process:
    """Generated in small portions: these tests need few events."""
    return replace(process, block=block)


@pytest.fixture(scope="module")
def qcd_sample() -> sim.Sample:
    """QCD from 2 TeV."""
    recipe = sim.qcd(sim.Selection(m_jj_min=2000.0), process=small(sim.QCD, 100))
    return sim.simulate(recipe, 200, seed=5)


@pytest.mark.parametrize(("name", "mass", "daughters", "jets", "has_b"), CASES)
def test_signals_peak_at_their_masses(
    name: str, mass: float, daughters: dict[str, float], jets: tuple[float, float | None], has_b: bool
) -> None:
    sample = sim.simulate(sim.Recipe(small(sim.signal(name, mass, **daughters))), N, seed=3)
    events = sample.dijets.heavier_first()
    assert len(events) == N
    np.testing.assert_allclose(sample.partons.m_hat, mass, rtol=0.03)
    # Neutrinos, radiation out of the cone and radiation into the jets move the peak by less than a tenth.
    assert np.median(events.m_jj) == pytest.approx(mass, rel=0.1)
    assert np.mean(np.abs(events.m_jj / mass - 1.0) < 0.2) > 0.6
    # In about half of the events a jet holds its whole particle; in the others both miss a quark or carry radiation.
    m_sd = events.feature("m_sd")
    for expected in (m for m in jets if m is not None):
        near, above = ((np.abs(m_sd / m - 1.0) < 0.15).any(axis=1).mean() for m in (expected, 1.4 * expected))
        assert near > 0.35, f"{expected:g} GeV"
        if expected == max(m for m in jets if m is not None):
            assert above < 0.4 * near, f"{expected:g} GeV"
    assert (events.feature("b_tag").mean() > 0.3) == has_b
    assert np.all(events.label == 1)


def test_more_prongs_fill_higher_subjettiness() -> None:
    """tau_N falls off behind as many axes as there are quarks."""
    ratio = {}
    for name, feature in (("x_yy_4q", "tau21"), ("y_hh_4t", "tau21"), ("y_hh_4t", "tau43")):
        masses = {"y": 400.0, "y2": 400.0} if name == "x_yy_4q" else {"h": 400.0}
        events = sim.simulate(sim.Recipe(small(sim.signal(name, 3000.0, **masses))), N, seed=4).dijets
        ratio[name, feature] = np.median(events.feature(feature))
    assert ratio["x_yy_4q", "tau21"] < 0.35
    assert ratio["y_hh_4t", "tau21"] > 0.45
    assert ratio["y_hh_4t", "tau43"] > 0.6


def test_features_are_those_of_the_constituents(qcd_sample: sim.Sample) -> None:
    events = qcd_sample.dijets
    assert events.names == sim.FEATURES
    assert events.constituents is not None
    momenta = events.constituents.astype(np.float64)
    count = events.feature("n_const").astype(int)
    stored = (np.abs(momenta).sum(axis=3) > 0).sum(axis=2)
    np.testing.assert_array_equal(stored, np.minimum(count, sim.MAX_CONSTITUENTS))
    pt = np.hypot(momenta[..., 0], momenta[..., 1])
    assert np.all(np.diff(pt, axis=2) <= 0)
    # With all constituents there, they sum to the jet.
    whole = count <= sim.MAX_CONSTITUENTS
    total = momenta.sum(axis=2)
    energy = np.linalg.norm(momenta, axis=3).sum(axis=2)
    np.testing.assert_allclose(np.hypot(total[..., 0], total[..., 1])[whole], events.feature("pt")[whole], rtol=1e-5)
    mass = np.sqrt(np.maximum(energy**2 - (total**2).sum(axis=2), 0.0))
    np.testing.assert_allclose(mass[whole], events.feature("m")[whole], rtol=1e-3, atol=0.3)
    np.testing.assert_allclose(invariant_mass(events.jets[:, :, :4]), events.m_jj, rtol=1e-5)
    selection = sim.Selection(m_jj_min=2000.0)
    assert events.m_jj.min() >= selection.m_jj_min
    assert events.delta_eta.max() < selection.delta_eta_max
    assert np.all(np.diff(events.feature("pt"), axis=1) <= 0)
    assert np.all(events.feature("m_sd") <= events.feature("m") + 0.01)
    tau = events.features(("tau1", "tau2", "tau3", "tau4"))
    # One more axis can only help; the one-pass search for the axes misses the best ones now and then.
    assert np.mean(np.diff(tau, axis=2) < 1e-6) > 0.995
    # tau_1 cannot be more than its value about the jet's own axis.
    eta = np.arcsinh(momenta[..., 2] / np.where(pt > 0, pt, 1.0)) - events.feature("eta")[:, :, None]
    phi = np.arctan2(momenta[..., 1], momenta[..., 0]) - events.feature("phi")[:, :, None]
    apart = np.hypot(eta, (phi + np.pi) % (2 * np.pi) - np.pi)
    about_axis = (pt * apart).sum(axis=2) / (0.8 * pt.sum(axis=2))
    assert np.all(tau[..., 0][whole] < 1.1 * about_axis[whole] + 1e-3)


def test_generator_cuts_lose_little(qcd_sample: sim.Sample) -> None:
    selection = sim.Selection(m_jj_min=2000.0)
    partons = qcd_sample.partons
    usual = sim.GeneratorCuts.around(selection)
    assert np.all(usual.passes(partons))
    # Halfway to the selection little is lost yet, so that what the usual cuts lose is less.
    halfway = replace(usual, m_hat_min=0.75 * 2000.0, m_jj=(0.9 * 2000.0, usual.m_jj[1]))
    result = sim.closure(qcd_sample.dijets.m_jj, halfway.passes(partons), [2000.0, 2200.0, 2600.0, 6000.0])
    assert result.n.sum() == 200
    assert result.kept.sum() / result.n.sum() > 0.94
    # The test has teeth: cuts as tight as the selection lose a visible part at the edge, and the p-value sees it.
    tight = replace(usual, m_hat_min=2000.0, m_jj=(2000.0, 2e4))
    shaped = sim.closure(qcd_sample.dijets.m_jj, tight.passes(partons), [2000.0, 2200.0, 2600.0, 6000.0])
    assert shaped.ratio[0] < 0.8
    assert shaped.flat_p < 1e-4


def test_the_parton_dijet_is_close_to_the_final_one(qcd_sample: sim.Sample) -> None:
    ratio = qcd_sample.partons.parton_m_jj / qcd_sample.dijets.m_jj
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert np.mean(np.abs(ratio - 1.0) < 0.1) > 0.95


def test_sideband_in_delta_eta() -> None:
    recipe = sim.qcd(sim.Selection(m_jj_min=1500.0).sideband(), process=small(sim.QCD))
    events = sim.simulate(recipe, 40, seed=6).dijets
    assert np.all(events.in_sideband())
    assert not events.in_signal_region().any()


def test_pieces_do_not_depend_on_workers_and_are_taken_up_again(tmp_path: Path) -> None:
    recipe = sim.qcd(sim.Selection(m_jj_min=2000.0), process=small(sim.QCD, 10))
    one = sim.simulate(recipe, 25, seed=7, folder=tmp_path / "one")
    two = sim.simulate(recipe, 25, seed=7, workers=2, folder=tmp_path / "two")
    for name in ("jets", "m_jj", "constituents"):
        np.testing.assert_array_equal(getattr(one.dijets, name), getattr(two.dijets, name))
    assert one.sigma_fb == two.sigma_fb
    # Interrupted after the first piece: the others are made, the first is not touched.
    pieces = sorted((tmp_path / "one").iterdir())
    assert [p.name for p in pieces] == [f"piece_0000{i}.h5" for i in range(3)]
    before = pieces[0].stat().st_mtime_ns
    pieces[1].unlink()
    told: list[tuple[int, int]] = []
    again = sim.simulate(recipe, 25, seed=7, folder=tmp_path / "one", progress=lambda *a: told.append(a))
    np.testing.assert_array_equal(again.dijets.jets, one.dijets.jets)
    assert pieces[0].stat().st_mtime_ns == before
    assert told == [(3, 3)]
    # A longer sample begins with the shorter one; another seed or recipe does not mix in.
    longer = sim.simulate(recipe, 30, seed=7, folder=tmp_path / "one")
    np.testing.assert_array_equal(longer.dijets.jets[:25], one.dijets.jets)
    with pytest.raises(InputError, match="another recipe or seed"):
        sim.simulate(recipe, 25, seed=8, folder=tmp_path / "one")
    assert len(read(pieces[0])) == 10
    assert {p.suffix for p in (tmp_path / "one").iterdir()} == {".h5"}


def test_soft_drop_is_that_of_fastjet() -> None:
    import awkward as ak
    import fastjet
    import vector

    from l1ad.search.softdrop import soft_drop_mass

    vector.register_awkward()
    rng = np.random.default_rng(8)
    counts = rng.integers(1, 60, 60)
    n = counts.sum()
    pt, eta, phi = rng.exponential(20.0, n) + 0.5, rng.normal(0.0, 0.2, n), rng.normal(3.1, 0.2, n)
    fields = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "E": pt * np.cosh(eta)}
    jets = ak.unflatten(ak.zip(fields, with_name="Momentum4D"), counts)
    sequence = fastjet.ClusterSequence(jets, fastjet.JetDefinition(fastjet.cambridge_algorithm, 8.0))
    expected = sequence.exclusive_jets_softdrop_grooming(njets=1, beta=0.0, symmetry_cut=0.1, R0=0.8).msoftdrop
    momenta = np.stack([fields[c] for c in ("E", "px", "py", "pz")], axis=1)
    np.testing.assert_allclose(soft_drop_mass(momenta, counts), ak.to_numpy(expected).ravel(), rtol=1e-9, atol=1e-5)


def test_closure_statistic() -> None:
    rng = np.random.default_rng(9)
    edges = np.linspace(1000.0, 2000.0, 6)
    truth = np.array([0.9, 0.95, 0.99, 0.99, 0.99])
    covered, bounded, flat = np.zeros(5), 0, []
    n_toys = 400
    for _ in range(n_toys):
        m = rng.uniform(1000.0, 2000.0, 1500)
        cell = np.digitize(m, edges) - 1
        result = sim.closure(m, rng.random(1500) < truth[cell], edges)
        covered += (result.low <= truth) & (truth <= result.high)
        bounded += result.lost_at_most >= 0.1
        flat.append(sim.closure(m, rng.random(1500) < 0.97, edges).flat_p)
    # Clopper-Pearson covers at least as often as it says; the p-value of a flat loss is uniform.
    assert np.all(covered / n_toys > 0.65)
    assert bounded / n_toys > 0.93
    assert np.mean(np.array(flat) < 0.1) == pytest.approx(0.1, abs=0.05)
    m = np.repeat([1100.0, 1500.0], 1000)
    shaped = sim.closure(m, np.arange(2000) >= 100, [1000.0, 1300.0, 1600.0, 1900.0])
    np.testing.assert_allclose(shaped.ratio[:2], [0.9, 1.0])
    assert np.isnan(shaped.ratio[2])
    assert shaped.flat_p < 1e-10
    with pytest.raises(InputError, match="closure"):
        sim.closure([500.0], [True], [1000.0, 2000.0])


def test_refusals(tmp_path: Path) -> None:
    for name, arguments, message in [
        ("nothing", {}, "x_yy_4q"),
        ("x_yy_4q", {"z": 100.0}, "daughter"),
        ("y_hh_4t", {"h": 300.0}, "at least 350 GeV"),
        ("x_yy_4q", {"mass": 300.0}, "347 to 10880"),
        ("x_yy_4q", {"mass": float("nan")}, "mass"),
    ]:
        with pytest.raises(InputError, match=message):
            sim.signal(name, **arguments)
    with pytest.raises(InputError, match="rising positive"):
        sim.Selection(m_jj_min=2000.0, m_jj_max=1000.0)
    with pytest.raises(InputError, match="rising range"):
        sim.Selection(delta_eta_min=2.0)
    with pytest.raises(InputError, match="at least 1"):
        sim.simulate(sim.qcd(), 0, seed=1)
