"""Magnitude pruning inside the training step.

The schedules are tfmot's own objects; what its wrapper layer does around a layer, `Pruner.step` does in the graph of
the step: update the masks when the schedule says so, then multiply them in. Values are those of
``tfmot.sparsity.keras.prune_low_magnitude`` (a test trains both), without wrapped layers that cost half the speed, that
must be stripped before saving, and that lose the sparsity when training goes on after that.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from l1ad.config import PruningConfig
from l1ad.errors import ConfigError
from l1ad.model.keras import Tensor, import_tf


@dataclass(frozen=True, eq=False)
class Pruner:
    """Kernels with their masks.

    Attributes
    ----------
    kernels, masks : variables of the same shapes; a mask holds zeros and ones.
    schedule : a tfmot schedule: step (counted from 1) to (whether to update the masks, sparsity).
    settled : the first step, counted from 0, from which the sparsity does not change any more.
    """

    kernels: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    schedule: Any
    settled: int

    def step(self, step: Tensor) -> None:
        """Before the forward pass of step `step`, counted from 0."""
        tf = import_tf().tf
        due, sparsity = self.schedule(step + 1)
        for kernel, mask in zip(self.kernels, self.masks):
            updated = tf.cond(due, lambda k=kernel: magnitude_mask(k, sparsity), lambda m=mask: m.read_value())
            mask.assign(updated)
            kernel.assign(kernel * updated)

    def apply(self) -> None:
        """Multiply the masks in, as after the last step of an epoch."""
        for kernel, mask in zip(self.kernels, self.masks):
            kernel.assign(kernel * mask)


def magnitude_mask(kernel: Tensor, sparsity: Tensor) -> Tensor:
    """1 for the ``round((1 - sparsity) n)`` largest magnitudes of a kernel and those equal to the smallest of them."""
    tf = import_tf().tf
    magnitude = tf.abs(kernel)
    size = tf.size(magnitude)
    keep = tf.cast(tf.maximum(tf.round(tf.cast(size, tf.float32) * (1.0 - sparsity)), 1.0), tf.int32)
    values = tf.sort(tf.reshape(magnitude, [-1]), direction="DESCENDING")
    return tf.cast(magnitude >= tf.gather(values, keep - 1), kernel.dtype)


def tfmot_schedule(config: PruningConfig, *, epochs: int, steps_per_epoch: int) -> tuple[Any, int]:
    """The tfmot schedule of a configuration, and the step (from 0) at which its sparsity has settled.

    Raises
    ------
    ConfigError
        If pruning would end before it begins, or after the training.
    """
    import_tf()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule as tfmot
    end_epoch = epochs / 2 if config.end_epoch is None else config.end_epoch
    if not config.begin_epoch < end_epoch <= epochs:
        expected = f"an epoch after {config.begin_epoch:g} (begin_epoch) and at most {epochs}"
        raise ConfigError("pruning", "end_epoch", f"{end_epoch:g}", expected)
    begin = round(config.begin_epoch * steps_per_epoch)
    end = max(round(end_epoch * steps_per_epoch), begin + 1)
    # tfmot looks at the schedule on every n-th step only: the last look must be at the end.
    every = min(config.every_steps, end - begin)
    end = begin + (end - begin) // every * every
    if config.schedule == "constant":
        return tfmot.ConstantSparsity(config.sparsity, begin, frequency=every), begin + every
    schedule = tfmot.PolynomialDecay(
        config.initial_sparsity, config.sparsity, begin, end, power=config.power, frequency=every
    )
    return schedule, end


def make_pruner(
    kernels: Sequence[Tensor], config: PruningConfig, *, epochs: int, steps_per_epoch: int
) -> Pruner | None:
    """The pruner of a configuration, or None if nothing is to be pruned.

    Raises
    ------
    ConfigError
        As `tfmot_schedule` says.
    """
    if config.schedule == "none" or not kernels:
        return None
    tf = import_tf().tf
    schedule, settled = tfmot_schedule(config, epochs=epochs, steps_per_epoch=steps_per_epoch)
    masks = tuple(tf.Variable(tf.ones_like(kernel), trainable=False, name="pruning_mask") for kernel in kernels)
    return Pruner(tuple(kernels), masks, schedule, settled)


def sparsity(kernels: Sequence[Tensor]) -> float:
    """Fraction of weights that are exactly zero; 0 without weights."""
    total = sum(int(np.prod(kernel.shape)) for kernel in kernels)
    zeros = sum(int(np.count_nonzero(np.asarray(kernel) == 0)) for kernel in kernels)
    return zeros / total if total else 0.0
