"""Global p-values against independent trials, Rice's formula and toys."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from l1ad.errors import InputError
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet, lookelsewhere
from l1ad.search.stats.crystal_ball import CrystalBall


def _gaussian_process(rng: np.random.Generator, curves: int) -> np.ndarray:
    """Stationary unit Gaussian curves of length 40 correlation lengths: white noise smoothed by a Gaussian."""
    step, length = 0.1, 40.0
    x = np.arange(-5, 5 + step, step)
    kernel = np.exp(-(x**2))  # autocorrelation exp(-d^2/2)
    kernel /= np.sqrt(np.sum(kernel**2))
    noise = rng.standard_normal((curves, int(length / step) + x.size))
    return np.array([np.convolve(row, kernel, mode="valid") for row in noise])


def test_upcrossings_follow_rice_and_gross_vitells_follows_the_toys() -> None:
    z = _gaussian_process(np.random.default_rng(1), 3000)
    rises = lookelsewhere.upcrossings(z, 1.0) - (z[:, 0] > 1.0)
    # Rice: length/(2 pi) sqrt(second derivative of the autocorrelation) exp(-u^2/2), and that derivative is 1.
    expected = (z.shape[1] - 1) * 0.1 / (2 * np.pi) * np.exp(-0.5)
    assert rises.mean() == pytest.approx(expected, rel=0.02)
    for level in (2.5, 3.0, 3.5):
        predicted = lookelsewhere.gross_vitells(level, float(rises.mean()), 1.0)
        counted = lookelsewhere.global_p(level, z.max(axis=1))
        assert predicted == pytest.approx(counted.p, abs=4 * np.sqrt(counted.p / counted.n_toys) + 0.5 * predicted**2)


def test_independent_trials_have_their_number_as_trial_factor() -> None:
    rng = np.random.default_rng(2)
    z_max = rng.standard_normal((40_000, 10)).max(axis=1)
    local = float(stats.norm.sf(2.5))
    found = lookelsewhere.global_p(2.5, z_max)
    exact = 1 - (1 - local) ** 10
    assert found.interval[0] - 0.001 < exact < found.interval[1] + 0.001
    assert lookelsewhere.trial_factor(exact, local) == pytest.approx(10, rel=0.04)


def test_over_windows() -> None:
    assert lookelsewhere.over_windows(1e-5, 4.0) == pytest.approx(4.8e-4)
    assert lookelsewhere.over_windows(0.1, 4.0) == 1.0
    assert lookelsewhere.trial_factor(0.1, 0.2) == 1.0


def test_scan_toys_are_standard_normal_at_each_mass() -> None:
    edges = 1460.0 + 60.0 * np.arange(60)
    x = (edges[:-1] + 30) / 13000.0
    expected = 2e4 * x**-5.5 / np.sum(x**-5.5)
    background = dijet.fit_background(expected, edges, 2)

    def shape(mass: float, e: np.ndarray) -> np.ndarray:
        return CrystalBall(mass, 0.04 * mass, 1.5, 5.0, 1.5, 5.0).probabilities(e)

    toys = lookelsewhere.scan_toys(background, [2200.0, 2600.0, 3000.0], shape, 120, np.random.default_rng(3))
    assert toys.failed == 0
    assert toys.z.shape == (120, 3)
    for column in toys.z.T:
        assert stats.kstest(column, "norm").pvalue > 0.01
    assert np.all(toys.z_max >= toys.z[:, 1])
    mean, error = lookelsewhere.mean_upcrossings(toys, 0.5)
    assert 0 < mean < 1
    assert 0 < error < 0.1


def test_bad_input() -> None:
    with pytest.raises(InputError, match="Gross-Vitells"):
        lookelsewhere.gross_vitells(1.0, 2.0, 1.5)
    with pytest.raises(InputError, match="toys"):
        lookelsewhere.global_p(1.0, [])
    with pytest.raises(InputError, match="trial factor"):
        lookelsewhere.trial_factor(0.1, 0.0)
    with pytest.raises(InputError, match="windows"):
        lookelsewhere.over_windows(0.1, 0.5)


def test_what_is_no_number_gives_no_p_value() -> None:
    nan = float("nan")
    with pytest.raises(InputError, match="statistic"):
        lookelsewhere.global_p(nan, [1.0, 2.0])
    with pytest.raises(InputError, match="Gross-Vitells"):
        lookelsewhere.gross_vitells(3.0, nan, 0.0)
    with pytest.raises(InputError, match="global p-value"):
        lookelsewhere.over_windows(0.1, nan)


def test_toys_with_too_few_filled_bins_are_counted_as_failed() -> None:
    edges = 1460.0 + 40.0 * np.arange(121)
    counts = np.zeros(120)
    counts[:8] = [3, 2, 2, 1, 0, 1, 0, 1]
    background = dijet.fit_background(counts, edges, 2)

    def shape(mass: float, e: np.ndarray) -> np.ndarray:
        return CrystalBall(mass, 0.04 * mass, 1.5, 5.0, 1.5, 5.0).probabilities(e)

    with pytest.raises(FitError, match=r"\d+ of 40 have a fit"):
        lookelsewhere.scan_toys(background, [1600.0], shape, 40, np.random.default_rng(1))
    # What is wrong with the question is no toy that failed.
    with pytest.raises(InputError, match="signal shape"):
        lookelsewhere.scan_toys(background, [1600.0], lambda _m, e: np.zeros(e.size - 1), 5, np.random.default_rng(1))
    with pytest.raises(InputError, match="9000 GeV"):
        lookelsewhere.scan_toys(background, [9000.0], shape, 5, np.random.default_rng(1))
