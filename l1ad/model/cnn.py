"""Convolutional autoencoders on the objects x features image of a crossing (arXiv:2108.03986).

``cnn_vae``: convolutions, the heads ``mu`` and ``log_var``, a float decoder. ``cnn_autoencoder``: quantised from the
input to the output; its decoder is dense, which freezes into fewer operations than transposed convolutions would.
Average pooling is the sum of a window times the quantised inverse of its size, so that it is exact in hardware.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from l1ad.config import CnnAutoencoderConfig, CnnVaeConfig, ConvLayer, RunConfig
from l1ad.errors import ConfigError
from l1ad.events.layout import ObjectLayout
from l1ad.model import autoencoder, vae
from l1ad.model.keras import Tensor, import_tf
from l1ad.model.network import (
    LayerQuantizers,
    Network,
    dense_chain,
    encoder_model,
    float_decoder,
    qdense,
    scaled_input,
)
from l1ad.model.quantizers import activation_layer, to_qkeras
from l1ad.model.stage import Geometry, Stage
from l1ad.trigger.quantizer import Quantizer


def build(config: CnnVaeConfig | CnnAutoencoderConfig, layout: ObjectLayout, seeds: Iterator[int]) -> Network:
    """The network of a configuration.

    Raises
    ------
    ConfigError
        If the layout is no image, or nothing of it is left after a convolution or pooling.
    """
    if layout.n_inputs != layout.n_objects * layout.n_features:
        raise ConfigError("model", "family", config.family, f"a dense family: {layout.name} is no image")
    inputs, x = scaled_input(layout.n_inputs, config)
    n_conv, n_hidden = len(config.conv), len(config.hidden)
    if isinstance(config, CnnVaeConfig):
        n = n_conv + n_hidden
        quantizers = LayerQuantizers.of(config, layers=n + 1, hidden=n)
        x = convolutions(x, layout.shape, config.conv, config.pool_factor, quantizers, seeds)
        x = dense_chain(x, config.hidden, _after(quantizers, n_conv), seeds)
        outputs = vae.latent_heads(x, config, quantizers, seeds)
        decoder = float_decoder(config.latent, layout.n_inputs, config.decoder, seeds)
        return Network(encoder_model(inputs, outputs), tuple(outputs), {"decoder": decoder})
    decoder_hidden = config.decoder_hidden or [*config.hidden[::-1], 32]
    n = n_conv + n_hidden + 1 + len(decoder_hidden) + 1
    quantizers = LayerQuantizers.of(config, layers=n, hidden=n - 2)
    x = convolutions(x, layout.shape, config.conv, config.pool_factor, quantizers, seeds)
    dense = _after(quantizers, n_conv)
    x = dense_chain(x, config.hidden, dense, seeds)
    kernel, bias = dense.kernel[n_hidden], dense.bias[n_hidden]
    x = qdense(x, config.latent, kernel, bias, name="latent_dense", seed=next(seeds))
    x = activation_layer(Quantizer.parse(config.head), "latent")(x)
    shifted = LayerQuantizers(dense.kernel[1:], dense.bias[1:], dense.activation)
    x = dense_chain(x, decoder_hidden, shifted, seeds, first=n_hidden)
    output = autoencoder.output_head(x, layout.n_inputs, config.output, quantizers, seeds)
    return Network(encoder_model(inputs, {"output": output}), ("output",))


def _after(quantizers: LayerQuantizers, n: int) -> LayerQuantizers:
    return LayerQuantizers(quantizers.kernel[n:], quantizers.bias[n:], quantizers.activation[n:])


def convolutions(
    x: Tensor,
    image: tuple[int, int],
    layers: Sequence[ConvLayer],
    pool_factor: str,
    quantizers: LayerQuantizers,
    seeds: Iterator[int],
) -> Tensor:
    """Convolutions with ReLU and pooling on an image (rows, columns), flattened at the end.

    Raises
    ------
    ConfigError
        If a kernel or a pooling window is larger than what is left of the image.
    """
    modules = import_tf()
    x = modules.keras.layers.Reshape((*image, 1), name="image")(x)
    for i, layer in enumerate(layers, start=1):
        _require_room(x, layer.kernel if layer.padding == "valid" else (1, 1), f"conv {i} kernel")
        x = modules.qkeras.QConv2D(
            layer.filters,
            tuple(layer.kernel),
            strides=tuple(layer.strides),
            padding=layer.padding,
            kernel_quantizer=to_qkeras(quantizers.kernel[i - 1]),
            bias_quantizer=to_qkeras(quantizers.bias[i - 1]),
            kernel_initializer=modules.keras.initializers.HeNormal(seed=next(seeds)),
            name=f"conv_{i}",
        )(x)
        activation = quantizers.activation[i - 1]
        x = activation_layer(activation, f"conv_relu_{i}")(x)
        if layer.pool is None:
            continue
        _require_room(x, layer.pool, f"conv {i} pool")
        if layer.pooling == "max":
            x = modules.keras.layers.MaxPooling2D(tuple(layer.pool), name=f"pool_{i}")(x)
            continue
        factor = to_qkeras(Quantizer.parse(pool_factor))
        x = modules.qkeras.QAveragePooling2D(tuple(layer.pool), average_quantizer=factor, name=f"pool_{i}")(x)
        # The mean lies on a finer grid than the activation: back to one word before the next product.
        x = activation_layer(activation, f"pool_relu_{i}")(x)
    return modules.keras.layers.Flatten(name="flat")(x)


def _require_room(x: Tensor, window: tuple[int, int], what: str) -> None:
    rows, columns = int(x.shape[1]), int(x.shape[2])
    if np.any(np.array(window) > (rows, columns)):
        raise ConfigError("model", what, list(window), f"at most what is left of the image, {rows} x {columns}")


def stages(config: RunConfig, network: Network, geometry: Geometry, *, steps: int) -> tuple[Stage, ...]:
    """The stages of the dense family with the same outputs."""
    family = vae if "decoder" in network.parts else autoencoder
    # XLA's convolutions take twice as long.
    return tuple(replace(stage, compiles=False) for stage in family.stages(config, network, geometry, steps=steps))
