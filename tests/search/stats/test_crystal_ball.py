"""The peak against scipy's one-sided Crystal Ball, numerical integrals and its own toys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from l1ad.errors import InputError
from l1ad.search.stats import crystal_ball as cb

PEAK = cb.CrystalBall(3000.0, 95.0, 1.1, 2.5, 1.8, 6.0)


def test_low_side_is_scipys_crystal_ball() -> None:
    ours = cb.CrystalBall(0.0, 1.0, 1.3, 3.2, 37.0, 5.0)
    x = np.linspace(-30, 6, 300)
    np.testing.assert_allclose(ours.density(x), stats.crystalball.pdf(x, 1.3, 3.2), rtol=1e-10)
    np.testing.assert_allclose(ours.cumulative(x), stats.crystalball.cdf(x, 1.3, 3.2), rtol=1e-9)


def test_high_side_is_the_mirror_of_the_low_side() -> None:
    mirror = cb.CrystalBall(-PEAK.mean, PEAK.sigma, PEAK.alpha_high, PEAK.n_high, PEAK.alpha_low, PEAK.n_low)
    x = np.linspace(1500, 6000, 200)
    np.testing.assert_allclose(PEAK.density(x), mirror.density(-x), rtol=1e-13)
    np.testing.assert_allclose(PEAK.cumulative(x), 1 - mirror.cumulative(-x), atol=1e-13)


def test_cumulative_is_the_integral_and_the_whole_is_one() -> None:
    for a, b in [(1000, 2500), (2500, 3000), (2950, 3300), (3300, 9000)]:
        numeric = integrate.quad(lambda m: float(PEAK.density(m)), a, b, epsrel=1e-11)[0]
        assert PEAK.probabilities([a, b])[0] == pytest.approx(numeric, rel=1e-8)
    assert float(PEAK.cumulative(-1e12)) == pytest.approx(0.0, abs=1e-9)
    assert float(PEAK.cumulative(1e12)) == pytest.approx(1.0, abs=1e-12)


def test_the_joints_are_smooth() -> None:
    for joint in (PEAK.mean - PEAK.alpha_low * PEAK.sigma, PEAK.mean + PEAK.alpha_high * PEAK.sigma):
        step = 1e-3
        left, centre, right = PEAK.density([joint - step, joint, joint + step])
        assert (right - centre) == pytest.approx(centre - left, rel=1e-4)


def _sample(peak: cb.CrystalBall, size: int, seed: int) -> np.ndarray:
    grid = np.linspace(peak.mean - 30 * peak.sigma, peak.mean + 30 * peak.sigma, 200_001)
    cumulative = peak.cumulative(grid)
    u = np.random.default_rng(seed).uniform(cumulative[0], cumulative[-1], size)
    return np.interp(u, cumulative, grid)


def test_fit_gives_back_the_shape() -> None:
    result = cb.fit(_sample(PEAK, 30_000, 1))
    assert abs(result.peak.mean - PEAK.mean) < 4 * result.errors[0]
    assert abs(result.peak.sigma - PEAK.sigma) < 4 * result.errors[1]
    assert result.chi2 / result.ndof < 1.4
    # What matters downstream is the integral over bins.
    edges = np.arange(2400.0, 3500.0, 50.0)
    np.testing.assert_allclose(result.peak.probabilities(edges), PEAK.probabilities(edges), atol=0.004)


def test_weights_count_as_events() -> None:
    m = _sample(PEAK, 6000, 2)
    once, thrice = cb.fit(m), cb.fit(m, weights=np.full(m.size, 3.0))
    assert thrice.peak.mean == pytest.approx(once.peak.mean, rel=1e-6)
    assert thrice.errors[0] == pytest.approx(once.errors[0], rel=1e-3)
    # A sample of another shape, weighted to this one, gives this shape.
    wide = cb.CrystalBall(3050.0, 140.0, 1.5, 3.0, 1.5, 5.0)
    m = _sample(wide, 60_000, 3)
    found = cb.fit(m, weights=PEAK.density(m) / wide.density(m))
    assert abs(found.peak.mean - PEAK.mean) < 5 * found.errors[0]
    assert abs(found.peak.sigma - PEAK.sigma) < 5 * found.errors[1]
    assert abs(cb.fit(m).peak.mean - PEAK.mean) > 10 * found.errors[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_tails_hold_no_more_than_the_sample_has_there(seed: int) -> None:
    # A Gaussian says nothing of the tails' powers: they must not put probability where no event is.
    rng = np.random.default_rng(seed)
    peak = cb.fit(rng.normal(3000.0, 90.0, 20_000)).peak
    assert peak.probabilities([2000.0, 4000.0])[0] == pytest.approx(1.0, abs=1e-6)
    m = _sample(PEAK, 5000, seed)
    peak = cb.fit(m).peak
    low, high = np.quantile(m, [0.005, 0.995])
    assert peak.probabilities([low, high])[0] == pytest.approx(0.99, abs=0.004)


def test_a_parameter_at_its_limit_has_no_error() -> None:
    found = cb.fit(np.random.default_rng(0).normal(3000.0, 90.0, 20_000))
    at_limit = [v > 99.9 for v in (found.peak.n_low, found.peak.n_high)]
    assert [bool(np.isnan(found.errors[i])) for i in (3, 5)] == at_limit
    assert any(at_limit)


def test_interpolation_is_exact_for_a_scaling_peak_and_refuses_to_extrapolate() -> None:
    def at(m: float) -> cb.CrystalBall:
        return cb.CrystalBall(0.98 * m, 0.03 * m, 1.2, 3.0, 1.5, 8.0)

    masses = (2000.0, 3000.0, 5000.0)
    table = cb.Interpolation(masses, tuple(at(m) for m in masses), (0.1, 0.3, 0.2))
    for m in (2000.0, 2300.0, 4100.0, 5000.0):
        assert np.allclose(list(vars(table.at(m)).values()), list(vars(at(m)).values()), rtol=1e-12)
    assert table.efficiency_at(3000.0) == pytest.approx(0.3)
    assert table.grid() == tuple(2000.0 + 100.0 * i for i in range(31))
    with pytest.raises(InputError, match="2000 to 5000 GeV"):
        table.at(1999.0)


def test_scale_and_resolution() -> None:
    moved = PEAK.shifted(scale=0.01, resolution=0.035)
    assert moved.mean == pytest.approx(3030.0)
    assert moved.sigma == pytest.approx(95.0 * 1.01 * 1.035)


@pytest.mark.parametrize(
    ("field", "value"), [("sigma", 0.0), ("n_low", 1.0), ("alpha_high", -1.0), ("mean", np.nan), ("n_high", np.inf)]
)
def test_shapes_that_are_none(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        cb.CrystalBall(**{**vars(PEAK), field: value})


@pytest.mark.parametrize("masses", [np.full(200, 3000.0), np.arange(50.0), np.full(200, np.nan)])
def test_samples_that_cannot_be_fitted(masses: np.ndarray) -> None:
    with pytest.raises(InputError, match="Crystal Ball fit"):
        cb.fit(masses)


def test_shapes_in_a_file(tmp_path: Path) -> None:
    table = cb.Interpolation((2000.0, 3000.0), (cb.CrystalBall(1980.0, 70.0, 1.1, 2.5, 1.8, 6.0), PEAK))
    table.write(tmp_path / "peaks.json")
    again = cb.Interpolation.read(tmp_path / "peaks.json")
    assert again == table
    # One mass alone is scaled.
    one = cb.Interpolation((3000.0,), (PEAK,)).at(1500.0)
    assert (one.mean, one.sigma, one.n_low) == pytest.approx((0.5 * PEAK.mean, 0.5 * PEAK.sigma, PEAK.n_low))
    content = (tmp_path / "peaks.json").read_text()
    for bad, message in (
        (content.replace("l1ad-peak-shapes", "other"), "format: found other"),
        (content.replace('"sigma"', '"sigmas"'), "shapes"),
        (content.replace("95.0", "-95.0"), "sigma"),
        ("{", "JSON"),
    ):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(InputError, match=message):
            cb.Interpolation.read(tmp_path / "bad.json")
