"""A second, straightforward Verilog of the simple nodes, to prove the traced one against.

One signed expression an element, written from the definition of the node and of the casts and sharing nothing with
`l1ad.backends.lowering`. Not optimised: `l1ad.backends.synthesis.equivalent` compares the two for every input.
"""

from __future__ import annotations

from collections.abc import Sequence

from l1ad.errors import TriggerError
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Dense, Input, Node, Quantize, Relu, Scale

#: Every intermediate has this many bits.
WIDTH = 48


def print_program(program: Program, outputs: Sequence[str], *, module: str = "plain") -> str:
    """A combinational module with the ports of `l1ad.backends.rtl`: packed inputs, packed elements of `outputs`.

    Raises
    ------
    TriggerError
        If a node is none of input, scale, dense, relu and quantize, or rounds in a way that is not written here.
    """
    first = program.nodes[0]
    assert isinstance(first, Input)
    lines: list[str] = []
    lsb = 0
    for i, (low, high) in enumerate(zip(first.low, first.high, strict=True)):
        kind = FixedType.holding(int(low), int(high), 0)
        width = kind.width if low != high else 0
        if not width:
            lines.append(_wire(f"{first.name}_{i}", str(int(low))))
            continue
        bits = f"inputs[{lsb + width - 1}:{lsb}]"
        fill = f"inputs[{lsb + width - 1}]" if kind.signed else "1'b0"
        lines.append(_wire(f"{first.name}_{i}", f"{{{{{WIDTH - width}{{{fill}}}}}, {bits}}}"))
        lsb += width
    needed = set(outputs)
    for node in reversed(program.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    for node in program.nodes[1:]:
        if node.name in needed:
            lines += _node(program, node)
    fields, total = [], 0
    for name in outputs:
        node = program.node(name)
        for i, (low, high) in enumerate(zip(program.intervals[name].low, program.intervals[name].high, strict=True)):
            width = FixedType.holding(int(low), int(high), 0).width if low != high else 0
            if width:
                fields.append(f"{name}_{i}[{width - 1}:0]")
                total += width
    head = [
        f"module {module} (input wire [{lsb - 1}:0] inputs, output wire [{max(total, 1) - 1}:0] outputs);",
        *(f"  {line}" for line in lines),
        f"  assign outputs = {{{', '.join(reversed(fields))}}};",
        "endmodule",
        "",
    ]
    return "\n".join(head)


def _wire(name: str, expression: str) -> str:
    return f"wire signed [{WIDTH - 1}:0] {name} = {expression};"


def _node(program: Program, node: Node) -> list[str]:
    source = node.inputs[0]
    fraction = program.node(source).type.fraction
    lines: list[str] = []
    for i in range(node.size):
        name = f"{node.name}_{i}"
        if isinstance(node, Scale):
            shift = int(node.shift[i])
            lines.append(_wire(f"{name}_w", _wrapped(f"{source}_{i} * {int(node.multiplier[i])}", node.word)))
            lines.append(_wire(f"{name}_d", _wrapped(f"{name}_w - ({int(node.offset[i])})", node.word)))
            moved = f"{name}_d >>> {shift}" if shift >= 0 else _wrapped(f"{name}_d <<< {-shift}", node.word)
            lines.append(_wire(f"{name}_x", moved))
            lines += _cast(name, f"{name}_x", node.type, node.word.fraction)
        elif isinstance(node, Dense):
            weights, bias, total = node.aligned(fraction)
            terms = [f"{source}_{j} * ({int(w)})" for j, w in enumerate(weights[:, i]) if w]
            lines.append(_wire(f"{name}_x", " + ".join([*terms, f"({int(bias[i])})"])))
            lines += _cast(name, f"{name}_x", node.type, total)
        elif isinstance(node, Relu):
            lines.append(_wire(f"{name}_x", f"({source}_{i} < 0) ? 0 : {source}_{i}"))
            lines += _cast(name, f"{name}_x", node.type, fraction)
        elif isinstance(node, Quantize):
            lines += _cast(name, f"{source}_{i}", node.type, fraction)
        else:
            raise TriggerError("plain verilog", f"node {node.name}", node.op, "scale, dense, relu or quantize")
    return lines


def _wrapped(expression: str, kind: FixedType) -> str:
    """The lowest bits of an expression, sign-extended: shift up and, arithmetically, down again."""
    rest = WIDTH - kind.width
    return f"(({expression}) <<< {rest}) {'>>>' if kind.signed else '>>'} {rest}"


def _cast(name: str, value: str, kind: FixedType, fraction: int) -> list[str]:
    drop = fraction - kind.fraction
    lines = []
    if drop <= 0:
        lines.append(_wire(f"{name}_r", f"{value} <<< {-drop}"))
    elif kind.rounding == "TRN":
        lines.append(_wire(f"{name}_r", f"{value} >>> {drop}"))
    elif kind.rounding == "RND":
        lines.append(_wire(f"{name}_r", f"({value} + {1 << (drop - 1)}) >>> {drop}"))
    elif kind.rounding == "RND_CONV":
        tie = f"{value}[{drop - 1}:0] == {1 << (drop - 1)}"
        lines.append(_wire(f"{name}_f", f"{value} >>> {drop}"))
        up = f"({tie}) ? {name}_f[0] : {value}[{drop - 1}]"
        lines.append(f"wire {name}_u = {up};  // half to even")
        lines.append(_wire(f"{name}_r", f"{name}_f + $signed({{1'b0, {name}_u}})"))
    else:
        raise TriggerError("plain verilog", "rounding", kind.rounding, "TRN, RND or RND_CONV")
    low, high = kind.min_code, kind.max_code
    if kind.overflow == "SAT":
        lines.append(_wire(name, f"({name}_r > {high}) ? {high} : ({name}_r < ({low})) ? ({low}) : {name}_r"))
    elif kind.overflow == "WRAP":
        lines.append(_wire(name, _wrapped(f"{name}_r", kind)))
    else:
        raise TriggerError("plain verilog", "overflow", kind.overflow, "WRAP or SAT")
    return lines
