"""An encoder trained as an energy: zero bias against zero bias with objects that it rarely has.

The network learns to tell a crossing from the same crossing with further objects strewn in, whose pt is log-uniform
and whose directions are uniform. A classifier between two samples learns the ratio of their densities
(arXiv:1406.2661, section 4.1), and the second density is smooth and wide, so what is learned is how improbable a
crossing is in zero bias, out to pt that the training sample never reaches. The logit is a rising function of
``sum mu^2``, so the score is that of AXOL1TL v1 to v4, on an encoder of the same form, and freezes the same way. No
signal is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from l1ad import scores
from l1ad.config import ContrastConfig, RunConfig, StrewConfig
from l1ad.events.layout import ObjectLayout
from l1ad.model.forward import apply
from l1ad.model.keras import Tensor, import_tf, tf_ops
from l1ad.model.losses import weighted_mean
from l1ad.model.network import LayerQuantizers, Network, dense_chain, encoder_model, qdense, scaled_input
from l1ad.model.quantizers import activation_layer
from l1ad.model.stage import Batch, Geometry, Stage, Terms, quantised_kernels
from l1ad.trigger.quantizer import Quantizer


def build(config: ContrastConfig, layout: ObjectLayout, seeds: Iterator[int]) -> Network:
    """The network of a configuration; the part ``head`` is the logit as a function of the energy."""
    keras = import_tf().keras
    n = len(config.hidden)
    quantizers = LayerQuantizers.of(config, layers=n + 1, hidden=n)
    inputs, x = scaled_input(layout.n_inputs, config)
    x = dense_chain(x, config.hidden, quantizers, seeds)
    x = qdense(x, config.latent, quantizers.kernel[-1], quantizers.bias[-1], name="mu_dense", seed=next(seeds))
    mu = activation_layer(Quantizer.parse(config.head), "mu")(x)
    energy = keras.Input((1,), name="energy")
    # A logit that falls with the energy would turn the score round.
    layer = keras.layers.Dense(
        1,
        kernel_initializer=keras.initializers.Constant(1.0),
        bias_initializer=keras.initializers.Constant(-4.0),
        kernel_constraint=keras.constraints.NonNeg(),
        name="logit",
    )
    head = keras.Model(energy, layer(energy), name="head")
    return Network(encoder_model(inputs, {"mu": mu}), ("mu",), {"head": head})


def strew(codes: Tensor, geometry: Geometry, config: StrewConfig, seed: Tensor) -> Tensor:
    """Hardware codes (B, inputs) with further objects strewn in, sorted by pt again, surplus ones dropped.

    Each object type of each crossing gets a probability u^`sparse` with uniform u, with which each of its slots gets a
    further object: pt log-uniform between the two ends of `pt_gev`, eta within `eta_share` of its word, phi anywhere. A
    type with one slot (the missing energy) is replaced instead.
    """
    tf = import_tf().tf
    layout = geometry.layout
    batch = tf.shape(codes)[0]
    result: list[Tensor] = []
    start = 0
    for number, group in enumerate(layout.groups):
        flags = group.input_flags
        width = sum(flags)
        words = [word for word, used in zip(group.words, flags) if used]
        present = tf.reshape(
            tf.cast(codes[:, start : start + group.count * width], tf.float32), (-1, group.count, width)
        )
        start += group.count * width
        own = [seed + tf.constant([0, 104729 * (3 * number + k + 1)]) for k in range(3)]
        probability = tf.random.stateless_uniform((batch, 1), own[0]) ** config.sparse
        drawn = tf.random.stateless_uniform((batch, group.count), own[1]) < probability
        u = tf.random.stateless_uniform((batch, group.count, width), own[2])
        features = []
        for k, word in enumerate(words):
            if k == 0:
                low, high = (np.log(gev / word.lsb) for gev in config.pt_gev)
                values = tf.exp(low + (min(high, np.log(word.code_max)) - low) * u[:, :, k])
            elif word.kind == "angle":
                values = u[:, :, k] * word.period - 0.5
            else:
                values = (2.0 * u[:, :, k] - 1.0) * word.code_max * config.eta_share
            features.append(tf.clip_by_value(tf.round(values), float(word.code_min), float(word.code_max)))
        extra = tf.stack(features, axis=2) * tf.cast(drawn, tf.float32)[:, :, None]
        if group.count == 1:
            merged = tf.where(drawn[:, :, None], extra, present)
        else:
            both = tf.concat([present, extra], axis=1)
            order = tf.math.top_k(both[:, :, 0], k=group.count).indices
            merged = tf.gather(both, order, batch_dims=1)
        result.append(tf.reshape(merged, (-1, group.count * width)))
    return tf.concat(result, axis=1)


def stages(config: RunConfig, network: Network, geometry: Geometry, *, steps: int) -> tuple[Stage, ...]:
    """One stage: the logistic loss of the two samples."""
    del steps
    tf = import_tf().tf
    model = config.model
    assert isinstance(model, ContrastConfig)
    encoder, head = network.encoder, network.parts["head"]

    def logit(x: Tensor, training: bool) -> Tensor:
        (mu,) = apply(encoder, x, training=training, quantised=True)
        energy = tf.math.log1p(scores.mu2(mu, ops=tf_ops()))
        (result,) = apply(head, energy[:, None], training=training)
        return result[:, 0]

    def terms(batch: Batch, training: bool) -> Terms:
        strewn = geometry.inputs(strew(batch.codes, geometry, model.strew, batch.seed))
        natural = weighted_mean(tf.nn.softplus(logit(batch.x, training)), batch.weight)
        other = weighted_mean(tf.nn.softplus(-logit(strewn, training)), batch.weight)
        # A crossing of zero bias that looks odd costs the rate: it may weigh more.
        return {"loss": model.natural_factor * natural + other, "zero_bias": natural, "strewn": other}

    models = (encoder, head)
    kernels = quantised_kernels((encoder,))
    # XLA's random numbers and sorting make a step five times as long.
    return (Stage("contrast", models, kernels, terms, config.training.epochs, compiles=False),)
