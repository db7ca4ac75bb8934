"""Dense autoencoder, quantised from the input to the output: the score is its reconstruction error.

The dense autoencoder of arXiv:2108.03986. The decoder runs on the FPGA too, so everything is quantised.
"""

from __future__ import annotations

from collections.abc import Iterator

from l1ad.config import AutoencoderConfig, RunConfig
from l1ad.events.layout import ObjectLayout
from l1ad.model.forward import apply
from l1ad.model.keras import Tensor
from l1ad.model.losses import Reconstruction, weighted_mean
from l1ad.model.network import LayerQuantizers, Network, dense_chain, encoder_model, qdense, scaled_input
from l1ad.model.quantizers import activation_layer
from l1ad.model.stage import Batch, Geometry, Stage, Terms, quantised_kernels
from l1ad.trigger.quantizer import Quantizer


def build(config: AutoencoderConfig, layout: ObjectLayout, seeds: Iterator[int]) -> Network:
    """The network of a configuration; the latent layer has the quantiser `head` and no ReLU."""
    decoder = config.hidden[::-1] if config.decoder_hidden is None else config.decoder_hidden
    n = len(config.hidden) + len(decoder) + 2
    quantizers = LayerQuantizers.of(config, layers=n, hidden=n - 2)
    inputs, x = scaled_input(layout.n_inputs, config)
    x = dense_chain(x, config.hidden, quantizers, seeds)
    latent = len(config.hidden)
    x = qdense(
        x,
        config.latent,
        quantizers.kernel[latent],
        quantizers.bias[latent],
        name="latent_dense",
        seed=next(seeds),
    )
    x = activation_layer(Quantizer.parse(config.head), "latent")(x)
    # The latent layer has no activation of its own: the quantisers of the decoder follow one place later.
    shifted = LayerQuantizers(quantizers.kernel[1:], quantizers.bias[1:], quantizers.activation)
    x = dense_chain(x, decoder, shifted, seeds, first=latent)
    output = output_head(x, layout.n_inputs, config.output, quantizers, seeds)
    return Network(encoder_model(inputs, {"output": output}), ("output",))


def output_head(x: Tensor, n_outputs: int, output: str, quantizers: LayerQuantizers, seeds: Iterator[int]) -> Tensor:
    """The output layer, with the last entry of the quantisers."""
    kernel, bias = quantizers.kernel[-1], quantizers.bias[-1]
    dense = qdense(x, n_outputs, kernel, bias, name="output_dense", seed=next(seeds))
    return activation_layer(Quantizer.parse(output), "output")(dense)


def stages(config: RunConfig, network: Network, geometry: Geometry, *, steps: int) -> tuple[Stage, ...]:
    """One stage: the reconstruction error."""
    del steps
    encoder = network.encoder
    reconstruction = Reconstruction(config.loss, geometry)

    def terms(batch: Batch, training: bool) -> Terms:
        (output,) = apply(encoder, batch.x, training=training, quantised=True)
        return {"loss": weighted_mean(reconstruction(batch, batch.x, output), batch.weight)}

    return (Stage("autoencoder", (encoder,), quantised_kernels((encoder,)), terms, config.training.epochs),)
