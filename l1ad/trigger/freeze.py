"""Freezing: a trained, quantised Keras encoder becomes the integer program of a `Trigger`.

`freeze(run_dir)` for a run folder, `freeze_model(encoder, ...)` for any functional QKeras model that keeps the rules of
`l1ad.model.lint`. Every layer becomes nodes of `l1ad.trigger.nodes` with exact sums; a convolution or a pooling is a
linear map and becomes a dense layer whose matrix is mostly zero. The weights are the integers that QKeras multiplies
with.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.config import FreezeConfig, RunConfig
from l1ad.errors import TriggerError
from l1ad.events.layout import ObjectLayout, get_layout
from l1ad.io import sha256_file
from l1ad.scores import SCORE_BITS, SCORE_FRACTION, SCORES, rz
from l1ad.trigger.build import EXPONENTIAL_TYPE, NodeOps, ProgramBuilder, Ref
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.layers import Scaling, add_scaling
from l1ad.trigger.program import Trigger
from l1ad.trigger.scaling import read_scaling

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Value:
    """A node and the shape that Keras sees it in, without the batch axis."""

    ref: Ref
    shape: Shape


def freeze(run_dir: str | os.PathLike[str], *, write: bool = True, fix: bool = False) -> Trigger:
    """Freeze the trained encoder of a run folder and write its ``trigger.json``.

    With `fix` the encoder is first rewritten where that has one meaning only (`l1ad.model.lint.fix`), and written back.

    Raises
    ------
    InputError
        If the folder does not hold a finished run of this version.
    TriggerError
        If a layer has no integer counterpart; the message names it and what to do.
    """
    from l1ad.model import load_encoder
    from l1ad.model.keras import load_model, save_model
    from l1ad.model.lint import fix as apply_fix

    folder = Path(run_dir)
    load_encoder(folder)
    if fix:
        encoder, rewritten = apply_fix(load_model(folder / "model.h5"))
        if rewritten:
            save_model(encoder, folder / "model.h5")
    config = RunConfig.read(folder / "config.yaml")
    scaling, layout = read_scaling(folder / "scaling.json")
    provenance = {
        "model_sha256": sha256_file(folder / "model.h5"),
        "config_sha256": sha256_file(folder / "config.yaml"),
        "scaling_sha256": sha256_file(folder / "scaling.json"),
    }
    training = folder / "training.json"
    if training.is_file():
        from l1ad.io import read_json

        provenance["inputs"] = read_json(training).get("inputs", {})
    model, options = load_model(folder / "model.h5"), config.freeze

    def make(options: FreezeConfig) -> Trigger:
        return freeze_model(
            model, scaling, layout, config.score, name=config.name, options=options, provenance=provenance
        )

    trigger = make(options)
    if config.score == "rz" and options.shift is None:
        sample = _training_inputs(config)
        if sample is not None:
            provenance["score_shift_from"] = f"{len(sample)} training events"
            trigger = make(options.model_copy(update={"shift": shift_for(trigger, sample)}))
    if write:
        trigger.save(folder / "trigger.json")
    return trigger


#: Room above the largest score of the training events, for the rare crossings that they lack.
SCORE_ROOM = 4.0
_SHIFT_EVENTS = 100_000


def shift_for(trigger: Trigger, inputs: npt.NDArray[np.integer[Any]]) -> int:
    """The smallest shift with which R_z of `inputs` (N, inputs) stays a factor `SCORE_ROOM` below the end of its word.

    A shift that no input at all could saturate is a dozen bits larger than what crossings need, and a network that is
    sure of little would have no score left.
    """
    program = trigger.program
    largest = 0.0
    for start in range(0, len(inputs), 16384):
        values = program.evaluate(np.asarray(inputs[start : start + 16384], dtype=np.int64))
        mu, log_var = (program.node(name).type.to_float(values[name]) for name in ("mu", "log_var"))
        largest = max(largest, float(rz(mu, log_var).max()))
    return max(math.frexp(largest * SCORE_ROOM)[1] - (SCORE_BITS - SCORE_FRACTION), 0)


def _training_inputs(config: RunConfig) -> npt.NDArray[np.integer[Any]] | None:
    """Inputs of the first training events, None if they are no longer where they were."""
    from l1ad.errors import InputError
    from l1ad.model.dataset import iterate_events

    parts, n = [], 0
    try:
        for _, _, events in iterate_events(config.data):
            parts.append(events.inputs)
            n += len(events)
            if n >= _SHIFT_EVENTS:
                break
    except InputError:
        return None
    return np.concatenate(parts)[:_SHIFT_EVENTS] if n else None


def freeze_model(
    encoder: Any,
    scaling: Scaling | Mapping[str, Any],
    layout: str | ObjectLayout,
    score: str,
    *,
    name: str = "trigger",
    options: FreezeConfig | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Trigger:
    """The trigger of a functional QKeras encoder.

    Parameters
    ----------
    encoder : its input are the scaled inputs (N, inputs); its layers called ``mu``, ``log_var``, ``output``,
        ``embedding`` and ``decoded`` are what the scores take, as far as they need them.
    scaling : of the inputs.
    layout : of the events.
    score : a key of `l1ad.scores.SCORES`.
    options : types of the score, and types that replace trained ones (see `FreezeConfig`).
    provenance : what the trigger file says about its origin.

    Raises
    ------
    TriggerError
        If a layer has no integer counterpart or an output that the score needs does not exist.
    """
    from l1ad.model import select_outputs
    from l1ad.model.lint import require_clean

    options = options or FreezeConfig()
    if score not in SCORES:
        raise TriggerError(name, "score", score, f"one of {', '.join(SCORES)}")
    needs = SCORES[score].needs
    layers = {layer.name for layer in encoder.layers}
    missing = [need for need in needs if need != "target" and need not in layers]
    if missing:
        raise TriggerError(name, f"layer {missing[0]}", "no such layer", f"the outputs {', '.join(needs)} of {score}")
    part = select_outputs(encoder, tuple(need for need in needs if need != "target"))
    require_clean(part)
    builder = ProgramBuilder(get_layout(layout))
    lowering = _Lowering(builder, Scaling.of(scaling), options)
    values = lowering.model(part)
    if not lowering.arithmetic:
        raise TriggerError(name, "layers", "no arithmetic layer before the score", "a dense or convolutional layer")
    arguments = [lowering.target if need == "target" else values[need] for need in needs]
    if "log_var" in needs and options.log_var is not None:
        position = needs.index("log_var")
        narrow = FixedType.parse(options.log_var)
        arguments[position] = builder.quantize(arguments[position], narrow, name="log_var_narrow")
    sizes = {argument.size for argument in arguments}
    if len(sizes) != 1:
        raise TriggerError(name, f"outputs of {score}", sorted(sizes), "equal sizes")
    ops = _score_ops(builder, score, arguments, options)
    result = SCORES[score].function(*arguments, ops=ops)
    latents = values[next(need for need in ("mu", "embedding", "output") if need in values)]
    program = builder.program(score=result, latents=latents)
    stated = {"score_shift": ops.shift} if ops.shift else {}
    return Trigger(program, name, score, provenance={**(provenance or {}), **stated})


def _score_ops(builder: ProgramBuilder, score: str, arguments: Sequence[Ref], options: FreezeConfig) -> NodeOps:
    """What writes the score down: its types as `FreezeConfig` says, the open ones for what the arguments can be."""
    exponential = FixedType.parse(options.exponential) if options.exponential else EXPONENTIAL_TYPE
    if score == "rz" and options.exponential is None:
        log_var = arguments[1].interval
        largest = math.exp(-log_var.span[0] * 2.0**-log_var.fraction)
        # No wider than an integer program can multiply a square with; a log variance that asks for more is cut there.
        integer = min(max(math.frexp(largest)[1], exponential.integer), 30)
        exponential = replace(exponential, integer=integer)
    ops = NodeOps(builder, FixedType.parse(options.term), FixedType.parse(options.score), exponential)
    if options.shift is not None or score != "rz":
        return replace(ops, shift=options.shift or 0)
    wide = FixedType(62, 62 - SCORE_FRACTION, False)
    trial = replace(ops, builder=builder.copy(), term=None, result=wide)
    largest_code = SCORES[score].function(*arguments, ops=trial).interval.span[1]
    return replace(ops, shift=max(int(largest_code).bit_length() - ops.result.width, 0))


@dataclass
class _Lowering:
    """Goes through a Keras model in order and adds nodes."""

    builder: ProgramBuilder
    scaling: Scaling
    options: FreezeConfig
    values: dict[int, _Value] = field(default_factory=dict)
    arithmetic: int = 0
    _target: Ref | None = None

    @property
    def target(self) -> Ref:
        """The quantised input."""
        assert self._target is not None
        return self._target

    def model(self, model: Any) -> dict[str, Ref]:
        """Add all layers; the nodes of the model's outputs by layer name."""
        if len(model.inputs) != 1:
            raise TriggerError(model.name, "inputs", len(model.inputs), "one")
        named: dict[str, Ref] = {}
        for layer in model.layers:
            kind = type(layer).__name__
            if kind == "InputLayer":
                continue
            if len(layer.inbound_nodes) != 1 or isinstance(layer.input, (list, tuple)):
                raise TriggerError(layer.name, "inputs", "several", "one: a layer that is used once")
            if id(layer.input) == id(model.inputs[0]):
                value = self._input(layer)
            else:
                handler = _HANDLERS.get(kind)
                if handler is None:
                    raise TriggerError(layer.name, "layer", kind, f"one of {', '.join(sorted(_HANDLERS))}")
                value = handler(self, layer, self.values[id(layer.input)])
            self.values[id(layer.output)] = value
            named[layer.name] = value.ref
        return {layer_name: named[layer_name] for layer_name in model.output_names}

    def _input(self, layer: Any) -> _Value:
        from l1ad.model.quantizers import from_qkeras

        if type(layer).__name__ != "QActivation":
            raise TriggerError(
                layer.name, "first layer", type(layer).__name__, "a QActivation with quantized_bits, the input type"
            )
        quantizer = from_qkeras(layer.quantizer, where=layer.name)
        if quantizer.kind != "bits":
            raise TriggerError(layer.name, "input quantiser", str(quantizer), "quantized_bits(bits,integer)")
        self._target = add_scaling(self.builder, self.scaling, quantizer.type)
        return _Value(self._target, (self._target.size,))

    def activation(self, layer: Any, value: _Value) -> _Value:
        """QActivation: a ReLU or a cast."""
        return self._quantizer(layer.quantizer, layer.name, value)

    def _quantizer(self, quantizer: Any, name: str, value: _Value) -> _Value:
        from l1ad.model.quantizers import from_qkeras

        kind = from_qkeras(quantizer, where=name)
        given = self.options.activation if kind.kind == "relu" else self.options.head
        type = FixedType.parse(given) if given else kind.type
        if kind.kind == "relu":
            return _Value(self.builder.relu(value.ref, type, name=name), value.shape)
        return _Value(self.builder.quantize(value.ref, type, name=name), value.shape)

    def linear(
        self,
        layer: Any,
        value: _Value,
        matrix: npt.NDArray[np.float64],
        shape: Shape,
        weight_type: FixedType,
        bias: npt.NDArray[np.float64] | None = None,
        bias_type: FixedType | None = None,
    ) -> _Value:
        """A linear layer from its real matrix (inputs, outputs) and bias, whose entries are values of their types."""
        from l1ad.model.network import has_activation

        self.arithmetic += 1
        codes = _exact_codes(matrix, weight_type, layer.name, "weights")
        bias_codes = None if bias is None else _exact_codes(bias, bias_type or weight_type, layer.name, "bias")
        ref = self.builder.dense(
            value.ref, codes, bias_codes, weight_type=weight_type, bias_type=bias_type, name=layer.name
        )
        result = _Value(ref, shape)
        if has_activation(layer):
            result = self._quantizer(layer.activation, f"{layer.name}_activation", result)
        return result

    def dense(self, layer: Any, value: _Value) -> _Value:
        """QDense."""
        if len(value.shape) != 1:
            raise TriggerError(layer.name, "input shape", value.shape, "a flat vector: a Flatten layer before it")
        kernel, kernel_type = _quantised(layer, "kernel")
        bias, bias_type = _quantised(layer, "bias") if layer.use_bias else (None, None)
        return self.linear(layer, value, kernel, (kernel.shape[1],), kernel_type, bias, bias_type)

    def convolution(self, layer: Any, value: _Value) -> _Value:
        """QConv2D: its matrix is what it does to the unit vectors."""
        from l1ad.model.keras import import_tf

        tf = import_tf().tf
        kernel, kernel_type = _quantised(layer, "kernel")
        bias, bias_type = _quantised(layer, "bias") if layer.use_bias else (None, None)
        strides, dilations = list(layer.strides), list(layer.dilation_rate)
        padding = layer.padding.upper()

        def apply(basis: Any) -> Any:
            return tf.nn.conv2d(basis, tf.constant(kernel), strides, padding, dilations=dilations)

        matrix, shape = _matrix(apply, value.shape)
        repeated = None if bias is None else np.broadcast_to(bias, shape).reshape(-1)
        return self.linear(layer, value, matrix, shape, kernel_type, repeated, bias_type)

    def average_pooling(self, layer: Any, value: _Value) -> _Value:
        """QAveragePooling2D: the sum of a window times the quantised inverse of its size."""
        from l1ad.model.keras import import_tf
        from l1ad.model.quantizers import from_qkeras

        tf = import_tf().tf
        area = int(np.prod(layer.pool_size))
        if layer.padding != "valid":
            raise TriggerError(layer.name, "padding", layer.padding, "valid: windows of one size")
        quantizer = from_qkeras(layer.average_quantizer_internal, where=layer.name)
        factor = float(quantizer(1.0 / area))

        def apply(basis: Any) -> Any:
            pooled = tf.nn.avg_pool2d(basis, layer.pool_size, layer.strides, "VALID")
            return tf.cast(pooled > 0, tf.float64) * factor

        matrix, shape = _matrix(apply, value.shape)
        return self.linear(layer, value, matrix, shape, quantizer.type)

    def max_pooling(self, layer: Any, value: _Value) -> _Value:
        """MaxPooling2D."""
        if layer.padding != "valid":
            raise TriggerError(layer.name, "padding", layer.padding, "valid: windows of one size")
        rows, columns, channels = value.shape
        index = np.arange(rows * columns * channels).reshape(value.shape)
        windows = np.lib.stride_tricks.sliding_window_view(index, tuple(layer.pool_size), axis=(0, 1))
        chosen = windows[:: layer.strides[0], :: layer.strides[1]]
        groups = chosen.reshape(-1, int(np.prod(layer.pool_size)))
        return _Value(self.builder.maximum(value.ref, groups, name=layer.name), chosen.shape[:3])

    def selection(self, layer: Any, value: _Value) -> _Value:
        """UpSampling2D: each output is one of the inputs."""
        index = np.arange(value.ref.size).reshape(value.shape)
        chosen = np.repeat(np.repeat(index, layer.size[0], axis=0), layer.size[1], axis=1)
        if layer.interpolation != "nearest":
            raise TriggerError(layer.name, "interpolation", layer.interpolation, "nearest")
        return _Value(self.builder.take(value.ref, chosen.reshape(-1), name=layer.name), chosen.shape)

    def padding(self, layer: Any, value: _Value) -> _Value:
        """ZeroPadding2D: a linear map of zeros and ones."""
        (top, bottom), (left, right) = layer.padding
        rows, columns, channels = value.shape
        shape = (rows + top + bottom, columns + left + right, channels)
        matrix = np.zeros((value.ref.size, *shape))
        for i, (r, c, k) in enumerate(np.ndindex(value.shape)):
            matrix[i, r + top, c + left, k] = 1.0
        ones = FixedType(2, 2)
        codes = matrix.reshape(value.ref.size, -1).astype(np.int64)
        return _Value(self.builder.dense(value.ref, codes, weight_type=ones, name=layer.name), shape)

    def reshape(self, layer: Any, value: _Value) -> _Value:
        """Flatten, Reshape and Dropout change nothing but the shape."""
        shape = tuple(int(n) for n in layer.output.shape[1:])
        return _Value(value.ref, shape)


