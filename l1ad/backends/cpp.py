"""A program as C++ with ap_types: what the HLS project and the CMSSW emulator share.

`print_program` writes one header; nothing but it knows how a node looks in C++. The text compiles with g++ and with the
HLS compilers, needs no other file than ap_types, and keeps everything in a namespace.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from l1ad.backends import templates
from l1ad.errors import TriggerError
from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import (
    Concat,
    Dense,
    Input,
    Lut,
    Maximum,
    Multiply,
    Node,
    Quantize,
    Relu,
    Scale,
    Subtract,
    Take,
)

#: Words that a node may be called in Python and that C++ or our own text already uses.
_RESERVED = frozenset(
    """
    alignas alignof and asm auto bitand bitor bool break case catch char class codes compl const constexpr continue
    default delete do double dynamic_cast else enum evaluate explicit export extern false float for friend goto if
    inline int long mutable namespace new noexcept not nullptr operator or private protected public register return
    short signed sizeof static struct switch template this throw to trace true try typedef typeid typename union
    unsigned using virtual void volatile while x xor y network
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Network:
    """A part of the program that another C++ function computes.

    Attributes
    ----------
    source : the node that it reads.
    outputs : the nodes that it computes, in the order of its arguments.
    """

    source: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class CppProgram:
    """A program in C++.

    Attributes
    ----------
    namespace : everything in `header` is in it.
    header : the text of ``program.h``.
    names : C++ identifier of each node; its type is the identifier with ``_t``.
    printed : nodes in the order in which ``trace`` writes them.
    trace_size : numbers that ``trace`` writes.
    """

    namespace: str
    header: str
    names: dict[str, str]
    printed: tuple[str, ...]
    trace_size: int


def print_program(program: Program, *, namespace: str, network: Network | None = None) -> CppProgram:
    """The program as a header with ``evaluate(input, [latents,] score)`` and ``trace(input, codes)``.

    Parameters
    ----------
    namespace : a C++ identifier.
    network : leave this part to a function ``network(source, outputs...)`` that somebody else defines in `namespace`.

    Raises
    ------
    TriggerError
        If a node has no C++ form, or `network` does not cut the program in two.
    """
    names = identifiers(program)
    printed = _order(program, network)
    skipped = set(network.outputs) if network else set()
    types = [f"typedef {node.type.cpp()} {names[node.name]}_t;" for node in (program.node(n) for n in printed)]
    functions = [
        _function(program, program.node(name), names)
        for name in printed
        if name not in skipped and name != _first(program)
    ]
    if network:
        arguments = [f"const {names[network.source]}_t {names[network.source]}[{_size(program, network.source)}]"]
        arguments += [f"{names[name]}_t {names[name]}[{_size(program, name)}]" for name in network.outputs]
        functions.insert(0, "// Computed elsewhere.\ninline void network(" + ", ".join(arguments) + ");")
    header = templates.render(
        "cpp/program.h",
        hash=program.hash,
        guard=f"L1AD_{namespace.upper()}_PROGRAM_H",
        namespace=namespace,
        types="\n".join(types),
        functions="\n\n".join(functions),
        evaluate=_evaluate(program, names, printed, network),
        trace=_trace(program, names, printed, network),
    )
    size = sum(_size(program, name) for name in printed)
    return CppProgram(namespace, header, names, printed, size)


def split_trace(program: Program, printed: Sequence[str], codes: Codes) -> dict[str, Codes]:
    """The columns (N, trace_size) that ``trace`` wrote, by node."""
    ends = np.cumsum([_size(program, name) for name in printed])
    return dict(zip(printed, np.split(codes, ends[:-1], axis=1), strict=True))


def identifiers(program: Program) -> dict[str, str]:
    """A C++ identifier for each node, all different."""
    result: dict[str, str] = {}
    used: set[str] = set()
    for node in program.nodes:
        base = identifier(node.name)
        name, n = base, 2
        while name in used:
            name, n = f"{base}_{n}", n + 1
        used.add(name)
        result[node.name] = name
    return result


def identifier(text: str) -> str:
    """The nearest C++ identifier.

    >>> identifier("q_dense/2"), identifier("int"), identifier("4mu")
    ('q_dense_2', 'int_', 'n4mu')
    """
    # Double underscores and a leading one are the compiler's own.
    name = re.sub(r"_+", "_", re.sub(r"\W", "_", text, flags=re.ASCII)).strip("_") or "node"
    if name[0].isdigit():
        name = f"n{name}"
    return f"{name}_" if name in _RESERVED or keyword.iskeyword(name) else name


