"""Closed forms against scipy, numerical profiling and exact sums."""

from __future__ import annotations

import decimal

import numpy as np
import pytest
from scipy import optimize, special, stats

from l1ad.errors import InputError
from l1ad.search.stats import significance as sig


@pytest.mark.parametrize("z", [-3.0, 0.0, 1.0, 5.0, 20.0, 35.0])
def test_z_and_p_are_inverse_in_the_far_tail_too(z: float) -> None:
    p = float(sig.p_from_z(z))
    assert p == pytest.approx(stats.norm.sf(z), rel=1e-12)
    assert float(sig.z_from_p(p)) == pytest.approx(z, abs=1e-9)


@pytest.mark.parametrize("bad", [-1e-9, 1.0 + 1e-9, np.nan])
def test_what_is_not_a_probability_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="p-value"):
        sig.z_from_p([0.1, bad])


def _profiled_z(s: float, b: float, error: float) -> float:
    """Likelihood ratio of the Asimov data of an on/off measurement, profiled numerically."""
    tau = b / error**2
    n, m = s + b, tau * b

    def nll(b_: float) -> float:
        return -(stats.poisson.logpmf(0, 0) + n * np.log(b_) - b_ + m * np.log(tau * b_) - tau * b_)

    fit = optimize.minimize_scalar(nll, bounds=(b / 10, 10 * (b + s)), method="bounded", options={"xatol": 1e-10})
    free = -(n * np.log(n) - n + m * np.log(m) - m)
    return float(np.sqrt(2 * (fit.fun - free)))


@pytest.mark.parametrize(("s", "b", "error"), [(10, 100, 10), (5, 1, 0.5), (50, 1000, 100), (3, 20, 2)])
def test_asimov_significance_with_a_background_error(s: float, b: float, error: float) -> None:
    assert float(sig.asimov_z(s, b, error)) == pytest.approx(_profiled_z(s, b, error), rel=1e-5)


def test_asimov_significance_limits() -> None:
    plain = float(sig.asimov_z(10, 100))
    assert plain == pytest.approx(np.sqrt(2 * (110 * np.log(1.1) - 10)), rel=1e-12)
    # A tiny error changes nothing; a large background gives s/sqrt(b), also where s/b is beyond double precision.
    assert float(sig.asimov_z(10, 100, 1e-4)) == pytest.approx(plain, rel=1e-6)
    assert float(sig.asimov_z(1e-3, 1e14)) == pytest.approx(1e-10, rel=1e-5)
    assert float(sig.asimov_z(0, 0)) == 0.0
    assert float(sig.asimov_z(1, 0)) == np.inf
    with pytest.raises(InputError, match="background"):
        sig.asimov_z(1, -1)


def test_counting_p_is_the_exact_sum() -> None:
    for n, b in [(0, 3.0), (1, 0.01), (7, 2.5), (40, 20.0)]:
        direct = 1.0 - sum(stats.poisson.pmf(k, b) for k in range(n))
        assert float(sig.counting_p(n, b)) == pytest.approx(direct, abs=1e-13)
    assert float(sig.counting_p(1000, 500.0)) == pytest.approx(stats.poisson.sf(999, 500.0), rel=1e-8)


def test_the_deviance_root_brackets_the_tail() -> None:
    rng = np.random.default_rng(5)
    b = 10 ** rng.uniform(-4, 6, 4000)
    n = np.floor(b + rng.uniform(0.5, 8, b.size) * np.sqrt(b)) + 1
    p = sig.counting_p(n, b)
    assert np.all(stats.norm.sf(sig.poisson_deviance_z(n, b)) <= p * (1 + 1e-9))
    inner = n - 1 >= b
    assert np.all(p[inner] <= stats.norm.sf(sig.poisson_deviance_z(n - 1, b))[inner] * (1 + 1e-9))


def test_binomial_interval_against_scipy() -> None:
    for k, n in [(0, 10), (3, 10), (10, 10), (1, 10_000)]:
        expected = stats.binomtest(k, n).proportion_ci(0.6826894921370859, "exact")
        assert sig.clopper_pearson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "edges", "message"),
    [
        ([1, -2, 3], None, "bin 1"),
        ([1, np.nan, 3], None, "bin 1"),
        ([0, 0], None, "empty histogram"),
        ([], None, "bins"),
        ([1, 2], [0, 1], "edges"),
        ([1, 2], [0, 2, 1], "do not increase"),
    ],
)
def test_histograms_that_cannot_be_used(counts: list[float], edges: list[float] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sig.check_histogram("spectrum", counts, edges)


def _log_tail(n: int, mean: float, upper: bool) -> float:
    """ln of a Poisson tail, summed in 50 digits from its largest term."""
    with decimal.localcontext(prec=50):
        d = decimal.Decimal
        m, k = d(mean), d(n if upper else n - 1)
        log_factorial = k * k.ln() - k + (2 * d(str(np.pi)) * k).ln() / 2 + 1 / (12 * k) - 1 / (360 * k**3)
        term = total = d(1)
        while term > d(10) ** -20:
            k = k + 1 if upper else k
            term = term * m / k if upper else term * k / m
            k = k if upper else k - 1
            total += term
        first = d(n if upper else n - 1)
        return float(first * m.ln() - m - log_factorial + total.ln())


@pytest.mark.parametrize("mean", [2e5, 1e8, 1e10])
@pytest.mark.parametrize("z", [4.5, 9.5, 30.0])
def test_tails_of_large_counts(mean: float, z: float) -> None:
    for upper in (True, False):
        n = int(mean + (1.0 if upper else -1.0) * z * np.sqrt(mean))
        exact = _log_tail(n, mean, upper)
        assert float(np.log(sig.poisson_tail(n, mean, upper=upper))) == pytest.approx(exact, abs=1e-5)
        assert float(sig.log_large_tail(n, mean, upper=upper)) == pytest.approx(exact, abs=1e-5)


def test_the_expansion_meets_the_incomplete_gamma_function() -> None:
    # Where both hold, a little above 1e5 and at four sigma, they are one function.
    mean = np.array([1.2e5, 1.5e5, 3e5])
    for upper, sign in ((True, 1.0), (False, -1.0)):
        n = np.floor(mean + sign * 4.2 * np.sqrt(mean))
        scipys = (special.gammainc if upper else special.gammaincc)(n, mean)
        np.testing.assert_allclose(sig.poisson_tail(n, mean, upper=upper), scipys, rtol=1e-10)
        np.testing.assert_allclose(np.exp(sig.log_large_tail(n, mean, upper=upper)), scipys, rtol=1e-10)
