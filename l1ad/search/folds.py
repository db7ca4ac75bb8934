"""Folds without leaks: every event is scored by models that have never seen it, and that is proved, not assumed.

`plan` draws the folds, `cross_score` trains and scores with them, `Ledger.prove` compares what each model has seen with
what it scored, `select` keeps the highest scores of each fold so that the selected events of all folds can be merged.
A training is handed a table of its own rows and nothing else, so there is no test row in it to be read by mistake.

Outer folds: each is scored by models trained on the others. Inner folds: the others are divided once more, each part in
turn decides when a training stops and which epoch is kept while the rest trains; the scores of the inner models are
averaged. An event used to choose a model counts as seen by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.errors import LeakError

FloatArray = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Rows of one training: indices into the table, all three disjoint.

    Attributes
    ----------
    outer, inner : which fold is scored, and which part of the rest validates.
    train, validation, test : rows.
    """

    outer: int
    inner: int
    train: Index
    validation: Index
    test: Index

    @property
    def name(self) -> str:
        """The model's name in the ledger."""
        return f"outer {self.outer} inner {self.inner}"


@dataclass(frozen=True)
class FoldPlan:
    """Which event belongs to which fold.

    Attributes
    ----------
    ids : identity of each event, shape (n,); rows of one identity (an event stored twice) always share a fold.
    outer : outer fold of each row, shape (n,), from 0.
    inner : inner rank of each row, shape (n,): which part of the rest it belongs to when it is not scored.
    n_outer, n_inner : numbers of folds.
    """

    ids: npt.NDArray[np.int64]
    outer: npt.NDArray[np.int64]
    inner: npt.NDArray[np.int64]
    n_outer: int
    n_inner: int

    def splits(self) -> Iterator[Split]:
        """All n_outer x n_inner trainings."""
        for k in range(self.n_outer):
            test = np.flatnonzero(self.outer == k)
            for j in range(self.n_inner):
                validation = np.flatnonzero((self.outer != k) & (self.inner == j))
                train = np.flatnonzero((self.outer != k) & (self.inner != j))
                yield Split(k, j, train, validation, test)