def _first(program: Program) -> str:
    return program.nodes[0].name


def _size(program: Program, name: str) -> int:
    return program.node(name).size


def _order(program: Program, network: Network | None) -> tuple[str, ...]:
    """Nodes to print: all, or those that are needed around the network."""
    if network is None:
        return tuple(node.name for node in program.nodes)
    wanted = {program.score, network.source, *network.outputs}
    if program.latents:
        wanted.add(program.latents)
    # Walk back from what is wanted; the outputs of the network come from the network.
    for node in reversed(program.nodes):
        if node.name in wanted and node.name not in network.outputs:
            wanted.update(node.inputs)
    order = [node.name for node in program.nodes if node.name in wanted]
    position = {name: i for i, name in enumerate(order)}
    early = [name for name in network.outputs if position[name] < position[network.source]]
    if early:
        raise TriggerError("network", "outputs", early, f"nodes after {network.source}")
    first = min(position[name] for name in network.outputs)
    # All outputs appear where the first of them is: what lies between must not be among what they feed.
    return (*order[:first], *network.outputs, *(n for n in order[first:] if n not in network.outputs))


# ---------------------------------------------------------------------------- nodes


@dataclass(frozen=True)
class _Context:
    program: Program
    names: dict[str, str]


def _int_type(kind: FixedType) -> str:
    return f"ap_{'' if kind.signed else 'u'}int<{kind.width}>"


def _scale(node: Scale, context: _Context) -> list[str]:
    name, word = context.names[node.name], node.word
    factor, offset = _table_type(node.multiplier), _table_type(node.offset)
    # Factors and offsets are codes on the grid of the word.
    as_factor, as_offset = (FixedType(t.width, t.width - word.fraction, t.signed).cpp() for t in (factor, offset))
    lines = [
        f"// offset, shift on the grid of {word}, then the cast into {node.type}",
        f"const {name}_word_t word = x[i] * of_code<{as_factor} >({_int_type(factor)}({name}_factor[i]));",
        f"const {name}_word_t difference = word - of_code<{as_offset} >({_int_type(offset)}({name}_offset[i]));",
    ]
    right = f"{name}_word_t(difference >> {name}_shift[i])"
    if node.shift.min() >= 0:
        lines.append(f"y[i] = {right};")
    else:
        # A product and a cast: the operator << drops bits whatever the type says about overflow.
        power = f"ap_uint<{1 - int(node.shift.min())}>(1ULL << -{name}_shift[i])"
        lines += [f"if ({name}_shift[i] >= 0)", f"    y[i] = {right};", "else"]
        lines.append(f"    y[i] = {name}_word_t(difference * {power});")
    return [lines[0], *_each(node.size, "\n".join(lines[1:]))]


def _table_type(values: Codes) -> FixedType:
    """Integers wide enough for a table; two bits at least, as one bit is no ap_int that all versions take."""
    return FixedType.holding(min(int(values.min()), -1), max(int(values.max()), 1), 0)


def _dense(node: Dense, context: _Context) -> list[str]:
    source = context.program.intervals[node.inputs[0]]
    kind = context.program.node(node.inputs[0]).type
    exact = node.exact_interval(source)
    weights, bias, fraction = node.aligned(source.fraction)
    # Wide enough for every total; partial sums may leave the range, but wrap and come back.
    width = exact.type.width + (not exact.type.signed)
    codes, total = _int_type(kind), f"ap_int<{width}>"
    lines = [
        f"// {node.n_nonzero} of {weights.size} weights are not zero",
        f"{codes} c[{len(weights)}];",
        "#pragma HLS ARRAY_PARTITION variable=c complete",
        f"for (int i = 0; i < {len(weights)}; i++) {{",
        "#pragma HLS UNROLL",
        f"    c[i] = code_of<{codes}>(x[i]);",
        "}",
    ]
    for j in range(node.size):
        lines += ["{", f"    {total} sum = {_integer(int(bias[j]))};"]
        for i in np.flatnonzero(weights[:, j]):
            weight = int(weights[i, j])
            bits = _table_type(weights[i, j]).width
            lines.append(f"    sum += c[{i}] * ap_int<{bits}>({_integer(weight)});")
        lines += [f"    y[{j}] = of_code<ap_fixed<{width},{width - fraction}> >(sum);", "}"]
    return lines


def _integer(value: int) -> str:
    return str(value) if abs(value) < 1 << 31 else f"{value}LL"


