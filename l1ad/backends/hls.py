"""The whole trigger as an HLS project, and its csim without a vendor tool.

`convert` writes the project: object words or input words in, scaling, network, score and threshold bits out. The
network is hls4ml's if an encoder is given, else it is printed from the program like the rest. `load` comes back to a
project; `HlsProject.score` compiles it with g++ and scores. `l1ad.backends.vendor` runs the vendor's tools on it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from l1ad.backends import cmssw, cpp, native, project, templates, timing
from l1ad.errors import InputError, TriggerError
from l1ad.events.layout import ObjectLayout
from l1ad.io import write_text
from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.nodes import Scale
from l1ad.trigger.program import Program, Trigger

BACKEND = "hls"
Wrapper = Literal["ugt", "words", "ap_none"]
HlsBackend = Literal["Vitis", "Vivado"]
_GOLDEN_EVENTS = 200
_NETWORK_SOURCE = ("firmware/network/network.cpp",)

#: The object words of the uGT board: port, number of ports, bits, and first bit of each feature (l1-facts, section 4).
#: Muons have a direction at the vertex too; these are the extrapolated ones, which the deployed triggers see.
_UGT_PORTS: dict[str, tuple[str, int, int, dict[str, int]]] = {
    "mu": ("muons", 8, 64, {"phi": 0, "pt": 10, "eta": 23}),
    "jet": ("jets", 12, 32, {"pt": 0, "eta": 11, "phi": 19}),
    "eg": ("egammas", 12, 32, {"pt": 0, "eta": 9, "phi": 17}),
    "met": ("etmiss", 1, 32, {"pt": 0, "phi": 12}),
}
_UGT_ORDER = (
    ("muons", 64, 8),
    ("jets", 32, 12),
    ("egammas", 32, 12),
    ("taus", 32, 12),
    *((name, 32, 1) for name in ("et", "ht", "etmiss", "htmiss", "ethfmiss", "hthfmiss")),
)


#: hls4ml raises whatever its passes run into, down to a bare AssertionError.
_HLS4ML_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class HlsOptions:
    """How the project is built.

    Attributes
    ----------
    backend : of hls4ml, ``Vitis`` or ``Vivado``.
    wrapper : ``ugt`` (the port list of the uGT board), ``words`` (one word an input: pt in GeV, angles in hardware
        codes) or ``ap_none`` (one port a feature, no handshake, as in an L1Topo board).
    top : name of the top function.
    part : FPGA.
    clock_ns : clock period.
    clock_uncertainty : as the tools take it, such as ``12.5%`` or ``2``; empty for the tool's own.
    latency_clocks : clocks from the inputs to the score.
    reuse_factor : multiplications on one multiplier, 1 for none shared.
    strategy : of hls4ml.
    threshold_bits : a further port with one bit a threshold; None: yes, except on the uGT board, whose ports are fixed.
    dsp : whether multiplications may use DSPs.
    """

    backend: HlsBackend = "Vitis"
    wrapper: Wrapper = "ugt"
    top: str = "anomaly_trigger"
    part: str = "xc7vx690tffg1927-2"
    clock_ns: float = 25.0
    clock_uncertainty: str = ""
    latency_clocks: int = 2
    reuse_factor: int = 1
    strategy: str = "latency"
    threshold_bits: bool | None = None
    dsp: bool = False

    def __post_init__(self) -> None:
        for field, kind in (("backend", HlsBackend), ("wrapper", Wrapper)):
            if getattr(self, field) not in get_args(kind):
                raise InputError("hls", field, getattr(self, field), ", ".join(get_args(kind)))
        if cpp.identifier(self.top) != self.top:
            raise InputError("hls", "top", self.top, f"a C++ name, such as {cpp.identifier(self.top)}")
        if self.reuse_factor < 1:
            raise InputError("hls", "reuse_factor", self.reuse_factor, "1 or more")
        if self.strategy.lower() not in ("latency", "resource"):
            raise InputError("hls", "strategy", self.strategy, "latency or resource")
        if not re.fullmatch(r"|\d+(\.\d+)?%?", self.clock_uncertainty):
            raise InputError("hls", "clock_uncertainty", self.clock_uncertainty, "nanoseconds or a percentage")
        if self.threshold_bits and self.wrapper == "ugt":
            raise InputError("hls", "threshold_bits", "wrapper ugt", "a wrapper without a fixed port list")


@dataclass(frozen=True)
class HlsProject:
    """A project of one trigger.

    Attributes
    ----------
    folder : where.
    trigger : of which.
    options : how it is built.
    printed : the nodes that `trace` shows.
    has_network : whether the network is hls4ml's.
    estimate : of the latency, made before the build.
    ap_types : folder of ap_fixed.h; None for the one that hls4ml ships.
    workers : processes that score; None for one a processor.
    name : of this realisation in tables.
    """

    folder: Path
    trigger: Trigger
    options: HlsOptions
    printed: tuple[str, ...]
    has_network: bool
    estimate: timing.LatencyEstimate
    ap_types: Path | None = None
    workers: int | None = None
    name: str = "hls csim"

    @property
    def trigger_hash(self) -> str:
        """Hash of the program that it was made from."""
        return self.trigger.hash

    @property
    def sources(self) -> tuple[str, ...]:
        """What is synthesised, relative to the folder."""
        return ("firmware/top.cpp", *(_NETWORK_SOURCE if self.has_network else ()))

    def compile(self) -> Path:
        """The csim program, compiled if it is not up to date.

        Raises
        ------
        MissingToolError
            If there is no compiler or no ap_types.
        BuildError
            If it does not compile; the logs are in ``csim/``.
        """
        read = [*(self.folder / "firmware").rglob("*.h"), self.folder / "firmware" / "top.cpp"]
        return native.compile_program(
            self.folder,
            ["tb/test_bench.cpp", *(_NETWORK_SOURCE if self.has_network else ())],
            "csim/test_bench",
            headers=[str(path.relative_to(self.folder)) for path in sorted(read)],
            include=[native.ap_types(self.ap_types)],
            flags=[*native.FLAGS, "-DL1AD_BATCH"],
            what="csim compile",
        )

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        """Integer scores (N,) of hardware codes (N, inputs), through the ports of the top function."""
        return self._run(inputs, 2)[:, 0]

    def decisions(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, npt.NDArray[np.bool_]]:
        """The threshold bits (N,) by seed name; empty if the wrapper has none."""
        bits = self._run(inputs, 2)[:, 1]
        return {
            name: (bits >> i & 1).astype(bool) for i, (name, _) in enumerate(thresholds(self.trigger, self.options))
        }

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """Codes of every node that is printed: with hls4ml's network all but the insides of that."""
        size = sum(self.trigger.program.node(name).size for name in self.printed)
        codes = self._run(inputs, 2 + size, "--trace")[:, 2:]
        return cpp.split_trace(self.trigger.program, self.printed, codes)

    def check_golden(self) -> str:
        """Run the test bench on the golden vectors of the project; its last line.

        Raises
        ------
        BuildError
            If an event differs.
        """
        log = self.folder / "csim" / "golden.log"
        command = [str(self.compile().resolve())]
        native.run_logged(command, cwd=self.folder / "tb", log=log, what="test bench")
        return log.read_text(encoding="utf-8").splitlines()[-1]

    def _run(self, inputs: npt.NDArray[np.integer[Any]], columns: int, *flags: str) -> Codes:
        command = [str(self.compile().resolve()), *flags]
        return native.score_events(command, inputs, columns, workers=self.workers)


