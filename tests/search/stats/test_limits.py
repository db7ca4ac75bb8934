"""Limits against pyhf, against the exact counting formula, and with toys against both."""

from __future__ import annotations

import decimal

import numpy as np
import pytest
from scipy import stats

from l1ad.errors import InputError
from l1ad.search.errors import FitError
from l1ad.search.stats import limits
from l1ad.search.stats.crystal_ball import CrystalBall

pyhf = pytest.importorskip("pyhf", reason="pyhf (extra: search) is not installed")
# pyhf 0.7.6 still asks for a class that jsonschema has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")
pyhf.set_backend("numpy", "scipy")


def _pyhf_limits(model: limits.HistogramModel, counts: list[float], scan: np.ndarray) -> tuple[float, list[float]]:
    workspace = pyhf.Workspace(model.histfactory(counts))
    other = workspace.model()
    data = workspace.data(other)
    bounds = other.config.suggested_bounds()
    bounds[other.config.poi_index] = (0.0, float(scan[-1]) * 20)
    observed = pyhf.infer.intervals.upper_limits.toms748_scan(
        data, other, scan[0], scan[-1], rtol=1e-4, par_bounds=bounds
    )
    return float(observed[0]), [float(v) for v in observed[1]]


COUNTING = [
    (12, 10.0, 5.0, None),
    (3, 4.2, 1.0, None),
    (60, 50.0, 10.0, 7.0),
    (1020, 1000.0, 50.0, 60.0),
]


@pytest.mark.parametrize(("n", "b", "s", "sigma"), COUNTING)
def test_counting_limits_are_those_of_pyhf(n: float, b: float, s: float, sigma: float | None) -> None:
    uncorrelated = None if sigma is None else np.array([sigma])
    model = limits.HistogramModel(
        (
            limits.Sample("signal", np.array([s]), signal=True),
            limits.Sample("b", np.array([b]), uncorrelated=uncorrelated),
        )
    )
    ours = limits.asymptotic_limit(model, model.data([n]))
    theirs, bands = _pyhf_limits(model, [n], np.array([1e-3, 20.0 * np.sqrt(b + 9 + (sigma or 0) ** 2) / s]))
    assert ours.observed == pytest.approx(theirs, rel=0.005)
    np.testing.assert_allclose(ours.expected, bands, rtol=0.005)


def _shape_model() -> limits.HistogramModel:
    x = np.arange(8.0)
    background = 200.0 * np.exp(-0.4 * x)
    other = 30.0 * np.exp(-0.2 * x)
    signal = 12.0 * np.exp(-0.5 * (x - 4.0) ** 2)
    return limits.HistogramModel(
        (
            limits.Sample(
                "signal", signal, signal=True, normalisation={"lumi": (0.975, 1.025), "tag": (0.8, 1.3)},
                shape={"scale": (signal * np.linspace(1.1, 0.9, 8), signal * np.linspace(0.88, 1.12, 8))},
            ),
            limits.Sample(
                "qcd", background,
                shape={"slope": (background * np.linspace(0.9, 1.15, 8), background * np.linspace(1.08, 0.9, 8))},
            ),
            limits.Sample(
                "other", other, normalisation={"lumi": (0.975, 1.025), "cross section": (0.7, 1.4)},
                uncorrelated=0.15 * other,
            ),
        )
    )  # fmt: skip


@pytest.mark.parametrize("which", [-1, 0, 2, 4])
def test_shape_limits_are_those_of_pyhf(which: int) -> None:
    # pyhf's CLs must cross 5 % within half a per cent of our limit: quicker than its own root search, and as strict.
    model = _shape_model()
    counts = [238.0, 162, 118, 80, 60, 43, 28, 22]
    ours = limits.asymptotic_limit(model, model.data(counts))
    limit = ours.observed if which < 0 else ours.expected[which]
    workspace = pyhf.Workspace(model.histfactory(counts))
    other = workspace.model()

    def cls(strength: float) -> float:
        observed, band = pyhf.infer.hypotest(strength, workspace.data(other), other, return_expected_set=True)
        return float(observed if which < 0 else band[which])

    assert cls(limit * 1.005) < 0.05 < cls(limit * 0.995)


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.5])
def test_cls_values_are_those_of_pyhf(strength: float) -> None:
    model = _shape_model()
    counts = [238.0, 162, 118, 80, 60, 43, 28, 22]
    observed, expected = limits.asymptotic_cls(model, model.data(counts), strength)
    workspace = pyhf.Workspace(model.histfactory(counts))
    other = workspace.model()
    theirs, band = pyhf.infer.hypotest(strength, workspace.data(other), other, return_expected_set=True)
    assert observed == pytest.approx(float(theirs), rel=0.005)
    np.testing.assert_allclose(expected, [float(v) for v in band], rtol=0.005)


