"""A variational autoencoder of jets: what it cannot rebuild is anomalous.

`JetVae` is a `Tagger` on the constituents of two jets: ``fit`` trains, ``score`` gives one number an event.
`sideband_weights` make the jets of the |delta eta| sideband look like those of the signal region in pt, so that the
network can be trained on events that the search never looks at.

As in CMS-EXO-22-026 (arXiv:2412.03747): up to 100 constituents, 12 latent dimensions, the Chamfer distance between the
jet and its reconstruction plus the KL divergence as loss and as score, with a larger weight of the KL divergence in the
score than in the loss, and of the two jets the one that is less anomalous. It departs from the publication where it can
be small: a shared dense layer on the particles with mean and maximum over them in place of convolutions, and particles
seen from the jet's axis. Momenta stay in GeV: in units of the jet's pt, and turned so that the jet's spread lies along
one axis, jets of two prongs stand out much less (bench/README.md).

TensorFlow is imported when a tagger trains or scores; a trained tagger holds numpy arrays only and can be pickled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search import weak

FloatArray = npt.NDArray[np.float64]
Weights = tuple[npt.NDArray[np.float32], ...]

#: Widths of the layers: on a particle, on the pooled jet, of the decoder.
_PARTICLE, _POOLED, _DECODER = (32, 64), (64,), (64, 128)


@dataclass(frozen=True)
class JetVae:
    """Autoencoder of jets; each event's score combines the losses of its two jets.

    Attributes
    ----------
    particles : constituents that are used, largest pt first.
    latent : dimensions of the latent space.
    beta : weight of the KL divergence against the Chamfer distance in the training.
    score_beta : the same in the score.
    combine : ``min`` asks for two anomalous jets (published), ``max`` for one; ``sum`` and ``product`` (logarithm) are
        between them.
    epochs, patience : most passes over the jets; the pass with the best validation loss is kept, and the training stops
        when `patience` more have not improved it.
    batch_size, learning_rate : of the training (Adam).
    validation : fraction of the jets that choose the epoch.
    scale : units in GeV of the momenta along and across the jet, from the training.
    weights : of the trained network, None before.
    """

    particles: int = 100
    latent: int = 12
    beta: float = 0.01
    score_beta: float = 0.5
    combine: Literal["min", "max", "sum", "product"] = "min"
    epochs: int = 40
    patience: int = 5
    batch_size: int = 256
    learning_rate: float = 2e-3
    validation: float = 0.2
    scale: tuple[float, float] = (1.0, 1.0)
    weights: Weights | None = None

    def fit(
        self,
        features: npt.NDArray[Any],
        *,
        labels: npt.NDArray[Any] | None = None,  # noqa: ARG002
        weights: npt.NDArray[Any] | None = None,
        rng: np.random.Generator,
    ) -> JetVae:
        """A trained tagger.

        Parameters
        ----------
        features : constituents (px, py, pz), zeros after the last, shape (n, 2, c, 3).
        labels : not used.
        weights : of events (n,) or jets (n, 2): jets are drawn in proportion.

        Raises
        ------
        InputError
            Bad shapes, negative weights, fewer than 50 jets to train on.
        """
        jets = _flat(features)
        n = len(features)
        given = np.ones((n, 2)) if weights is None else np.asarray(weights, np.float64)
        share = (np.repeat(given[:, None], 2, axis=1) if given.ndim == 1 else given).reshape(-1)
        if share.shape != (2 * n,) or not np.all(share >= 0):
            raise InputError("jet autoencoder", "weights", given.shape, f"({n},) or ({n}, 2), not negative")
        if self.particles < 1 or self.latent < 1 or self.epochs < 1 or not 0 < self.validation < 1:
            raise InputError("jet autoencoder", "settings", self.particles, "positive sizes, 0 < validation < 1")
        # Both jets of an event stay together, so that the epoch is chosen with events that were not trained on.
        held = np.repeat(rng.permutation(n) < self.validation * n, 2)
        used = share > 0
        parts = np.flatnonzero(used & ~held), np.flatnonzero(used & held)
        if parts[0].size < 50 or parts[1].size < 10:
            raise InputError("jet autoencoder", "jets to train on", int(used.sum()), "at least 60 with a weight")
        points = jet_frame(jets, self.particles)
        deviation = np.sqrt(np.mean(points[parts[0]].astype(np.float64) ** 2, axis=(0, 1)))
        scale = (float(deviation[0]), float(np.sqrt(np.mean(deviation[1:] ** 2))))
        if not min(scale) > 0:
            raise InputError("jet autoencoder", "constituents", "no spread", "jets of several particles")
        trained = replace(self, scale=scale, weights=_initial(self.latent, self.particles, rng))
        return replace(trained, weights=trained._train(points / trained._units, share, parts, rng))

    def score(self, features: npt.NDArray[Any]) -> FloatArray:
        """One score an event, shape (n,)."""
        jets = self.jet_scores(features)
        if self.combine == "product":
            return np.asarray(np.log(np.maximum(jets, 1e-12)).sum(axis=1))
        reduced = {"min": jets.min(axis=1), "max": jets.max(axis=1), "sum": jets.sum(axis=1)}
        return np.asarray(reduced[self.combine], np.float64)

    def jet_scores(self, features: npt.NDArray[Any], *, block: int = 2048) -> FloatArray:
        """Chamfer distance + `score_beta` KL of each jet at the mean of its latent distribution, shape (n, 2)."""
        if self.weights is None:
            raise InputError("jet autoencoder", "weights", "none", "a trained tagger: call fit first")
        from l1ad.model.keras import import_tf

        tf = import_tf().tf
        jets = _flat(features)
        weights = [tf.constant(w) for w in self.weights]
        out = np.empty(len(jets))
        for first in range(0, len(jets), block):
            points = jet_frame(jets[first : first + block], self.particles) / self._units
            out[first : first + block] = self._loss(weights, tf.constant(points), None, self.score_beta).numpy()
        return out.reshape(-1, 2)

    @property
    def _units(self) -> npt.NDArray[np.float32]:
        return np.array([self.scale[0], self.scale[1], self.scale[1]], np.float32)

    def _loss(self, weights: Any, points: Any, noise: Any | None, beta: float) -> Any:
        """Chamfer distance + beta KL, (B,), of points (B, particles, 3); without noise at the latent mean."""
        from l1ad.model.keras import import_tf
        from l1ad.model.losses import kl_divergence

        tf = import_tf().tf
        layers = iter(zip(weights[::2], weights[1::2]))

        def dense(x: Any, activation: Any = None) -> Any:
            w, b = next(layers)
            y = tf.tensordot(x, w, 1) + b
            return y if activation is None else activation(y)

        h = points
        for _ in _PARTICLE:
            h = dense(h, tf.nn.relu)
        h = tf.concat([tf.reduce_mean(h, axis=1), tf.reduce_max(h, axis=1)], axis=1)
        for _ in _POOLED:
            h = dense(h, tf.nn.relu)
        mu, log_var = dense(h), tf.clip_by_value(dense(h), -10.0, 10.0)
        h = mu if noise is None else mu + tf.exp(0.5 * log_var) * noise
        for _ in _DECODER:
            h = dense(h, tf.nn.relu)
        rebuilt = tf.reshape(dense(h), (-1, self.particles, 3))
        return chamfer(points, rebuilt) + beta * kl_divergence(mu, log_var, reduction="sum")

    def _train(
        self,
        points: npt.NDArray[np.float32],
        share: FloatArray,
        parts: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]],
        rng: np.random.Generator,
    ) -> Weights:
        from l1ad.model.keras import import_tf

        modules = import_tf()
        tf = modules.tf
        assert self.weights is not None
        variables = [tf.Variable(w) for w in self.weights]
        optimizer = modules.keras.optimizers.Adam(self.learning_rate)

        @tf.function  # type: ignore[untyped-decorator,unused-ignore]
        def step(x: Any, noise: Any) -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self._loss(variables, x, noise, self.beta))
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 10.0)
            optimizer.apply_gradients(zip(gradients, variables))

        @tf.function  # type: ignore[untyped-decorator,unused-ignore]
        def check(x: Any) -> Any:
            return self._loss(variables, x, None, self.beta)

        train, held = parts
        chance = share[train] / share[train].sum()
        # The same held-back jets every epoch, drawn as the training ones are.
        chosen = rng.choice(held, min(held.size, 8192), p=share[held] / share[held].sum())
        best, kept, waited = np.inf, self.weights, 0
        for _ in range(self.epochs):
            for _ in range(max(train.size // self.batch_size, 1)):
                rows = rng.choice(train.size, self.batch_size, p=chance)
                noise = rng.normal(size=(self.batch_size, self.latent)).astype(np.float32)
                step(tf.constant(points[train[rows]]), tf.constant(noise))
            blocks = np.array_split(chosen, max(chosen.size // 1024, 1))
            loss = float(np.mean(np.concatenate([check(tf.constant(points[b])).numpy() for b in blocks])))
            if loss < best:
                best, kept, waited = loss, tuple(v.numpy().copy() for v in variables), 0
            else:
                waited += 1
                if waited >= self.patience:
                    break
        return kept


def chamfer(a: Any, b: Any) -> Any:
    """Chamfer distance of two sets of points (B, n, d) and (B, m, d), tensors: (B,).

    The squared distance of each point to the nearest one of the other set, averaged over each set, both added.
    """
    from l1ad.model.keras import import_tf

    tf = import_tf().tf
    squared = tf.reduce_sum(a * a, axis=2)[:, :, None] + tf.reduce_sum(b * b, axis=2)[:, None, :]
    # The expanded square may fall below 0 by rounding.
    distance = tf.maximum(squared - 2.0 * tf.matmul(a, b, transpose_b=True), 0.0)
    forth = tf.reduce_mean(tf.reduce_min(distance, axis=2), axis=1)
    return forth + tf.reduce_mean(tf.reduce_min(distance, axis=1), axis=1)


def jet_frame(constituents: npt.ArrayLike, particles: int) -> npt.NDArray[np.float32]:
    """Constituents as seen from their jet's axis, in GeV, shape (n, particles, 3).

    Turned in phi and boosted along the beam so that the jet points along x. Zeros stay zeros.

    Parameters
    ----------
    constituents : (px, py, pz), shape (n, c, 3), c at least `particles` or fewer (then zeros are added).
    """
    p = np.asarray(constituents, np.float64)
    total = p.sum(axis=1)
    pt = np.hypot(p[..., 0], p[..., 1])
    jet_pt = np.hypot(total[:, 0], total[:, 1])
    eta = np.where(pt > 0, np.arcsinh(p[..., 2] / np.where(pt > 0, pt, 1.0)), 0.0)
    jet_eta = np.arcsinh(total[:, 2] / np.where(jet_pt > 0, jet_pt, 1.0))
    phi = np.arctan2(p[..., 1], p[..., 0]) - np.arctan2(total[:, 1], total[:, 0])[:, None]
    seen = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta - jet_eta[:, None])], axis=2)
    out = np.zeros((len(p), particles, 3), np.float32)
    kept = min(particles, p.shape[1])
    out[:, :kept] = seen[:, :kept]
    return out


def sideband_weights(sideband_pt: npt.ArrayLike, region_pt: npt.ArrayLike, *, bins: int = 20) -> FloatArray:
    """Weights that give sideband jets the pt spectrum of the signal region, shape (n, 2) as `sideband_pt`.

    Raises
    ------
    InputError
        If one of the two has no jet, or the spectra do not overlap.
    """
    a, b = np.asarray(sideband_pt, np.float64), np.asarray(region_pt, np.float64)
    for name, values in (("sideband", a), ("signal region", b)):
        if values.size == 0:
            raise InputError("jet autoencoder", f"|delta eta| {name}", "no jet", "events")
    labels = np.concatenate([np.zeros(a.size, np.int8), np.ones(b.size, np.int8)])
    out = weak.planing_weights(np.concatenate([a.ravel(), b.ravel()]), labels, bins=bins)[: a.size].reshape(a.shape)
    if not out.any():
        raise InputError("jet autoencoder", "pt of the sideband", "none in the range of the signal region", "overlap")
    return out


def _flat(features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = np.asarray(features)
    if x.ndim != 4 or x.shape[1] != 2 or x.shape[3] != 3 or not len(x):
        raise InputError("jet autoencoder", "constituents", x.shape, "(n, 2, particles, 3), n at least 1")
    return x.reshape(-1, *x.shape[2:])


def _initial(latent: int, particles: int, rng: np.random.Generator) -> Weights:
    """Weights and biases in the order in which the layers are applied."""
    pooled = 2 * _PARTICLE[-1]
    shapes = list(zip((3, *_PARTICLE), _PARTICLE)) + list(zip((pooled, *_POOLED), _POOLED))
    shapes += [(_POOLED[-1], latent)] * 2 + list(zip((latent, *_DECODER), (*_DECODER, 3 * particles)))
    out: list[npt.NDArray[np.float32]] = []
    for a, b in shapes:
        out += [rng.normal(0.0, np.sqrt(2.0 / (a + b)), (a, b)).astype(np.float32), np.zeros(b, np.float32)]
    return tuple(out)