def convert(
    trigger: Trigger,
    encoder: Any = None,
    out_dir: str | os.PathLike[str] = "firmware/hls",
    *,
    outputs: Sequence[str] | None = None,
    ap_types: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    compile: bool = False,
    ignore_estimate: bool = False,
    **options: Any,
) -> HlsProject:
    """Write the HLS project of a trigger.

    Parameters
    ----------
    encoder : the Keras encoder that the trigger was frozen from, or the path of its HDF5 file: hls4ml converts it.
        None: the network is printed from the program.
    outputs : the nodes of the program that the encoder's outputs are, in their order. By default the nodes that carry
        the names of the outputs' layers, else those with the same values.
    ap_types : folder of ap_fixed.h for the csim.
    compile : compile the csim too.
    ignore_estimate : go on even if the latency is out of reach by the estimate.
    options : fields of `HlsOptions`.

    Raises
    ------
    InputError
        If an option is wrong, the folder holds a project of another trigger, the clock is out of reach, or the encoder
        has what hls4ml converts wrongly.
    TriggerError
        If the program has no such form, or the encoder is not the one of the trigger.
    """
    settings = _options(options)
    program, folder = trigger.program, Path(out_dir)
    estimate = timing.estimate(program, settings.part, clock_ns=settings.clock_ns, clocks=settings.latency_clocks)
    if estimate.verdict == "out of reach" and not ignore_estimate:
        found = f"about {estimate.logic_ns:.0f} ns of logic in {estimate.levels} levels (estimate)"
        expected = (
            f"at most {estimate.budget_ns:g} ns: more clocks, a longer period or a faster part than {estimate.part}"
        )
        raise InputError(trigger.name, "latency", found, expected)
    ports = _ports(program, settings, trigger)
    project.prepare(folder, trigger, BACKEND)
    network: cpp.Network | None = None
    network_files: dict[str, str] = {}
    if encoder is not None:
        network, network_files = _network(trigger, encoder, settings, outputs)
    namespace = f"l1ad_{program.hash[:12]}"
    code = cpp.print_program(program, namespace=namespace, network=network)
    shutil.rmtree(folder / "firmware", ignore_errors=True)
    native.write_files(folder / "firmware" / "network", network_files)
    if network is not None:
        write_text(folder / "firmware" / "network_glue.h", _glue(program, code, network, network_files["network.h"]))
    native.write_files(folder, _texts(trigger, settings, code, ports, has_network=network is not None))
    kept = {"hls": asdict(settings), "printed": list(code.printed), "has_network": network is not None}
    project.finish(folder, trigger, BACKEND, kept)
    made = load(folder, ap_types=ap_types, workers=workers)
    if compile:
        made.compile()
    return made