def test_expectation_and_gradient_of_the_model() -> None:
    model, rng = _shape_model(), np.random.default_rng(4)
    workspace = pyhf.Workspace(model.histfactory(np.ones(8)))
    other = workspace.model()
    for _ in range(20):
        strength, alphas, gammas = rng.uniform(0, 3), rng.uniform(-2, 2, 5), rng.uniform(0.5, 1.5, 8)
        theta = np.concatenate([alphas, gammas])
        values = dict(zip(model.gaussian_names, alphas))
        parameters = []
        for name in other.config.par_order:
            if name == "strength":
                parameters.append(strength)
            elif name.startswith("uncorrelated"):
                parameters.extend(gammas)
            else:
                parameters.append(values[name])
        rates, jacobian = model._rates(strength, theta)
        np.testing.assert_allclose(rates, other.expected_actualdata(parameters), rtol=1e-9)
        for i in range(theta.size):
            step = np.zeros(theta.size)
            step[i] = 1e-6
            numeric = (model._rates(strength, theta + step)[0] - model._rates(strength, theta - step)[0]) / 2e-6
            np.testing.assert_allclose(jacobian[:, 1 + i], numeric, atol=1e-5)


def test_exact_counting_limit() -> None:
    assert limits.counting_limit(0, 0.0) == pytest.approx(-np.log(0.05), rel=1e-9)
    assert limits.counting_limit(0, 12.0, signal=4.0) == pytest.approx(-np.log(0.05) / 4, rel=1e-9)
    # Without background CLs is the classical Poisson upper limit.
    assert limits.counting_limit(3, 0.0) == pytest.approx(stats.chi2.ppf(0.95, 8) / 2, rel=1e-9)
    for n, b in [(5, 3.2), (100, 90.0)]:
        mu = limits.counting_limit(n, b)
        assert stats.poisson.cdf(n, mu + b) / stats.poisson.cdf(n, b) == pytest.approx(0.05, rel=1e-8)


def test_toys_give_the_exact_counting_answer() -> None:
    model = limits.HistogramModel(
        (limits.Sample("signal", np.array([1.0]), signal=True), limits.Sample("b", np.array([3.2])))
    )
    rng = np.random.default_rng(8)
    result = limits.toy_cls(model, model.data([4]), 6.0, rng, n_toys=700)
    exact = stats.poisson.cdf(4, 9.2) / stats.poisson.cdf(4, 3.2)
    assert abs(result.cls - exact) < 4 * result.error
    assert result.error < 0.25 * exact
    assert result.failed == 0


def test_toy_limit_against_the_exact_one() -> None:
    model = limits.HistogramModel(
        (limits.Sample("signal", np.array([1.0]), signal=True), limits.Sample("b", np.array([20.0])))
    )
    value, error = limits.toy_limit(model, model.data([20]), np.random.default_rng(5), n_toys=250, points=6)
    exact = limits.counting_limit(20, 20.0)
    assert error < 0.15 * exact
    assert abs(value - exact) < 4 * error


def test_dijet_limit_agrees_with_a_template_where_the_background_is_known_well() -> None:
    edges = 1460.0 + 40.0 * np.arange(121)
    x = (edges[:-1] + 20) / 13000.0
    background = (1 - x) ** 9.5 / x**5.3
    background *= 2e5 / background.sum()
    peak = CrystalBall(4000.0, 120.0, 1.5, 5.0, 1.8, 8.0).probabilities(edges)
    dijet_model = limits.DijetModel(edges, peak, order=2)
    ours = limits.asymptotic_limit(dijet_model, background)
    template = limits.HistogramModel((limits.Sample("s", peak, signal=True), limits.Sample("b", background)))
    fixed = limits.asymptotic_limit(template, template.data(background))
    assert fixed.expected[2] < ours.expected[2] < 1.25 * fixed.expected[2]
    # Asimov data are the background itself: observed and median expected are one.
    assert ours.observed == pytest.approx(ours.expected[2], rel=2e-3)
    assert list(ours.expected) == sorted(ours.expected)


