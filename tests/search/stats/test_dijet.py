"""The dijet fit against scipy's minimiser and quadrature, closed forms, and its own pulls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from l1ad.errors import InputError
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet
from l1ad.search.stats.crystal_ball import CrystalBall

EDGES = 1460.0 + 4.0 * np.arange(1301)
COARSE = 1460.0 + 40.0 * np.arange(121)


def _density(m: np.ndarray) -> np.ndarray:
    x = m / 13000.0
    return (1 - x) ** 9.5 / x ** (5.0 + 0.1 * np.log(x))


def _expected(edges: np.ndarray, total: float) -> np.ndarray:
    fine = np.linspace(edges[0], edges[-1], (edges.size - 1) * 20 + 1)
    cumulative = np.concatenate([[0], integrate.cumulative_simpson(_density(fine), x=fine)])
    cumulative = cumulative[1:] if cumulative.size > fine.size else cumulative
    values = np.diff(np.interp(edges, fine, cumulative))
    return values * total / values.sum()


def test_noiseless_spectrum_gives_its_parameters_back() -> None:
    expected = _expected(EDGES, 1e6)
    fit = dijet.fit_background(expected, EDGES, 3)
    np.testing.assert_allclose(fit.parameters[1:], [9.5, 5.0, 0.1], atol=2e-3)
    assert fit.chi2 == pytest.approx(0.0, abs=1e-3)
    # At the minimum of an extended likelihood the fit has as many events as the data.
    np.testing.assert_allclose(fit.expected.sum(), 1e6, rtol=1e-9)
    assert fit.edm < 1e-10


def test_bins_are_integrated_not_sampled() -> None:
    # In 500 GeV bins the value at the centre is off by several per cent.
    edges = 1500.0 + 500.0 * np.arange(12)
    fit = dijet.fit_background(_expected(edges, 1e6), edges, 3)
    np.testing.assert_allclose(fit.parameters[1:], [9.5, 5.0, 0.1], atol=5e-3)
    for low, high, expected in zip(edges, edges[1:], fit.expected):
        numeric = integrate.quad(lambda m: float(fit.density(m)), low, high, epsrel=1e-10)[0]
        assert expected == pytest.approx(numeric, rel=1e-8)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("total", [2e3, 1e6])
def test_minimum_is_that_of_scipy(order: int, total: float) -> None:
    counts = np.random.default_rng(order).poisson(_expected(COARSE, total))
    fit = dijet.fit_background(counts, COARSE, order)
    nodes, weights = np.polynomial.legendre.leggauss(6)
    m = COARSE[:-1, None] + 20.0 * (1 + nodes)
    x = m / 13000.0

    def nll(p: np.ndarray) -> float:
        exponent = sum(v * np.log(x) ** i for i, v in enumerate(p[2:]))
        mu = (20.0 * weights * np.exp(p[0] + p[1] * np.log1p(-x) - exponent * np.log(x))).sum(axis=1)
        return float(-stats.poisson.logpmf(counts, mu).sum())

    ours = nll(fit.parameters)
    other = optimize.minimize(
        nll, fit.parameters * 1.02, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-9}
    )
    assert ours <= other.fun + 1e-3
    assert fit.deviance == pytest.approx(
        2 * (ours + stats.poisson.logpmf(counts, np.maximum(counts, 1e-300)).sum()), abs=1e-5
    )


def test_covariance_is_the_spread_of_toys() -> None:
    expected = _expected(COARSE, 5e4)
    rng = np.random.default_rng(11)
    fits = [dijet.fit_background(rng.poisson(expected), COARSE, 2) for _ in range(150)]
    pulls = [
        (np.log(f.density(3000.0)) - np.log(dijet_density(3000.0, 5e4))) / f.fractional_error(3000.0) for f in fits
    ]
    assert abs(np.mean(pulls)) < 4 / np.sqrt(150)
    assert 0.78 < np.std(pulls) < 1.25


def dijet_density(mass: float, total: float) -> float:
    """Density of the two-parameter function that is closest to the truth, from a noiseless fit."""
    return float(dijet.fit_background(_expected(COARSE, total), COARSE, 2).density(mass))


def test_peak_on_noiseless_data_is_the_asimov_result() -> None:
    peak = CrystalBall(3000.0, 90.0, 1.3, 4.0, 1.6, 8.0).probabilities(COARSE)
    background = _expected(COARSE, 1e5)
    fit = dijet.fit_peak(background + 150 * peak, COARSE, peak, 3)
    assert fit.signal == pytest.approx(150.0, rel=0.02)
    assert fit.p0 == pytest.approx(stats.norm.sf(fit.z), rel=1e-9)
    # With the background known the significance would be larger, by little: the fit has a long lever arm.
    s = 150 * peak
    known = np.sqrt(2 * np.sum((s + background) * np.log1p(s / background) - s))
    assert 0.7 * known < fit.z < known


def test_pulls_and_p_values_without_signal() -> None:
    peak = CrystalBall(3000.0, 90.0, 1.3, 4.0, 1.6, 8.0).probabilities(COARSE)
    expected, rng = _expected(COARSE, 2e4), np.random.default_rng(7)
    fits = [dijet.fit_peak(rng.poisson(expected), COARSE, peak, 2) for _ in range(200)]
    pulls = np.array([f.signal / f.signal_error for f in fits])
    assert abs(pulls.mean()) < 0.25
    assert 0.85 < pulls.std() < 1.15
    assert stats.kstest([f.p0 for f in fits], "uniform").pvalue > 0.02


def test_a_deficit_keeps_the_expectation_positive() -> None:
    peak = CrystalBall(5800.0, 60.0, 1.3, 4.0, 1.6, 8.0).probabilities(COARSE)
    counts = np.rint(_expected(COARSE, 3e3))
    fit = dijet.fit_peak(counts, COARSE, peak, 2)
    assert fit.signal < 0.5
    assert fit.p0 > 0.2
    assert fit.at_limit
    assert np.all(fit.background + fit.signal * peak > -1e-9)


def test_a_peak_on_bins_without_events_converges_at_its_limit() -> None:
    # The likelihood is a straight line in the signal there: no curvature, and no error from it.
    counts = np.rint(_expected(COARSE, 400))
    peak = CrystalBall(4000.0, 60.0, 3.0, 4.0, 3.0, 8.0).probabilities(COARSE)
    peak = np.where(peak > 0.01, peak, 0.0)
    counts[peak > 0] = 0.0
    fit = dijet.fit_peak(counts, COARSE, peak, 2)
    assert fit.at_limit
    assert fit.signal_error == np.inf
    assert fit.signal < 0
    assert fit.p0 > 0.5
    # Brute force: the deviance at the limit, minimised over the background by scipy.
    start = dijet.fit_background(counts, COARSE, 2).parameters

    def deviance(p: np.ndarray) -> float:
        mu = np.maximum(dijet.integrate(p, COARSE) + fit.signal * peak, 1e-12)
        return float(2 * np.sum(mu - counts + np.where(counts > 0, counts * np.log(np.maximum(counts, 1) / mu), 0.0)))

    best = optimize.minimize(deviance, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-7})
    assert fit.deviance == pytest.approx(best.fun, abs=1e-3)


def test_toys_of_a_few_events_converge() -> None:
    rng, expected = np.random.default_rng(3), _expected(COARSE, 60)
    peaks = [CrystalBall(m, 0.035 * m, 1.2, 4.0, 1.6, 6.0).probabilities(COARSE) for m in (2900.0, 3300.0, 3700.0)]
    failed = 0
    for _ in range(40):
        counts = rng.poisson(expected)
        for peak in peaks:
            try:
                dijet.fit_peak(counts, COARSE, peak, 2)
            except FitError:
                failed += 1
    assert failed <= 1


def test_scan_finds_the_mass() -> None:
    def shape(mass: float, edges: np.ndarray) -> np.ndarray:
        return CrystalBall(mass, 0.03 * mass, 1.3, 4.0, 1.6, 8.0).probabilities(edges)

    counts = np.random.default_rng(3).poisson(_expected(COARSE, 1e5) + 250 * shape(3000.0, COARSE))
    scan = dijet.scan_masses(counts, COARSE, [2500.0, 2750.0, 3000.0, 3250.0, 3500.0], shape, 2)
    assert scan.masses[np.argmin(scan.p0)] == 3000.0
    assert scan.p0.min() < 1e-4
    assert scan.failed == ()


def test_f_test_and_the_rule() -> None:
    value, p = dijet.f_test(60.0, 32, 45.0, 31)
    assert value == pytest.approx(15.0 / (45.0 / 31))
    assert p == pytest.approx(stats.f.sf(value, 1, 31))
    assert dijet.f_test(40.0, 32, 45.0, 31) == (0.0, 1.0)
    # significant: precise enough, or at least not worse
    assert dijet.prefers_next(0.01, 0.1, 0.4)
    assert dijet.prefers_next(0.01, 0.9, 0.8)
    assert not dijet.prefers_next(0.01, 0.6, 0.7)
    # not significant: only to get below one half
    assert dijet.prefers_next(0.5, 0.6, 0.4)
    assert not dijet.prefers_next(0.5, 0.4, 0.1)
    assert not dijet.prefers_next(0.5, 0.9, 0.6)


def test_the_order_follows_the_spectrum() -> None:
    rng = np.random.default_rng(1)
    x = (COARSE[:-1] + 20) / 13000.0
    simple = x**-5.5 * (1 - x) ** 9
    assert dijet.choose_order(rng.poisson(simple * 1e4 / simple.sum()), COARSE, 3000.0).order == 2
    bent = x ** -(2.0 - 1.3 * np.log(x) - 0.35 * np.log(x) ** 2)
    choice = dijet.choose_order(rng.poisson(bent * 3e6 / bent.sum()), COARSE, 3000.0)
    assert choice.order > 2
    assert choice.fit.chi2_p > 0.01
    assert choice.fits[2].chi2_p < 1e-3
    assert choice.steps[0][:2] == (2, 3)


def test_orders_are_compared_in_the_same_bins() -> None:
    # A spectrum with a peak makes the orders expect different tails; the bins must not differ between them.
    peak = CrystalBall(2800.0, 80.0, 1.3, 4.0, 1.6, 8.0).probabilities(COARSE)
    rng = np.random.default_rng(5)
    for _ in range(10):
        choice = dijet.choose_order(rng.poisson(_expected(COARSE, 400) + 80 * peak), COARSE, 2800.0)
        ndof = [choice.fits[k].ndof for k in (2, 3, 4)]
        assert ndof == [ndof[0], ndof[0] - 1, ndof[0] - 2]
    # Twenty events leave the richest fit without a degree of freedom: it is not chosen, and nothing breaks.
    few = dijet.choose_order(rng.poisson(_expected(COARSE, 22)), COARSE, 2000.0)
    assert few.fits[4].ndof <= 0
    assert few.order < 4


def test_chi2_bins_are_the_published_ones_snapped() -> None:
    expected = _expected(EDGES, 1e8)
    first = dijet.chi2_bins(EDGES, expected)
    inside = [e for e in dijet.PUBLISHED_EDGES if e < EDGES[-1]]
    assert len(first) == len(inside)
    assert np.all(np.abs(EDGES[first] - inside) <= 2.0)
    sparse = dijet.chi2_bins(EDGES, _expected(EDGES, 500))
    sums = np.add.reduceat(_expected(EDGES, 500), sparse)
    assert np.all(sums >= 5)
    assert sparse[0] == 0


def test_histogram_range() -> None:
    counts, edges = dijet.histogram([1459.9, 1460.0, 1463.9, 1464.0, 1475.9, 1476.0], 1460, 1477)
    assert edges.tolist() == [1460, 1464, 1468, 1472, 1476]
    assert counts.sum() == 5  # numpy's last bin includes its upper edge


@pytest.mark.parametrize(
    ("counts", "edges", "order", "message"),
    [
        (np.full(50, -1.0), np.linspace(1500, 4000, 51), 3, "bin 0"),
        (np.zeros(50), np.linspace(1500, 4000, 51), 3, "empty histogram"),
        (np.ones(50), np.linspace(1500, 4000, 50), 3, "edges"),
        (np.ones(50), np.linspace(1500, 14000, 51), 3, "masses between"),
        (np.ones(50), np.linspace(1500, 4000, 51), 5, "2, 3 or 4"),
        (np.r_[np.ones(4), np.zeros(46)], np.linspace(1500, 4000, 51), 3, "filled bins"),
    ],
)
def test_spectra_that_cannot_be_fitted(counts: np.ndarray, edges: np.ndarray, order: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dijet.fit_background(counts, edges, order)


def test_signal_outside_of_the_range_is_refused() -> None:
    counts = _expected(COARSE, 1e4)
    with pytest.raises(InputError, match="signal shape"):
        dijet.fit_peak(counts, COARSE, CrystalBall(9000.0, 100.0, 1.5, 5.0, 1.5, 5.0).probabilities(COARSE), 2)
    with pytest.raises(InputError, match="signal mass"):
        dijet.choose_order(counts, COARSE, 9000.0)


def test_a_fit_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dijet, "_EDM_MAX", -1.0)
    counts = _expected(COARSE, 1e4)
    with pytest.raises(FitError, match=r"did not converge: 7 starting points"):
        dijet.fit_background(counts, COARSE, 3)
    monkeypatch.undo()
    good = dijet.fit_background(counts, COARSE, 3)
    assert good.attempts == 1


def test_a_peak_whose_tail_outlives_the_background_is_fitted() -> None:
    """A spectrum of some hundred events that ends steeply: a deficit may not be stopped by bins far above the peak."""
    edges = 1460.0 + 20.0 * np.arange(268)
    background = dijet.integrate(np.array([53.27, 98.396, -28.899, -4.3711]), edges)
    assert background.sum() == pytest.approx(200, abs=1)
    for seed in (2, 33, 50, 68, 87):
        toy = np.random.default_rng(seed).poisson(background).astype(float)
        for mass in (2900.0, 3300.0):
            peak = CrystalBall(0.99 * mass, 0.035 * mass, 1.2, 4.0, 1.6, 6.0).probabilities(edges)
            # The bins that a deficit would empty first lie far above it.
            assert edges[np.argmax(peak / background)] > 6000.0
            found = dijet.fit_peak(toy, edges, peak, 3)
            assert np.all((found.background + found.signal * peak)[toy > 0] > 0)
            assert found.deviance <= found.deviance_background + 1e-6


def test_a_richer_function_without_a_fit_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(3).poisson(_expected(COARSE, 5000))
    plain = dijet.choose_order(counts, COARSE, 2500.0, orders=(2, 3))
    whole = dijet.fit_background

    def some(counts: np.ndarray, edges: np.ndarray, order: int = 3, **more: float) -> dijet.BackgroundFit:
        if order == 4:
            raise FitError("dijet fit with 4 shape parameters did not converge")
        return whole(counts, edges, order, **more)

    monkeypatch.setattr(dijet, "fit_background", some)
    choice = dijet.choose_order(counts, COARSE, 2500.0)
    assert choice.order == plain.order
    assert set(choice.fits) == {2, 3}
    assert list(choice.failed) == [4]
    assert "did not converge" in choice.failed[4]
    assert choice.steps == plain.steps
    with pytest.raises(FitError, match="4 shape parameters"):
        dijet.choose_order(counts, COARSE, 2500.0, orders=(4,))


def test_spectra_of_a_few_events_have_an_order() -> None:
    for seed in range(12):
        counts = np.random.default_rng(seed).poisson(_expected(EDGES, 30))
        if np.count_nonzero(counts) >= 4:
            choice = dijet.choose_order(counts, EDGES, 2000.0)
            assert set(choice.fits) | set(choice.failed) == {2, 3, 4}


@pytest.mark.parametrize(
    ("low", "high", "width"), [(1460, np.inf, 4), (np.nan, 5000, 4), (1460, 5000, 0), (1460, 5000, -4)]
)
def test_ranges_that_are_none(low: float, high: float, width: float) -> None:
    with pytest.raises(InputError, match="low, high, width"):
        dijet.histogram([2000.0], low, high, width=width)


def test_a_background_of_another_spectrum_is_refused() -> None:
    counts = _expected(COARSE, 5000)
    peak = CrystalBall(2500.0, 90.0, 1.5, 5.0, 1.5, 5.0).probabilities(COARSE)
    moved = dijet.fit_background(counts, COARSE + 40.0, 3)
    with pytest.raises(InputError, match="another spectrum"):
        dijet.fit_peak(counts, COARSE, peak, 3, background=moved)
    with pytest.raises(InputError, match="bins"):
        dijet.choose_order([], [1.0], 2500.0)


def test_a_range_that_starts_below_the_spectrum_is_refused() -> None:
    expected = _expected(COARSE, 20_000)
    for seed in range(5):
        counts = np.random.default_rng(seed).poisson(expected)
        dijet.check_falling(counts, COARSE)
        # A peak is no turn-on; nor is a spectrum of a few events.
        peak = CrystalBall(3000.0, 100.0, 1.5, 5.0, 1.5, 5.0).probabilities(COARSE)
        dijet.check_falling(counts + np.round(300 * peak), COARSE)
        dijet.check_falling(np.random.default_rng(seed).poisson(expected / 1000.0) + 1, COARSE)
        # Selected from 2300 GeV on, but fitted from 1460.
        cut = np.where(COARSE[:-1] < 2300.0, 0, counts)
        with pytest.raises(InputError, match=r"low end at 1460 GeV: found 0 events below 15\d\d GeV"):
            dijet.check_falling(cut, COARSE)


def test_goodness_is_that_of_background_and_peak_together() -> None:
    peak = CrystalBall(2800.0, 95.0, 1.5, 5.0, 1.5, 5.0).probabilities(COARSE)
    p = []
    for seed in range(60):
        # Signal of twenty standard deviations: the background alone describes nothing, the two together all.
        counts = np.random.default_rng(seed).poisson(_expected(COARSE, 20_000) + 600 * peak)
        if seed < 3:
            assert dijet.fit_background(counts, COARSE, 3).chi2_p < 1e-6
        p.append(dijet.goodness(counts, COARSE, peak, 3))
    assert stats.kstest(p, "uniform").pvalue > 0.01
    # A second peak that nobody asked for is not described.
    other = CrystalBall(2000.0, 60.0, 1.5, 5.0, 1.5, 5.0).probabilities(COARSE)
    assert dijet.goodness(_expected(COARSE, 20_000) + 600 * other, COARSE, peak, 3) < 1e-6
    few = np.zeros(120)
    few[:5] = [3, 2, 1, 1, 1]
    assert np.isnan(dijet.goodness(few, COARSE, np.where(np.arange(120) < 3, 0.3, 0.0), 2))
