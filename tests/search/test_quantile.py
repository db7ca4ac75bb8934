"""Quantile regression: flat where the score follows the mass, on its own events and on an independent sample."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.search import metrics, quantile


def _sample(rng: np.random.Generator, n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """A falling spectrum and a score whose scale and shape grow with the mass."""
    mass = 1400.0 * rng.uniform(size=n) ** (-1 / 5.5)
    mass = mass[mass < 6500]
    x = mass / 2000.0
    return mass, x**1.2 * np.exp(rng.normal(0.0, 0.3 + 0.1 * x))


def _edges(mass: np.ndarray, bins: int = 20) -> np.ndarray:
    edges = np.quantile(mass, np.linspace(0, 1, bins + 1))
    edges[0], edges[-1] = 0.0, 1e5
    return edges


def test_categories_are_flat_on_their_own_and_on_an_independent_sample() -> None:
    rng = np.random.default_rng(1)
    mass, score = _sample(rng)
    other_mass, other_score = _sample(rng)
    done = quantile.decorrelate(score, mass, rng)
    applied = done.curves.categories(other_score, other_mass)
    edges = _edges(mass)
    for level, expected in enumerate((0.10, 0.05, 0.01), start=1):
        for m, category in ((mass, done.category), (other_mass, applied)):
            flat = metrics.flatness(m, category >= level, edges)
            assert flat.p > 0.001, level
            assert np.mean(category >= level) == pytest.approx(expected, rel=0.1)
    np.testing.assert_array_equal(done.selected, done.category >= 1)


def test_a_broken_regression_fails_the_test_of_flatness() -> None:
    class Flat:
        """One threshold for all masses."""

        def predict(self, samples, quantiles, at, rng):
            values = np.array([[np.quantile(y, q) for q in quantiles] for _, y in samples])
            return np.repeat(values[:, :, None], at.size, axis=2)

    rng = np.random.default_rng(2)
    mass, score = _sample(rng)
    other_mass, other_score = _sample(rng)
    done = quantile.decorrelate(score, mass, rng, regression=Flat())
    edges = _edges(mass)
    assert metrics.flatness(mass, done.selected, edges).p < 1e-6
    assert metrics.flatness(other_mass, done.curves.categories(other_score, other_mass) >= 1, edges).p < 1e-6


def test_thresholds_come_from_the_other_folds() -> None:
    # An event of enormous score may move every threshold but its own fold's.
    rng = np.random.default_rng(3)
    mass, score = _sample(rng, 4000)
    plain = quantile.decorrelate(score, mass, np.random.default_rng(5), n_folds=4, quantiles=(0.9,))
    changed = score.copy()
    rows = np.flatnonzero(plain.fold == 2)
    changed[rows] = changed[rows] * 1.5
    moved = quantile.decorrelate(changed, mass, np.random.default_rng(5), n_folds=4, quantiles=(0.9,))
    np.testing.assert_array_equal(plain.fold, moved.fold)
    own = np.abs(moved.curves.coefficients - plain.curves.coefficients).max(axis=(1, 2))
    assert own[2] < 1e-6 * np.abs(plain.curves.coefficients).max()
    assert np.all(own[[0, 1, 3]] > 1e-3)


def test_the_polynomial_is_the_known_quantile() -> None:
    # Exponential scores around a parabola: every quantile is a parabola too, and so within the cubic.
    rng = np.random.default_rng(4)
    mass = rng.uniform(1500, 3500, 60_000)
    centre = 1.0 + (mass / 2000.0) ** 2
    score = centre + rng.exponential(0.5, mass.size)
    done = quantile.decorrelate(score, mass, rng)
    at = np.array([1700.0, 2300.0, 2900.0, 3300.0])
    expected = (1.0 + (at / 2000.0) ** 2)[:, None] - 0.5 * np.log(1.0 - np.array(quantile.PUBLISHED_QUANTILES))
    np.testing.assert_allclose(done.curves.thresholds(at), expected, atol=0.12)


def test_copies_of_an_event_share_a_fold() -> None:
    rng = np.random.default_rng(6)
    mass, score = _sample(rng, 3000)
    ids = np.arange(mass.size) // 2
    done = quantile.decorrelate(score, mass, rng, ids=ids, n_folds=3, quantiles=(0.9,))
    assert np.all(done.fold[0 : 2 * (mass.size // 2) : 2] == done.fold[1::2])


def test_beyond_the_data_the_threshold_stays() -> None:
    rng = np.random.default_rng(7)
    mass, score = _sample(rng, 5000)
    curves = quantile.decorrelate(score, mass, rng, n_folds=3).curves
    np.testing.assert_array_equal(curves.thresholds([1e4]), curves.thresholds([curves.high]))
    assert np.all(np.diff(curves.thresholds(np.linspace(1000, 8000, 50)), axis=1) >= 0)


def test_the_few_events_of_the_tail_are_selected_like_the_others() -> None:
    """Polynomials of single folds follow the last events of each, and would select half of them."""
    rng = np.random.default_rng(12)
    selected = total = 0
    for _ in range(12):
        mass = 1820.0 * rng.uniform(size=4000) ** (-1 / 7)
        done = quantile.decorrelate(rng.gumbel(size=mass.size), mass, rng, n_folds=8)
        tail = np.argsort(mass)[-10:]
        selected, total = selected + int(done.selected[tail].sum()), total + tail.size
    # 120 events, of which 12 with an error of 3.3 are expected.
    assert 0.02 < selected / total < 0.20


def test_bad_input() -> None:
    rng = np.random.default_rng(0)
    mass, score = _sample(rng, 3000)
    with pytest.raises(InputError, match="identical scores"):
        quantile.decorrelate(np.ones_like(score), mass, rng, n_folds=2)
    with pytest.raises(InputError, match="in each of 20 folds"):
        quantile.decorrelate(score, mass, rng)
    with pytest.raises(InputError, match="quantiles"):
        quantile.decorrelate(score, mass, rng, quantiles=(0.99, 0.9), n_folds=2)
    with pytest.raises(InputError, match="folds"):
        quantile.decorrelate(score, mass, rng, n_folds=1)
    with pytest.raises(InputError, match="finite"):
        quantile.decorrelate(np.full_like(score, np.nan), mass, rng)
    with pytest.raises(InputError, match="all equal"):
        quantile.decorrelate(score, np.full_like(mass, 2000.0), rng, n_folds=2)


@pytest.mark.slow
def test_the_published_network_is_flat_too() -> None:
    pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    rng = np.random.default_rng(8)
    mass, score = _sample(rng)
    done = quantile.decorrelate(score, mass, rng, regression=quantile.DenseQuantiles())
    assert metrics.flatness(mass, done.selected, _edges(mass)).p > 0.001
    assert np.mean(done.selected) == pytest.approx(0.1, rel=0.05)


def test_a_window_that_does_not_teach_cannot_raise_its_thresholds() -> None:
    rng = np.random.default_rng(11)
    mass, score = _sample(rng, 30_000)
    low, high = 2300.0, 2700.0
    inside = (mass >= low) & (mass < high)
    # A signal in the window: one event in five gets an enormous score.
    odd = inside & (rng.uniform(size=mass.size) < 0.2)
    changed = np.where(odd, 50.0, score)

    def kept(values: np.ndarray, learn: np.ndarray | None) -> float:
        done = quantile.decorrelate(values, mass, np.random.default_rng(1), learn=learn, n_folds=10)
        return float(np.mean(done.category[inside & ~odd] >= 1))

    # Interpolated thresholds keep what they should, and the signal has no part in them.
    assert kept(score, ~inside) == pytest.approx(0.1, abs=0.02)
    assert kept(changed, ~inside) == kept(score, ~inside)
    assert kept(changed, None) < 0.8 * kept(score, None)
    with pytest.raises(InputError, match="learn"):
        quantile.decorrelate(score, mass, rng, learn=np.ones(3, bool))
    with pytest.raises(InputError, match="events"):
        quantile.decorrelate(score, mass, rng, learn=mass > 6000)