def _each(size: int, body: str) -> list[str]:
    return [
        f"for (int i = 0; i < {size}; i++) {{",
        "#pragma HLS UNROLL",
        *(f"    {line}" for line in body.split("\n")),
        "}",
    ]


def _relu(node: Relu, context: _Context) -> list[str]:
    kind = context.names[node.name]
    if not context.program.node(node.inputs[0]).type.signed:
        return _each(node.size, "y[i] = x[i];")
    return _each(node.size, f"if (x[i] > 0)\n    y[i] = x[i];\nelse\n    y[i] = {kind}_t(0);")


def _quantize(node: Quantize, _: _Context) -> list[str]:
    return _each(node.size, "y[i] = x[i];")


def _lut(node: Lut, context: _Context) -> list[str]:
    source = context.program.node(node.inputs[0]).type
    rows = len(node.tables)
    address = f"code_of<{_int_type(source)}>(x[i]).to_int64() - ({_integer(node.first)})"
    name = context.names[node.name]
    entry = f"{name}_table[{address}]" if rows == 1 else f"{name}_table[i][{address}]"
    return _each(node.size, f"y[i] = of_code<{name}_t>({_int_type(node.type)}({entry}));")


def _table(name: str, values: Codes) -> str:
    """A table at namespace scope: a static of an inline function is one symbol for all libraries of a process.

    Plain integers, not ap_types: a table of class objects is filled at run time, entry by entry.
    """
    low, high = int(values.min()), int(values.max())
    holder = next(
        kind
        for kind, bits in (("signed char", 8), ("short", 16), ("int", 32), ("long long", 64))
        if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1)
    )
    rows = [f"{{{', '.join(_integer(int(code)) for code in row)}}}" for row in np.atleast_2d(values)]
    shape = "".join(f"[{n}]" for n in values.shape)
    return f"static const {holder} {name}{shape} = {rows[0] if values.ndim == 1 else '{' + ', '.join(rows) + '}'};"


def _multiply(node: Multiply, context: _Context) -> list[str]:
    a, b = (context.program.node(name).type for name in node.inputs)
    # Not a `FixedType`: a product may be wider than the 62 bits that the golden evaluation holds at rest.
    product = f"ap_{'' if a.signed or b.signed else 'u'}fixed<{a.width + b.width},{a.integer + b.integer}>"
    body = f"const {product} product = x0[i] * x1[i];\n"
    # Small products cost less in fabric than the DSPs that the trigger boards keep for others.
    body += "#pragma HLS BIND_OP variable=product op=mul impl=fabric\ny[i] = product;"
    return _each(node.size, body.replace("x1", "x0") if node.inputs[0] == node.inputs[1] else body)


def _subtract(node: Subtract, _: _Context) -> list[str]:
    second = "x1" if node.inputs[0] != node.inputs[1] else "x0"
    return _each(node.size, f"y[i] = x0[i] - {second}[i];")


def _concat(node: Concat, _: _Context) -> list[str]:
    lines, start = [], 0
    for k, size in enumerate(node.sizes):
        lines += _each(int(size), f"y[{start} + i] = x{k}[i];")
        start += int(size)
    return lines


def _take(node: Take, _: _Context) -> list[str]:
    return [f"y[{i}] = x[{int(position)}];" for i, position in enumerate(node.index)]


def _maximum(node: Maximum, context: _Context) -> list[str]:
    kind = f"{context.names[node.inputs[0]]}_t"
    lines = []
    for i, members in enumerate(node.groups):
        lines += ["{", f"    {kind} largest = x[{int(members[0])}];"]
        for member in members[1:]:
            lines.append(f"    if (x[{int(member)}] > largest) largest = x[{int(member)}];")
        lines += [f"    y[{i}] = largest;", "}"]
    return lines


_PRINTERS: dict[type[Node], Callable[..., list[str]]] = {
    Scale: _scale,
    Dense: _dense,
    Relu: _relu,
    Quantize: _quantize,
    Lut: _lut,
    Multiply: _multiply,
    Subtract: _subtract,
    Concat: _concat,
    Take: _take,
    Maximum: _maximum,
}


