"""CICADA: a convolutional teacher on calorimeter regions, and a small quantised student that learns its score.

The teacher is a float autoencoder of the 18 x 14 image and never leaves training; the student sees the same regions and
regresses ``target_scale * log(1 + error)``, with the teacher's mean squared error (l1-facts, section 3; the logarithm
brings the tail of the error into one word). Only the student freezes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from l1ad import scores
from l1ad.config import CicadaConfig, RunConfig, TeacherConfig
from l1ad.errors import ConfigError, InputError
from l1ad.events.layout import ObjectLayout
from l1ad.model.cnn import convolutions
from l1ad.model.forward import apply
from l1ad.model.keras import KerasModel, Tensor, import_tf, load_model, tf_ops
from l1ad.model.losses import weighted_mean
from l1ad.model.network import LayerQuantizers, Network, dense_chain, encoder_model, qdense, scaled_input
from l1ad.model.quantizers import activation_layer
from l1ad.model.stage import Batch, Geometry, Stage, Terms, quantised_kernels
from l1ad.trigger.quantizer import Quantizer
from l1ad.trigger.scaling import read_scaling


def build(config: CicadaConfig, layout: ObjectLayout, seeds: Iterator[int]) -> Network:
    """The network of a configuration.

    Raises
    ------
    ConfigError
        If the layout is not an image of rows x columns.
    """
    if layout.n_inputs != config.rows * config.columns:
        found = f"{config.rows} x {config.columns} rows and columns"
        raise ConfigError("model", "rows", found, f"{layout.n_inputs} inputs of {layout.name}")
    n_conv, n_hidden = len(config.conv), len(config.hidden)
    n = n_conv + n_hidden + 1
    quantizers = LayerQuantizers.of(config, layers=n, hidden=n - 1)
    inputs, x = scaled_input(layout.n_inputs, config)
    if config.conv:
        x = convolutions(x, (config.rows, config.columns), config.conv, config.pool_factor, quantizers, seeds)
    dense = LayerQuantizers(quantizers.kernel[n_conv:], quantizers.bias[n_conv:], quantizers.activation[n_conv:])
    x = dense_chain(x, config.hidden, dense, seeds)
    x = qdense(x, 1, dense.kernel[-1], dense.bias[-1], name="output_dense", seed=next(seeds))
    output = activation_layer(Quantizer.parse(config.output), "output")(x)
    teacher = _teacher(config.rows, config.columns, config.teacher, seeds)
    if config.teacher.run is not None:
        _take_weights(teacher, Path(config.teacher.run))
    return Network(encoder_model(inputs, {"output": output}), ("output",), {"teacher": teacher})


def _teacher(rows: int, columns: int, config: TeacherConfig, seeds: Iterator[int]) -> KerasModel:
    keras = import_tf().keras
    layers = keras.layers

    def conv(x: Tensor, filters: int, name: str) -> Tensor:
        initializer = keras.initializers.HeNormal(seed=next(seeds))
        x = layers.Conv2D(filters, 3, padding="same", kernel_initializer=initializer, name=name)(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def dense(x: Tensor, units: int, name: str) -> Tensor:
        initializer = keras.initializers.HeNormal(seed=next(seeds))
        x = layers.Dense(units, kernel_initializer=initializer, name=name)(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    inputs = keras.Input((rows * columns,), name="regions")
    x = layers.Reshape((rows, columns, 1), name="teacher_image")(inputs)
    for i, filters in enumerate(config.filters, start=1):
        x = conv(x, filters, f"teacher_conv_{i}")
        if i == 1:
            x = layers.AveragePooling2D(2, name="teacher_pool")(x)
    small = tuple(int(size) for size in x.shape[1:])
    x = dense(layers.Flatten(name="teacher_flat")(x), config.latent, "teacher_latent")
    x = dense(x, small[0] * small[1] * small[2], "teacher_open")
    x = layers.Reshape(small, name="teacher_small")(x)
    for i, filters in enumerate(config.filters[::-1], start=1):
        x = conv(x, filters, f"teacher_deconv_{i}")
        if i == 1:
            x = layers.UpSampling2D(2, name="teacher_up")(x)
    initializer = keras.initializers.GlorotUniform(seed=next(seeds))
    x = layers.Conv2D(1, 3, padding="same", kernel_initializer=initializer, name="teacher_output")(x)
    return keras.Model(inputs, layers.Flatten(name="reconstruction")(x), name="teacher")


def _take_weights(teacher: KerasModel, run: Path) -> None:
    """Set the weights of the teacher of another run.

    The teacher sees scaled inputs, so that both runs must scale alike, which `stages` sees to.

    Raises
    ------
    InputError
        If the run is not finished, or its teacher is another network.
    """
    path = run / "parts" / "teacher.h5"
    if not (run / "model.h5").is_file() or not path.is_file():
        raise InputError(str(path), "model.teacher.run", "no such file", "the folder of a finished run with a teacher")
    values = load_model(path).get_weights()
    found, wanted = ([np.shape(value) for value in weights] for weights in (values, teacher.get_weights()))
    if found != wanted:
        sizes = [sum(int(np.prod(shape)) for shape in shapes) for shapes in (found, wanted)]
        raise InputError(str(path), "model.teacher", f"{sizes[0]} weights", f"{sizes[1]}, as filters and latent say")
    teacher.set_weights(values)


def stages(config: RunConfig, network: Network, geometry: Geometry, *, steps: int) -> tuple[Stage, ...]:
    """The teacher first, then the student on the teacher that no longer changes.

    A teacher of another run is not trained again.

    Raises
    ------
    InputError
        If that other run scales its inputs another way: its teacher would see other numbers.
    """
    del steps
    tf = import_tf().tf
    model = config.model
    assert isinstance(model, CicadaConfig)
    student, teacher = network.encoder, network.parts["teacher"]

    def teacher_error(batch: Batch, training: bool) -> Tensor:
        (output,) = apply(teacher, batch.x, training=training)
        return scores.mse(batch.x, output, ops=tf_ops()) / output.shape[-1]

    def teach(batch: Batch, training: bool) -> Terms:
        return {"loss": weighted_mean(teacher_error(batch, training), batch.weight)}

    def learn(batch: Batch, training: bool) -> Terms:
        wanted = tf.stop_gradient(model.target_scale * tf.math.log1p(teacher_error(batch, False)))
        (output,) = apply(student, batch.x, training=training, quantised=True)
        difference = scores.student(output, ops=tf_ops()) - wanted
        # In units of the scale: the same step size serves any word.
        return {
            "loss": weighted_mean((difference / model.target_scale) ** 2, batch.weight),
            "mean_absolute_error": weighted_mean(tf.abs(difference), batch.weight),
        }

    epochs = config.training.epochs
    # XLA's convolutions take twice as long, and the teacher runs in both.
    first = Stage("teacher", (teacher,), (), teach, model.teacher.epochs or epochs, compiles=False)
    second = Stage("student", (student,), quantised_kernels((student,)), learn, epochs, compiles=False)
    if model.teacher.run is None:
        return first, second
    path = Path(model.teacher.run) / "scaling.json"
    scaling, layout = read_scaling(path)
    same = np.array_equal(scaling.shift, geometry.scaling.shift)
    same &= np.array_equal(scaling.stored_offset(), geometry.scaling.stored_offset())
    if layout != geometry.layout.name or scaling.word != geometry.scaling.word or not same:
        expected = "the scaling of this run: the same data, or scaling.offset and scaling.shift by hand"
        raise InputError(str(path), "scaling", "other offsets, shifts or words", expected)
    return (second,)