def load(
    out_dir: str | os.PathLike[str], *, ap_types: str | os.PathLike[str] | None = None, workers: int | None = None
) -> HlsProject:
    """The project that `convert` wrote.

    Raises
    ------
    InputError
        If the folder is not one of this back end.
    """
    found = project.open_project(Path(out_dir), BACKEND)
    settings = _options(found.options["hls"])
    has_network = bool(found.options["has_network"])
    return HlsProject(
        found.folder,
        found.trigger,
        settings,
        tuple(found.options["printed"]),
        has_network,
        timing.estimate(
            found.trigger.program, settings.part, clock_ns=settings.clock_ns, clocks=settings.latency_clocks
        ),
        Path(ap_types) if ap_types is not None else None,
        workers,
        "hls4ml csim" if has_network else "hls csim",
    )


def _options(given: Mapping[str, Any]) -> HlsOptions:
    known = set(HlsOptions.__dataclass_fields__)
    unknown = sorted(set(given) - known)
    if unknown:
        raise InputError("hls", "options", ", ".join(unknown), ", ".join(sorted(known)))
    return HlsOptions(**given)


def thresholds(trigger: Trigger, options: HlsOptions) -> tuple[tuple[str, int], ...]:
    """Seeds and thresholds in the order of their bits, the lowest first; none without the port."""
    wanted = options.threshold_bits if options.threshold_bits is not None else options.wrapper != "ugt"
    if not wanted:
        return ()
    return tuple(sorted(trigger.thresholds.items(), key=lambda item: (item[1], item[0])))


# ---------------------------------------------------------------------------- ports


@dataclass(frozen=True)
class _Ports:
    """C++ of one wrapper: parameters of the top, directives, unpacking of the words, and packing in the test bench."""

    parameters: tuple[str, ...]
    pragmas: tuple[str, ...]
    unpack: tuple[str, ...]
    pack: tuple[str, ...]
    arguments: tuple[str, ...]


def _ports(program: Program, options: HlsOptions, trigger: Trigger) -> _Ports:
    make: dict[str, Callable[[Program], _Ports]] = {"ugt": _ugt_ports, "words": _word_ports, "ap_none": _feature_ports}
    ports = make[options.wrapper](program)
    plain = options.wrapper == "ap_none"
    parameters = [*ports.parameters, "ap_uint<18> &anomaly_score"]
    arguments = [*ports.arguments, "anomaly_score"]
    mode = "ap_none" if plain else "ap_vld"
    pragmas = [*ports.pragmas, f"#pragma HLS INTERFACE {mode} port=anomaly_score"]
    seeds = thresholds(trigger, options)
    if len(seeds) > 64:
        raise InputError(trigger.name, "thresholds", len(seeds), "64 at most for threshold bits")
    if seeds:
        parameters.append(f"ap_uint<{len(seeds)}> &decisions")
        arguments.append("decisions")
        pragmas.append(f"#pragma HLS INTERFACE {mode} port=decisions")
    pragmas.append(f"#pragma HLS INTERFACE {'ap_ctrl_none' if plain else 'ap_ctrl_hs'} port=return")
    return _Ports(tuple(parameters), tuple(pragmas), ports.unpack, ports.pack, tuple(arguments))


def _inputs(layout: ObjectLayout) -> Iterator[tuple[int, str, int, str, int, bool]]:
    """Network inputs: number, object, its number, feature, bits and sign."""
    flat = [(group.name, k, word) for group in layout.groups for k in range(group.count) for word in group.words]
    for i, position in enumerate(layout.input_index):
        name, k, word = flat[position]
        yield i, name, k, word.name, word.bits, word.signed


