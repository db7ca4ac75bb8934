"""Dense variational autoencoder: quantised encoder with the heads ``mu`` and ``log_var``, float decoder.

The family of AXOL1TL v1 to v4 and of the dense model of arXiv:2108.03986.
"""

from __future__ import annotations

from collections.abc import Iterator

from l1ad.config import CnnVaeConfig, RunConfig, VaeConfig
from l1ad.events.layout import ObjectLayout
from l1ad.model.forward import apply
from l1ad.model.keras import KerasModel, Tensor, import_tf
from l1ad.model.losses import Reconstruction, beta_at, kl_divergence, weighted_mean
from l1ad.model.network import (
    LayerQuantizers,
    Network,
    dense_chain,
    encoder_model,
    float_decoder,
    qdense,
    scaled_input,
)
from l1ad.model.noise import NoiseBank
from l1ad.model.quantizers import activation_layer
from l1ad.model.stage import Batch, Geometry, Stage, Terms, quantised_kernels
from l1ad.trigger.quantizer import Quantizer


def build(config: VaeConfig, layout: ObjectLayout, seeds: Iterator[int]) -> Network:
    """The network of a configuration."""
    n = len(config.hidden)
    quantizers = LayerQuantizers.of(config, layers=n + 1, hidden=n)
    inputs, x = scaled_input(layout.n_inputs, config)
    x = dense_chain(x, config.hidden, quantizers, seeds)
    outputs = latent_heads(x, config, quantizers, seeds)
    decoder = float_decoder(config.latent, layout.n_inputs, config.decoder, seeds)
    return Network(encoder_model(inputs, outputs), tuple(outputs), {"decoder": decoder})


def latent_heads(
    x: Tensor, config: VaeConfig | CnnVaeConfig, quantizers: LayerQuantizers, seeds: Iterator[int]
) -> dict[str, Tensor]:
    """The heads ``mu`` and ``log_var``, which share the last entry of the quantisers."""
    words = {"mu": config.head, "log_var": config.log_var or config.head}
    kernel, bias = quantizers.kernel[-1], quantizers.bias[-1]
    # The log variance starts near 0: exp of a first guess of 40 would be all there is in the loss and its gradient.
    gains = {"mu": 2.0, "log_var": 1e-3}
    return {
        name: activation_layer(Quantizer.parse(words[name]), name)(
            qdense(x, config.latent, kernel, bias, name=f"{name}_dense", seed=next(seeds), gain=gain)
        )
        for name, gain in gains.items()
    }


def stages(config: RunConfig, network: Network, geometry: Geometry, *, steps: int) -> tuple[Stage, ...]:
    """One stage: reconstruction and KL divergence of encoder and decoder together."""
    loss = config.loss
    tf = import_tf().tf
    encoder, decoder = network.encoder, network.parts["decoder"]
    reconstruction = Reconstruction(loss, geometry)
    bank = NoiseBank.of(config.seed)

    def terms(batch: Batch, training: bool) -> Terms:
        mu, log_var = apply(encoder, batch.x, training=training, quantised=True)
        # Beyond these ends the sample is noise of any size and its gradient infinite; the KL term sees all of log_var.
        deviation = tf.exp(0.5 * tf.clip_by_value(log_var, -20.0, 20.0))
        noise = bank.draw(mu, batch.seed)
        (output,) = apply(decoder, mu + deviation * noise, training=training)
        rebuilt = weighted_mean(reconstruction(batch, batch.x, output), batch.weight)
        divergence = weighted_mean(kl_divergence(mu, log_var, reduction=loss.kl), batch.weight)
        beta = beta_at(loss.beta, batch.step, steps)
        if not training:
            # Epochs are compared at the last value, not at the value that each of them had.
            beta = tf.constant(loss.beta.value)
        total = loss.alpha * (1.0 - beta) * rebuilt + beta * divergence
        return {"loss": total, "reconstruction": rebuilt, "kl": divergence}

    settled = 0 if loss.beta.schedule == "constant" else loss.beta.epochs * steps
    models: tuple[KerasModel, ...] = (encoder, decoder)
    return (Stage("vae", models, quantised_kernels((encoder,)), terms, config.training.epochs, settled),)
