"""bench/search_dijet.py: its experiments without signal are what they say, and its verdicts can fail."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from l1ad.search import jets
from l1ad.search.stats import dijet

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    if not BENCH.is_dir():
        pytest.skip("bench/ is not part of this installation")
    sys.path.insert(0, str(BENCH))
    try:
        spec = importlib.util.spec_from_file_location("bench_search_dijet", BENCH / "search_dijet.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
    return module


@pytest.fixture(scope="module")
def pool() -> jets.Dijets:
    """Jets whose mass is a fraction of their pt that falls with the dijet mass."""
    rng = np.random.default_rng(1)
    mass = 1460 * rng.uniform(size=6000) ** (-1 / 5.5)
    mass = mass[mass < 6000]
    table = np.zeros((mass.size, 2, 4), np.float32)
    table[:, :, 0] = mass[:, None] / 2
    table[:, :, 1] = rng.uniform(-0.3, 0.3, (mass.size, 2))
    table[:, :, 3] = table[:, :, 0] * rng.exponential(0.1, (mass.size, 2)) * (1460 / mass[:, None])
    return jets.Dijets(table, ("pt", "eta", "phi", "m"), mass, np.zeros(mass.size, np.int8), np.ones(mass.size))


def test_experiments_have_fresh_masses_and_the_jets_that_go_with_them(bench: ModuleType, pool: jets.Dijets) -> None:
    counts, edges = dijet.histogram(pool.m_jj, 1460, 6000, width=20)
    truth = dijet.fit_background(counts, edges, 2)
    events = bench.pseudo_events(pool, truth, np.random.default_rng(2))
    # An event is known by its eta, which nothing changes.
    order = np.argsort(pool.feature("eta")[:, 0])
    rows = order[np.searchsorted(pool.feature("eta")[order, 0], events.feature("eta")[:, 0])]
    assert abs(len(events) - 0.9 * len(pool)) < 5 * np.sqrt(len(pool))
    assert np.unique(rows).size == rows.size
    cumulative = np.concatenate([[0.0], np.cumsum(truth.expected)]) / truth.expected.sum()
    assert stats.kstest(events.m_jj, lambda m: np.interp(m, truth.edges, cumulative)).pvalue > 0.01
    # All momenta of an event are scaled to the new mass, which lies near the old one.
    ratio = events.m_jj / pool.m_jj[rows]
    np.testing.assert_allclose(events.feature("pt"), pool.feature("pt")[rows] * ratio[:, None], rtol=1e-5)
    assert np.std(np.log(ratio)) < 2 * bench.MIXING
    # What depended on the mass still does.
    fraction = (events.feature("m") / events.feature("pt")).mean(axis=1)
    before = (pool.feature("m") / pool.feature("pt")).mean(axis=1)
    slope = [stats.spearmanr(*v).statistic for v in ((events.m_jj, fraction), (pool.m_jj, before))]
    assert slope[0] < 0.6 * slope[1] < 0


def test_scores_keep_their_dependence_on_the_mass(bench: ModuleType) -> None:
    rng = np.random.default_rng(5)
    mass = 1460 * rng.uniform(size=20_000) ** (-1 / 5.5)
    scores = 2 + 1.5 * np.log(mass) + (mass / 2000) ** 0.7 * rng.gumbel(size=mass.size)
    model = bench.ScoreModel.of(scores, mass)
    fresh = 1460 * rng.uniform(size=20_000) ** (-1 / 5.5)
    drawn = model.draw(fresh, rng)
    for low, high in ((1460, 1600), (1600, 2000), (2000, 3500)):
        one, two = scores[(mass > low) & (mass < high)], drawn[(fresh > low) & (fresh < high)]
        assert stats.ks_2samp(one, two).pvalue > 1e-3
    assert np.mean(drawn[fresh > 2000]) > np.mean(drawn[fresh < 1600]) + 0.3


def test_verdicts(bench: ModuleType) -> None:
    rng = np.random.default_rng(3)

    def runs(p: np.ndarray, flat: np.ndarray) -> list[dict[str, float]]:
        return [{"p_global": a, "p_local": a / 3, "z_centre": 0.0, "flat_p": b} for a, b in zip(p, flat)]

    def held(p: np.ndarray, flat: np.ndarray) -> list[bool]:
        return [good for _, good in bench.uniformity("VAE-QR", runs(p, flat))[0]]

    even = (np.arange(200) + 0.5) / 200
    assert held(even, even) == [True, True, True]
    # Some very small p-values among them; p-values that are too small throughout; a selection that follows the mass.
    assert held(np.where(even < 0.06, 0.001, even), even)[1] is False
    assert held(even**2, even)[0] is False
    assert held(even, rng.permutation(even) ** 4) == [True, True, False]


def test_labels_of_the_trainings(bench: ModuleType) -> None:
    rng = np.random.default_rng(4)
    truth = np.arange(1000) >= 900
    near = rng.uniform(size=1000) < 0.4
    inside = truth & (np.arange(1000) < 930)
    labels = {kind: bench.sic_labels(kind, near, truth, inside, rng) for kind in bench.SIC_KINDS}
    assert np.array_equal(labels["CWoLa"][inside], near[inside])
    assert np.all(labels["CWoLa"][truth & ~inside] == bench.methods.SPECTATOR)
    # As many of each class, and the window no more than its share.
    assert labels["idealised"][~truth].sum() == near[~truth].sum()
    assert 0.3 < labels["idealised"][~truth & near].mean() < 0.5
    assert np.all(labels["supervised"][truth] == 1)
    assert set(labels["supervised"][~truth & ~near]) == {-1}
