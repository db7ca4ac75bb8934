"""Losses. Each is a number an event, (B,), and `weighted_mean` makes one number of a batch.

What is a score too (the KL divergence, the squared error) is taken from `l1ad.scores`, so that training and trigger
mean the same; here it is only divided by a number that is stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from l1ad import scores
from l1ad.config import BetaConfig, LossConfig
from l1ad.errors import ConfigError
from l1ad.model.keras import Tensor, import_tf, tf_ops
from l1ad.model.stage import Batch, Geometry

#: Ends of pseudorapidity in the network of arXiv:2108.03986, section 3: eta = range * tanh(output).
ETA_RANGES: Mapping[str, float] = {"eg": 3.0, "mu": 2.1, "jet": 4.0, "tau": 3.0, "met": 0.0}


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """``sum w v / sum w`` of a batch."""
    tf = import_tf().tf
    return tf.reduce_sum(values * weight) / tf.reduce_sum(weight)


def kl_divergence(mu: Tensor, log_var: Tensor, *, reduction: str) -> Tensor:
    """`l1ad.scores.kl`, (B,): the ``sum`` over the latent dimensions, or their ``mean``."""
    total = scores.kl(mu, log_var, ops=tf_ops())
    return total / mu.shape[-1] if reduction == "mean" else total


def squared_error(target: Tensor, output: Tensor) -> Tensor:
    """`l1ad.scores.mse`, (B,), with its gradient written down: what TensorFlow derives takes five passes."""
    tf = import_tf().tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def error(target: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            slope = (target - output) * tf.expand_dims(2.0 * upstream, -1)
            return slope, -slope

        return scores.mse(target, output, ops=tf_ops()), gradient

    return error(target, output)


def masked_mse(target: Tensor, output: Tensor, mask: Tensor | None) -> Tensor:
    """`l1ad.scores.mse` over the entries where the mask (B, features) is not 0, divided by the sum of the mask, (B,).

    Mask entries may be any factors of at least 0; an event without any entry gives 0. Without a mask all count.
    """
    tf = import_tf().tf
    if mask is None:
        return squared_error(target, output) / output.shape[-1]
    root = tf.sqrt(mask)
    return squared_error(root * target, root * output) / tf.maximum(tf.reduce_sum(mask, axis=-1), 1.0)


def cylindrical_mae(
    target: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor], mask: Tensor, *, scale_gev: float
) -> Tensor:
    """``mean over objects of |dpt| + |dpz|`` in units of `scale_gev`, (B,), with pz = pt sinh(eta).

    `target` and `output` are (pt, eta) of (B, objects) each; the mean counts objects by the mask (B, objects). The loss
    of the AXOL1TL training (l1-facts, section 3).
    """
    tf = import_tf().tf
    difference = tf.abs(target[0] - output[0]) + tf.abs(_pz(*target) - _pz(*output))
    return tf.reduce_sum(mask * difference, axis=-1) / tf.maximum(tf.reduce_sum(mask, axis=-1), 1.0) / scale_gev


def _pz(pt: Tensor, eta: Tensor) -> Tensor:
    # An untrained decoder may say anything: beyond the detector sinh only makes infinities.
    tf = import_tf().tf
    return pt * tf.sinh(tf.clip_by_value(eta, -6.0, 6.0))


def cyclic_difference(a: Tensor, b: Tensor) -> Tensor:
    """``a - b`` brought into [-pi, pi], for angles in radians."""
    tf = import_tf().tf
    return tf.math.floormod(a - b + math.pi, 2 * math.pi) - math.pi


def tanh_ranges(outputs: tuple[Tensor, Tensor, Tensor], groups: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Raw outputs (pt, eta, phi), (B, objects) each, as arXiv:2108.03986 reads them.

    pt stays (a standardised value), eta = range tanh(output) with the range of the object type (`ETA_RANGES`), phi = pi
    tanh(output).
    """
    tf = import_tf().tf
    ranges = np.array([ETA_RANGES.get(group, 4.0) for group in groups], dtype=np.float32)
    return outputs[0], ranges * tf.tanh(outputs[1]), math.pi * tf.tanh(outputs[2])


def tanh_ranges_mse(
    target: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor], mask: Tensor, *, cyclic: bool
) -> Tensor:
    """Squared error of (pt, eta, phi), (B, objects) each, divided by three times the sum of the mask, (B,).

    With `cyclic` the distance in phi goes round the circle, otherwise phi is a number in [-pi, pi] (arXiv:2108.03986).
    """
    tf = import_tf().tf
    terms = [target[0] - output[0], target[1] - output[1]]
    terms.append(cyclic_difference(target[2], output[2]) if cyclic else target[2] - output[2])
    root = tf.sqrt(mask)
    joined = tf.concat([root * term for term in terms], axis=-1)
    total = scores.mse(joined, tf.zeros_like(joined), ops=tf_ops())
    return total / tf.maximum(3.0 * tf.reduce_sum(mask, axis=-1), 1.0)