def _function(program: Program, node: Node, names: dict[str, str]) -> str:
    context = _Context(program, names)
    printer = _PRINTERS.get(type(node))
    if printer is None:
        known = ", ".join(sorted(kind.op for kind in _PRINTERS))
        raise TriggerError(node.name, "operation in C++", node.op, known)
    body = printer(node, context)
    before = []
    if isinstance(node, Scale):
        before = [
            f"typedef {node.word.cpp()} {names[node.name]}_word_t;",
            _table(f"{names[node.name]}_factor", node.multiplier),
            _table(f"{names[node.name]}_offset", node.offset),
            _table(f"{names[node.name]}_shift", node.shift),
        ]
    elif isinstance(node, Lut):
        before = [_table(f"{names[node.name]}_table", node.tables[0] if len(node.tables) == 1 else node.tables)]
    lines = [
        *before,
        f"inline void compute_{names[node.name]}({', '.join(_parameters(program, node, names))}) {{",
        "#pragma HLS INLINE",
        # Directives start in the first column: so do those of the compilers that read them by line.
        *(line if line.startswith("#pragma") else f"    {line}" for line in body),
        "}",
    ]
    return "\n".join(lines).replace("\n    #pragma", "\n#pragma")


def _sources(node: Node) -> tuple[str, ...]:
    """What a node reads; twice the same node is one argument, except in a concatenation."""
    return node.inputs if isinstance(node, Concat) else tuple(dict.fromkeys(node.inputs))


def _parameters(program: Program, node: Node, names: dict[str, str]) -> list[str]:
    sources = _sources(node)
    labels = [f"x{i}" for i in range(len(sources))] if isinstance(node, (Concat, Multiply, Subtract)) else ["x"]
    result = [f"const {names[s]}_t {label}[{_size(program, s)}]" for s, label in zip(sources, labels, strict=True)]
    return [*result, f"{names[node.name]}_t y[{node.size}]"]


# ---------------------------------------------------------------------------- the whole


def _statements(
    program: Program, names: dict[str, str], printed: Sequence[str], network: Network | None
) -> list[list[str]]:
    """The calls in order, one list for each printed node; the network is called with its first output."""
    result: list[list[str]] = []
    for name in printed:
        node = program.node(name)
        if isinstance(node, Input):
            result.append([])
        elif network and name in network.outputs:
            call = f"network({', '.join([names[network.source], *(names[o] for o in network.outputs)])});"
            result.append([call] if name == network.outputs[0] else [])
        else:
            arguments = ", ".join([*(names[s] for s in _sources(node)), names[name]])
            result.append([f"compute_{names[name]}({arguments});"])
    return result


def _declare(program: Program, names: dict[str, str], name: str, *, partition: bool) -> list[str]:
    lines = [f"    {names[name]}_t {names[name]}[{_size(program, name)}];"]
    return lines + ([f"#pragma HLS ARRAY_PARTITION variable={names[name]} complete"] if partition else [])


def _evaluate(program: Program, names: dict[str, str], printed: Sequence[str], network: Network | None) -> str:
    first = _first(program)
    outputs = [name for name in (program.latents, program.score) if name is not None]
    parameters = [f"const {names[first]}_t {names[first]}[{_size(program, first)}]"]
    parameters += [f"{names[name]}_t {names[name]}[{_size(program, name)}]" for name in outputs]
    needed = _needed(program, outputs, network)
    lines = [f"inline void evaluate({', '.join(parameters)}) {{", "#pragma HLS INLINE"]
    for name in printed:
        if name in needed and name != first and name not in outputs:
            lines += _declare(program, names, name, partition=True)
    for name, calls in zip(printed, _statements(program, names, printed, network), strict=True):
        if name in needed:
            lines += [f"    {call}" for call in calls]
    return "\n".join([*lines, "}"])


def _needed(program: Program, outputs: Sequence[str], network: Network | None) -> set[str]:
    made = set(network.outputs) if network else set()
    wanted = set(outputs) | made | ({network.source} if network else set())
    for node in reversed(program.nodes):
        if node.name in wanted and node.name not in made:
            wanted.update(node.inputs)
    return wanted


def _trace(program: Program, names: dict[str, str], printed: Sequence[str], network: Network | None) -> str:
    first = _first(program)
    lines = [f"inline void trace(const {names[first]}_t {names[first]}[{_size(program, first)}], long long *codes) {{"]
    made = list(network.outputs) if network else []
    declared = {first}
    for name, calls in zip(printed, _statements(program, names, printed, network), strict=True):
        for other in made if name in made else [name]:
            if other not in declared:
                lines += _declare(program, names, other, partition=False)
                declared.add(other)
        lines += [f"    {call}" for call in calls]
        signed = "true" if program.node(name).type.signed else "false"
        lines.append(f"    codes = put_codes(codes, {names[name]}, {_size(program, name)}, {signed});")
    return "\n".join([*lines, "}"])
