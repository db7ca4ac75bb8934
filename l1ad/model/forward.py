"""The forward pass of the training step: the same layers and variables as Keras, in fewer operations.

QKeras evaluates a quantiser in fifteen elementwise operations and keeps most of them for the gradient; on a CPU that is
most of a training step. `apply` walks through a functional model and replaces the quantisers by three operations with
the straight-through gradient written down; everything else is the layer itself. Values and gradients are those of
QKeras (a test compares them), and the variables are the model's own, so nothing has to be copied back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l1ad.model.keras import KerasLayer, KerasModel, Tensor, import_tf
from l1ad.model.network import as_list, has_activation
from l1ad.model.quantizers import from_qkeras
from l1ad.trigger.quantizer import Quantizer


def quantize(quantizer: Quantizer, x: Tensor) -> Tensor:
    """`quantizer` on a float32 tensor, with the gradient of QKeras.

    ``quantized_bits`` passes the gradient on as it is, also where it saturates; ``quantized_relu`` passes it on between
    zero and its largest value and stops it elsewhere.
    """
    tf = import_tf().tf
    kind = quantizer.type
    scale, lsb = np.float32(2.0**kind.fraction), np.float32(kind.lsb)
    low, high = np.float32(kind.min_code), np.float32(kind.max_code)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def through(value: Tensor) -> tuple[Tensor, Tensor]:
        return tf.clip_by_value(tf.round(value * scale), low, high) * lsb, lambda upstream: upstream

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def rectified(value: Tensor) -> tuple[Tensor, Tensor]:
        # Both ends lie on the grid, so that clipping may come first; a lower end just above zero makes "was not
        # clipped" the same as "passes the gradient on", at zero itself too.
        clipped = tf.clip_by_value(value, np.float32(1e-30), high * lsb)

        def gradient(upstream: Tensor) -> Tensor:
            return upstream * tf.cast(tf.equal(clipped, value), upstream.dtype)

        return tf.round(clipped * scale) * lsb, gradient

    return through(x) if quantizer.kind == "bits" else rectified(x)


def apply(model: KerasModel, x: Tensor, *, training: bool, quantised: bool = False) -> list[Tensor]:
    """The outputs of a functional model for one input tensor, as a list.

    With `quantised` the input is in the input type already, and a quantiser right after it is passed over.
    """
    tf = import_tf().tf
    values: dict[int, Tensor] = {id(model.inputs[0]): x}
    for layer in model.layers:
        if len(layer.inbound_nodes) != 1 or isinstance(layer.input, (list, tuple)):
            if type(layer).__name__ == "InputLayer":
                continue
            # A layer that is used twice or joins several tensors: Keras knows best.
            return as_list(model(x, training=training))
        if quantised and type(layer).__name__ == "QActivation" and id(layer.input) == id(model.inputs[0]):
            values[id(layer.output)] = x
            continue
        if type(layer).__name__ == "InputLayer" or id(layer.output) in values:
            continue
        heads = [other for other in model.layers if _is_dense(layer) and _is_dense(other, layer.input)]
        if len(heads) < 2:
            values[id(layer.output)] = _call(layer, values[id(layer.input)], training)
            continue
        # Several heads on one tensor: one product is quicker than several narrow ones.
        kernels, biases = zip(*(_weights(head) for head in heads))
        joined = affine(values[id(layer.input)], tf.concat(kernels, 1), tf.concat(biases, 0))
        for head, value in zip(heads, tf.split(joined, [head.units for head in heads], axis=1)):
            values[id(head.output)] = value
    return [values[id(output)] for output in model.outputs]


def apply_chain(layers: Sequence[KerasLayer], x: Tensor, *, training: bool) -> Tensor:
    """Layers one after the other, as `apply` has them."""
    for layer in layers:
        x = _call(layer, x, training)
    return x


def _call(layer: KerasLayer, x: Tensor, training: bool) -> Tensor:
    kind = type(layer).__name__
    if kind == "QActivation":
        return quantize(from_qkeras(layer.quantizer, where=layer.name), x)
    if _is_dense(layer):
        return affine(x, *_weights(layer))
    if kind == "UpSampling2D" and layer.interpolation == "nearest" and layer.data_format == "channels_last":
        # XLA has no gradient of the resizing that Keras uses.
        tf = import_tf().tf
        rows, columns = layer.size
        return tf.repeat(tf.repeat(x, rows, axis=1), columns, axis=2)
    return layer(x, training=training)


def _is_dense(layer: KerasLayer, source: Tensor | None = None) -> bool:
    """Whether a layer is ``x kernel + bias`` of rows x, and `source`, if given, the one tensor it works on."""
    if type(layer).__name__ not in ("Dense", "QDense") or not layer.use_bias or has_activation(layer):
        return False
    if len(layer.inbound_nodes) != 1 or len(layer.input.shape) != 2:
        return False
    return source is None or id(layer.input) == id(source)


def _weights(layer: KerasLayer) -> tuple[Tensor, Tensor]:
    """Kernel and bias as the layer uses them."""
    if type(layer).__name__ == "Dense":
        return layer.kernel, layer.bias
    kernel = quantize(from_qkeras(layer.kernel_quantizer_internal, where=layer.name), layer.kernel)
    return kernel, quantize(from_qkeras(layer.bias_quantizer_internal, where=layer.name), layer.bias)


def affine(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """``x kernel + bias`` of (B, n), (n, m) and (m,).

    The gradient is TensorFlow's: one written down with products did not give the same last bit each time, so that a
    training could not be repeated.
    """
    tf = import_tf().tf
    return tf.nn.bias_add(tf.matmul(x, kernel), bias)
