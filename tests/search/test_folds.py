"""Folds: balance, and every way of leaking that the ledger must catch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.search import folds
from l1ad.search.errors import LeakError


def _table(n: int = 400, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(n, 3)), "label": rng.integers(0, 2, n)}


def _mean_fit(train: folds.View, validation: folds.View, rng: np.random.Generator) -> folds.Scorer:
    centre = train["x"].mean(axis=0) + 1e-3 * validation["x"].mean() + 1e-6 * rng.normal()
    return lambda view: np.linalg.norm(view["x"] - centre, axis=1)


def test_folds_are_balanced_disjoint_and_complete() -> None:
    plan = folds.plan(np.arange(1003), np.random.default_rng(1))
    sizes = np.bincount(plan.outer)
    assert sizes.max() - sizes.min() <= 1
    splits = list(plan.splits())
    assert len(splits) == 20
    for s in splits:
        together = np.concatenate([s.train, s.validation, s.test])
        assert np.array_equal(np.sort(together), np.arange(1003))
        assert abs(s.validation.size - 1003 * 0.8 / 4) <= 5
    assert np.array_equal(np.sort(np.concatenate([s.test for s in splits[::4]])), np.arange(1003))


def test_scores_come_from_models_that_have_not_seen_the_event() -> None:
    table = _table()
    plan = folds.plan(np.arange(400), np.random.default_rng(1))
    result = folds.cross_score(table, plan, _mean_fit, seed=5)
    assert result.proof == folds.Proof(n_models=20, n_events=400, n_comparisons=1600)
    # By hand for one fold.
    by_hand = []
    for s in plan.splits():
        if s.outer == 2:
            rng = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(2, s.inner)))
            centre = table["x"][s.train].mean(axis=0) + 1e-3 * table["x"][s.validation].mean() + 1e-6 * rng.normal()
            by_hand.append(np.linalg.norm(table["x"][s.test] - centre, axis=1))
    np.testing.assert_allclose(result.scores[plan.outer == 2], np.mean(by_hand, axis=0), rtol=1e-12)


def test_scores_do_not_depend_on_the_executor() -> None:
    plan = folds.plan(np.arange(400), np.random.default_rng(1))
    here = folds.cross_score(_table(), plan, _mean_fit, seed=5)
    with ThreadPoolExecutor(3) as pool:
        there = folds.cross_score(_table(), plan, _mean_fit, seed=5, executor=pool)
    np.testing.assert_array_equal(here.scores, there.scores)


class _LeakyPlan(folds.FoldPlan):
    """A plan whose training rows include a tenth of the rows to be scored."""

    def splits(self):
        for s in super().splits():
            train = np.concatenate([s.train, s.test[: s.test.size // 10]])
            yield folds.Split(s.outer, s.inner, train, s.validation, s.test)


def test_a_leaking_split_is_caught() -> None:
    good = folds.plan(np.arange(400), np.random.default_rng(1))
    leaky = _LeakyPlan(good.ids, good.outer, good.inner, good.n_outer, good.n_inner)
    with pytest.raises(LeakError, match=r"20 of 20 models scored events they had seen: outer 0 inner 0 scored 8"):
        folds.cross_score(_table(), leaky, _mean_fit, seed=5)


def test_a_leak_through_validation_alone_is_caught() -> None:
    class Plan(folds.FoldPlan):
        def splits(self):
            for s in super().splits():
                yield folds.Split(s.outer, s.inner, s.train, np.append(s.validation, s.test[0]), s.test)

    good = folds.plan(np.arange(400), np.random.default_rng(1))
    leaky = Plan(good.ids, good.outer, good.inner, good.n_outer, good.n_inner)
    with pytest.raises(LeakError, match="scored 1 of them"):
        folds.cross_score(_table(), leaky, _mean_fit, seed=5)


def test_a_training_that_reaches_for_more_rows_is_caught() -> None:
    def greedy(train: folds.View, validation: folds.View, rng: np.random.Generator) -> folds.Scorer:
        everything = train.widened(np.arange(400))["x"]
        del validation, rng
        return lambda view: view["x"][:, 0] - everything.mean()

    plan = folds.plan(np.arange(400), np.random.default_rng(1))
    with pytest.raises(LeakError):
        folds.cross_score(_table(), plan, greedy, seed=5)


@pytest.mark.parametrize("extra", ["train", "validation"])
def test_reading_past_the_ledger_leaks_nothing(extra: str) -> None:
    """A fit that takes whole columns finds its own rows only, and a plan that puts test rows there is caught."""
    table = {**_table(), "number": np.arange(400)}
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def greedy(train: folds.View, validation: folds.View, rng: np.random.Generator) -> folds.Scorer:
        del rng
        # One honest reading, of the rows that a leaking plan would not spoil.
        _ = (validation if extra == "train" else train)["x"]
        arrays = {"number": train.columns["number"], "again": validation.columns["number"]}
        roots = {k: v if v.base is None else v.base for k, v in arrays.items()}
        assert np.array_equal(np.sort(roots["number"]), np.sort(roots["again"]))
        assert np.array_equal(train.ids, train.columns["number"])

        def score(view: folds.View) -> np.ndarray:
            found.append((roots["number"], view.columns["number"], train["number"]))
            return view["x"][:, 0]

        return score

    plan = folds.plan(np.arange(400), np.random.default_rng(1))
    assert folds.cross_score(table, plan, greedy, seed=5).proof.n_models == 20
    for s, (fitted, scored, trained) in zip(plan.splits(), found):
        assert np.array_equal(np.sort(fitted), np.sort(np.concatenate([s.train, s.validation])))
        assert np.array_equal(trained, s.train)
        assert np.array_equal(scored, s.test)
    assert len(found) == 20

    class Leaky(folds.FoldPlan):
        def splits(self):
            for s in super().splits():
                rows = {"train": s.train, "validation": s.validation}
                rows[extra] = np.union1d(rows[extra], np.arange(10))
                yield folds.Split(s.outer, s.inner, rows["train"], rows["validation"], s.test)

    leaky = Leaky(plan.ids, plan.outer, plan.inner, plan.n_outer, plan.n_inner)
    with pytest.raises(LeakError, match="scored events they had seen"):
        folds.cross_score(table, leaky, greedy, seed=5)


@pytest.mark.parametrize("row", [-1, 320])
def test_a_view_is_widened_within_its_table_only(row: int) -> None:
    plan = folds.plan(np.arange(400), np.random.default_rng(1))
    seen = []

    def fit(train: folds.View, validation: folds.View, rng: np.random.Generator) -> folds.Scorer:
        del validation, rng
        seen.append(train.widened(np.arange(320))["x"])
        train.widened([row])
        return len

    with pytest.raises(LeakError, match=rf"outer 0 inner 0 asked for row {row}: there are 320 rows"):
        folds.cross_score(_table(), plan, fit, seed=5)
    np.testing.assert_array_equal(seen[0], _table()["x"][plan.outer != 0])


def test_a_model_without_a_record_proves_nothing() -> None:
    plan = folds.plan(np.arange(400), np.random.default_rng(1))

    def from_elsewhere(train: folds.View, validation: folds.View, rng: np.random.Generator) -> folds.Scorer:
        del train, validation, rng
        return lambda view: view["x"][:, 0]

    with pytest.raises(LeakError, match="proves nothing"):
        folds.cross_score(_table(), plan, from_elsewhere, seed=5)


def test_an_event_stored_twice_stays_in_one_fold() -> None:
    ids = np.concatenate([np.arange(300), np.arange(100)])
    plan = folds.plan(ids, np.random.default_rng(3))
    assert np.array_equal(plan.outer[:100], plan.outer[300:])
    assert np.array_equal(plan.inner[:100], plan.inner[300:])
    # Under fresh numbers the copies would be a leak; identities from the content bring them together.
    table = _table()
    table["x"][300:] = table["x"][:100]
    by_content = folds.content_ids(table["x"])
    assert np.array_equal(by_content[300:], by_content[:100])
    assert np.unique(by_content).size == 300
    result = folds.cross_score(table, folds.plan(by_content, np.random.default_rng(3)), _mean_fit, seed=1)
    assert result.proof.n_events == 300


def test_copies_in_different_folds_are_caught_by_their_identity() -> None:
    good = folds.plan(np.arange(400), np.random.default_rng(1))
    ids = good.ids.copy()
    ids[np.flatnonzero(good.outer == 1)[0]] = ids[np.flatnonzero(good.outer == 0)[0]]
    bad = folds.FoldPlan(ids, good.outer, good.inner, good.n_outer, good.n_inner)
    with pytest.raises(LeakError):
        folds.cross_score(_table(), bad, _mean_fit, seed=5)


def test_selection_is_per_fold_and_has_the_fraction() -> None:
    rng = np.random.default_rng(2)
    plan = folds.plan(np.arange(5000), rng)
    # Each fold's model has its own scale: a common threshold would take everything from the last fold.
    scores = rng.uniform(size=5000) + 10.0 * plan.outer
    chosen = folds.select(scores, plan, 0.02)
    assert [int(chosen[plan.outer == k].sum()) for k in range(5)] == [20] * 5
    window = rng.uniform(size=5000) < 0.3
    chosen = folds.select(scores, plan, 0.1, within=window)
    assert chosen[window].mean() == pytest.approx(0.1, abs=0.01)
    assert chosen[~window].mean() == pytest.approx(0.1, abs=0.03)


def test_bad_input() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="at least 20"):
        folds.plan(np.arange(19), rng)
    with pytest.raises(InputError, match="at least 2"):
        folds.plan(np.arange(100), rng, n_outer=1)
    with pytest.raises(InputError, match="integers"):
        folds.plan(np.arange(100.0), rng)
    plan = folds.plan(np.arange(400), rng)
    with pytest.raises(InputError, match="column label"):
        folds.cross_score({"x": np.zeros(400), "label": np.zeros(3)}, plan, _mean_fit, seed=1)
    with pytest.raises(InputError, match="identical scores"):
        folds.select(np.ones(400), plan, 0.1)
    with pytest.raises(InputError, match="in the window"):
        folds.select(rng.uniform(size=400), plan, 0.1, within=np.zeros(400, bool))
    with pytest.raises(InputError, match="finite scores"):
        folds.cross_score(
            _table(), plan, lambda t, _v, _r: (t["x"], lambda view: np.full(len(view), np.nan))[1], seed=1
        )
