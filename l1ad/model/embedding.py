"""VICReg backbone and an autoencoder on its embedding (AXOL1TL v5, l1-facts section 3).

Stage 1 trains the backbone so that two distorted views of one crossing lie close together while the embedding keeps its
variance (VICReg, arXiv:2105.04906); a float projector of a multiple of the width carries the loss and is thrown away.
Stage 2 trains the autoencoder on the frozen embedding; its squared error is the score. Backbone and autoencoder are
quantised, both run on the FPGA.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from l1ad import scores
from l1ad.config import AugmentConfig, EmbeddingConfig, RunConfig
from l1ad.errors import ConfigError
from l1ad.events.layout import ObjectLayout
from l1ad.model.forward import apply, apply_chain
from l1ad.model.keras import KerasModel, Tensor, import_tf, tf_ops
from l1ad.model.losses import vicreg_terms, weighted_mean
from l1ad.model.network import LayerQuantizers, Network, dense_chain, encoder_model, qdense, scaled_input
from l1ad.model.quantizers import activation_layer
from l1ad.model.stage import Batch, Geometry, Stage, Terms, quantised_kernels
from l1ad.trigger.quantizer import Quantizer


def build(config: EmbeddingConfig, layout: ObjectLayout, seeds: Iterator[int]) -> Network:
    """The network of a configuration.

    Raises
    ------
    ConfigError
        If `linear` names a layer that does not exist.
    """
    *hidden, width = config.backbone
    inner = config.autoencoder
    odd = [i for i in config.linear if not 0 <= i < len(inner)]
    if odd:
        raise ConfigError("model", "linear", odd[0], f"an index from 0 to {len(inner) - 1}")
    n = len(hidden) + 1 + len(inner) + 1
    quantizers = LayerQuantizers.of(config, layers=n, hidden=len(hidden) + len(inner))
    inputs, x = scaled_input(layout.n_inputs, config)
    x = dense_chain(x, hidden, quantizers, seeds)
    at = len(hidden)
    x = qdense(x, width, quantizers.kernel[at], quantizers.bias[at], name="embedding_dense", seed=next(seeds))
    embedding = activation_layer(Quantizer.parse(config.embedding), "embedding")(x)
    activations = list(quantizers.activation[at:])
    for i in config.linear:
        activations[i] = Quantizer.parse(config.head)
    chain = LayerQuantizers(
        (*quantizers.kernel[:at], *quantizers.kernel[at + 1 :]),
        (*quantizers.bias[:at], *quantizers.bias[at + 1 :]),
        (*quantizers.activation[:at], *activations),
    )
    x = dense_chain(embedding, inner, chain, seeds, first=at)
    x = qdense(x, width, quantizers.kernel[-1], quantizers.bias[-1], name="decoded_dense", seed=next(seeds))
    decoded = activation_layer(Quantizer.parse(config.head), "decoded")(x)
    outputs = {"decoded": decoded, "embedding": embedding}
    projector = _projector(width, width * config.vicreg.projector_factor, seeds)
    return Network(encoder_model(inputs, outputs), tuple(outputs), {"projector": projector})


def _projector(width: int, wide: int, seeds: Iterator[int]) -> KerasModel:
    keras = import_tf().keras
    inputs = keras.Input((width,), name="embedding")
    x = inputs
    for i in range(2):
        initializer = keras.initializers.HeNormal(seed=next(seeds))
        x = keras.layers.Dense(wide, kernel_initializer=initializer, name=f"projector_{i + 1}")(x)
        x = keras.layers.BatchNormalization(name=f"projector_norm_{i + 1}")(x)
        x = keras.layers.ReLU(name=f"projector_relu_{i + 1}")(x)
    initializer = keras.initializers.GlorotUniform(seed=next(seeds))
    x = keras.layers.Dense(wide, kernel_initializer=initializer, name="projection")(x)
    return keras.Model(inputs, x, name="projector")


def augment(codes: Tensor, geometry: Geometry, config: AugmentConfig, seed: Tensor) -> Tensor:
    """A distorted view of hardware codes (B, inputs), as the network would see it.

    pt is smeared by a relative Gaussian, eta and phi by one of `blur` tenths of their span; objects are emptied at
    random; whole crossings are turned in phi and reflected in eta, which the physics does not distinguish.
    """
    tf = import_tf().tf
    layout, index = geometry.layout, geometry.index
    values = tf.cast(codes, tf.float32)
    batch, n_objects = tf.shape(codes)[0], layout.n_objects
    seeds = [seed + tf.constant([0, 7919 * (i + 1)]) for i in range(6)]
    noise = tf.random.stateless_normal((batch, n_objects, 3), seeds[0]) * config.blur
    filled = geometry.filled(codes)
    keep = tf.cast(tf.random.stateless_uniform((batch, n_objects), seeds[1]) >= config.mask_objects, tf.float32)
    turned = tf.random.stateless_uniform((batch, 1), seeds[2]) < config.rotate
    angle = tf.random.stateless_uniform((batch, 1), seeds[3])
    mirrored = tf.random.stateless_uniform((batch, 1), seeds[4]) < 0.5
    pt, eta, phi = (geometry.feature(values, name) for name in ("pt", "eta", "phi"))
    words = layout.input_words
    period = np.array([words[i].period if i >= 0 else 1 for i in index["phi"]], dtype=np.float32)
    largest_eta = np.array([words[i].code_max if i >= 0 else 0 for i in index["eta"]], dtype=np.float32)
    largest_pt = np.array([words[i].code_max if i >= 0 else 0 for i in index["pt"]], dtype=np.float32)
    pt = tf.clip_by_value(tf.round(pt * (1.0 + noise[:, :, 0])), 1.0, largest_pt)
    eta = tf.where(tf.logical_and(turned, mirrored), -eta, eta) + noise[:, :, 1] * largest_eta * 0.1
    eta = tf.clip_by_value(tf.round(eta), -largest_eta, largest_eta)
    phi = phi + noise[:, :, 2] * period * 0.1 + tf.where(turned, angle, 0.0) * period
    phi = tf.math.floormod(tf.round(phi), tf.maximum(period, 1.0))
    parts = tf.stack([pt, eta, phi], axis=2) * tf.expand_dims(filled * keep, 2)
    # Back into the order of the inputs.
    place = np.zeros(layout.n_inputs, dtype=np.int64)
    for k, name in enumerate(("pt", "eta", "phi")):
        for slot, position in enumerate(index[name]):
            if position >= 0:
                place[position] = slot * 3 + k
    known = np.isin(np.arange(layout.n_inputs), np.concatenate(list(index.values()))).astype(np.float32)
    flat = tf.reshape(parts, (batch, n_objects * 3))
    return geometry.inputs(tf.gather(flat, place, axis=1) * known)


def stages(config: RunConfig, network: Network, geometry: Geometry, *, steps: int) -> tuple[Stage, ...]:
    """VICReg on the backbone, then the autoencoder on the embedding that no longer changes."""
    del steps
    tf, keras = import_tf().tf, import_tf().keras
    model = config.model
    assert isinstance(model, EmbeddingConfig)
    encoder, projector = network.encoder, network.parts["projector"]
    embedding = encoder.get_layer("embedding").output
    backbone = keras.Model(encoder.inputs, embedding, name="backbone")
    names = [layer.name for layer in encoder.layers]
    autoencoder = tuple(encoder.layers[names.index("embedding") + 1 : names.index("decoded") + 1])

    def vicreg(batch: Batch, training: bool) -> Terms:
        views = []
        for i in range(2):
            view = augment(batch.codes, geometry, model.augment, batch.seed + tf.constant([i + 1, 0]))
            (inside,) = apply(backbone, view, training=training, quantised=True)
            (projected,) = apply(projector, inside, training=training)
            views.append(projected)
        invariance, variance, covariance = vicreg_terms(*views)
        weight = model.vicreg
        total = weight.invariance * invariance + weight.variance * variance + weight.covariance * covariance
        return {"loss": total, "invariance": invariance, "variance": variance, "covariance": covariance}

    def error(batch: Batch, training: bool) -> Terms:
        (inside,) = apply(backbone, batch.x, training=False, quantised=True)
        inside = tf.stop_gradient(inside)
        decoded = apply_chain(autoencoder, inside, training=training)
        total = scores.embedding_mse(decoded, inside, ops=tf_ops())
        return {"loss": weighted_mean(total, batch.weight)}

    epochs = config.training.epochs
    second = model.autoencoder_epochs or epochs
    return (
        # XLA's random numbers make the distorted views seven times as slow.
        Stage("vicreg", (backbone, projector), quantised_kernels((backbone,)), vicreg, epochs, compiles=False),
        Stage("autoencoder", autoencoder, quantised_kernels(autoencoder), error, second),
    )
