"""What keeps a QKeras model from being exact in hardware, found before it is frozen or converted.

`lint(model)` lists findings, each naming the layer and the mend; `fix(model)` rewrites what has one meaning only. The
rules are those that were found by running QKeras against hls4ml: most violations convert without a word and are then
wrong on most events.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from l1ad.errors import ConfigError
from l1ad.model.keras import KerasLayer, KerasModel, import_tf
from l1ad.model.network import has_activation
from l1ad.model.quantizers import from_qkeras

#: Layers with weights or sums, after which a quantiser must come.
ARITHMETIC = ("QDense", "QConv2D", "QAveragePooling2D")
#: Layers that pass their input on, element by element or rearranged.
PASSIVE = ("Flatten", "Reshape", "Dropout", "MaxPooling2D", "UpSampling2D", "ZeroPadding2D")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    layer : its name.
    problem, mend : in words.
    fixable : `fix` can rewrite it without changing a single result.
    freeze : it keeps the model from being frozen; otherwise it only breaks the conversion with hls4ml.
    """

    layer: str
    problem: str
    mend: str
    fixable: bool = False
    freeze: bool = True

    def __str__(self) -> str:
        fixable = " (--fix does it)" if self.fixable else ""
        scope = "" if self.freeze else " [hls4ml only]"
        return f"{self.layer}: {self.problem}: {self.mend}{fixable}{scope}"


def lint(model: KerasModel) -> tuple[Finding, ...]:
    """Everything that is wrong with a functional QKeras model, in layer order."""
    findings: list[Finding] = []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            continue
        if kind.startswith("PruneLowMagnitude"):
            findings.append(Finding(layer.name, "still wrapped for pruning", "strip the wrapper", fixable=True))
            continue
        if len(layer.inbound_nodes) != 1 or isinstance(layer.input, (list, tuple)):
            findings.append(Finding(layer.name, "joins several tensors or is used twice", "one chain for each head"))
            continue
        if kind == "QActivation":
            findings += _quantizer(layer.name, "activation", layer.quantizer)
        elif kind in ARITHMETIC:
            findings += _arithmetic(layer)
        elif kind not in PASSIVE:
            findings.append(Finding(layer.name, f"{kind} has no integer counterpart", "a quantised layer in its place"))
    return tuple(findings + _chain(model))


def _arithmetic(layer: KerasLayer) -> list[Finding]:
    findings: list[Finding] = []
    if type(layer).__name__ == "QAveragePooling2D":
        return _quantizer(layer.name, "average", layer.average_quantizer_internal)
    for what in ("kernel", "bias"):
        if what == "bias" and not layer.use_bias:
            continue
        quantizer = getattr(layer, f"{what}_quantizer_internal")
        if quantizer is None:
            findings.append(Finding(layer.name, f"float {what}", f"a {what}_quantizer quantized_bits with alpha=1"))
            continue
        found = _quantizer(layer.name, what, quantizer)
        findings += found
        values = np.asarray(getattr(layer, what))
        if not np.isfinite(values).all():
            findings.append(Finding(layer.name, f"{what} holds NaN or infinity", "train it again"))
    return findings


def _quantizer(layer: str, what: str, quantizer: Any) -> list[Finding]:
    """Findings of one quantiser object."""
    name = getattr(quantizer, "__name__", type(quantizer).__name__) if quantizer is not None else "none"
    options = quantizer.get_config() if hasattr(quantizer, "get_config") else {}
    weight = what in ("kernel", "bias")
    if name not in ("quantized_bits", "quantized_relu"):
        return [Finding(layer, f"{what} quantiser {name}", "quantized_bits or quantized_relu")]
    findings: list[Finding] = []
    alpha = options.get("alpha", 1)
    if isinstance(alpha, str) or (alpha is None and weight):
        meaning = "auto_po2" if alpha is None else alpha
        findings.append(Finding(layer, f"{what} quantiser with alpha={meaning}", "alpha=1 and training again"))
    elif alpha is None:
        findings.append(Finding(layer, f"{what} quantiser without alpha", "alpha=1, the same values", fixable=True))
    elif alpha != 1:
        findings.append(Finding(layer, f"{what} quantiser with alpha={alpha}", "alpha=1 and training again"))
    if options.get("symmetric") and not isinstance(alpha, str) and alpha is not None:
        findings.append(Finding(layer, f"symmetric {what} quantiser", "symmetric=0 and training again"))
    if options.get("keep_negative") in (0, False):
        same = f"quantized_relu({options['bits']},{options['integer']})"
        problem = f"{what} quantiser with keep_negative=0"
        findings.append(Finding(layer, problem, f"{same}, the same values", fixable=not weight))
    if options.get("use_sigmoid"):
        findings.append(Finding(layer, "quantized_relu with use_sigmoid", "use_sigmoid=0 and training again"))
    if options.get("negative_slope"):
        findings.append(Finding(layer, "quantized_relu with a negative slope", "negative_slope=0 and training again"))
    if options.get("relu_upper_bound") is not None:
        findings.append(Finding(layer, "quantized_relu with an upper bound", "the bound of its word"))
    if options.get("use_stochastic_rounding"):
        mend = "round half to even, as inference does"
        findings.append(Finding(layer, f"{what} quantiser with stochastic rounding", mend, fixable=True))
    if options.get("qnoise_factor", 1) != 1:
        findings.append(Finding(layer, f"{what} quantiser that is only partly on", "qnoise_factor=1"))
    if not findings and not weight:
        kind = from_qkeras(quantizer, where=layer)
        if kind.type.fraction <= 0:
            problem = f"{kind} has no fraction bits: hls4ml makes an integer type that rounds another way"
            findings.append(Finding(layer, problem, "one fraction bit at least", freeze=False))
    return findings


