"""Crossings: Poisson numbers, class probabilities, weights that close."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from l1ad.errors import InputError
from l1ad.events.simulate.detector import Detector
from l1ad.events.simulate.library import Library
from l1ad.events.simulate.mixing import (
    SPIKE,
    Pool,
    class_probabilities,
    draw,
    draw_counts,
    hardest_pthat,
    make_pool,
    sampling_probabilities,
    systematic_sample,
)

DETECTOR = Detector(spikes=0.02)


@pytest.fixture(scope="module")
def pool(toy_libraries: list[Library]) -> Pool:
    return make_pool(toy_libraries, DETECTOR)


def test_strata_share_out_every_collision(pool: Pool, toy_libraries: list[Library]) -> None:
    members = np.concatenate([s.members for s in pool.strata])
    assert sorted(members) == list(range(sum(map(len, toy_libraries))))
    # one inelastic collision holds one collision on average, plus the spikes
    spikes = sum(s.fraction for s in pool.strata if s.name == SPIKE)
    assert pool.fractions.sum() - spikes == pytest.approx(1.0, rel=1e-12)
    assert np.all(np.diff(pool.fractions) <= 0)


def test_class_probabilities_against_enumeration() -> None:
    means = np.array([0.8, 0.5, 0.2])
    got = class_probabilities(np.array([1.0]), means)[0]
    want = np.zeros(3)
    for counts in itertools.product(range(14), repeat=3):
        probability = np.prod(stats.poisson.pmf(counts, means))
        rarest = max((k for k in range(3) if counts[k]), default=0)
        want[rarest] += probability
    np.testing.assert_allclose(got, want, atol=1e-10)
    assert class_probabilities(np.array([0.0, 7.0]), means).sum(axis=1) == pytest.approx([1.0, 1.0])


def test_natural_numbers_are_poisson(pool: Pool) -> None:
    n, mu = 4000, 20.0
    crossings = draw(pool, n, DETECTOR, np.random.default_rng(1), mu=mu, mu_spread=0.0)
    np.testing.assert_array_equal(crossings.weight, 1.0)
    pulls = (crossings.counts.mean(axis=0) - mu * pool.fractions) / np.sqrt(mu * pool.fractions / n)
    assert stats.chi2.sf((pulls**2).sum(), len(pulls)) > 1e-3
    variance = crossings.counts.sum(axis=1).var() / mu
    assert variance == pytest.approx(1.0, abs=5 * np.sqrt(2 / n))


def test_natural_classes_follow_their_probabilities(pool: Pool) -> None:
    n, mu = 5000, 30.0
    crossings = draw(pool, n, DETECTOR, np.random.default_rng(2), mu=mu, mu_spread=0.0)
    expected = n * class_probabilities(np.array([mu]), pool.fractions)[0]
    observed = np.bincount(crossings.hardest, minlength=len(expected))
    enough = expected > 5
    observed = np.append(observed[enough], observed[~enough].sum())
    expected = np.append(expected[enough], max(expected[~enough].sum(), 1e-9))
    keep = expected > 1
    assert stats.chisquare(observed[keep], expected[keep] * observed[keep].sum() / expected[keep].sum()).pvalue > 1e-3


def test_stratified_weights_close(pool: Pool) -> None:
    """Mean weight 1, and weighted class shares, numbers and pile-up as in nature; errors from independent chunks."""
    mu, spread = 30.0, 5.0
    probability = class_probabilities(np.random.default_rng(0).normal(mu, spread, 20000), pool.fractions).mean(axis=0)
    shares, numbers, total = [], [], []
    for seed in range(40):
        c = draw(pool, 500, DETECTOR, np.random.default_rng([3, seed]), mu=mu, mu_spread=spread, stratified=True)
        assert len(c) == 500
        shares.append(np.bincount(c.hardest, c.weight, len(probability)) / len(c))
        numbers.append((c.weight[:, None] * c.counts).mean(axis=0))
        total.append([c.weight.mean(), (c.weight * c.mu).mean()])

    def pulls(samples: list, want: np.ndarray) -> np.ndarray:
        values = np.array(samples)
        return (values.mean(axis=0) - want) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))

    assert np.abs(pulls(total, np.array([1.0, mu]))).max() < 4
    assert stats.chi2.sf((pulls(shares, probability) ** 2).sum(), len(probability)) > 1e-4
    assert np.abs(pulls(numbers, mu * pool.fractions)).max() < 4.5


def test_stratified_sample_populates_every_class(pool: Pool) -> None:
    c = draw(pool, 3000, DETECTOR, np.random.default_rng(4), stratified=True)
    wanted = 3000 * sampling_probabilities(52.0, pool.fractions)
    np.testing.assert_array_less(0.6 * wanted, np.bincount(c.hardest, minlength=len(wanted)))
    # nothing rarer than the class that was drawn
    assert (np.argmax(c.counts[:, ::-1] > 0, axis=1) == c.counts.shape[1] - 1 - c.hardest)[c.counts.any(axis=1)].all()


def test_truncated_poisson() -> None:
    mean, n = 0.7, 20000
    counts = draw_counts(np.tile([5.0, mean], (n, 1)), np.random.default_rng(5), np.ones(n, np.int64))
    observed = np.bincount(counts[:, 1], minlength=6)[:6]
    assert observed[0] == 0
    expected = stats.poisson.pmf(np.arange(6), mean) / (1 - np.exp(-mean)) * n
    assert stats.chisquare(observed[1:], expected[1:] * observed[1:].sum() / expected[1:].sum()).pvalue > 1e-3


def test_systematic_sample_has_the_inclusion_probabilities_it_says() -> None:
    size = np.array([0.1, 5.0, 1.0, 1.0, 2.0, 30.0, 0.5, 0.4])
    rng = np.random.default_rng(6)
    hits, repeats = np.zeros(len(size)), 4000
    for _ in range(repeats):
        chosen, share = systematic_sample(size, 4, rng)
        assert len(set(chosen)) == 4
        hits[chosen] += 1
    assert share.sum() == pytest.approx(4.0)
    assert share[5] == 1.0
    np.testing.assert_allclose(hits / repeats, share, atol=5 * 0.5 / np.sqrt(repeats))


def test_members_turn_and_mirror(pool: Pool) -> None:
    c = draw(pool, 500, DETECTOR, np.random.default_rng(7), mu=20.0)
    assert set(np.unique(c.turns)) == set(range(72))
    assert c.mirrors.mean() == pytest.approx(0.5, abs=0.03)
    assert len(c.events) == c.counts.sum() - c.counts[:, [s.name == SPIKE for s in pool.strata]].sum()
    top = hardest_pthat(pool, c)
    i = int(np.argmax(top))
    assert top[i] == pool.pthat[c.events[c.first[i] : c.first[i + 1]]].max()


def test_signal_comes_last_and_unscaled(toy_libraries: list[Library]) -> None:
    detector = replace(DETECTOR, out_of_time=0.1)
    pool = make_pool(toy_libraries[:1], detector, toy_libraries[1])
    c = draw(pool, 50, detector, np.random.default_rng(8), mu=5.0, signal=pool.signal[:50])
    np.testing.assert_array_equal(c.events[c.first[1:] - 1], pool.signal[:50])
    assert set(np.unique(c.scales)) == {np.float32(0.1), np.float32(1.0)}


def test_empty_crossings(pool: Pool) -> None:
    c = draw(pool, 20, DETECTOR, np.random.default_rng(9), mu=0.0)
    assert len(c.events) == 0
    np.testing.assert_array_equal(c.hardest, 0)
    np.testing.assert_array_equal(hardest_pthat(pool, c), 0)


def test_libraries_that_do_not_tile(toy_libraries: list[Library]) -> None:
    soft, q20, _, q50 = toy_libraries
    with pytest.raises(InputError, match="no qcd_30"):
        make_pool([soft, q20, q50], DETECTOR)
    with pytest.raises(InputError, match="soft"):
        make_pool([q20], DETECTOR)
