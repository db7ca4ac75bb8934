"""The bump hunter against pyBumpHunter, against its own full scan, and against what theory says of p-values."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from scipy import stats

from l1ad.errors import InputError
from l1ad.search.stats import bumphunter as bh

pyBumpHunter = pytest.importorskip("pyBumpHunter", reason="pyBumpHunter (extra: test) is not installed")


def _spectrum(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bins = int(rng.integers(20, 50))
    expected = 10 ** rng.uniform(2, 5) * np.exp(-np.arange(bins) * rng.uniform(0.05, 0.4))
    data = rng.poisson(expected)
    if seed % 2:
        at = int(rng.integers(3, bins - 5))
        data[at : at + 3] += rng.poisson(2 * np.sqrt(expected[at : at + 3]) + 1)
    return data, expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("options", [{}, {"mode": "deficit"}, {"sideband": True, "sideband_bins": 2}, {"scan_step": 2}])
def test_local_p_values_are_those_of_pybumphunter(seed: int, options: dict) -> None:
    data, expected = _spectrum(seed)
    theirs = pyBumpHunter.BumpHunter1D(
        rang=[0, data.size], bins=np.arange(data.size + 1.0), width_min=2, width_max=8, npe=0, nworker=1,
        mode=options.get("mode", "excess"), scan_step=options.get("scan_step", 1),
        use_sideband=options.get("sideband", False), sideband_width=options.get("sideband_bins"),
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.bump_scan(data, expected, is_hist=True, do_pseudo=False)
    windows = bh.Windows(width_min=2, width_max=8, **options)
    ours = bh.local_p_values(data, expected, windows)
    assert len(ours) == 7
    for (width,), p in ours.items():
        np.testing.assert_allclose(p, theirs.res_ar[width - 2], rtol=1e-9, atol=1e-15, err_msg=f"width {width}")
    bump = bh.scan(data, expected, windows)
    assert bump.p_local == pytest.approx(float(theirs.min_Pval_ar[0]), rel=1e-9, abs=1e-15)
    assert bump.low[0] == int(theirs.min_loc_ar[0])
    assert bump.high[0] - bump.low[0] == int(theirs.min_width_ar[0])
    assert bump.n_windows == sum(p.size for p in ours.values())


@pytest.mark.parametrize("seed", range(4))
def test_two_dimensions_against_pybumphunter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(12), np.arange(9), indexing="ij")
    expected = 300.0 * np.exp(-0.2 * x - 0.3 * y)
    data = rng.poisson(expected)
    data[4:6, 3:5] += 12
    theirs = pyBumpHunter.BumpHunter2D(
        rang=[[0, 12], [0, 9]], bins=[np.arange(13.0), np.arange(10.0)], width_min=[1, 1], width_max=[4, 3], npe=0,
        nworker=1,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.bump_scan(data, expected, is_hist=True, do_pseudo=False)
    windows = bh.Windows(width_max=(4, 3))
    ours = bh.local_p_values(data, expected, windows)
    for i, p in enumerate(ours.values()):
        np.testing.assert_allclose(p, theirs.res_ar[i], rtol=1e-9, atol=1e-15)
    bump = bh.scan(data, expected, windows)
    assert bump.p_local == pytest.approx(float(theirs.min_Pval_ar[0]), rel=1e-9)
    assert list(bump.low) == list(theirs.min_loc_ar[0])


@pytest.mark.parametrize(
    "expected",
    [
        1e6 * np.exp(-np.arange(35) * 0.3),
        3.0 * np.exp(-np.arange(20) * 0.5),
        np.full(30, 0.02),
        np.concatenate([[0, 0], np.full(10, 5.0), [0.0, 0.0, 7.0], [0.0]]),
        400.0 * np.exp(-0.4 * np.add.outer(np.arange(8), np.arange(7))),
        1e9 * np.exp(-np.arange(25) * 0.3),
    ],
    ids=["large", "small", "nearly empty", "with gaps", "two-dimensional", "very large"],
)
def test_the_screened_minimum_is_the_full_minimum(expected: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    size = 3000 if expected.max() < 1e8 else 300
    # An excess that a few thousand events show at once, or one of some sigma in a thousand million.
    excess = 1.05 if expected.max() < 1e8 else 1.0003
    counts = rng.poisson(expected[..., None] * excess, size=(*expected.shape, size))
    windows = bh.Windows()
    np.testing.assert_array_equal(
        bh._statistics_screened(counts, expected, windows), bh._statistics_plain(counts, expected, windows)
    )


def test_the_screen_is_an_upper_bound() -> None:
    m = 10.0 ** np.linspace(-6, 8, 60)
    slope, offset = bh._tangent(m)
    for z in np.linspace(0.0, 30.0, 61):
        n = m + z * np.sqrt(m) + 1e-6 * m
        r = np.sqrt(np.maximum(2 * (n * np.log(n / m) - n + m), 0))
        assert np.all(offset + slope * (n - m) >= r - 1e-7 * (1 + r))


def test_the_tabulated_generator_is_poisson() -> None:
    means = np.array([0.0, 0.3, 0.7, 4.0, 60.0, 3000.0, 2e4])
    drawn = bh._poisson(means, 200_000, np.random.default_rng(6))
    assert drawn[0].max() == 0
    for m, values in zip(means[1:], drawn[1:]):
        edges = np.unique(stats.poisson.ppf(np.linspace(0.001, 0.999, 25), m))
        observed = np.histogram(values, np.concatenate([[-1], edges, [np.inf]]) + 0.5)[0]
        expected = np.diff(np.concatenate([[0.0], stats.poisson.cdf(edges, m), [1.0]])) * values.size
        assert stats.chisquare(observed, expected).pvalue > 0.005
    # Above four standard deviations too.
    tail = stats.poisson.sf(95, 60.0) * 200_000
    assert abs(np.count_nonzero(drawn[4] > 95) - tail) < 5 * np.sqrt(tail) + 1


def test_p_values_of_background_are_uniform() -> None:
    expected = 1000.0 * np.exp(-np.arange(25) * 0.2)
    rng = np.random.default_rng(3)
    windows = bh.Windows(width_min=2, width_max=6)
    reference = bh.pseudo_experiments(expected, 20_000, rng, windows)
    trials = bh.pseudo_experiments(expected, 400, rng, windows)
    p = [(np.count_nonzero(reference >= t) + 1) / (reference.size + 1) for t in trials]
    assert stats.kstest(p, "uniform").pvalue > 0.05


def test_one_window_has_no_look_elsewhere_effect() -> None:
    expected = np.array([50.0, 50.0])
    found = bh.hunt([60, 62], expected, np.random.default_rng(0), windows=bh.Windows(2, 2), n_experiments=40_000)
    local = stats.poisson.sf(121, 100.0)
    assert found.bump.p_local == pytest.approx(local, rel=1e-9)
    assert found.p_global == pytest.approx(local, abs=4 * np.sqrt(local / 40_000))
    assert found.p_interval[0] < found.p_global < found.p_interval[1]


def test_a_bump_is_found_where_it_was_put() -> None:
    expected = 500.0 * np.exp(-np.arange(30) * 0.1)
    data = np.rint(expected)
    data[12:15] += 120
    found = bh.hunt(data, expected, np.random.default_rng(2), n_experiments=500)
    assert found.bump.low == (12,)
    assert found.bump.high == (15,)
    # Nothing came near: the interval says how little 500 experiments can exclude, the significance is a lower bound.
    assert found.p_global == 0.0
    assert found.p_interval[1] == pytest.approx(1 - 0.15865525393145707 ** (1 / 500), rel=1e-6)
    assert 2.5 < found.z_global < 3.0


def test_a_p_value_below_the_smallest_float_still_has_a_statistic() -> None:
    bump = bh.scan([3000.0, 1.0], [100.0, 1.0], bh.Windows(1, 1))
    assert bump.p_local == 0.0
    assert bump.statistic == pytest.approx(-stats.poisson.logpmf(3000, 100.0), rel=1e-3)
    assert bump.statistic < -stats.poisson.logpmf(3000, 100.0)


def test_rounding_does_not_make_an_expectation() -> None:
    # 0.1 + 0.2 - 0.1 - 0.2 is not 0 in floating point: a count in an empty window is not tested, it is not infinite.
    expected = np.array([0.1, 0.2, 0.7, 0.0, 0.0, 0.3, 1e3])
    data = np.array([0, 0, 1, 5, 5, 0, 1000])
    assert bh.scan(data, expected, bh.Windows(1, 2)).p_local > 1e-20


@pytest.mark.parametrize(
    ("data", "expected", "windows", "message"),
    [
        ([1, 2, -1], [1.0, 1, 1], bh.Windows(), "bin 2"),
        ([1, 2], [1.0, 1, 1], bh.Windows(), "shape"),
        ([1, 2, 1], [0.0, 0, 0], bh.Windows(), "empty histogram"),
        ([1, 2, 1], [1.0, 1, 1], bh.Windows(3, 2), "widths"),
        ([1, 2, 1], [1.0, 0, 0], bh.Windows(2, 2), "none fits"),
        ([[[1]]], [[[1.0]]], bh.Windows(), "dimensions"),
    ],
)
def test_what_cannot_be_scanned(data: list, expected: list, windows: bh.Windows, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bh.scan(data, expected, windows)


def test_sideband_experiments_have_as_many_events_as_the_data() -> None:
    # The expectation is of other units than the data: p-values are uniform all the same.
    rng = np.random.default_rng(7)
    shape = np.exp(-0.15 * np.arange(20))
    expected, mean = 1e6 * shape / shape.sum(), 60.0 * shape / shape.sum()
    windows = bh.Windows(width_max=5, sideband=True)
    p = [bh.hunt(rng.poisson(mean), expected, rng, n_experiments=200, windows=windows).p_global for _ in range(150)]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.075)
    toys = bh.hunt(rng.poisson(mean), expected, rng, n_experiments=2000, windows=windows).statistics
    same = bh.pseudo_experiments(mean, 2000, rng, windows)
    assert stats.ks_2samp(toys, same).pvalue > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "defizit"}, "mode: found defizit"),
        ({"sideband": True, "sideband_bins": -2}, "sideband_bins: found -2"),
        ({"width_min": [1, 1]}, "width_min"),
        ({"width_max": 0}, "width_max: found 0"),
        ({"scan_step": 0}, "scan_step: found 0"),
    ],
)
def test_windows_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bh.Windows(**options)


@pytest.mark.parametrize("wrong", [-1.0, np.nan])
def test_experiments_of_no_counts_are_refused(wrong: float) -> None:
    fine = np.full((5, 3), 2.0)
    bad = fine.copy()
    bad[2, 1] = wrong
    with pytest.raises(InputError, match="bin"):
        bh.statistics_of(bad, fine[:, 0])
    with pytest.raises(InputError, match="bin"):
        bh.statistics_of(fine, bad[:, 1])
