"""Post-training quantisation: a float model's weights in words that are chosen from their ranges.

`quantise(encoder, bits, x)` takes a trained encoder (trained with words wide enough to be float), gives every kernel,
bias and activation a word of `bits` bits whose integer part holds the largest value seen, and leaves the weights as
they are. The result freezes like any other model. This is the PTQ of arXiv:2108.03986, section 4, to be compared with
training in the same words.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import ConfigError
from l1ad.model.keras import KerasLayer, KerasModel, import_tf
from l1ad.model.network import INPUT_QUANTIZER
from l1ad.model.quantizers import from_qkeras, to_qkeras
from l1ad.model.replay import replay
from l1ad.trigger.quantizer import Quantizer

#: A word that stands for a float number: 24 bits, values up to 2^10.
FLOAT_BITS = "quantized_bits(24,10)"
FLOAT_RELU = "quantized_relu(24,10)"


def quantise(encoder: KerasModel, bits: int, x: npt.ArrayLike, *, heads: int = 10) -> KerasModel:
    """The encoder with words of `bits` bits for weights and hidden activations.

    Parameters
    ----------
    encoder : a functional QKeras model; its input type is kept.
    bits : of kernels, biases and hidden activations, 2 to 24.
    x : scaled inputs (N, inputs) that show the ranges of the activations.
    heads : least number of bits of the outputs, which make the score.

    Raises
    ------
    ConfigError
        If the number of bits is not possible.
    """
    if not 2 <= bits <= 24:
        raise ConfigError("post-training quantisation", "bits", bits, "2 to 24")
    seen = replay(encoder, x)
    outputs = set(encoder.output_names)
    chosen: dict[str, Quantizer] = {}
    for layer in encoder.layers:
        if type(layer).__name__ == "QActivation" and layer.name != INPUT_QUANTIZER:
            kind = from_qkeras(layer.quantizer, where=layer.name).kind
            width = max(bits, heads) if layer.name in outputs else bits
            chosen[layer.name] = fitting(kind, width, seen[layer.name])

    def rewrite(layer: KerasLayer) -> KerasLayer:
        config: dict[str, Any] = layer.get_config()
        if layer.name in chosen:
            config["activation"] = to_qkeras(chosen[layer.name])
        for what in ("kernel", "bias"):
            if getattr(layer, f"{what}_quantizer_internal", None) is not None:
                word = fitting("bits", bits, np.asarray(getattr(layer, what)))
                config[f"{what}_quantizer"] = to_qkeras(word)
        return type(layer).from_config(config)

    with warnings.catch_warnings():
        # QKeras serialises its quantisers as what they are not; nothing is lost.
        warnings.simplefilter("ignore", UserWarning)
        result = import_tf().keras.models.clone_model(encoder, clone_function=rewrite)
    result.set_weights(encoder.get_weights())
    return result


def fitting(kind: str, bits: int, values: npt.ArrayLike) -> Quantizer:
    """The quantiser of `bits` bits with the fewest integer bits that holds every value after rounding.

    If none of that width does, the one with the most integer bits: it saturates.

    >>> str(fitting("bits", 6, [0.3, -1.7]))
    'quantized_bits(6,1)'
    >>> str(fitting("relu", 8, [15.9]))
    'quantized_relu(8,4)'
    """
    array = np.asarray(values, dtype=np.float64)
    signed = kind == "bits"
    largest = max(float(np.abs(array).max()) if array.size else 0.0, 2.0**-20)
    first = max(math.ceil(math.log2(largest)) - 1, 0)
    for integer in range(first, bits - signed):
        candidate = Quantizer("bits" if signed else "relu", bits, integer)
        if np.all(np.abs(candidate(array) - array) <= candidate.type.lsb / 2):
            return candidate
    return Quantizer("bits" if signed else "relu", bits, max(bits - signed, 0))