_HANDLERS: dict[str, Callable[[_Lowering, Any, _Value], _Value]] = {
    "QActivation": _Lowering.activation,
    "QDense": _Lowering.dense,
    "QConv2D": _Lowering.convolution,
    "QAveragePooling2D": _Lowering.average_pooling,
    "MaxPooling2D": _Lowering.max_pooling,
    "UpSampling2D": _Lowering.selection,
    "ZeroPadding2D": _Lowering.padding,
    "Flatten": _Lowering.reshape,
    "Reshape": _Lowering.reshape,
    "Dropout": _Lowering.reshape,
}


def _quantised(layer: Any, what: str) -> tuple[npt.NDArray[np.float64], FixedType]:
    """Kernel or bias as QKeras multiplies with it, and its type."""
    from l1ad.model.quantizers import from_qkeras

    quantizer = from_qkeras(getattr(layer, f"{what}_quantizer_internal"), where=f"{layer.name} {what}")
    values = np.asarray(getattr(layer, what), dtype=np.float64)
    if not np.isfinite(values).all():
        raise TriggerError(layer.name, what, "NaN or infinity", "finite weights")
    return quantizer(values), quantizer.type


def _exact_codes(values: npt.NDArray[np.float64], kind: FixedType, layer: str, what: str) -> npt.NDArray[np.int64]:
    """Codes of values that are on the grid of a type already.

    Raises
    ------
    TriggerError
        If one is not: the width cannot hold its weights.
    """
    scaled = np.ldexp(values, kind.fraction)
    codes = np.rint(scaled).astype(np.int64)
    if not np.array_equal(codes, scaled) or (codes.size and not kind.holds(int(codes.min()), int(codes.max()))):
        raise TriggerError(layer, what, f"values up to {np.abs(values).max():g} off the grid", f"values of {kind}")
    return codes


def _matrix(apply: Callable[[Any], Any], shape: Shape) -> tuple[npt.NDArray[np.float64], Shape]:
    """The matrix (inputs, outputs) of a linear map on images, and the shape of its result."""
    from l1ad.model.keras import import_tf

    size = int(np.prod(shape))
    result = np.asarray(apply(import_tf().tf.constant(np.eye(size).reshape(size, *shape))))
    return result.reshape(size, -1), tuple(result.shape[1:])
