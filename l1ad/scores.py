"""The anomaly scores, each defined once.

A score is written in terms of a few operations (`Ops`), so that the same lines are the loss term in TensorFlow, the
float score of an offline search in numpy, and the nodes of a frozen integer program:

- `FloatOps(numpy)` evaluates a score on arrays;
- `FloatOps(tensorflow.experimental.numpy)`, or any namespace like numpy, evaluates it on tensors;
- `l1ad.trigger.build.NodeOps` emits the nodes of a `Trigger`.

`SCORES` says for each name what it needs; the scalars that every result is shown against are in `l1ad.baselines`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

#: Scores are unsigned words of 18 bits with 4 bits of fraction, and so are their thresholds.
SCORE_BITS = 18
SCORE_FRACTION = 4
SCORE_LSB = 2.0**-SCORE_FRACTION

T = TypeVar("T")


class Ops(Protocol[T]):
    """What a score may be made of; T is an array, a tensor or a node."""

    def product(self, *factors: T) -> T:
        """Product of the factors, element by element; an integer program rounds it once, at the end."""
        ...

    def subtract(self, x: T, y: T) -> T:
        """Difference, element by element."""
        ...

    def exp(self, x: T, *, sign: int = 1) -> T:
        """exp(sign x), element by element; sign is 1 or -1."""
        ...

    def total(self, terms: Sequence[tuple[float, T]], constant: float = 0.0) -> T:
        """``constant + sum over the last axis of sum_i c_i x_i`` for pairs (c_i, x_i); c_i are powers of two."""
        ...

    def size(self, x: T) -> int:
        """Number of elements along the last axis."""
        ...


@dataclass(frozen=True)
class FloatOps(Generic[T]):
    """`Ops` on arrays of a numpy-like namespace."""

    xp: Any = np

    def product(self, *factors: Any) -> Any:
        return math.prod(factors[1:], start=factors[0])

    def subtract(self, x: Any, y: Any) -> Any:
        return x - y

    def exp(self, x: Any, *, sign: int = 1) -> Any:
        return self.xp.exp(sign * x)

    def total(self, terms: Sequence[tuple[float, Any]], constant: float = 0.0) -> Any:
        result = constant
        for factor, x in terms:
            result = result + factor * self.xp.sum(x, axis=-1)
        return result

    def size(self, x: Any) -> int:
        return int(x.shape[-1])


NUMPY: FloatOps[Any] = FloatOps(np)


def mu2(mu: T, *, ops: Ops[T] = NUMPY) -> T:
    """Squared norm of the latent means, ``sum_i mu_i^2`` (the score of AXOL1TL v1-v4, l1-facts section 3).

    >>> float(mu2(np.array([3.0, -4.0])))
    25.0
    """
    return ops.total([(1.0, ops.product(mu, mu))])


def kl(mu: T, log_var: T, *, ops: Ops[T] = NUMPY) -> T:
    """Kullback-Leibler divergence of the latent Gaussian from the unit one, summed over the latent dimensions.

    ``1/2 sum_i (mu_i^2 + exp(l_i) - l_i - 1)`` with l = log sigma^2 (arXiv:1312.6114, appendix B; the trigger score
    D_KL of arXiv:2108.03986). A sum: the mean over dimensions of some trainings is this divided by their number.

    >>> float(kl(np.array([1.0, 0.0]), np.array([0.0, 0.0])))
    0.5
    """
    return ops.total(
        [(0.5, ops.product(mu, mu)), (0.5, ops.exp(log_var)), (-0.5, log_var)], constant=-0.5 * ops.size(mu)
    )


def rz(mu: T, log_var: T, *, ops: Ops[T] = NUMPY) -> T:
    """R_z, ``sum_i mu_i^2 / sigma_i^2`` (arXiv:2108.03986, equation 3): mu^2 times exp(-log sigma^2).

    >>> float(rz(np.array([1.0, 2.0]), np.log([1.0, 4.0])))
    2.0
    """
    return ops.total([(1.0, ops.product(mu, mu, ops.exp(log_var, sign=-1)))])


def mse(target: T, output: T, *, ops: Ops[T] = NUMPY) -> T:
    """Squared reconstruction error summed over the features, ``sum_i (target_i - output_i)^2``.

    A sum, as the firmware computes it; a mean is this divided by the number of features.

    >>> float(mse(np.array([1.0, 2.0]), np.array([0.0, 0.0])))
    5.0
    """
    difference = ops.subtract(target, output)
    return ops.total([(1.0, ops.product(difference, difference))])


def embedding_mse(decoded: T, embedding: T, *, ops: Ops[T] = NUMPY) -> T:
    """Squared error of an autoencoder on an embedding, summed over its dimensions (AXOL1TL v5, l1-facts section 3).

    The same form as `mse`, on what the backbone makes of the inputs; Keras' mean over ten dimensions is a tenth of it.

    >>> float(embedding_mse(np.array([1.0, 1.0]), np.array([0.0, 2.0])))
    2.0
    """
    return mse(decoded, embedding, ops=ops)


def student(output: T, *, ops: Ops[T] = NUMPY) -> T:
    """The single output of a student network that was regressed on a teacher's score (CICADA).

    >>> float(student(np.array([1.5])))
    1.5
    """
    return ops.total([(1.0, output)])


@dataclass(frozen=True)
class Score:
    """A score: its function, and the outputs of the network it takes in order.

    `needs` are drawn from ``mu``, ``log_var``, ``target``, ``output``, ``embedding`` and ``decoded``.
    """

    name: str
    function: Callable[..., Any]
    needs: tuple[str, ...]


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score("mu2", mu2, ("mu",)),
        Score("kl", kl, ("mu", "log_var")),
        Score("rz", rz, ("mu", "log_var")),
        Score("mse", mse, ("target", "output")),
        Score("embedding_mse", embedding_mse, ("decoded", "embedding")),
        Score("student", student, ("output",)),
    )
}


def to_integer(score: Any) -> Any:
    """Float scores to the integer of the menu: floor to 1/16, saturated in 18 bits.

    >>> int(to_integer(982.3125))
    15717
    """
    return np.clip(np.floor(np.asarray(score, dtype=np.float64) / SCORE_LSB), 0, (1 << SCORE_BITS) - 1).astype(np.int64)