def plan(ids: npt.ArrayLike, rng: np.random.Generator, *, n_outer: int = 5, n_inner: int = 4) -> FoldPlan:
    """Draw folds of equal size (to one event) for events with these identities.

    Raises
    ------
    InputError
        Fewer distinct events than n_outer x n_inner, or fewer than two folds of a kind.
    """
    identity = np.asarray(ids)
    if identity.ndim != 1 or not np.issubdtype(identity.dtype, np.integer):
        raise InputError("folds", "ids", f"{identity.dtype} {identity.shape}", "integers, one dimension")
    if n_outer < 2 or n_inner < 2:
        raise InputError("folds", "number", f"{n_outer} outer, {n_inner} inner", "at least 2 of each")
    unique, row = np.unique(identity, return_inverse=True)
    if unique.size < n_outer * n_inner:
        raise InputError(
            "folds", "events", unique.size, f"at least {n_outer * n_inner} for {n_outer} x {n_inner} folds"
        )
    place = rng.permutation(unique.size)
    # Dealing like cards keeps every outer fold, and every inner part of it, within one event of the others.
    return FoldPlan(
        ids=identity.astype(np.int64),
        outer=np.asarray((place % n_outer)[row], np.int64),
        inner=np.asarray((place // n_outer % n_inner)[row], np.int64),
        n_outer=n_outer,
        n_inner=n_inner,
    )


def content_ids(features: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """An identity for each row from its content, so that copies of an event under different numbers share a fold.

    Rows are equal if their bytes are; -0.0 and 0.0 count as equal.
    """
    values = np.ascontiguousarray(features)
    if values.ndim < 1 or values.shape[0] == 0:
        raise InputError("folds", "features", values.shape, "at least one row")
    if np.issubdtype(values.dtype, np.floating):
        values = values + 0.0
    rows = values.reshape(values.shape[0], -1)
    raw = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    return np.asarray(np.unique(raw, return_inverse=True)[1], np.int64).reshape(-1)


@dataclass
class Ledger:
    """What each model has seen and what it has scored, by identity.

    The only object here that changes: entries are added, never removed.
    """

    seen: dict[str, list[npt.NDArray[np.int64]]] = field(default_factory=dict)
    scored: dict[str, list[npt.NDArray[np.int64]]] = field(default_factory=dict)

    def note_seen(self, model: str, ids: npt.ArrayLike) -> None:
        """Record that `model` was given these events to train on or to be selected with."""
        _append(self.seen.setdefault(model, []), ids)

    def note_scored(self, model: str, ids: npt.ArrayLike) -> None:
        """Record that `model` scored these events for the result."""
        _append(self.scored.setdefault(model, []), ids)

    def merge(self, other: Ledger) -> None:
        """Add the entries of another ledger."""
        for mine, theirs in ((self.seen, other.seen), (self.scored, other.scored)):
            for name, entries in theirs.items():
                for ids in entries:
                    _append(mine.setdefault(name, []), ids)

    def prove(self) -> Proof:
        """Check that no model scored an event it had seen.

        Raises
        ------
        LeakError
            Naming the models and some of the events.
        """
        scored = {model: _distinct(entries) for model, entries in self.scored.items()}
        leaks = {model: np.intersect1d(ids, _distinct(self.seen.get(model, []))) for model, ids in scored.items()}
        bad = {model: ids for model, ids in leaks.items() if ids.size}
        if bad:
            model, ids = next(iter(bad.items()))
            some = ", ".join(str(i) for i in ids[:5])
            raise LeakError(
                f"{len(bad)} of {len(scored)} models scored events they had seen: {model} scored {ids.size} of "
                f"them, for example event {some}"
            )
        untrained = sorted(model for model in scored if not self.seen.get(model))
        if untrained:
            raise LeakError(f"nothing is recorded of what {untrained[0]} was trained on: the ledger proves nothing")
        return Proof(
            n_models=len(scored),
            n_events=int(_distinct(list(scored.values())).size),
            n_comparisons=sum(int(ids.size) for ids in scored.values()),
        )


def _append(entries: list[npt.NDArray[np.int64]], ids: npt.ArrayLike) -> None:
    values = np.asarray(ids, np.int64).ravel()
    # Reading several columns of one view gives the same rows again.
    if not any(np.array_equal(values, known) for known in entries):
        entries.append(values)


def _distinct(entries: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.unique(np.concatenate(entries)) if entries else np.empty(0, np.int64)


@dataclass(frozen=True)
class Proof:
    """That no event was scored by a model that had seen it.

    Attributes
    ----------
    n_models : models that were checked.
    n_events : distinct events that were scored.
    n_comparisons : pairs of event and model that were checked.
    """

    n_models: int
    n_events: int
    n_comparisons: int


@dataclass(frozen=True)
class View:
    """Some rows of a table; whatever is read through it is recorded as seen.

    The table of a training holds its training and its validation rows, that of its scorer the rows to be scored.

    Attributes
    ----------
    columns : arrays with the event as the first axis.
    rows : which rows of `columns`.
    ids : identity of every row of `columns`.
    ledger, model : where reading is recorded; None records nothing.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    rows: Index
    ids: npt.NDArray[np.int64]
    ledger: Ledger | None = None
    model: str = ""

    def __len__(self) -> int:
        return int(self.rows.size)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """The rows of one column (a copy)."""
        if name not in self.columns:
            raise InputError("folds", "column", name, f"one of {', '.join(sorted(self.columns))}")
        if self.ledger is not None:
            self.ledger.note_seen(self.model, self.ids[self.rows])
        return np.asarray(self.columns[name][self.rows])

    def widened(self, rows: npt.ArrayLike) -> View:
        """A view of other rows of the same table, recorded under the same model.

        Raises
        ------
        LeakError
            If the table has no such row: the others belong to events that this model may not see.
        """
        wanted = np.asarray(rows, np.intp)
        beyond = wanted[(wanted < 0) | (wanted >= self.ids.size)]
        if beyond.size:
            who = self.model or "a view"
            raise LeakError(f"{who} asked for row {beyond[0]}: there are {self.ids.size} rows that it may see")
        return View(self.columns, wanted, self.ids, self.ledger, self.model)


Scorer = Callable[[View], npt.NDArray[Any]]
#: Gets training rows, validation rows and random numbers; returns a function that scores other rows.
Fit = Callable[[View, View, np.random.Generator], Scorer]


@dataclass(frozen=True)
class CrossScores:
    """Scores of every event by models that had not seen it.

    Attributes
    ----------
    scores : mean over the inner models, shape (n,) or (n, ...) as the scorer returns.
    proof : that nothing leaked.
    """

    scores: FloatArray
    proof: Proof


def cross_score(
    columns: Mapping[str, npt.NDArray[Any]],
    folds: FoldPlan,
    fit: Fit,
    *,
    seed: int,
    executor: Executor | None = None,
) -> CrossScores:
    """Train n_outer x n_inner models and score each event with the ones that did not see it.

    Parameters
    ----------
    columns : arrays with the event as the first axis, all that `fit` and its scorer need.
    fit : see `Fit`; must be picklable for an executor of processes.
    seed : each training has its own generator from it, whatever the executor.

    Raises
    ------
    LeakError
        If the ledger shows that a model scored an event it had seen.
    InputError
        If a column has another length than the plan, or a scorer returns something that is not one finite number a row.
    """
    n = folds.ids.size
    for name, values in columns.items():
        if len(values) != n:
            raise InputError("folds", f"column {name}", f"{len(values)} rows", f"{n}, as the plan has")
    splits = list(folds.splits())
    arguments = [(columns, folds, s, fit, seed) for s in splits]
    results = list(map(_train, arguments)) if executor is None else list(executor.map(_train, arguments))
    ledger = Ledger()
    total: FloatArray | None = None
    for split, (scores, own) in zip(splits, results):
        ledger.merge(own)
        if total is None:
            total = np.zeros((n, *scores.shape[1:]))
        total[split.test] += scores / folds.n_inner
    proof = ledger.prove()
    if total is None or proof.n_events != np.unique(folds.ids).size:
        raise LeakError(f"{proof.n_events} of {np.unique(folds.ids).size} events were scored")
    return CrossScores(total, proof)


def train_one(
    columns: Mapping[str, npt.NDArray[Any]], folds: FoldPlan, split: Split, fit: Fit, *, seed: int
) -> tuple[Scorer, Ledger]:
    """One of the trainings of `cross_score`, by itself: its scorer, and what it has seen."""
    ledger = Ledger()
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split.outer, split.inner)))
    known = np.union1d(split.train, split.validation)
    table, ids = _rows_of(columns, known), folds.ids[known]
    train, validation = (
        View(table, np.searchsorted(known, rows), ids, ledger, split.name) for rows in (split.train, split.validation)
    )
    scorer = fit(train, validation, rng)
    if split.name in ledger.seen:
        # `columns` of a view can be read past the ledger: all of the table counts as seen.
        ledger.note_seen(split.name, ids)
    return scorer, ledger


def _rows_of(columns: Mapping[str, npt.NDArray[Any]], rows: Index) -> dict[str, npt.NDArray[Any]]:
    """A table of these rows alone: copies (`rows` are indices), through which the others cannot be reached."""
    return {name: np.asarray(values[rows]) for name, values in columns.items()}


def select(
    scores: npt.ArrayLike, folds: FoldPlan, fraction: float, *, within: npt.ArrayLike | None = None
) -> npt.NDArray[np.bool_]:
    """The events above the quantile 1 - `fraction` of their own outer fold: the merged selection of all folds.

    The threshold is set fold by fold, because scores of different models have different scales.

    Parameters
    ----------
    within : events that define the thresholds, a mass window for example; all if None. Events outside are selected by
        the same thresholds.

    Raises
    ------
    InputError
        A fraction outside (0, 1), no events to set a threshold with, or so many identical scores that the selected
        fraction is off by more than half.
    """
    s = np.asarray(scores, np.float64)
    inside = np.ones(s.shape, bool) if within is None else np.asarray(within, bool)
    if s.shape != folds.outer.shape or inside.shape != s.shape or not np.all(np.isfinite(s)):
        raise InputError("selection", "scores", f"shape {s.shape}", f"finite, shape {folds.outer.shape}")
    if not 0.0 < fraction < 1.0:
        raise InputError("selection", "fraction", fraction, "between 0 and 1")
    out = np.zeros(s.shape, bool)
    for k in range(folds.n_outer):
        fold = folds.outer == k
        reference = s[fold & inside]
        if reference.size * fraction < 1.0:
            expected = f"at least {int(np.ceil(1 / fraction))} for a fraction of {fraction:g}"
            raise InputError("selection", f"events of fold {k} in the window", reference.size, expected)
        threshold = np.quantile(reference, 1.0 - fraction, method="higher")
        share = float(np.mean(reference >= threshold))
        if share > 1.5 * fraction + 1.0 / reference.size:
            found = f"identical scores in fold {k}: {share:.3g} of the events share the threshold or are above"
            raise InputError("selection", "scores", found, f"a fraction of {fraction:g}")
        out |= fold & (s >= threshold)
    return out


def _train(
    arguments: tuple[Mapping[str, npt.NDArray[Any]], FoldPlan, Split, Fit, int],
) -> tuple[FloatArray, Ledger]:
    """One training: fit on the views, score the fold that was left out.

    The tables are copied here, in the worker, so that no more of them exist at a time than there are trainings.
    """
    columns, folds, split, fit, seed = arguments
    scorer, ledger = train_one(columns, folds, split, fit, seed=seed)
    unseen = View(_rows_of(columns, split.test), np.arange(split.test.size), folds.ids[split.test])
    scores = np.asarray(scorer(unseen), np.float64)
    if scores.shape[:1] != split.test.shape or not np.all(np.isfinite(scores)):
        raise InputError("folds", "scores", f"shape {scores.shape} or not finite", f"{split.test.size} finite scores")
    ledger.note_scored(split.name, folds.ids[split.test])
    return scores, ledger
