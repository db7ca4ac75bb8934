"""The QKeras objects of quantisers, and quantisers of QKeras objects."""

from __future__ import annotations

from typing import Any

import numpy as np

from l1ad.errors import ConfigError
from l1ad.model.keras import KerasLayer, import_tf
from l1ad.trigger.quantizer import Quantizer


def to_qkeras(quantizer: Quantizer) -> Any:
    """The QKeras object of a quantiser."""
    qkeras = import_tf().qkeras
    if quantizer.kind == "bits":
        return qkeras.quantized_bits(quantizer.bits, quantizer.integer, alpha=1)
    return qkeras.quantized_relu(quantizer.bits, quantizer.integer)


def activation_layer(quantizer: Quantizer, name: str) -> KerasLayer:
    """A QActivation layer of a quantiser."""
    return import_tf().qkeras.QActivation(to_qkeras(quantizer), name=name)


def from_qkeras(quantizer: Any, *, where: str) -> Quantizer:
    """The `Quantizer` that a QKeras object is.

    Raises
    ------
    ConfigError
        If it has options that the hardware or hls4ml does not reproduce (see `l1ad.model.lint`).
    """
    name = getattr(quantizer, "__name__", type(quantizer).__name__) if quantizer is not None else "none"
    if name not in ("quantized_bits", "quantized_relu"):
        raise ConfigError(where, "quantizer", name, "quantized_bits or quantized_relu")
    options = quantizer.get_config()
    allowed = {
        "symmetric": (0, False),
        "keep_negative": (1, True),
        "use_stochastic_rounding": (0, False),
        "use_sigmoid": (0, False),
        "negative_slope": (0,),
        "relu_upper_bound": (None,),
        "qnoise_factor": (1,),
    }
    for option, values in allowed.items():
        if option in options and options[option] not in values:
            raise ConfigError(where, f"{name} {option}", options[option], values[0])
    if name == "quantized_bits" and not (np.isscalar(options["alpha"]) and options["alpha"] in (1, 1.0)):
        raise ConfigError(where, f"{name} alpha", options["alpha"], 1)
    return Quantizer("bits" if name == "quantized_bits" else "relu", int(options["bits"]), int(options["integer"]))