def beta_at(config: BetaConfig, step: Tensor, steps_per_epoch: int) -> Tensor:
    """Beta at a step counted from 0 (see `BetaConfig`)."""
    tf = import_tf().tf
    progress = tf.cast(step, tf.float32) / float(config.epochs * steps_per_epoch)
    if config.schedule == "warmup":
        return config.value * tf.minimum(progress, 1.0)
    if config.schedule == "cyclic":
        return config.value * tf.minimum(2.0 * tf.math.floormod(progress, 1.0), 1.0)
    return tf.constant(config.value, tf.float32)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """The reconstruction loss that a configuration asks for, on decoder outputs (B, inputs).

    Attributes
    ----------
    config : which, and how.
    geometry : of the inputs.
    quantize : the input quantiser on tensors: what the trigger compares with is what it sees.
    """

    config: LossConfig
    geometry: Geometry

    def __post_init__(self) -> None:
        known = {group.name for group in self.geometry.layout.groups}
        odd = sorted(set(self.config.object_scales) - known)
        if odd:
            raise ConfigError("loss", "object_scales", odd[0], f"one of {', '.join(sorted(known))}")
        if self.config.reconstruction != "mse" and (self.geometry.index["phi"] < 0).all():
            raise ConfigError("loss", "reconstruction", self.config.reconstruction, "mse for objects without angles")

    def _object_factors(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        scales = [self.config.object_scales.get(group, 1.0) for group in self.geometry.groups]
        return np.array(scales, dtype=np.float32)

    def __call__(self, batch: Batch, target: Tensor, output: Tensor) -> Tensor:
        """The loss (B,) of a decoder output; `target` is the scaled input as the network sees it."""
        tf = import_tf().tf
        geometry, config = self.geometry, self.config
        factors = self._object_factors()
        if config.reconstruction == "mse":
            slots = geometry.layout.input_index // geometry.layout.n_features
            if config.mask_padding:
                return masked_mse(target, output, geometry.input_mask(batch.codes) * factors[slots])
            if not config.object_scales:
                return masked_mse(target, output, None)
            return masked_mse(target, output, tf.ones_like(output) * factors[slots])
        filled = geometry.filled(batch.codes)
        mask = (filled if config.mask_padding else tf.ones_like(filled)) * factors
        truth = geometry.physical(geometry.word_values(batch.codes))
        if config.reconstruction == "cylindrical":
            pt, eta, _ = geometry.physical(geometry.unscale(output))
            return cylindrical_mae(truth[:2], (pt, eta), mask, scale_gev=config.pt_scale_gev)
        raw = tuple(geometry.feature(output, name) for name in ("pt", "eta", "phi"))
        # pt is standardised by the scaling of the inputs; phi of the hardware runs from 0 to 2 pi.
        wanted = (geometry.feature(target, "pt"), truth[1], cyclic_difference(truth[2], tf.zeros_like(truth[2])))
        result = tanh_ranges((raw[0], raw[1], raw[2]), geometry.groups)
        return tanh_ranges_mse(wanted, result, mask, cyclic=config.cyclic_phi)


def vicreg_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance of two sets of embeddings (B, d), scalars each.

    Equations 1 to 5 of arXiv:2105.04906: the mean squared distance; the hinge
    ``mean_j max(0, 1 - sqrt(Var_j + 1e-4))``; the sum of squared off-diagonal covariances over d. Variance and
    covariance are those of both sets added up.
    """
    tf = import_tf().tf
    n, d = tf.cast(tf.shape(a)[0], tf.float32), float(a.shape[-1])
    invariance = tf.reduce_mean(scores.mse(a, b, ops=tf_ops()))
    variance = covariance = tf.constant(0.0)
    for z in (a, b):
        centred = z - tf.reduce_mean(z, axis=0)
        matrix = tf.matmul(centred, centred, transpose_a=True) / (n - 1.0)
        diagonal = tf.linalg.diag_part(matrix)
        variance += tf.reduce_mean(tf.nn.relu(1.0 - tf.sqrt(diagonal + 1e-4)))
        covariance += (tf.reduce_sum(matrix**2) - tf.reduce_sum(diagonal**2)) / d
    return invariance, variance, covariance
