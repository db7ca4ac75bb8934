"""Weak supervision: it finds an injected signal and finds nothing without one; planing does what it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from l1ad.errors import InputError
from l1ad.search import folds, metrics, weak

TREES = weak.Trees(members=1, max_iterations=25, learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=40)


def _events(rng: np.random.Generator, n: int, n_signal: int) -> dict[str, np.ndarray]:
    """Background: four features that do not know the mass, a pt that does. Signal: in the window, narrow features."""
    label = (rng.uniform(size=n) < 0.4).astype(np.int8)
    jets = rng.normal(size=(n, 2, 4))
    pt = 500 + 200 * rng.exponential(size=(n, 2)) + 60 * label[:, None]
    truth = np.zeros(n, bool)
    rows = rng.choice(np.flatnonzero(label == 1), n_signal, replace=False)
    truth[rows] = True
    jets[rows] = 0.25 * rng.normal(size=(n_signal, 2, 4)) + np.array([1.8, -1.6, 1.5, 0.0])
    return {"jets": jets, "plane": pt, "label": label, "truth": truth}


def _cross(table: dict[str, np.ndarray], fit: folds.Fit, seed: int = 3) -> np.ndarray:
    columns = {k: v for k, v in table.items() if k != "truth"}
    plan = folds.plan(np.arange(len(table["label"])), np.random.default_rng(seed), n_outer=2, n_inner=2)
    return folds.cross_score(columns, plan, fit, seed=seed).scores


def test_cwola_finds_the_signal_it_was_never_told_of() -> None:
    rng = np.random.default_rng(1)
    table = _events(rng, 6000, 90)
    score = _cross(table, weak.cwola_hunting(TREES))
    window = table["label"] == 1
    curve = metrics.sic_curve(score[window], table["truth"][window])
    # 4 % signal in the window. A random score has a maximum near 1.
    assert curve.maximum > 3.0


def test_without_signal_the_selection_is_a_random_subset() -> None:
    rng = np.random.default_rng(2)
    table = _events(rng, 4000, 0)
    score = _cross(table, weak.cwola_hunting(TREES))
    window = table["label"] == 1
    # Scores are out of fold, so that over-training cannot make window events look special.
    assert stats.ks_2samp(score[window], score[~window]).pvalue > 0.01


def test_without_planing_the_classifier_learns_the_mass() -> None:
    # The control of the test above: give it the variable that knows the mass and planing is all that stands in between.
    rng = np.random.default_rng(4)
    table = _events(rng, 6000, 0)
    table["jets"][:, :, 0] = table["plane"]
    window = table["label"] == 1
    planed = _cross(table, weak.cwola_hunting(TREES))
    table["plane"] = rng.uniform(size=table["plane"].shape)
    unplaned = _cross(table, weak.cwola_hunting(TREES))
    auc = [
        stats.mannwhitneyu(s[window], s[~window]).statistic / (window.sum() * (~window).sum())
        for s in (planed, unplaned)
    ]
    assert abs(auc[0] - 0.5) < 0.03
    assert auc[1] > 0.55


def test_pair_of_masses() -> None:
    rng = np.random.default_rng(5)
    n = 10_000
    label = (rng.uniform(size=n) < 0.4).astype(np.int8)
    masses = np.sort(rng.exponential(60.0, size=(n, 2)) + 30.0, axis=1)
    rows = rng.choice(np.flatnonzero(label == 1), 120, replace=False)
    masses[rows] = rng.normal([200.0, 380.0], 10.0, size=(120, 2))
    truth = np.zeros(n, bool)
    truth[rows] = True
    score = _cross({"event": masses, "label": label, "truth": truth}, weak.cwola_pair(TREES))
    window = label == 1
    for fraction in weak.ATLAS_FRACTIONS:
        assert metrics.efficiency_at(score[window], truth[window], fraction) > 5 * fraction


def test_planing_weights_match_the_distributions() -> None:
    rng = np.random.default_rng(6)
    y = (rng.uniform(size=20_000) < 0.3).astype(np.int8)
    v = rng.exponential(200, y.size) + 100 * y
    w = weak.planing_weights(v, y, bins=25)
    edges = np.quantile(v[y == 1], np.linspace(0, 1, 26))
    one = np.histogram(v[y == 1], edges, weights=w[y == 1])[0]
    zero = np.histogram(v[y == 0], edges, weights=w[y == 0])[0]
    np.testing.assert_allclose(zero, one, rtol=1e-9)
    assert w[y == 1].min() == 1.0
    # Below 100 only label 0 has events: they must not pile up in the first bin.
    assert np.all(w[(y == 0) & (v < 100)] == 0)


def test_a_region_of_one_class_only_is_not_used() -> None:
    v = np.concatenate([np.linspace(0, 1, 50), np.linspace(0, 2, 50)])
    y = np.repeat([0, 1], 50).astype(np.int8)
    w = weak.planing_weights(v, y, bins=4)
    assert np.all(w[(y == 1) & (v > 1.55)] == 0)
    assert w[y == 0].sum() == pytest.approx(w[y == 1].sum())


def test_the_model_with_the_smallest_validation_loss_is_kept() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(600, 3))
    noise = weak.Samples(x, (rng.uniform(size=600) < 0.5).astype(np.int8), np.ones(600))
    other = weak.Samples(rng.normal(size=(600, 3)), (rng.uniform(size=600) < 0.5).astype(np.int8), np.ones(600))
    trees = weak.Trees(members=1, max_iterations=60, max_leaf_nodes=16)
    predict = trees.train(noise, other, np.random.default_rng(0))
    # On noise the best number of trees is about none: the prediction stays near one half.
    assert np.std(predict(other.x)) < 0.08


def test_without_early_stopping_all_trees_are_kept() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(600, 3))
    noise = weak.Samples(x, (rng.uniform(size=600) < 0.5).astype(np.int8), np.ones(600))
    other = weak.Samples(rng.normal(size=(600, 3)), (rng.uniform(size=600) < 0.5).astype(np.int8), np.ones(600))
    trees = weak.Trees(members=1, max_iterations=60, max_leaf_nodes=16, early_stopping=False)
    assert np.std(trees.train(noise, other, np.random.default_rng(0))(other.x)) > 0.1


def test_two_jets_by_the_larger_rank_or_by_their_sum() -> None:
    table = _events(np.random.default_rng(1), 1500, 60)
    scores = {c: _cross(table, weak.cwola_hunting(TREES, combine=c)) for c in ("max", "sum")}
    # The same trainings: the sum of two ranks is at least the larger one and at most twice it.
    assert np.all(scores["sum"] >= scores["max"] - 1e-9)
    assert np.all(scores["sum"] <= 2 * scores["max"] + 1e-9)


def test_scores_above_the_reference_keep_their_order() -> None:
    rank = weak._rank(np.array([0.1, 0.5, 0.91, 0.95]), np.linspace(0, 0.9, 10))
    assert np.all(np.diff(rank) > 0)
    assert rank[3] == pytest.approx(np.log(11), abs=1e-5)


def test_published_fractions() -> None:
    assert weak.PUBLISHED_FRACTIONS["A1"] == 0.01
    assert weak.PUBLISHED_FRACTIONS["B4"] == 0.03
    assert weak.PUBLISHED_FRACTIONS["A6"] == 0.05


def test_bad_input() -> None:
    table = _events(np.random.default_rng(0), 400, 0)
    table["label"][:] = 1
    with pytest.raises(InputError, match="events in the sidebands: found 0 outside of the fold"):
        _cross(table, weak.cwola_hunting(TREES))
    with pytest.raises(InputError, match="in sidebands"):
        _cross({"event": table["jets"][:, 0], "label": table["label"]}, weak.cwola_pair(TREES))
    apart = _events(np.random.default_rng(0), 400, 0)
    apart["plane"][apart["label"] == 1] += 1e4
    with pytest.raises(InputError, match="an overlap"):
        _cross(apart, weak.cwola_hunting(TREES))
    with pytest.raises(InputError, match="planing: values of label 1: found 1 that are all equal, expected at least 2"):
        weak.planing_weights([1.0, 2.0, 3.0], [1, 0, 0])
    with pytest.raises(InputError, match="planing"):
        weak.planing_weights(np.ones(4), [0, 0, 1, 1])
    with pytest.raises(InputError, match="both"):
        weak.planing_weights(np.arange(4.0), [1, 1, 1, 1])
    with pytest.raises(InputError, match="trees"):
        weak.Trees(members=0).train(
            *[weak.Samples(np.zeros((4, 1)), np.array([0, 1, 0, 1], np.int8), np.ones(4))] * 2, np.random.default_rng(0)
        )


@pytest.mark.slow
def test_the_dense_network_finds_the_signal_too() -> None:
    pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    table = _events(np.random.default_rng(1), 12_000, 240)
    score = _cross(table, weak.cwola_hunting(weak.Dense(epochs=8)))
    window = table["label"] == 1
    assert metrics.sic_curve(score[window], table["truth"][window]).maximum > 3.0


@pytest.mark.parametrize(("value", "name"), [(1, "window"), (0, "sidebands")])
def test_too_few_events_are_counted(value: int, name: str) -> None:
    table = _events(np.random.default_rng(0), 400, 0)
    table["label"][:] = 1 - value
    table["label"][[5, 50, 300]] = value
    with pytest.raises(InputError, match=rf"events in the {name}: found (\d) outside .*: (\d) to train with, (\d) to"):
        _cross(table, weak.cwola_hunting(TREES))
    # Spectators are no events of a sideband.
    table["label"][:] = -1
    table["label"][:200] = value
    with pytest.raises(InputError, match="found 0 outside of the fold that is scored"):
        _cross(table, weak.cwola_hunting(TREES))
