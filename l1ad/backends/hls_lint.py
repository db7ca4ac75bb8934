"""What hls4ml 1.3 converts wrongly or not at all, found before it is asked to.

`lint(encoder)` goes through a Keras model with the table of docs/reference/stack.md: each finding names the layer and
the mend. Models that freeze pass most of it; the rest is what only hls4ml trips over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from l1ad.errors import InputError
from l1ad.trigger.quantizer import Quantizer

#: QAveragePooling2D freezes, but hls4ml has no handler for it.
_ARITHMETIC = frozenset({"QDense", "QConv1D", "QConv2D"})
_MOVING = frozenset({"Flatten", "Reshape", "Dropout", "MaxPooling2D", "ZeroPadding2D", "UpSampling2D", "InputLayer"})


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes
    ----------
    layer : name of the layer.
    found : what is wrong with it.
    mend : what to do.
    """

    layer: str
    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.found}; {self.mend}"


def lint(encoder: Any) -> tuple[Finding, ...]:
    """All findings of a Keras model, in the order of its layers."""
    return tuple(_findings(encoder))


def _findings(encoder: Any) -> Iterator[Finding]:
    outputs = {id(tensor) for tensor in encoder.outputs}
    quantised: dict[int, bool] = {id(tensor): False for tensor in encoder.inputs}
    first = {id(tensor) for tensor in encoder.inputs}
    for layer in encoder.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            continue
        if kind.startswith("Prune"):
            yield Finding(layer.name, "still wrapped for pruning", "strip_pruning before conversion")
            continue
        source = layer.input
        sources = list(source) if isinstance(source, (list, tuple)) else [source]
        if kind != "QActivation" and any(id(tensor) in first for tensor in sources):
            yield Finding(layer.name, "reads the input without a quantiser", "put a QActivation right after the Input")
        if kind == "QActivation":
            yield from _quantizer(layer.quantizer, layer.name, activation=True)
            done = True
        elif kind in _ARITHMETIC:
            if not all(quantised.get(id(tensor), True) for tensor in sources) and not first & set(map(id, sources)):
                yield Finding(
                    layer.name, "two arithmetic layers without a quantiser between", "put a QActivation between"
                )
            for what in ("kernel", "bias"):
                if what == "kernel" or getattr(layer, "use_bias", False):
                    given = getattr(layer, f"{what}_quantizer_internal", None)
                    yield from _quantizer(given, f"{layer.name} {what}", activation=False)
            inner = getattr(layer, "activation", None)
            done = inner is not None and getattr(inner, "__name__", "") != "linear"
            if done:
                yield from _quantizer(inner, f"{layer.name} activation", activation=True)
        elif kind in _MOVING:
            done = all(quantised.get(id(tensor), True) for tensor in sources)
        else:
            known = ", ".join(sorted(_ARITHMETIC | _MOVING | {"QActivation"}))
            yield Finding(
                layer.name, f"a {kind}", f"one of {known}, or convert without the encoder: the program is printed"
            )
            done = True
        quantised[id(layer.output)] = done
        if id(layer.output) in outputs and not done:
            yield Finding(layer.name, "an output without a quantiser", "put a QActivation after it")


def _quantizer(quantizer: Any, where: str, *, activation: bool) -> Iterator[Finding]:
    from l1ad.model.quantizers import from_qkeras

    alpha = quantizer.get_config().get("alpha", 1) if hasattr(quantizer, "get_config") else 1
    if not activation and not (np.isscalar(alpha) and alpha == 1):
        # Before all else: QKeras makes such a kernel symmetric too, which is not what the user wrote.
        yield Finding(where, f"{quantizer.__class__.__name__} alpha {alpha}", "use alpha=1")
        return
    try:
        found = from_qkeras(quantizer, where=where)
    except InputError as error:
        yield Finding(where, f"{error.field} {error.found}", f"use {error.expected}")
        return
    if activation and found.type.fraction <= 0:
        # hls4ml turns a grid of whole numbers into int<N>, which neither rounds nor saturates.
        better = Quantizer(found.kind, found.bits + 1 - found.type.fraction, found.integer)
        yield Finding(where, f"{found} has no fraction bits", f"give it one: {better}")
