"""Thresholds on a score that select the same fraction at every mass: quantile regression of the score against m_jj.

`decorrelate` gives each event a category by thresholds that were learned without it; `Curves.thresholds` applies the
learned thresholds to another sample.

As in CMS-EXO-22-026 (arXiv:2412.03747): the events are divided into 20 folds, one regression is trained on each fold
alone, the threshold for the events of a fold is the average of the regressions of the other 19, smoothed by a
third-order polynomial in m_jj. With few events a fold the others are put together and taught as one: alone, each
polynomial goes through the one or two events of its tail, which are ordinary ones, and the average selects up to twice
as many as it should there. The regression is that polynomial itself (`PolynomialQuantiles`, the default: exact and
quick) or the published dense network of five layers of 30 (`DenseQuantiles`, needs TensorFlow). Gradient-boosted trees
were tried and left out: their steps do not follow the steep end of the spectrum, and the selection is not flat.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.errors import FitError

FloatArray = npt.NDArray[np.float64]

#: Quantiles between the published categories: the 5-10 %, 1-5 % and 0-1 % most anomalous events.
PUBLISHED_QUANTILES: tuple[float, ...] = (0.90, 0.95, 0.99)
#: Folds of the published regression.
PUBLISHED_FOLDS = 20
#: Masses at which regressions are averaged before the polynomial is fitted.
_GRID = 60
#: Events that must lie beyond the ends of the grid; thresholds are held constant there.
_BEYOND = 10
#: Events of a fold below which the other folds teach one regression instead of one each.
_ALONE = 1000
_DEGREE = 3


class Regression(Protocol):
    """Learns quantiles of y against x in several samples at once."""

    def predict(
        self,
        samples: Sequence[tuple[FloatArray, FloatArray]],
        quantiles: Sequence[float],
        at: FloatArray,
        rng: np.random.Generator,
    ) -> FloatArray:
        """Learned quantiles of each sample (x, y) at the points `at`, shape (samples, quantiles, points)."""
        ...


@dataclass(frozen=True)
class PolynomialQuantiles:
    """The polynomial itself with the smallest pinball loss: exact, as a linear program (Koenker and Bassett 1978)."""

    def predict(
        self,
        samples: Sequence[tuple[FloatArray, FloatArray]],
        quantiles: Sequence[float],
        at: FloatArray,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> FloatArray:
        """One program for each sample and quantile.

        Raises
        ------
        FitError
            If a program has no solution.
        """
        from scipy.optimize import linprog

        basis = np.polynomial.chebyshev.chebvander
        out = np.empty((len(samples), len(quantiles), at.size))
        for i, (x, y) in enumerate(samples):
            a = basis(x, _DEGREE)
            for j, q in enumerate(quantiles):
                # The dual: one bounded variable an event, one equation a coefficient, whose multipliers are the result.
                found = linprog(-y, A_eq=a.T, b_eq=(1.0 - q) * a.sum(axis=0), bounds=(0.0, 1.0), method="highs")
                if found.status != 0:
                    raise FitError(f"quantile regression: sample {i}, quantile {q:g}: {found.message}")
                out[i, j] = basis(at, _DEGREE) @ -found.eqlin.marginals
        return out


@dataclass(frozen=True)
class DenseQuantiles:
    """The published regression: dense layers of equal width with the pinball loss, Adam.

    All networks (one for each sample and quantile) train side by side as one stack of matrices.

    Attributes
    ----------
    layers, width : 5 x 30.
    steps, batch_size, learning_rate : of the training; the rate falls to zero along a cosine.
    """

    layers: int = 5
    width: int = 30
    steps: int = 600
    batch_size: int = 256
    learning_rate: float = 3e-3

    def predict(
        self,
        samples: Sequence[tuple[FloatArray, FloatArray]],
        quantiles: Sequence[float],
        at: FloatArray,
        rng: np.random.Generator,
    ) -> FloatArray:
        """Train the stack, then evaluate it."""
        from l1ad.model.keras import import_tf

        modules = import_tf()
        tf, keras = modules.tf, modules.keras
        stack = len(samples) * len(quantiles)
        widths = [1, *[self.width] * self.layers, 1]
        weights = [
            tf.Variable(rng.normal(0.0, np.sqrt(2.0 / a), (stack, a, b)).astype(np.float32))
            for a, b in itertools.pairwise(widths)
        ]
        biases = [tf.Variable(np.zeros((stack, 1, b), np.float32)) for b in widths[1:]]
        tau = tf.constant(np.tile(np.asarray(quantiles, np.float32), len(samples))[:, None, None])
        schedule = keras.optimizers.schedules.CosineDecay(self.learning_rate, self.steps)
        optimizer = keras.optimizers.Adam(schedule)
        variables = weights + biases

        def forward(x: Any) -> Any:
            for i, (w, b) in enumerate(zip(weights, biases)):
                x = tf.matmul(x, w) + b
                x = tf.nn.elu(x) if i < len(weights) - 1 else x
            return x

        @tf.function  # type: ignore[untyped-decorator,unused-ignore]
        def step(x: Any, y: Any) -> None:
            with tf.GradientTape() as tape:
                difference = y - forward(x)
                loss = tf.reduce_sum(tf.reduce_mean(tf.maximum(tau * difference, (tau - 1.0) * difference), axis=1))
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

        for _ in range(self.steps):
            rows = [rng.integers(0, x.size, self.batch_size) for x, _ in samples]
            batch = np.stack([np.stack(pair)[:, r] for pair, r in zip(samples, rows)]).astype(np.float32)
            x, y = (np.repeat(batch[:, k, :, None], len(quantiles), axis=0) for k in (0, 1))
            step(tf.constant(x), tf.constant(y))
        points = np.broadcast_to(at.astype(np.float32)[None, :, None], (stack, at.size, 1))
        result = forward(tf.constant(points)).numpy().astype(np.float64)
        return np.asarray(result.reshape(len(samples), len(quantiles), at.size))


@dataclass(frozen=True)
class Curves:
    """Thresholds against mass.

    Attributes
    ----------
    quantiles : rising, shape (q,).
    coefficients : of the polynomials in ``u = (m - centre)/half``, lowest power first, for the events of each fold,
        shape (folds, q, 4).
    low, high : masses in GeV between which the polynomials hold; beyond, the threshold is that of the end.
    """

    quantiles: tuple[float, ...]
    coefficients: FloatArray
    low: float
    high: float

    def thresholds(self, mass: npt.ArrayLike, fold: npt.ArrayLike | None = None) -> FloatArray:
        """Thresholds at `mass` for events of `fold`, or for events of no fold (the mean), shape (n, q).

        They never fall with the quantile: where polynomials cross, they are put in order.
        """
        m = np.asarray(mass, np.float64)
        u = _scaled(np.clip(m, self.low, self.high), self.low, self.high)
        powers = u[:, None] ** np.arange(_DEGREE + 1)
        if fold is None:
            values = powers @ self.coefficients.mean(axis=0).T
        else:
            values = np.einsum("np,nqp->nq", powers, self.coefficients[np.asarray(fold)])
        return np.asarray(np.sort(values, axis=1))

    def categories(
        self, scores: npt.ArrayLike, mass: npt.ArrayLike, fold: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.int8]:
        """How many thresholds each score reaches: 0 is ordinary, len(quantiles) the most anomalous category."""
        s = np.asarray(scores, np.float64)
        return np.asarray((s[:, None] >= self.thresholds(mass, fold)).sum(axis=1), np.int8)


@dataclass(frozen=True)
class Decorrelated:
    """Categories of events whose thresholds were learned without them.

    Attributes
    ----------
    category : number of thresholds reached, shape (n,). With the published quantiles 3 are the 0-1 % most anomalous
        events, 2 those of 1-5 %, 1 those of 5-10 %, and at least 1 is the single 10 % category.
    fold : of each event, shape (n,).
    curves : the thresholds.
    """

    category: npt.NDArray[np.int8]
    fold: npt.NDArray[np.int64]
    curves: Curves

    @property
    def selected(self) -> npt.NDArray[np.bool_]:
        """Events above the lowest threshold."""
        return np.asarray(self.category >= 1)


def decorrelate(
    scores: npt.ArrayLike,
    mass: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    ids: npt.ArrayLike | None = None,
    learn: npt.ArrayLike | None = None,
    quantiles: Sequence[float] = PUBLISHED_QUANTILES,
    n_folds: int = PUBLISHED_FOLDS,
    regression: Regression | None = None,
) -> Decorrelated:
    """Put events in categories of equal fraction at every mass.

    Parameters
    ----------
    scores, mass : shape (n,), mass in GeV.
    ids : identities, so that copies of an event share a fold; all distinct if None.
    learn : which events teach the regression, shape (n,); all if None. Where a window is left out the thresholds are
        interpolated, and a signal in it does not raise them.
    regression : `PolynomialQuantiles` if None.

    Raises
    ------
    InputError
        Scores that are not finite or all equal, quantiles outside (0, 1) or not rising, fewer than two folds, or folds
        with too few events for the highest quantile.
    """
    s, m = np.asarray(scores, np.float64), np.asarray(mass, np.float64)
    if s.ndim != 1 or s.shape != m.shape or not (np.all(np.isfinite(s)) and np.all(np.isfinite(m))):
        raise InputError("quantile regression", "scores and masses", f"{s.shape}, {m.shape}", "finite, one length")
    q = np.asarray(quantiles, np.float64)
    if q.ndim != 1 or q.size == 0 or not np.all((q > 0) & (q < 1)) or np.any(np.diff(q) <= 0):
        raise InputError("quantile regression", "quantiles", list(quantiles), "rising, between 0 and 1")
    if n_folds < 2:
        raise InputError("quantile regression", "folds", n_folds, "at least 2")
    used = np.ones(s.shape, bool) if learn is None else np.asarray(learn)
    if used.shape != s.shape or used.dtype != np.bool_:
        raise InputError("quantile regression", "learn", f"{used.dtype} {used.shape}", f"bool {s.shape}")
    needed = int(np.ceil(5.0 / min(1.0 - q[-1], q[0])))
    unique, row = np.unique(np.arange(s.size) if ids is None else np.asarray(ids), return_inverse=True)
    n_used = np.unique(row.reshape(-1)[used]).size
    if n_used < needed * n_folds:
        expected = f"at least {needed * n_folds}: {needed} in each of {n_folds} folds for the quantile {q[-1]:g}"
        raise InputError("quantile regression", "events", n_used, expected)
    if np.ptp(s) == 0.0:
        raise InputError("quantile regression", "scores", "identical scores", "scores that differ")
    fold = np.asarray((rng.permutation(unique.size) % n_folds)[row.reshape(-1)], np.int64)
    ordered = np.sort(m)
    low, high = float(ordered[0]), float(ordered[-min(_BEYOND, m.size // 10)])
    if not high > low:
        raise InputError("quantile regression", "masses", "all equal", "a distribution")
    # Scores of any size: the networks want numbers of order 1.
    centre, spread = float(np.median(s)), float(np.std(s))
    x, y = _scaled(m, low, high), (s - centre) / spread
    grid = np.exp(np.linspace(np.log(low), np.log(high), _GRID))
    together = n_used < _ALONE * n_folds
    teachers = [used & ((fold != k) if together else (fold == k)) for k in range(n_folds)]
    samples = [(x[rows], y[rows]) for rows in teachers]
    each = (regression or PolynomialQuantiles()).predict(samples, [float(v) for v in q], _scaled(grid, low, high), rng)
    others = each if together else (each.sum(axis=0) - each) / (n_folds - 1)
    # A grid point counts as much as its events tell: the variance of a quantile goes with one over their number.
    middle = np.sqrt(grid[:-1] * grid[1:])
    count = np.histogram(m[used], np.concatenate([[0.0], middle, [np.inf]]))[0]
    weight = np.sqrt(np.maximum(count, 1.0))
    powers = _scaled(grid, low, high)[:, None] ** np.arange(_DEGREE + 1)
    flat = others.reshape(-1, _GRID)
    solution = np.linalg.lstsq(powers * weight[:, None], (flat * weight).T)[0].T
    coefficients = solution.reshape(n_folds, q.size, _DEGREE + 1) * spread
    coefficients[:, :, 0] += centre
    curves = Curves(tuple(float(v) for v in q), coefficients, low, high)
    return Decorrelated(curves.categories(s, m, fold), fold, curves)


def _scaled(mass: FloatArray, low: float, high: float) -> FloatArray:
    return np.asarray((2.0 * mass - low - high) / (high - low))
