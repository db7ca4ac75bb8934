"""Weak supervision: a classifier of a mass window against its sidebands finds what only the window has.

`cwola_hunting` gives a `Fit` for `l1ad.search.folds.cross_score` that works on each jet and combines the two;
`cwola_pair` one that works on event features, such as (m1, m2) of ATLAS; `WeakTagger` is a classifier as a
`l1ad.search.tagger.Tagger`. `planing_weights` take out the difference that
the mass itself makes. The classifier is an ensemble of gradient-boosted trees (`Trees`), or the published dense network
(`Dense`, needs TensorFlow).

Sources: CWoLa hunting (arXiv:1805.02664, 1902.02634; CMS-EXO-22-026), ATLAS (arXiv:2005.02983), trees in weak
supervision (arXiv:2309.13111).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.folds import Scorer, View

FloatArray = npt.NDArray[np.float64]
Predict = Callable[[npt.NDArray[Any]], FloatArray]

#: Selected fraction in per cent of each published window (CMS-EXO-22-026), A and B alike.
PUBLISHED_FRACTIONS: dict[str, float] = {
    f"{series}{i + 1}": percent / 100.0 for series in "AB" for i, percent in enumerate((1, 1, 1, 3, 3, 5))
}
#: Selected fractions of the ATLAS search.
ATLAS_FRACTIONS: tuple[float, float] = (0.1, 0.01)


@dataclass(frozen=True)
class Samples:
    """What a classifier is trained or validated on: features (n, k), labels 0 or 1 (n,), weights (n,)."""

    x: FloatArray
    y: npt.NDArray[np.int8]
    w: FloatArray


class Classifier(Protocol):
    """A recipe that is trained on samples; the validation sample chooses when to stop."""

    def train(self, train: Samples, validation: Samples, rng: np.random.Generator) -> Predict:
        """A function from features (n, k) to the probability of label 1 (n,)."""
        ...


@dataclass(frozen=True)
class Trees:
    """An ensemble of histogram gradient-boosted trees.

    Attributes
    ----------
    members : trainings that are averaged; each sees its own bootstrap of the training rows.
    max_iterations : trees of one training.
    early_stopping : keep the number of trees with the smallest validation loss. With a few hundred events in the window
        that loss is noise, and a fixed small number of small trees is better.
    learning_rate, max_leaf_nodes, min_samples_leaf, l2 : of scikit-learn's HistGradientBoostingClassifier.
    """

    members: int = 10
    max_iterations: int = 100
    learning_rate: float = 0.1
    max_leaf_nodes: int = 31
    min_samples_leaf: int = 20
    l2: float = 0.0
    early_stopping: bool = True

    def train(self, train: Samples, validation: Samples, rng: np.random.Generator) -> Predict:
        """Train all members."""
        if self.members < 1 or self.max_iterations < 1:
            raise InputError("trees", "members x iterations", f"{self.members} x {self.max_iterations}", "at least 1")
        # Binned here, once: scikit-learn's own binning of weighted samples costs several times the training.
        edges = [np.unique(np.quantile(column, np.linspace(0.0, 1.0, 255)[1:-1])) for column in train.x.T]
        learn = Samples(_binned(train.x, edges), train.y, train.w)
        check = Samples(_binned(validation.x, edges), validation.y, validation.w)
        with _one_thread():
            models = [self._one(learn, check, rng) for _ in range(self.members)]

        def predict(x: npt.NDArray[Any]) -> FloatArray:
            codes = _binned(x, edges)
            with _one_thread():
                return np.asarray(np.mean([m.predict_proba(codes)[:, 1] for m in models], axis=0), np.float64)

        return predict

    def _one(self, train: Samples, validation: Samples, rng: np.random.Generator) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier

        def model(iterations: int) -> Any:
            return HistGradientBoostingClassifier(
                max_iter=iterations,
                learning_rate=self.learning_rate,
                max_leaf_nodes=self.max_leaf_nodes,
                min_samples_leaf=self.min_samples_leaf,
                l2_regularization=self.l2,
                early_stopping=False,
                random_state=seed,
            )

        seed = int(rng.integers(0, 2**31 - 1))
        rows = rng.integers(0, len(train.y), len(train.y))
        x, y, w = train.x[rows], train.y[rows], train.w[rows]
        if not self.early_stopping:
            return model(self.max_iterations).fit(x, y, sample_weight=w)
        full = model(self.max_iterations).fit(x, y, sample_weight=w)
        losses = [_log_loss(validation, p[:, 1]) for p in full.staged_predict_proba(validation.x)]
        best = int(np.argmin(losses)) + 1
        # scikit-learn cannot cut a model short; the same seed and rows give the same first trees again.
        return full if best == self.max_iterations else model(best).fit(x, y, sample_weight=w)


@dataclass(frozen=True)
class Dense:
    """The dense network of CMS-EXO-22-026: batch normalisation, 64-128-128-32-16-8-1, dropout 0.2, Adam.

    Attributes
    ----------
    epochs, batch_size, learning_rate : of the training; the epoch with the smallest validation loss is kept.
    patience : epochs without improvement after which the training stops.
    widths : hidden layers; dropout follows the first three.
    """

    epochs: int = 100
    batch_size: int = 200
    learning_rate: float = 1e-3
    patience: int = 10
    widths: tuple[int, ...] = (64, 128, 128, 32, 16, 8)
    dropout: float = 0.2

    def train(self, train: Samples, validation: Samples, rng: np.random.Generator) -> Predict:
        """Train one network with tf_keras."""
        from l1ad.model.keras import import_tf

        modules = import_tf()
        tf, keras = modules.tf, modules.keras
        callbacks, initializers = keras.callbacks, keras.initializers
        layers, optimizers = keras.layers, keras.optimizers

        def seed() -> int:
            return int(rng.integers(0, 2**31 - 1))

        network = keras.Sequential([layers.Input((train.x.shape[1],)), layers.BatchNormalization()])
        for i, width in enumerate(self.widths):
            initializer = initializers.GlorotUniform(seed=seed())
            network.add(layers.Dense(width, activation="relu", kernel_initializer=initializer))
            if i < 3:
                network.add(layers.Dropout(self.dropout, seed=seed()))
        network.add(layers.Dense(1, activation="sigmoid", kernel_initializer=initializers.GlorotUniform(seed=seed())))
        network.compile(optimizer=optimizers.Adam(self.learning_rate), loss="binary_crossentropy", weighted_metrics=[])
        order = rng.permutation(len(train.y))
        data = tf.data.Dataset.from_tensor_slices(
            (train.x[order].astype(np.float32), train.y[order].astype(np.float32), train.w[order].astype(np.float32))
        )
        data = data.shuffle(len(order), seed=seed()).batch(self.batch_size)
        held_back = (validation.x.astype(np.float32), validation.y.astype(np.float32), validation.w.astype(np.float32))
        stop = callbacks.EarlyStopping(patience=self.patience, restore_best_weights=True)
        network.fit(data, epochs=self.epochs, validation_data=held_back, callbacks=[stop], verbose=0)

        def predict(x: npt.NDArray[Any]) -> FloatArray:
            return np.asarray(network.predict(x.astype(np.float32), batch_size=8192, verbose=0)[:, 0], np.float64)

        return predict


@dataclass(frozen=True)
class CwolaHunting:
    """A `Fit` for `cross_score`: see `cwola_hunting`. Columns: ``jets`` (n, 2, k), ``label``, ``plane`` (n, 2)."""

    classifier: Classifier
    bins: int = 20
    combine: Literal["max", "sum"] = "max"

    def __call__(self, train: View, validation: View, rng: np.random.Generator) -> Scorer:
        """Train one classifier for each jet.

        Raises
        ------
        InputError
            If window or sidebands have fewer than two events to train or to validate with.
        """
        _check_enough(train, validation)
        predictors = []
        for j in range(2):
            learn = _jet_samples(train, j, self.bins)
            check = _jet_samples(validation, j, self.bins)
            predict = self.classifier.train(learn, check, rng)
            # Ranks within the sideband put the two jets on one scale; the validation rows have not been trained on.
            reference = np.sort(predict(check.x[check.y == 0]))
            predictors.append((predict, reference))

        def score(view: View) -> FloatArray:
            jets = view["jets"]
            ranks = [_rank(p(np.asarray(jets[:, j], np.float64)), ref) for j, (p, ref) in enumerate(predictors)]
            return np.maximum(ranks[0], ranks[1]) if self.combine == "max" else ranks[0] + ranks[1]

        return score


@dataclass(frozen=True)
class CwolaPair:
    """A `Fit` for `cross_score`: see `cwola_pair`. Columns: ``event`` (n, k), ``label``."""

    classifier: Classifier

    def __call__(self, train: View, validation: View, rng: np.random.Generator) -> Scorer:
        """Train one classifier on the event features."""
        predict = self.classifier.train(_event_samples(train), _event_samples(validation), rng)
        return lambda view: predict(np.asarray(view["event"], np.float64))


@dataclass(frozen=True)
class WeakTagger:
    """A classifier as a `l1ad.search.tagger.Tagger`: label 1 for the sample that may hold signal, 0 for the reference.

    Attributes
    ----------
    classifier : the recipe.
    validation : fraction of the events that choose when the training stops.
    predict : of a trained tagger, None before.
    """

    classifier: Classifier
    validation: float = 0.25
    predict: Predict | None = None

    def fit(
        self,
        features: npt.NDArray[Any],
        *,
        labels: npt.NDArray[Any] | None = None,
        weights: npt.NDArray[Any] | None = None,
        rng: np.random.Generator,
    ) -> WeakTagger:
        """A trained tagger; events with another label than 0 and 1 are not used.

        Raises
        ------
        InputError
            Without labels, without one of the classes, or with features that are not (n, k).
        """
        x = np.asarray(features, np.float64)
        given = None if labels is None else labels.shape
        if labels is None or x.ndim != 2 or given != (len(x),):
            raise InputError("weak tagger", "features, labels", (x.shape, given), "(n, k) and (n,)")
        used = np.flatnonzero(np.isin(labels, (0, 1)))
        _check_classes(labels[used])
        w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
        order = rng.permutation(used)
        held = max(round(self.validation * order.size), 1)
        parts = [Samples(x[rows], labels[rows].astype(np.int8), w[rows]) for rows in (order[held:], order[:held])]
        for part in parts:
            _check_classes(part.y)
        return replace(self, predict=self.classifier.train(parts[0], parts[1], rng))

    def score(self, features: npt.NDArray[Any]) -> FloatArray:
        """Probability of label 1, shape (n,)."""
        if self.predict is None:
            raise InputError("weak tagger", "classifier", "not trained", "a trained tagger: call fit first")
        return np.asarray(self.predict(np.asarray(features, np.float64)), np.float64)


def cwola_hunting(
    classifier: Classifier | None = None, *, planing_bins: int = 20, combine: Literal["max", "sum"] = "max"
) -> CwolaHunting:
    """CWoLa hunting of CMS-EXO-22-026: each jet by itself, the larger of the two scores.

    Window events have label 1, sideband events 0, others -1 (scored, but not trained on). Sideband jets are weighted so
    that the planed variable (column ``plane``, the jet's pt) is distributed as in the window. Each jet's score is
    ``-ln`` of the fraction of sideband jets, from the validation rows, that score at least as high. `combine` with
    ``sum`` multiplies these fractions instead: better for a signal with two unusual jets, worse for one with one.
    """
    return CwolaHunting(classifier or Trees(), planing_bins, combine)


def cwola_pair(classifier: Classifier | None = None) -> CwolaPair:
    """CWoLa on event features as ATLAS does with the two jet masses: the score is the classifier's output."""
    return CwolaPair(classifier or Trees())


def planing_weights(
    values: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 20, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Weights that give label 0 the distribution of `values` that label 1 has, and the same sum.

    Bins hold equal numbers of the label-1 events. Events where the other class has none, in the same bin or beyond its
    range, get weight 0: a region that only one class reaches would teach the classifier the mass itself.

    Parameters
    ----------
    values : shape (n,).
    labels : 0 or 1, shape (n,).
    weights : to start from, 1 if None.

    Returns
    -------
    Weights (n,), the starting ones for label 1.

    Raises
    ------
    InputError
        If a class is empty, or all values are equal.
    """
    v, y = np.asarray(values, np.float64), np.asarray(labels)
    w = np.ones(v.shape) if weights is None else np.asarray(weights, np.float64)
    one, zero = y == 1, y == 0
    if not one.any() or not zero.any():
        raise InputError("planing", "labels", f"{int(one.sum())} of 1, {int(zero.sum())} of 0", "both")
    edges = np.unique(np.quantile(v[one], np.linspace(0.0, 1.0, bins + 1)))
    if edges.size < 2:
        raise InputError(
            "planing", "values of label 1", f"{int(one.sum())} that are all equal", "at least 2 that differ"
        )
    index = np.clip(np.searchsorted(edges, v, side="right") - 1, 0, edges.size - 2)
    w = np.where((v >= edges[0]) & (v <= edges[-1]), w, 0.0)
    target = np.bincount(index[one], w[one], edges.size - 1)
    source = np.bincount(index[zero], w[zero], edges.size - 1)
    ratio = np.where(source > 0, target / np.where(source > 0, source, 1.0), 0.0)
    out = w.copy()
    out[zero] = w[zero] * ratio[index[zero]]
    out[one] = np.where((source > 0)[index[one]], w[one], 0.0)
    return out


def _one_thread() -> AbstractContextManager[Any]:
    """Trees of some thousand events gain nothing from threads, and lose much where processes already fill the cores."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return cast(AbstractContextManager[Any], threadpool_limits(limits=1, user_api="openmp"))


def _binned(x: npt.NDArray[Any], edges: list[FloatArray]) -> FloatArray:
    """Number of edges at or below each value, column by column."""
    codes = [np.searchsorted(e, column, side="right") for e, column in zip(edges, np.asarray(x).T)]
    return np.stack(codes, axis=1).astype(np.float64)


def _jet_samples(view: View, j: int, bins: int) -> Samples:
    label = view["label"]
    used = label >= 0
    _check_classes(label)
    x = np.asarray(view["jets"][used, j], np.float64)
    y = label[used].astype(np.int8)
    w = planing_weights(view["plane"][used, j], y, bins=bins)
    if not (w[y == 1].any() and w[y == 0].any()):
        found = f"{y.size} events without a common range in window and sidebands"
        raise InputError("weak supervision", "planed variable", found, "an overlap: more events, or fewer bins")
    return Samples(x, y, w / w.mean())


def _event_samples(view: View) -> Samples:
    label = view["label"]
    used = label >= 0
    _check_classes(label)
    y = label[used].astype(np.int8)
    w = np.where(y == 1, 1.0, np.count_nonzero(y == 1) / np.count_nonzero(y == 0))
    return Samples(np.asarray(view["event"][used], np.float64), y, w / w.mean())


def _check_enough(train: View, validation: View) -> None:
    """Two events a class can be told apart and give a distribution; the message says how many there are in all."""
    parts = {"to train with": train["label"], "to validate with": validation["label"]}
    for name, value in (("window", 1), ("sidebands", 0)):
        counts = {use: int(np.count_nonzero(label == value)) for use, label in parts.items()}
        if min(counts.values()) < 2:
            there = ", ".join(f"{count} {use}" for use, count in counts.items())
            found = f"{sum(counts.values())} outside of the fold that is scored: {there}"
            raise InputError("weak supervision", f"events in the {name}", found, "at least 2 each: more events")


def _check_classes(label: npt.NDArray[Any]) -> None:
    window, sideband = int(np.count_nonzero(label == 1)), int(np.count_nonzero(label == 0))
    if window == 0 or sideband == 0:
        raise InputError("weak supervision", "events", f"{window} in the window, {sideband} in sidebands", "both")


def _rank(scores: FloatArray, reference: FloatArray) -> FloatArray:
    """``-ln`` of the fraction of the sorted `reference` at or above each score, ordered by the score beyond its end."""
    above = reference.size - np.searchsorted(reference, scores, side="left")
    rank = -np.log((above + 1.0) / (reference.size + 1.0))
    # Scores above all of the reference keep their order; within the reference the step is far larger than this.
    return np.asarray(rank + 1e-6 * scores)


def _log_loss(samples: Samples, probability: npt.NDArray[Any]) -> float:
    p = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return float(-np.average(np.where(samples.y == 1, np.log(p), np.log1p(-p)), weights=samples.w))
