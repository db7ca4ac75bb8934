"""The network as hls4ml writes it, joined to the program that surrounds it.

`convert_network(...)` converts an encoder; `match` finds which nodes of the program its outputs are; `print_glue` is
the C++ between.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.backends import cpp, project, templates
from l1ad.backends.hls_options import HlsOptions
from l1ad.errors import InputError, TriggerError
from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Scale
from l1ad.trigger.program import Trigger

#: hls4ml raises whatever its passes run into, down to a bare AssertionError.
_HLS4ML_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextlib.contextmanager
def keras_is_tf_keras() -> Iterator[None]:
    """Let ``import keras`` give tf_keras for a moment, and everything as before afterwards.

    hls4ml 1.3 asks ``keras`` for its version: with Keras 3 installed it takes its Keras 3 parser, which fails on a
    tf_keras model.
    """
    import tf_keras

    missing = object()
    before = sys.modules.get("keras", missing)
    sys.modules["keras"] = tf_keras
    try:
        yield
    finally:
        if before is missing:
            del sys.modules["keras"]
        else:
            sys.modules["keras"] = before  # type: ignore[assignment]


def convert_network(
    trigger: Trigger, encoder: Any, options: HlsOptions, outputs: Sequence[str] | None
) -> tuple[cpp.Network, dict[str, str]]:
    """The part of the program that hls4ml computes, and the files it wrote for it.

    Raises
    ------
    InputError
        If the encoder has what hls4ml converts wrongly, naming the layer and the mend.
    TriggerError
        If the encoder is not the one of the trigger, or hls4ml fails.
    """
    from l1ad.model.keras import import_tf, load_model
    from l1ad.model.lint import lint

    import_tf()
    model = load_model(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder
    findings = lint(model)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        expected = f"{findings[0].mend}{more}; or the network printed from the program (--network printed)"
        raise InputError("encoder", f"layer {findings[0].layer}", findings[0].problem, expected)
    model, cut = match(trigger, pools_as_convolutions(model), outputs)
    with tempfile.TemporaryDirectory(prefix="l1ad-") as scratch:
        files = _run_hls4ml(model, Path(scratch) / "project", options, f"net_{trigger.hash[:12]}")
    arguments = _arguments(files["network.h"])
    if len(arguments) != 1 + len(cut.outputs):
        raise TriggerError("encoder", "arguments of hls4ml's network", len(arguments), f"{1 + len(cut.outputs)}")
    return cut, files


def match(trigger: Trigger, encoder: Any, outputs: Sequence[str] | None = None) -> tuple[Any, cpp.Network]:
    """The part of an encoder that a trigger needs, and the nodes of the program that it computes.

    The values of the encoder's outputs on a few hundred events are compared with those of the nodes, so that the
    encoder of another trigger, or of one whose types were replaced in freezing, is not taken for this one's.

    Raises
    ------
    TriggerError
        If an output is not a node of the program.
    """
    from l1ad.model import select_outputs

    program = trigger.program
    scales = [node for node in program.nodes if isinstance(node, Scale)]
    if len(scales) != 1:
        raise TriggerError(trigger.name, "input scaling", f"{len(scales)} nodes", "one, which the encoder reads")
    source = scales[0]
    if tuple(encoder.input_shape[1:]) != (source.size,):
        raise TriggerError("encoder", "input", encoder.input_shape[1:], f"({source.size},)")
    names = list(encoder.output_names)
    if outputs is None:
        known = [name for name in names if any(node.name == name for node in program.nodes)]
        if known and known != names:
            # Heads that the score does not use, such as log_var for mu2, are not built.
            encoder, names = select_outputs(encoder, tuple(known)), known
    elif len(outputs) != len(names):
        raise TriggerError("encoder", "outputs", ", ".join(outputs), f"{len(names)}: {', '.join(names)}")
    values = program.evaluate(project.golden_vectors(program, 400))
    got = encoder.predict(source.type.to_float(values[source.name]), verbose=0, batch_size=400)
    arrays = list(got) if isinstance(got, (list, tuple)) else [got]
    chosen: list[str] = []
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        flat = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
        wanted = outputs[i] if outputs is not None else name
        candidates = [n for n in program.nodes if n.name == wanted] or list(program.nodes)
        if outputs is not None and candidates[0].name != wanted:
            raise TriggerError("encoder", f"output {name}", f"no node {wanted}", "a node of the program")
        found = next(
            (n.name for n in candidates if n.size == flat.shape[1] and _same(n.type, values[n.name], flat)), None
        )
        if found is None:
            expected = (
                f"those of {wanted if len(candidates) == 1 else 'one of its nodes'}: the encoder it was frozen from"
            )
            raise TriggerError("encoder", f"output {name}", f"other values than trigger {trigger.name}", expected)
        chosen.append(found)
    return encoder, cpp.Network(source.name, tuple(chosen))


def _same(kind: FixedType, codes: Codes, values: npt.NDArray[np.float64]) -> bool:
    """Keras works in float32: a few events may differ, another network differs in all."""
    return float(np.mean(kind.to_float(codes) == values)) > 0.98


def pools_as_convolutions(model: Any) -> Any:
    """The model with each average pooling as the convolution that it is: hls4ml has no handler for QAveragePooling2D.

    A pooling is the sum of a window times a quantised factor (see `l1ad.trigger.freeze`): a kernel with that factor
    where input and output channel are the same, and zero elsewhere. The values are the same to the bit.
    """
    if not any(type(layer).__name__ == "QAveragePooling2D" for layer in model.layers):
        return model
    from l1ad.model.keras import import_tf
    from l1ad.model.quantizers import from_qkeras, to_qkeras

    modules = import_tf()
    kernels: dict[str, npt.NDArray[np.float32]] = {}

    def rewrite(layer: Any) -> Any:
        if type(layer).__name__ != "QAveragePooling2D":
            return type(layer).from_config(layer.get_config())
        quantizer = from_qkeras(layer.average_quantizer_internal, where=layer.name)
        channels, window = int(layer.input.shape[-1]), tuple(layer.pool_size)
        kernel = np.zeros((*window, channels, channels), dtype=np.float32)
        kernel[..., np.arange(channels), np.arange(channels)] = float(quantizer(1.0 / np.prod(window)))
        kernels[layer.name] = kernel
        return modules.qkeras.QConv2D(
            channels,
            window,
            strides=tuple(layer.strides),
            padding=layer.padding,
            use_bias=False,
            kernel_quantizer=to_qkeras(quantizer),
            name=layer.name,
        )

    with warnings.catch_warnings():
        # QKeras serialises its quantisers as what they are not; nothing is lost.
        warnings.simplefilter("ignore", UserWarning)
        result = modules.keras.models.clone_model(model, clone_function=rewrite)
    for layer in result.layers:
        layer.set_weights([kernels[layer.name]] if layer.name in kernels else model.get_layer(layer.name).get_weights())
    return result


def _run_hls4ml(model: Any, folder: Path, options: HlsOptions, namespace: str) -> dict[str, str]:
    """Convert with hls4ml and return its firmware, made part of a larger design: relative path to text."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as said, keras_is_tf_keras():
        warnings.simplefilter("ignore")
        import hls4ml

        try:
            config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend=options.backend)
            for layer in config["LayerName"].values():
                layer["ReuseFactor"] = options.reuse_factor
                layer["Strategy"] = options.strategy
            config["Model"]["ReuseFactor"] = options.reuse_factor
            config["Model"]["Strategy"] = options.strategy
            graph = hls4ml.converters.convert_from_keras_model(
                model,
                hls_config=config,
                output_dir=str(folder),
                project_name="network",
                backend=options.backend,
                bit_exact=True,
                io_type="io_parallel",
                part=options.part,
                clock_period=options.clock_ns,
                namespace=namespace,
                write_weights_txt=False,
            )
            graph.write()
        except Exception as error:
            # It also raises Exception itself, for which there is no narrower name.
            if type(error) is not Exception and not isinstance(error, _HLS4ML_ERRORS):
                raise
            last = [line for line in said.getvalue().splitlines() if line.strip()][-1:]
            reason = f"{type(error).__name__} {error}".strip()
            raise TriggerError("encoder", "hls4ml", " ".join([reason, *last]), "a model it converts") from error
    firmware = folder / "firmware"
    files = {
        str(path.relative_to(firmware)): path.read_text(encoding="utf-8")
        for path in sorted(firmware.rglob("*"))
        if path.suffix in (".h", ".cpp") and "ap_types" not in path.parts
    }
    files["network.cpp"] = _inlined(files["network.cpp"])
    return files