def _array_pragmas(name: str, mode: str, *, array: bool) -> list[str]:
    partition = [f"#pragma HLS ARRAY_PARTITION variable={name} complete"] if array else []
    return [*partition, f"#pragma HLS INTERFACE {mode} port={name}"]


def _ugt_ports(program: Program) -> _Ports:
    layout = program.layout
    if {group.name for group in layout.groups} != set(_UGT_PORTS):
        raise TriggerError("hls", "wrapper ugt", f"layout {layout.name}", "the objects of the uGT, or another wrapper")
    parameters, pragmas, pack, arguments = [], [], [], []
    for name, bits, count in _UGT_ORDER:
        parameters.append(f"ap_uint<{bits}> {name}[{count}]" if count > 1 else f"ap_uint<{bits}> {name}")
        pragmas += _array_pragmas(name, "ap_none", array=count > 1)
        arguments.append(name)
        pack.append(f"    ap_uint<{bits}> {name}{f'[{count}]' if count > 1 else ''};")
        each = f"    for (int i = 0; i < {count}; i++)\n        {name}[i] = noise.next();"
        pack.append(each if count > 1 else f"    {name} = noise.next();")
    unpack = []
    for i, group, k, feature, bits, signed in _inputs(layout):
        port, count, _, first = _UGT_PORTS[group]
        if not bits:
            unpack.append(f"    input[{i}] = 0;")
            continue
        word = f"{port}[{k}]" if count > 1 else port
        field = f"{word}.range({first[feature] + bits - 1}, {first[feature]})"
        unpack.append(f"    input[{i}] = ap_{'' if signed else 'u'}int<{bits}>({field});")
        pack.append(f"    {field} = ap_uint<{bits}>(codes[{i}]);")
    return _Ports(tuple(parameters), tuple(pragmas), tuple(unpack), tuple(pack), tuple(arguments))


def _word_ports(program: Program) -> _Ports:
    n = program.nodes[0].size
    kind, units = cmssw.payload_words(program)
    unpack, pack = [], [f"    {kind.cpp()} words[{n}];"]
    for i, unit in enumerate(units):
        factor = round(1 / unit)
        product = f"words[{i}] * ap_uint<{factor.bit_length()}>({factor})" if factor > 1 else f"words[{i}]"
        unpack.append(f"    input[{i}] = {product};")
        pack.append(f"    words[{i}] = codes[{i}] * {unit:g};")
    pragmas = _array_pragmas("words", "ap_none", array=True)
    return _Ports((f"{kind.cpp()} words[{n}]",), tuple(pragmas), tuple(unpack), tuple(pack), ("words",))


def _feature_ports(program: Program) -> _Ports:
    layout = program.layout
    parameters, pragmas, pack, arguments = [], [], [], []
    used = {(group, feature) for _, group, _, feature, bits, _ in _inputs(layout) if bits}
    for group in layout.groups:
        for word in group.words:
            if (group.name, word.name) not in used:
                continue
            name, array = f"{group.name}_{word.name}", group.count > 1
            shape = f"[{group.count}]" if array else ""
            parameters.append(f"ap_{'' if word.signed else 'u'}int<{word.bits}> {name}{shape}")
            pragmas += _array_pragmas(name, "ap_none", array=array)
            pack.append(f"    ap_{'' if word.signed else 'u'}int<{word.bits}> {name}{shape};")
            arguments.append(name)
    unpack = []
    counts = {group.name: group.count for group in layout.groups}
    for i, name, k, feature, bits, _ in _inputs(layout):
        port = f"{name}_{feature}[{k}]" if counts[name] > 1 else f"{name}_{feature}"
        unpack.append(f"    input[{i}] = {port if bits else 0};")
        if bits:
            pack.append(f"    {port} = codes[{i}];")
    return _Ports(tuple(parameters), tuple(pragmas), tuple(unpack), tuple(pack), tuple(arguments))


# ---------------------------------------------------------------------------- texts


