"""QKeras in float64: the same layers, weights and quantisers, in numpy and in the order in which they are written.

`keras.predict` is float32 and no golden reference; QKeras' own quantised ReLU casts to float32 whatever the policy. In
float64 every product and sum of a quantised network is exact (each has far less than 53 bits), so `replay` is what the
trained model means, and what the frozen integers are compared with. It shares no code with the freezing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.model.keras import KerasLayer, KerasModel
from l1ad.model.network import has_activation
from l1ad.model.quantizers import from_qkeras

FloatArray = npt.NDArray[np.float64]


def replay(model: KerasModel, x: npt.ArrayLike) -> dict[str, FloatArray]:
    """Values of every layer of a functional QKeras model, by name, flat (N, size), for scaled inputs (N, inputs).

    Raises
    ------
    InputError
        If the model has a layer that does not run on the FPGA.
    """
    values: dict[int, FloatArray] = {id(model.inputs[0]): np.asarray(x, dtype=np.float64)}
    named: dict[str, FloatArray] = {}
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            continue
        if kind not in _LAYERS:
            raise InputError(layer.name, "layer", kind, f"one of {', '.join(sorted(_LAYERS))}")
        result = _LAYERS[kind](layer, values[id(layer.input)])
        values[id(layer.output)] = result
        named[layer.name] = result.reshape(len(result), -1)
    return named


def _weights(layer: KerasLayer, what: str) -> FloatArray:
    quantizer = from_qkeras(getattr(layer, f"{what}_quantizer_internal"), where=layer.name)
    return quantizer(np.asarray(getattr(layer, what)))


def _bias(layer: KerasLayer) -> FloatArray | float:
    return _weights(layer, "bias") if layer.use_bias else 0.0


def _activated(layer: KerasLayer, x: FloatArray) -> FloatArray:
    return from_qkeras(layer.activation, where=layer.name)(x) if has_activation(layer) else x


def _activation(layer: KerasLayer, x: FloatArray) -> FloatArray:
    return from_qkeras(layer.quantizer, where=layer.name)(x)


def _dense(layer: KerasLayer, x: FloatArray) -> FloatArray:
    return _activated(layer, x @ _weights(layer, "kernel") + _bias(layer))


def _windows(x: FloatArray, size: tuple[int, int], strides: tuple[int, int]) -> FloatArray:
    """(N, rows, columns, channels) to (N, rows', columns', channels, height, width)."""
    view = np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))
    return np.asarray(view[:, :: strides[0], :: strides[1]])


def _convolution(layer: KerasLayer, x: FloatArray) -> FloatArray:
    kernel = _weights(layer, "kernel")
    height, width = kernel.shape[:2]
    if layer.padding == "same":
        pads = []
        for size, window, stride in zip(x.shape[1:3], (height, width), layer.strides):
            total = max((-(-size // stride) - 1) * stride + window - size, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, ((0, 0), *pads, (0, 0)))
    windows = _windows(x, (height, width), tuple(layer.strides))
    return _activated(layer, np.einsum("nrcihw,hwio->nrco", windows, kernel) + _bias(layer))


def _average(layer: KerasLayer, x: FloatArray) -> FloatArray:
    quantizer = from_qkeras(layer.average_quantizer_internal, where=layer.name)
    total = _windows(x, tuple(layer.pool_size), tuple(layer.strides)).sum(axis=(-2, -1))
    return _activated(layer, total * quantizer(1.0 / np.prod(layer.pool_size)))


def _maximum(layer: KerasLayer, x: FloatArray) -> FloatArray:
    return np.asarray(_windows(x, tuple(layer.pool_size), tuple(layer.strides)).max(axis=(-2, -1)))


def _upsample(layer: KerasLayer, x: FloatArray) -> FloatArray:
    return np.repeat(np.repeat(x, layer.size[0], axis=1), layer.size[1], axis=2)


def _pad(layer: KerasLayer, x: FloatArray) -> FloatArray:
    return np.pad(x, ((0, 0), *layer.padding, (0, 0)))


def _reshape(layer: KerasLayer, x: FloatArray) -> FloatArray:
    return x.reshape(len(x), *(int(n) for n in layer.output.shape[1:]))


def _same(layer: KerasLayer, x: FloatArray) -> FloatArray:
    del layer
    return x


_LAYERS: dict[str, Callable[[Any, FloatArray], FloatArray]] = {
    "QActivation": _activation,
    "QDense": _dense,
    "QConv2D": _convolution,
    "QAveragePooling2D": _average,
    "MaxPooling2D": _maximum,
    "UpSampling2D": _upsample,
    "ZeroPadding2D": _pad,
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Dropout": _same,
}
