"""Normal numbers for the samples of a variational autoencoder, drawn once.

Drawing 8 numbers for each of 16384 events takes a tenth of a whole training step. `NoiseBank` draws some millions of
them once, and each step reads a block of as many as it needs; which one depends on its seed. Within one step no number
is used twice, and since the events are shuffled each epoch, none is bound to its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l1ad.model.keras import Tensor, import_tf

#: Numbers of a bank: 16 MB, 32 steps of 16384 events and 8 latents without any overlap.
BANK_NUMBERS = 1 << 22


@dataclass(frozen=True, eq=False)
class NoiseBank:
    """Independent normal numbers, float32 (N,), mean 0 and variance 1."""

    numbers: Tensor

    @classmethod
    def of(cls, seed: int, size: int = BANK_NUMBERS) -> NoiseBank:
        """A bank that depends on the seed only."""
        tf = import_tf().tf
        words = np.random.SeedSequence([seed, 0x4015E]).generate_state(2).astype(np.int64)
        return cls(tf.random.stateless_normal((size,), words))

    def draw(self, like: Tensor, seed: Tensor) -> Tensor:
        """Normal numbers of the shape of `like` (B, d); `seed`, int32 (2,), says which block of the bank they are.

        They are drawn afresh if the shape is not known when the step is traced or needs more than a quarter of the
        bank.
        """
        tf = import_tf().tf
        size = int(self.numbers.shape[0])
        n = like.shape.num_elements()
        if n is None or 4 * n > size:
            return tf.random.stateless_normal(tf.shape(like), seed)
        blocks = size // n
        # A gather, since XLA would compile a slice again for each beginning.
        index = tf.random.stateless_uniform((), seed, 0, blocks, tf.int32)
        return tf.gather(tf.reshape(self.numbers[: blocks * n], (blocks, *like.shape)), index)