def _texts(
    trigger: Trigger, options: HlsOptions, code: cpp.CppProgram, ports: _Ports, *, has_network: bool
) -> dict[str, str]:
    program = trigger.program
    names, seeds = code.names, thresholds(trigger, options)
    first = program.nodes[0]
    locals_, arguments = [], ["input"]
    if program.latents is not None and program.latents != program.score:
        locals_.append(("latents", program.latents))
        arguments.append("latents")
    locals_.append(("score", program.score))
    arguments.append("score")
    declared = []
    for variable, node in locals_:
        declared.append(f"    {code.namespace}::{names[node]}_t {variable}[{program.node(node).size}];")
        declared.append(f"#pragma HLS ARRAY_PARTITION variable={variable} complete")
    kind = program.node(program.score).type
    guard, glue = code.namespace.upper(), '#include "network_glue.h"' if has_network else ""
    decisions = [f"    decisions[{i}] = word >= {value};" for i, (_, value) in enumerate(seeds)]
    parameters = ",\n".join(f"    {parameter}" for parameter in ports.parameters)
    common = {"hash": program.hash, "wrapper": options.wrapper, "top": options.top, "parameters": parameters}
    pack = list(ports.pack)
    if seeds:
        pack.append(f"    ap_uint<{len(seeds)}> decisions = 0;")
    return {
        "firmware/program.h": code.header,
        "firmware/top.h": templates.render("hls/top.h", guard=guard, **common),
        "firmware/top.cpp": templates.render(
            "hls/top.cpp",
            **common,
            includes=glue,
            pragmas="\n".join(ports.pragmas),
            latency=options.latency_clocks,
            namespace=code.namespace,
            input=names[first.name],
            inputs=first.size,
            unpack="\n".join(ports.unpack),
            locals="\n".join(declared),
            arguments=", ".join(arguments),
            code=f"ap_{'' if kind.signed else 'u'}int<{kind.width}>",
            decisions="\n".join(decisions),
        ),
        "tb/test_bench.cpp": templates.render(
            "hls/test_bench.cpp",
            top=options.top,
            inputs=first.size,
            pack="\n".join(pack),
            ports=", ".join(ports.arguments),
            signed="true" if kind.signed else "false",
            bits="decisions.to_uint64()" if seeds else "0",
            trace_size=code.trace_size,
            namespace=code.namespace,
            input=names[first.name],
        ),
        "tb/golden.dat": _golden(trigger, options),
        "tcl/build.tcl": templates.read("hls/build.tcl"),
        "tcl/options.tcl": _tcl_options(options, has_network),
        "tcl/place_and_route.tcl": templates.read("vendor/place_and_route.tcl"),
    }


def _golden(trigger: Trigger, options: HlsOptions) -> str:
    inputs = project.golden_vectors(trigger.program, _GOLDEN_EVENTS)
    scores = trigger.score(inputs)
    lines = []
    for codes, score in zip(inputs.tolist(), scores.tolist(), strict=True):
        bits = sum(1 << i for i, (_, value) in enumerate(thresholds(trigger, options)) if score >= value)
        lines.append(" ".join(map(str, [*codes, score, bits])))
    return "\n".join(lines) + "\n"


def _tcl_options(options: HlsOptions, has_network: bool) -> str:
    sources = ["firmware/top.cpp", *(_NETWORK_SOURCE if has_network else ())]
    values = {
        "top": options.top,
        "part": options.part,
        "clock_ns": f"{options.clock_ns:g}",
        "clock_uncertainty": options.clock_uncertainty,
        "latency_clocks": options.latency_clocks,
        "dsp": int(options.dsp),
        "ip_version": "1.0.0",
        "sources": " ".join(sources),
    }
    return "\n".join(["# Read by the scripts beside it.", *(f"set {k} {{{v}}}" for k, v in values.items())]) + "\n"


# ---------------------------------------------------------------------------- hls4ml


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


def _network(
    trigger: Trigger, encoder: Any, options: HlsOptions, outputs: Sequence[str] | None
) -> tuple[cpp.Network, dict[str, str]]:
    """The part of the program that hls4ml computes, and the files it wrote for it."""
    from l1ad.backends.hls_lint import lint
    from l1ad.model.keras import import_tf, load_model

    import_tf()
    model = load_model(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder
    findings = lint(model)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise InputError("encoder", f"layer {findings[0].layer}", findings[0].found, f"{findings[0].mend}{more}")
    model, network = match(trigger, model, outputs)
    with tempfile.TemporaryDirectory(prefix="l1ad-") as scratch:
        files = _run_hls4ml(model, Path(scratch) / "project", options, f"net_{trigger.hash[:12]}")
    arguments = _arguments(files["network.h"])
    if len(arguments) != 1 + len(network.outputs):
        raise TriggerError("encoder", "arguments of hls4ml's network", len(arguments), f"{1 + len(network.outputs)}")
    return network, files


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


def _run_hls4ml(model: Any, folder: Path, options: HlsOptions, namespace: str) -> dict[str, str]:
    """Convert with hls4ml and return its firmware, made part of a larger design: relative path to text."""
    import warnings

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
        except _HLS4ML_ERRORS as error:
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


def _glue(program: Program, code: cpp.CppProgram, network: cpp.Network, header: str) -> str:
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
