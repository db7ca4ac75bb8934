"""The training step: many steps a call, data on the device, no trip to Python in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.config import TrainingConfig
from l1ad.model.keras import Tensor, import_tf
from l1ad.model.pruning import Pruner
from l1ad.model.stage import Batch, Geometry, Stage

#: Steps that run on the device before Python looks at the losses again.
STEPS_PER_CALL = 32
#: Events of a whole training from which compiling it with XLA costs less time than it saves.
COMPILE_EVENTS = 20_000_000
#: Scaled inputs are kept on the device up to this size.
SCALED_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class DeviceData:
    """Events on the device.

    Attributes
    ----------
    codes : int16 (N, inputs), hardware codes.
    x : float32 (N, inputs), what the network sees; (0, inputs) if there are so many events that each step scales its
        own instead.
    weight : float32 (N,).
    """

    codes: Tensor
    x: Tensor
    weight: Tensor

    @classmethod
    def of(cls, codes: npt.NDArray[np.int16], weight: npt.NDArray[np.float32], geometry: Geometry) -> DeviceData:
        """Copy arrays to the device, and scale them there if that fits in `SCALED_BYTES`."""
        tf = import_tf().tf
        on_device = tf.constant(codes)
        known = 4 * codes.size <= SCALED_BYTES
        pieces = range(0, len(codes), 65536) if known else ()
        x = [geometry.inputs(on_device[start : start + 65536]) for start in pieces]
        return cls(on_device, tf.concat(x, 0) if x else tf.zeros((0, codes.shape[1])), tf.constant(weight))

    def __len__(self) -> int:
        return int(self.codes.shape[0])


def make_optimizer(config: TrainingConfig, *, steps_per_epoch: int, epochs: int) -> Tensor:
    """The Keras optimiser of a configuration, with its learning-rate schedule."""
    keras = import_tf().keras
    rate: Tensor = config.rate.value
    if config.rate.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(config.rate.value, epochs * steps_per_epoch)
    elif config.rate.schedule == "cosine_restarts":
        first = config.rate.first_epochs * steps_per_epoch
        rate = keras.optimizers.schedules.CosineDecayRestarts(config.rate.value, first)
    options: dict[str, Tensor] = {"learning_rate": rate, "jit_compile": False}
    if config.clip_norm is not None:
        options["global_clipnorm"] = config.clip_norm
    if config.weight_decay or config.optimizer == "adamw":
        options["weight_decay"] = config.weight_decay
    kinds = {"adam": "Adam", "adamw": "AdamW", "lion": "Lion", "sgd": "SGD"}
    return getattr(keras.optimizers, kinds[config.optimizer])(**options)


def shuffled(n: int, seed: Sequence[int]) -> Tensor:
    """A permutation of n events that depends on the seed (two integers) only."""
    tf = import_tf().tf
    return tf.random.experimental.stateless_shuffle(tf.range(n), seed=tf.constant(list(seed), tf.int32))


def compiles(config: TrainingConfig, stage: Stage, *, steps_per_epoch: int, batch: int) -> bool:
    """Whether the step of a stage is compiled with XLA."""
    if config.jit != "auto":
        return config.jit
    return stage.compiles and stage.epochs * steps_per_epoch * batch >= COMPILE_EVENTS


RunSteps = Callable[[DeviceData, Tensor, int, int, int], npt.NDArray[np.float32]]


def make_steps(
    stage: Stage,
    geometry: Geometry,
    optimizer: Tensor,
    pruner: Pruner | None,
    terms: Sequence[str],
    *,
    batch: int,
    seed: int,
    jit: bool,
) -> RunSteps:
    """A function that runs training steps.

    It takes the data, a permutation of it, the first batch of the permutation, the number of the first step and how
    many steps to run, at most `STEPS_PER_CALL`; it returns the value of each term at each step, float32 (steps, terms).
    """
    tf = import_tf().tf
    trainable = stage.trainable
    optimizer.build(trainable)

    def one(events: DeviceData, index: Tensor, step: Tensor) -> Tensor:
        picked = tf.gather(events.codes, index)
        scaled = events.x.shape[0] != 0
        batch_data = Batch(
            picked,
            tf.gather(events.x, index) if scaled else geometry.inputs(picked),
            tf.gather(events.weight, index),
            tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)]),
            step,
        )
        if pruner is not None:
            pruner.step(step)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for variable in trainable:
                tape.watch(variable)
            values = stage.loss(batch_data, True)
        gradients = tape.gradient(values["loss"], trainable)
        pairs = [(g, v) for g, v in zip(gradients, trainable) if g is not None]
        optimizer.apply_gradients(pairs)
        return tf.stack([values[name] for name in terms])

    @tf.function(jit_compile=jit)  # type: ignore[untyped-decorator]
    def run(codes: Tensor, x: Tensor, weight: Tensor, order: Tensor, first: Tensor, step: Tensor, n: Tensor) -> Tensor:
        data = DeviceData(codes, x, weight)
        # The size is fixed: XLA would compile once more for each other one.
        history = tf.TensorArray(tf.float32, size=STEPS_PER_CALL, element_shape=(len(terms),))
        # Rows to be gathered, since XLA would compile a slice again for each beginning.
        whole = order.shape[0] // batch
        batches = tf.reshape(order[: whole * batch], (whole, batch))
        for i in tf.range(n):
            # The order of side effects in a traced loop is the order in which they are written.
            row = one(data, tf.gather(batches, first + i), step + tf.cast(i, tf.int64))
            history = history.write(i, row)
        return history.stack()

    def call(data: DeviceData, order: Tensor, first: int, step: int, n: int) -> npt.NDArray[np.float32]:
        result = run(
            data.codes,
            data.x,
            data.weight,
            order,
            tf.constant(first, tf.int32),
            tf.constant(step, tf.int64),
            tf.constant(n, tf.int32),
        )
        return np.asarray(result)[:n]

    return call


def make_evaluation(
    stage: Stage, geometry: Geometry, terms: Sequence[str], *, seed: int, batch: int = 32768
) -> Callable[[npt.NDArray[np.int16], npt.NDArray[np.float32]], dict[str, float]]:
    """A function that evaluates the terms of a stage on codes and weights, always with the same random numbers.

    The arrays go to the device batch by batch: they may be files that are larger than the memory.
    """
    tf = import_tf().tf

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def run(codes: Tensor, weight: Tensor, number: Tensor) -> Tensor:
        noise = tf.stack([tf.constant(seed, tf.int32), -1 - number])
        data = Batch(codes, geometry.inputs(codes), weight, noise, tf.constant(0, tf.int64))
        values = stage.loss(data, False)
        return tf.stack([values[name] for name in terms])

    def call(codes: npt.NDArray[np.int16], weight: npt.NDArray[np.float32]) -> dict[str, float]:
        total = np.zeros(len(terms))
        norm = 0.0
        for number, start in enumerate(range(0, len(codes), batch)):
            piece = weight[start : start + batch]
            share = float(np.sum(piece))
            on_device = tf.constant(codes[start : start + batch]), tf.constant(piece), tf.constant(number, tf.int32)
            total += share * np.asarray(run(*on_device), dtype=np.float64)
            norm += share
        return dict(zip(terms, (total / norm).tolist()))

    return call
