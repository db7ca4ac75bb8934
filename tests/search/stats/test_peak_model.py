"""A peak with systematic uncertainties: without any it is the plain model, with some the limits get weaker."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.search.stats import dijet, limits
from l1ad.search.stats.crystal_ball import CrystalBall
from l1ad.search.stats.peak_model import PeakModel, spurious_signal

EDGES = 1500.0 + 100.0 * np.arange(36)


def _peak(scale: float = 1.0, width: float = 1.0, edges: np.ndarray = EDGES) -> np.ndarray:
    return CrystalBall(3000.0 * scale, 100.0 * width, 1.3, 4.0, 1.6, 6.0).probabilities(edges)


def _background(total: float, edges: np.ndarray = EDGES) -> np.ndarray:
    shape = dijet.integrate(np.array([0.0, 9.0, 5.0]), edges)
    return shape * total / shape.sum()


def _model(n: int = 1, **changes: object) -> PeakModel:
    fields = {"edges": (EDGES,) * n, "shapes": (_peak(),) * n, "orders": (2,) * n, "shifts": ({},) * n}
    return PeakModel(**{**fields, **changes})


SHIFTS = {"scale": (_peak(0.99), _peak(1.01)), "resolution": (_peak(width=0.965), _peak(width=1.035))}


def test_without_systematics_it_is_the_plain_model() -> None:
    counts = np.random.default_rng(1).poisson(_background(3000.0) + 20 * _peak()).astype(float)
    plain = limits.asymptotic_limit(limits.DijetModel(EDGES, _peak(), 2), counts)
    ours = limits.asymptotic_limit(_model(), _model().data(counts))
    assert ours.observed == pytest.approx(plain.observed, rel=2e-3)
    np.testing.assert_allclose(ours.expected, plain.expected, rtol=2e-3)


def test_categories_of_equal_share_are_one_with_all_events() -> None:
    # Asimov data of two halves: the same information as the whole.
    whole = _background(4000.0)
    one = limits.asymptotic_limit(_model(), _model().data(whole)).expected[2]
    two = _model(2, shares=(0.5, 0.5))
    assert limits.asymptotic_limit(two, two.data(whole / 2, whole / 2)).expected[2] == pytest.approx(one, rel=2e-3)
    # A category without signal says nothing.
    uneven = _model(2, shares=(0.0, 1.0))
    alone = limits.asymptotic_limit(_model(), _model().data(0.1 * whole)).expected[2]
    assert limits.asymptotic_limit(uneven, uneven.data(0.9 * whole, 0.1 * whole)).expected[2] == pytest.approx(
        alone, rel=2e-3
    )


def test_each_uncertainty_weakens_the_limit() -> None:
    counts = _background(3000.0)
    plain = limits.asymptotic_limit(_model(), _model().data(counts)).expected[2]
    results = {}
    for name, model in {
        "scale": _model(shifts=({"scale": (_peak(0.97), _peak(1.03))},)),
        "luminosity": _model(normalisation={"luminosity": 0.3}),
        "spurious": _model(spurious=(20.0,)),
        "published": _model(shifts=(SHIFTS,), normalisation={"luminosity": 0.016}),
    }.items():
        results[name] = limits.asymptotic_limit(model, model.data(counts)).expected[2] / plain
    assert 1.0 < results["published"] < 1.05
    assert 1.01 < results["scale"] < 1.5
    assert 1.02 < results["luminosity"] < 1.5
    # A spurious signal of 20 events adds in quadrature to the statistical error of the yield.
    sigma = dijet.fit_peak(counts, EDGES, _peak(), 2).signal_error
    assert results["spurious"] == pytest.approx(np.hypot(sigma, 20.0) / sigma, rel=0.1)


def test_a_shift_in_the_data_pulls_its_parameter() -> None:
    model = _model(shifts=({"scale": SHIFTS["scale"]},))
    counts = _background(2000.0) + 2000.0 * _peak(1.01)
    fit = model.fit(model.data(counts))
    assert fit.nuisance[0] == pytest.approx(1.0, abs=0.25)
    assert fit.strength == pytest.approx(2000.0, rel=0.02)
    held = model.fit(model.data(counts), 1500.0)
    assert held.nll2 > fit.nll2 + 10


def test_the_gradient_is_exact() -> None:
    # Derivatives of the signal against finite differences.
    model = _model(shifts=(SHIFTS,), normalisation={"luminosity": 0.05}, spurious=(7.0,))
    assert model.names == ("resolution", "scale", "luminosity", "spurious_0")
    theta = np.array([0.3, -0.7, 1.2, 0.4])
    value, by_mu, by_theta = model._signal(0, 50.0, theta)
    h = 1e-6
    np.testing.assert_allclose((model._signal(0, 50.0 + h, theta)[0] - value) / h, by_mu, atol=1e-6)
    for i in range(4):
        step = theta + h * (np.arange(4) == i)
        np.testing.assert_allclose((model._signal(0, 50.0, step)[0] - value) / h, by_theta[i], atol=1e-4)


def test_a_peak_that_is_moved_far_is_never_negative() -> None:
    model = _model(shifts=(SHIFTS,), spurious=(10.0,))
    names = model.names
    for scale in (-4.0, 0.5, 4.0):
        for spurious in (-1.0, 0.0, 2.0):
            theta = np.array([{"scale": scale, "resolution": -2.0, "spurious_0": spurious}[n] for n in names])
            signal, _, _ = model._signal(0, 10.5, theta)
            # 10.5 events and a spurious signal of -10 or more: something is left, and nowhere less than nothing.
            assert signal.min() >= 0.0
            assert signal.sum() > 0.0


def test_toys_are_of_the_model() -> None:
    model = _model(spurious=(5.0,))
    nuisance = model.fit(model.data(_background(3000.0)), 0.0).nuisance
    rng = np.random.default_rng(2)
    toys = np.array([model.sample(30.0, nuisance, rng) for _ in range(200)])
    mean = model.expected(30.0, nuisance)
    assert np.all(np.abs(toys.mean(axis=0)[:-1] - mean[:-1]) < 6 * np.sqrt(np.maximum(mean[:-1], 0.05) / 200) + 0.02)
    assert np.std(toys[:, -1]) == pytest.approx(1.0, abs=0.15)


def test_spurious_signal() -> None:
    # None where the next function has nothing to add; some where the spectrum bends as only it can.
    peak = _peak()
    straight = _background(5000.0)
    assert abs(spurious_signal(straight, EDGES, peak, 2, 3)) < 0.05
    bent = dijet.integrate(np.array([0.0, 9.0, 5.0, 1.5]), EDGES)
    bent *= 5000.0 / bent.sum()
    assert abs(spurious_signal(bent, EDGES, peak, 2, 3)) > 3.0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="shapes"):
        _model(shapes=())
    with pytest.raises(InputError, match="shares"):
        _model(shares=(-1.0,))
    with pytest.raises(InputError, match="signal in some category"):
        _model(2, shares=(0.0, 0.0))
    with pytest.raises(InputError, match="1 % of the peak"):
        _model(shapes=(np.zeros(35),))
    with pytest.raises(InputError, match="data"):
        _model().data(np.ones(3))
    with pytest.raises(InputError, match="data"):
        _model().fit(np.ones(3))
    with pytest.raises(InputError, match="'jes'"):
        _model(shifts=({"jes": (_peak(0.99), _peak(1.01))},), normalisation={"jes": 0.1})


def test_a_signal_in_the_data_is_not_taken_for_a_fault_of_the_function() -> None:
    # Smooth counts of the function itself: with a peak of any size on top nothing is feigned.
    plain = _background(5000.0)
    for n in (0.0, 50.0, 400.0):
        assert abs(spurious_signal(plain + n * _peak(), EDGES, _peak(), 2, 3)) < 1.0