def _inlined(text: str) -> str:
    """hls4ml's network as an inlined part: the directives of a top function go."""
    pattern = r"(    // hls-fpga-machine-learning insert IO\n)(?:\s*#pragma HLS[^\n]*\n)+"
    result, n = re.subn(pattern, r"#pragma HLS INLINE\n", text)
    if n != 1:
        raise TriggerError("hls4ml", "network.cpp", f"{n} places for directives", "one, as in hls4ml 1.3")
    return result


def _arguments(header: str) -> list[tuple[str, str, int]]:
    """Type, name and size of each argument of hls4ml's network."""
    match_ = re.search(r"void network\((.*?)\);", header, re.DOTALL)
    found = re.findall(r"(\w+) (\w+)\[([^\]]+)\]", match_[1] if match_ else "")
    return [(kind, name, int(np.prod([int(n) for n in size.split("*")]))) for kind, name, size in found]


def print_glue(program: Program, code: cpp.CppProgram, network: cpp.Network, header: str) -> str:
    """The function of the program that calls hls4ml's network."""
    inner, names = f"net_{program.hash[:12]}", code.names
    nodes = [network.source, *network.outputs]
    parameters = [f"{names[name]}_t {names[name]}[{program.node(name).size}]" for name in nodes]
    parameters[0] = f"const {parameters[0]}"
    body, labels = [], ["x", *(f"y{i}" for i in range(len(network.outputs)))]
    for label, name, (kind, _, size) in zip(labels, nodes, _arguments(header), strict=True):
        if size != program.node(name).size:
            raise TriggerError("hls4ml", f"size of {name}", size, program.node(name).size)
        body += [f"    {inner}::{kind} {label}[{size}];", f"#pragma HLS ARRAY_PARTITION variable={label} complete"]
    copy = "    for (int i = 0; i < {n}; i++) {{\n#pragma HLS UNROLL\n        {to}[i] = {source}[i];\n    }}"
    body.append(copy.format(n=program.node(network.source).size, to="x", source=names[network.source]))
    body.append(f"    {inner}::network({', '.join(labels)});")
    for label, name in zip(labels[1:], network.outputs, strict=True):
        body.append(copy.format(n=program.node(name).size, to=names[name], source=label))
    return templates.render(
        "hls/network_glue.h",
        guard=code.namespace.upper(),
        namespace=code.namespace,
        parameters=", ".join(parameters),
        body="\n".join(body),
    )
