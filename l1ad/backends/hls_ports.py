"""The ports of the top function: how object words become network inputs, for each wrapper.

`make_ports(...)` gives the C++ of one wrapper; the test bench packs with the same table and fills every other bit with
noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from l1ad.backends import cmssw
from l1ad.backends.hls_options import HlsOptions, thresholds
from l1ad.errors import InputError, TriggerError
from l1ad.events.layout import ObjectLayout
from l1ad.trigger.graph import Program
from l1ad.trigger.program import Trigger

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


@dataclass(frozen=True)
class Ports:
    """C++ of one wrapper: parameters of the top, directives, unpacking of the words, and packing in the test bench."""

    parameters: tuple[str, ...]
    pragmas: tuple[str, ...]
    unpack: tuple[str, ...]
    pack: tuple[str, ...]
    arguments: tuple[str, ...]


def make_ports(program: Program, options: HlsOptions, trigger: Trigger) -> Ports:
    """The ports that the options ask for.

    Raises
    ------
    InputError, TriggerError
        If the layout has no such objects, or there are more thresholds than bits.
    """
    make: dict[str, Callable[[Program], Ports]] = {"ugt": _ugt_ports, "words": _word_ports, "ap_none": _feature_ports}
    inner = make[options.wrapper](program)
    plain = options.wrapper == "ap_none"
    parameters = [*inner.parameters, "ap_uint<18> &anomaly_score"]
    arguments = [*inner.arguments, "anomaly_score"]
    mode = "ap_none" if plain else "ap_vld"
    pragmas = [*inner.pragmas, f"#pragma HLS INTERFACE {mode} port=anomaly_score"]
    seeds = thresholds(trigger, options)
    if len(seeds) > 64:
        raise InputError(trigger.name, "thresholds", len(seeds), "64 at most for threshold bits")
    if seeds:
        parameters.append(f"ap_uint<{len(seeds)}> &decisions")
        arguments.append("decisions")
        pragmas.append(f"#pragma HLS INTERFACE {mode} port=decisions")
    pragmas.append(f"#pragma HLS INTERFACE {'ap_ctrl_none' if plain else 'ap_ctrl_hs'} port=return")
    return Ports(tuple(parameters), tuple(pragmas), inner.unpack, inner.pack, tuple(arguments))


def choose_wrapper(options: HlsOptions, layout: ObjectLayout) -> HlsOptions:
    """The options with the wrapper that ``auto`` stands for."""
    if options.wrapper != "auto":
        return options
    board = {group.name for group in layout.groups} == set(_UGT_PORTS)
    return replace(options, wrapper="ugt" if board else "ap_none")


def _inputs(layout: ObjectLayout) -> Iterator[tuple[int, str, int, str, int, bool]]:
    """Network inputs: number, object, its number, feature, bits and sign."""
    flat = [(group.name, k, word) for group in layout.groups for k in range(group.count) for word in group.words]
    for i, position in enumerate(layout.input_index):
        name, k, word = flat[position]
        yield i, name, k, word.name, word.bits, word.signed


def _array_pragmas(name: str, mode: str, *, array: bool) -> list[str]:
    partition = [f"#pragma HLS ARRAY_PARTITION variable={name} complete"] if array else []
    return [*partition, f"#pragma HLS INTERFACE {mode} port={name}"]


def _ugt_ports(program: Program) -> Ports:
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
    return Ports(tuple(parameters), tuple(pragmas), tuple(unpack), tuple(pack), tuple(arguments))


def _word_ports(program: Program) -> Ports:
    n = program.nodes[0].size
    kind, units = cmssw.payload_words(program)
    unpack, pack = [], [f"    {kind.cpp()} words[{n}];"]
    for i, unit in enumerate(units):
        factor = round(1 / unit)
        product = f"words[{i}] * ap_uint<{factor.bit_length()}>({factor})" if factor > 1 else f"words[{i}]"
        unpack.append(f"    input[{i}] = {product};")
        pack.append(f"    words[{i}] = codes[{i}] * {unit:g};")
    pragmas = _array_pragmas("words", "ap_none", array=True)
    return Ports((f"{kind.cpp()} words[{n}]",), tuple(pragmas), tuple(unpack), tuple(pack), ("words",))


def _feature_ports(program: Program) -> Ports:
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
    return Ports(tuple(parameters), tuple(pragmas), tuple(unpack), tuple(pack), tuple(arguments))
