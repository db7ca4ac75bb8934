"""Taggers: the frozen trigger as it is, rank correlations against scipy, perturbations with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from l1ad.errors import InputError
from l1ad.search import folds, weak
from l1ad.search.tagger import (
    Tagger,
    TaggerFit,
    TriggerTagger,
    perturbation_importance,
    score_correlation,
)


class _Trigger:
    """Stands for a frozen trigger: integer scores of hardware codes."""

    def score(self, hw: np.ndarray) -> np.ndarray:
        return hw[:, :, 0].astype(np.int64).sum(axis=1)


def _accepts(tagger: Tagger, x: np.ndarray) -> np.ndarray:
    return tagger.fit(x, rng=np.random.default_rng(0)).score(x)


def test_the_trigger_score_is_used_as_it_is() -> None:
    hw = np.random.default_rng(1).integers(0, 4000, size=(50, 19, 3), dtype=np.int16)
    tagger = TriggerTagger(_Trigger())
    np.testing.assert_array_equal(_accepts(tagger, hw), _Trigger().score(hw))
    assert tagger.fit(hw, rng=np.random.default_rng(0)) is tagger


def test_a_wrong_number_of_scores_is_refused() -> None:
    class Odd:
        def score(self, hw: np.ndarray) -> np.ndarray:
            return np.zeros(len(hw) + 1)

    with pytest.raises(InputError, match="scores"):
        TriggerTagger(Odd()).score(np.zeros((4, 19, 3)))


def test_correlation_is_scipys() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=200)
    scores = np.array([a, np.exp(a), -a, rng.normal(size=200), np.round(a)])
    ours = score_correlation(scores)
    np.testing.assert_allclose(ours, stats.spearmanr(scores, axis=1).statistic, atol=1e-12)
    assert ours[0, 1] == pytest.approx(1.0)
    with pytest.raises(InputError, match="identical scores"):
        score_correlation(np.array([a, np.ones(200)]))


def test_perturbation_of_a_linear_score() -> None:
    # For a linear score the mean change of feature k is |w_k| times the mean distance of the top events to the others.
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(4000, 3)), np.array([2.0, -1.0, 0.0])
    top = np.argsort(-(x @ w))[:20]
    distance = np.abs(x[top][:, None, :] - x[None, :, :]).mean(axis=(0, 1))
    found = perturbation_importance(lambda f: f @ w, x, rng, partners=400)
    np.testing.assert_allclose(found, np.abs(w) * distance, rtol=0.05)
    assert found[2] == 0.0


def test_a_frozen_trigger_scores_offline_what_it_scores_online() -> None:
    from l1ad import Trigger

    rng = np.random.default_rng(6)
    types = {
        "input": "ap_fixed<8,5,RND_CONV,SAT>", "weight": "ap_fixed<6,3>", "bias": "ap_fixed<10,7>",
        "relu": "ap_ufixed<10,6,RND_CONV,SAT>", "result": "ap_fixed<10,7,RND_CONV,SAT>",
    }  # fmt: skip
    weights = [rng.integers(-8, 8, (57, 5)), rng.integers(-8, 8, (5, 3))]
    scaling = {"offset": np.zeros(57), "shift": np.full(57, 3)}
    trigger = Trigger.from_layers(weights, [np.zeros(5, int), np.zeros(3, int)], types, scaling, name="small")
    hw = np.zeros((200, 19, 3), np.int16)
    hw[:, :, 0] = rng.integers(0, 200, (200, 19))
    scores = _accepts(TriggerTagger(trigger), hw)
    np.testing.assert_array_equal(scores, trigger.score(hw, golden=True))
    assert scores.dtype == np.float64
    assert np.ptp(scores) > 0


def test_any_tagger_is_scored_by_folds_that_did_not_see() -> None:
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, 3000).astype(np.int8)
    x = rng.normal(size=(3000, 2)) + 1.5 * label[:, None]
    columns = {"features": x, "label": label}
    plan = folds.plan(np.arange(3000), rng, n_outer=2, n_inner=2)
    tagger: Tagger = weak.WeakTagger(weak.Trees(members=1, max_iterations=20, max_leaf_nodes=4))
    done = folds.cross_score(columns, plan, TaggerFit(tagger, labels="label"), seed=1)
    assert done.proof.n_models == 4
    one, zero = done.scores[label == 1], done.scores[label == 0]
    auc = stats.mannwhitneyu(one, zero).statistic / (one.size * zero.size)
    # Two Gaussians at a distance of 1.5 in each of two coordinates: Phi(1.5 sqrt(2) / sqrt(2)).
    assert auc == pytest.approx(stats.norm.cdf(1.5), abs=0.02)
    with pytest.raises(InputError, match="call fit first"):
        tagger.score(x)
    with pytest.raises(InputError, match="labels"):
        tagger.fit(x, rng=rng)
    with pytest.raises(InputError, match="in sidebands"):
        tagger.fit(x, labels=np.ones(3000, np.int8), rng=rng)
