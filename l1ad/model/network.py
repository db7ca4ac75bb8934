"""What every family is built of: quantised layers with seeded weights, and the result as a `Network`.

All layers are those of QKeras and Keras 2, so that the encoder converts with hls4ml bit by bit: a QActivation right
after the input, alpha = 1 everywhere, a quantiser between any two arithmetic layers and on each output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from l1ad.config import DecoderConfig, PerLayer, Quantised
from l1ad.errors import ConfigError
from l1ad.model.keras import KerasLayer, KerasModel, Tensor, import_tf
from l1ad.model.quantizers import activation_layer, to_qkeras
from l1ad.trigger.quantizer import Quantizer

#: Name of the layer that brings the scaled inputs into the input type.
INPUT_QUANTIZER = "input_quantizer"


@dataclass(frozen=True, eq=False)
class Network:
    """The Keras models of one family.

    Attributes
    ----------
    encoder : what runs on the FPGA: scaled inputs (N, inputs) to one tensor for each name in `outputs`.
    outputs : names of the encoder's outputs, in the words of `l1ad.scores`; each is also the name of a layer.
    parts : float models that only training needs, by name.
    """

    encoder: KerasModel
    outputs: tuple[str, ...]
    parts: Mapping[str, KerasModel] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, KerasModel]:
        """All models by name, the encoder first."""
        return {"encoder": self.encoder, **self.parts}


def weight_seeds(seed: int) -> Iterator[int]:
    """Independent seeds for the initial weights of as many layers as there are."""
    sequence = np.random.SeedSequence(seed)
    while True:
        yield int(sequence.spawn(1)[0].generate_state(1)[0] >> 1)


def per_layer(value: PerLayer, n: int, key: str) -> tuple[Quantizer, ...]:
    """One quantiser a layer.

    Raises
    ------
    ConfigError
        If a list has not one entry for each of the `n` layers.
    """
    entries = [value] * n if isinstance(value, str) else value
    if len(entries) != n:
        raise ConfigError("model", key, f"{len(entries)} entries", f"1 or {n}, one a layer")
    return tuple(Quantizer.parse(entry) for entry in entries)


@dataclass(frozen=True)
class LayerQuantizers:
    """Kernel, bias and activation quantisers of each arithmetic layer; one activation a hidden layer."""

    kernel: tuple[Quantizer, ...]
    bias: tuple[Quantizer, ...]
    activation: tuple[Quantizer, ...]

    @classmethod
    def of(cls, config: Quantised, *, layers: int, hidden: int) -> LayerQuantizers:
        """From a configuration, for `layers` arithmetic layers of which `hidden` have an activation of their own."""
        return cls(
            per_layer(config.kernel, layers, "kernel"),
            per_layer(config.bias, layers, "bias"),
            per_layer(config.activation, hidden, "activation"),
        )


def scaled_input(n_inputs: int, config: Quantised) -> tuple[Tensor, Tensor]:
    """The input tensor and the quantised input."""
    keras = import_tf().keras
    inputs = keras.Input((n_inputs,), name="inputs")
    return inputs, activation_layer(Quantizer.parse(config.input), INPUT_QUANTIZER)(inputs)


def qdense(
    x: Tensor, units: int, kernel: Quantizer, bias: Quantizer, *, name: str, seed: int, gain: float = 2.0
) -> Tensor:
    """A QDense layer without activation; `gain` is the variance of its initial weights times its inputs (He: 2)."""
    modules = import_tf()
    return modules.qkeras.QDense(
        units,
        kernel_quantizer=to_qkeras(kernel),
        bias_quantizer=to_qkeras(bias),
        kernel_initializer=modules.keras.initializers.VarianceScaling(gain, "fan_in", "truncated_normal", seed=seed),
        name=name,
    )(x)


def dense_chain(
    x: Tensor, sizes: Sequence[int], quantizers: LayerQuantizers, seeds: Iterator[int], *, first: int = 0
) -> Tensor:
    """Dense layers with ReLU, named ``dense_1``, ``relu_1``, ...; `first` counts the layers that came before."""
    for i, units in enumerate(sizes, start=first):
        name = f"dense_{i + 1}"
        x = qdense(x, units, quantizers.kernel[i], quantizers.bias[i], name=name, seed=next(seeds))
        activation = quantizers.activation[i]
        x = activation_layer(activation, f"{'relu' if activation.kind == 'relu' else 'linear'}_{i + 1}")(x)
    return x


def float_decoder(latent: int, n_outputs: int, config: DecoderConfig, seeds: Iterator[int]) -> KerasModel:
    """The float decoder of a variational autoencoder."""
    keras = import_tf().keras
    inputs = keras.Input((latent,), name="latents")
    x = inputs
    for i, units in enumerate(config.hidden):
        initializer = keras.initializers.HeNormal(seed=next(seeds))
        x = keras.layers.Dense(units, kernel_initializer=initializer, name=f"decoder_{i + 1}")(x)
        if config.batch_norm:
            x = keras.layers.BatchNormalization(name=f"decoder_norm_{i + 1}")(x)
        x = _activation(config.activation, f"decoder_{config.activation}_{i + 1}")(x)
    initializer = keras.initializers.GlorotUniform(seed=next(seeds))
    x = keras.layers.Dense(n_outputs, kernel_initializer=initializer, name="reconstruction")(x)
    return keras.Model(inputs, x, name="decoder")


def _activation(kind: str, name: str) -> Tensor:
    layers = import_tf().keras.layers
    if kind == "relu":
        return layers.ReLU(name=name)
    if kind == "leaky_relu":
        return layers.LeakyReLU(name=name)
    return layers.ELU(name=name) if kind == "elu" else layers.Activation("tanh", name=name)


def encoder_model(inputs: Tensor, outputs: Mapping[str, Tensor]) -> KerasModel:
    """The encoder of its outputs by name."""
    return import_tf().keras.Model(inputs, list(outputs.values()), name="encoder")


def has_activation(layer: KerasLayer) -> bool:
    """Whether a layer applies an activation of its own (Keras writes none as a function called linear)."""
    activation = getattr(layer, "activation", None)
    return activation is not None and getattr(activation, "__name__", "") != "linear"


def as_list(outputs: Tensor) -> list[Tensor]:
    """The outputs of a Keras model as a list, whether it has one or several."""
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