def test_workspace_is_valid() -> None:
    model = _shape_model()
    workspace = pyhf.Workspace(model.histfactory(np.ones(8)))
    assert workspace.model().config.poi_name == "strength"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ((limits.Sample("b", np.ones(2)),), "signal"),
        ((limits.Sample("s", np.ones(2), signal=True), limits.Sample("b", np.ones(3))), "bins"),
        ((limits.Sample("s", np.ones(2), signal=True), limits.Sample("b", -np.ones(2))), "negative"),
        ((limits.Sample("s", np.zeros(2), signal=True),), "no expected event"),
        ((limits.Sample("s", np.ones(2), signal=True, normalisation={"x": (0.0, 1.1)}),), "positive factors"),
        ((limits.Sample("s", np.ones(2), signal=True), limits.Sample("s", np.ones(2))), "differ"),
    ],
)
def test_models_that_cannot_be(samples: tuple[limits.Sample, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        limits.HistogramModel(samples)


def test_bad_input() -> None:
    model = limits.HistogramModel((limits.Sample("s", np.ones(2), signal=True), limits.Sample("b", np.ones(2))))
    with pytest.raises(InputError, match="bin 1"):
        model.data([1, -1])
    with pytest.raises(InputError, match="level"):
        limits.asymptotic_limit(model, model.data([1, 1]), level=0.3)
    with pytest.raises(InputError, match="strength"):
        limits.asymptotic_cls(model, model.data([1, 1]), 0.0)


def test_one_failure_does_not_hide_the_others() -> None:
    good = limits.HistogramModel((limits.Sample("s", np.ones(1), signal=True), limits.Sample("b", np.ones(1))))

    class Stuck(limits.HistogramModel):
        def strength_scale(self, data: np.ndarray) -> float:
            raise FitError(f"stuck on {data.size} numbers")

    stuck = Stuck(good.samples)
    results = limits.upper_limits([good, stuck], [good.data([2]), stuck.data([2])])
    assert isinstance(results[0], limits.Limit)
    assert isinstance(results[1], FitError)


@pytest.mark.parametrize(("n", "b"), [(0, 750.0), (0, 5e4), (100, 1500.0), (3, 900.0)])
def test_exact_limits_far_below_the_background(n: int, b: float) -> None:
    # In 60 digits, where no probability underflows.
    found = limits.counting_limit(n, b)
    with decimal.localcontext(prec=60):

        def below(mean: float) -> decimal.Decimal:
            m = decimal.Decimal(mean)
            term = total = decimal.Decimal(1)
            for k in range(1, n + 1):
                term = term * m / k
                total += term
            return total.ln() - m

        assert float((below(b + found) - below(b)).exp()) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "b", "level"), [(5, np.inf, 0.95), (5, np.nan, 0.95), (np.nan, 3.0, 0.95), (5, 3.0, 95), (5, 3.0, 1.0)]
)
def test_counting_limits_that_cannot_be(n: float, b: float, level: float) -> None:
    with pytest.raises(InputError, match=r"counting limit|level"):
        limits.counting_limit(n, b, level=level)


def test_a_deep_deficit_still_has_a_limit() -> None:
    model = limits.HistogramModel(
        (limits.Sample("s", np.array([1.0]), signal=True), limits.Sample("b", np.array([1e4])))
    )
    cls, _ = limits.asymptotic_cls(model, [0.0], 50.0)
    assert 0 <= cls < 1e-10
    found = limits.asymptotic_limit(model, [5000.0])
    # Seventy standard deviations below: any signal is far too much.
    assert 0 < found.observed < found.expected[0]


def test_toys_with_too_few_filled_bins_do_not_end_the_limit() -> None:
    edges = 1460.0 + 200.0 * np.arange(9)
    peak = CrystalBall(2000.0, 80.0, 1.5, 5.0, 1.5, 5.0).probabilities(edges)
    model = limits.DijetModel(edges, peak, 2)
    with pytest.raises(FitError, match="toys: "):
        limits.toy_cls(model, [4.0, 3, 1, 1, 0, 0, 0, 0], 3.0, np.random.default_rng(1), n_toys=60)
    with pytest.raises(InputError, match="strength, toys"):
        limits.toy_cls(model, [4.0, 3, 1, 1, 0, 0, 0, 0], -2.0, np.random.default_rng(1))


def test_data_of_another_model_are_refused() -> None:
    model = _shape_model()
    with pytest.raises(InputError, match="data"):
        limits.asymptotic_limit(model, np.ones(3))
    with pytest.raises(InputError, match="data"):
        limits.asymptotic_limit(model, np.full(model.data(np.ones(8)).shape, np.nan))