def _chain(model: KerasModel) -> list[Finding]:
    """Findings about the order of layers."""
    findings: list[Finding] = []
    producer = {id(layer.output): layer for layer in model.layers if not isinstance(layer.output, (list, tuple))}
    first = [
        layer
        for layer in model.layers
        if type(layer).__name__ != "InputLayer" and id(layer.input) in {id(tensor) for tensor in model.inputs}
    ]
    for layer in first:
        if type(layer).__name__ != "QActivation":
            mend = "a QActivation with quantized_bits, the type of the scaled inputs, right after the input"
            findings.append(Finding(layer.name, "reads the input unquantised", mend))
    if not any(type(layer).__name__ in ("QDense", "QConv2D") for layer in model.layers):
        findings.append(Finding(model.name, "nothing to freeze", "a QDense or QConv2D layer"))

    def is_open(layer: KerasLayer) -> bool:
        """Whether the values after a layer are unrounded sums."""
        while layer is not None and type(layer).__name__ in PASSIVE:
            layer = producer.get(id(layer.input))
        return type(layer).__name__ in ARITHMETIC and not has_activation(layer)

    for layer in model.layers:
        if type(layer).__name__ in ARITHMETIC:
            source = producer.get(id(layer.input))
            if source is not None and is_open(source):
                mend = "a QActivation between the two"
                findings.append(Finding(layer.name, f"reads unrounded sums of {source.name}", mend))
    for output in model.outputs:
        source = producer.get(id(output))
        if source is not None and is_open(source):
            findings.append(Finding(source.name, "is an output of unrounded sums", "a QActivation after it"))
    return findings


def fix(model: KerasModel) -> tuple[KerasModel, tuple[Finding, ...]]:
    """A model that gives the same results with every fixable finding rewritten, and what was rewritten."""
    keras = import_tf().keras
    rewritten = tuple(finding for finding in lint(model) if finding.fixable)
    if not rewritten:
        return model, ()
    if any(type(layer).__name__.startswith("PruneLowMagnitude") for layer in model.layers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow_model_optimization as tfmot

            model = tfmot.sparsity.keras.strip_pruning(model)
        # What the wrapper hid comes to light now.
        rewritten += tuple(finding for finding in lint(model) if finding.fixable)

    def rewrite(layer: KerasLayer) -> KerasLayer:
        config = layer.get_config()
        if type(layer).__name__ == "QActivation":
            config["activation"] = _plain(layer.quantizer)
        for what in ("kernel", "bias", "average"):
            quantizer = getattr(layer, f"{what}_quantizer_internal", None)
            if quantizer is not None:
                config[f"{what}_quantizer"] = _plain(quantizer)
        return type(layer).from_config(config)

    with warnings.catch_warnings():
        # QKeras serialises its quantisers as what they are not; nothing is lost.
        warnings.simplefilter("ignore", UserWarning)
        result = keras.models.clone_model(model, clone_function=rewrite)
    result.set_weights(model.get_weights())
    return result, rewritten


def _plain(quantizer: Any) -> Any:
    """The same quantiser without the options that mean nothing in inference."""
    modules = import_tf()
    name = type(quantizer).__name__
    if name not in ("quantized_bits", "quantized_relu"):
        return quantizer
    options = dict(quantizer.get_config())
    options["use_stochastic_rounding"] = False
    if name == "quantized_relu":
        return modules.qkeras.quantized_relu(**options)
    if options["alpha"] is None and not options["symmetric"]:
        options["alpha"] = 1
    if options["keep_negative"] in (0, False) and options["alpha"] == 1:
        return modules.qkeras.quantized_relu(options["bits"], options["integer"])
    return modules.qkeras.quantized_bits(**options)


def require_clean(model: KerasModel) -> None:
    """Refuse a model that cannot be frozen.

    Raises
    ------
    ConfigError
        With the first finding, and how many there are.
    """
    stops = [finding for finding in lint(model) if finding.freeze]
    if stops:
        more = f"; {len(stops) - 1} more, see l1ad freeze --lint" if len(stops) > 1 else ""
        raise ConfigError(stops[0].layer, stops[0].problem, None, f"{stops[0].mend}{more}")
