"""One interface for everything that gives an event an anomaly score.

`Tagger` is what a search asks for; `TriggerTagger` uses a frozen trigger's own integer score offline, as it is;
`TaggerFit` makes any tagger a k-fold one. numpy in, numpy out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.folds import Scorer, View

FloatArray = npt.NDArray[np.float64]


class Tagger(Protocol):
    """Something that learns from features, if it has to, and scores them: the larger, the more anomalous."""

    def fit(
        self,
        features: npt.NDArray[Any],
        *,
        labels: npt.NDArray[Any] | None = None,
        weights: npt.NDArray[Any] | None = None,
        rng: np.random.Generator,
    ) -> Tagger:
        """A trained tagger; the one it is called on does not change.

        Parameters
        ----------
        features : shape (n, ...).
        labels : 1 for the sample that may hold signal, 0 for the reference; None if the tagger needs none.
        weights : of the events, None for 1.
        """
        ...

    def score(self, features: npt.NDArray[Any]) -> FloatArray:
        """One score an event, shape (n,)."""
        ...


class HasScore(Protocol):
    """The part of a trigger that a search uses."""

    def score(self, events: Any, /) -> npt.NDArray[Any]:
        """Integer scores, shape (n,)."""
        ...


@dataclass(frozen=True)
class TriggerTagger:
    """A frozen trigger as a tagger: nothing is trained, the score is the integer of the firmware.

    Attributes
    ----------
    trigger : a `Trigger`, or anything with its ``score(hw)``.
    """

    trigger: HasScore

    def fit(
        self,
        features: npt.NDArray[Any],  # noqa: ARG002
        *,
        labels: npt.NDArray[Any] | None = None,  # noqa: ARG002
        weights: npt.NDArray[Any] | None = None,  # noqa: ARG002
        rng: np.random.Generator,  # noqa: ARG002
    ) -> TriggerTagger:
        """Itself: a trigger that is frozen learns nothing."""
        return self

    def score(self, features: npt.NDArray[Any]) -> FloatArray:
        """The trigger's score of hardware codes (n, objects, 3), in units of its LSB; exact in float64."""
        scores = np.asarray(self.trigger.score(features))
        if scores.shape != (len(features),):
            raise InputError("trigger as a tagger", "scores", scores.shape, f"({len(features)},)")
        return scores.astype(np.float64)


@dataclass(frozen=True)
class TaggerFit:
    """A tagger as a `Fit` for `l1ad.search.folds.cross_score`, so that no event is scored by a tagger that saw it.

    It trains on the training rows alone; a tagger that has to choose when to stop divides them itself.

    Attributes
    ----------
    tagger : untrained.
    features, labels, weights : names of the columns; None where the tagger needs none.
    """

    tagger: Tagger
    features: str = "features"
    labels: str | None = None
    weights: str | None = None

    def __call__(self, train: View, validation: View, rng: np.random.Generator) -> Scorer:  # noqa: ARG002
        """Train, and score what comes."""
        trained = self.tagger.fit(
            train[self.features],
            labels=None if self.labels is None else train[self.labels],
            weights=None if self.weights is None else train[self.weights],
            rng=rng,
        )
        return lambda view: trained.score(view[self.features])


def score_correlation(scores: npt.ArrayLike) -> FloatArray:
    """Spearman rank correlation between taggers, shape (taggers, taggers).

    Parameters
    ----------
    scores : shape (taggers, n), n at least 3.

    Raises
    ------
    InputError
        If a tagger gives all events one score, for then no correlation exists.
    """
    from scipy.stats import rankdata

    s = np.asarray(scores, np.float64)
    if s.ndim != 2 or s.shape[1] < 3 or not np.all(np.isfinite(s)):
        raise InputError("score correlation", "scores", f"shape {s.shape}", "finite, (taggers, at least 3 events)")
    constant = np.flatnonzero(np.ptp(s, axis=1) == 0)
    if constant.size:
        raise InputError("score correlation", f"tagger {int(constant[0])}", "identical scores", "scores that differ")
    return np.atleast_2d(np.corrcoef(rankdata(s, axis=1)))


def perturbation_importance(
    score: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    features: npt.NDArray[Any],
    rng: np.random.Generator,
    *,
    top_fraction: float = 0.005,
    partners: int = 100,
) -> FloatArray:
    """Mean absolute change of the score when one feature is taken from another event.

    For each of the most anomalous events, each feature in turn is replaced by that of `partners` random events
    (CMS-MLG-23-002: top 0.5 %, 100 partners).

    Parameters
    ----------
    features : shape (n, k).

    Returns
    -------
    Shape (k,), in units of the score.
    """
    x = np.asarray(features)
    if x.ndim != 2 or x.shape[0] < 2 or not 0 < top_fraction <= 1 or partners < 1:
        raise InputError("perturbation", "features", x.shape, "(n, k) with n >= 2, 0 < fraction <= 1, partners >= 1")
    nominal = np.asarray(score(x), np.float64)
    n_top = max(int(np.ceil(top_fraction * x.shape[0])), 1)
    top = np.argsort(-nominal, kind="stable")[:n_top]
    partner = rng.integers(0, x.shape[0], size=(n_top, partners))
    out = np.empty(x.shape[1])
    repeated = np.repeat(x[top], partners, axis=0)
    for k in range(x.shape[1]):
        changed = repeated.copy()
        changed[:, k] = x[partner.ravel(), k]
        out[k] = np.mean(np.abs(np.asarray(score(changed), np.float64) - np.repeat(nominal[top], partners)))
    return out
