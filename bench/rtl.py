"""What each step towards fewer look-up tables gives, and how fast traced RTL is made and simulated.

The network is that of `emulator.py`. LUT counts are open synthesis (Yosys), alkaid's estimate beside them; neither is a
placed figure. Variants: alkaid's own casts, squares and Verilog (the peer); our lowering of casts, scaling and squares;
our adder; additions on unsigned numbers.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import Case, arguments, measure, report
from emulator import network

from l1ad import Trigger
from l1ad.backends import alir, lowering, rtl, synthesis, templates, verilator
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Scale


def _plain_cast(v: Any, target: FixedType, *, relu: bool = False, cut: int = 62) -> Any:
    """alkaid's own quantisation."""
    if lowering._is_constant(v):
        return _CAST(v, target, relu=relu, cut=cut)
    v = lowering._floor(v, cut)
    v = v.relu() if relu else v
    kif = int(target.signed), target.integer - int(target.signed), target.fraction
    return v.quantize(*kif, overflow_mode=target.overflow, round_mode=target.rounding)


def _plain_scale(node: Scale, j: int, v: Any) -> Any:
    word = node.word
    if lowering._is_constant(v):
        return _SCALED(node, j, v)
    first = _plain_cast(v * (int(node.multiplier[j]) * word.lsb), word)
    difference = _plain_cast(first - int(node.offset[j]) * word.lsb, word)
    shift = int(node.shift[j])
    moved = difference * 2.0**-shift
    return _plain_cast(moved if shift >= 0 else _plain_cast(moved, word), node.type, cut=word.fraction)


_SCALED, _CAST = lowering._scaled, lowering.cast


def _variant(program: Program, trigger: Trigger, folder: Path, *, casts: bool, adder: bool, unsigned: bool) -> dict:
    """Estimate and open synthesis with some of our steps left out; the scores of all are compared."""
    from alkaid.codegen.rtl import rtl_model

    theirs = Path(rtl_model.__file__).parent / "verilog" / "source" / "shift_adder.v"
    with (
        mock.patch.object(lowering, "cast", _CAST if casts else _plain_cast),
        mock.patch.object(lowering, "square", lowering.square if casts else lambda v: v * v),
        mock.patch.object(lowering, "_scaled", _SCALED if casts else _plain_scale),
        mock.patch.object(alir, "unsigned_adders", alir.unsigned_adders if unsigned else lambda comb: comb),
        mock.patch.object(templates, "read", templates.read if adder else _reader(theirs)),
    ):
        made = rtl.convert(trigger, None, folder, latency_clocks=2, ignore_estimate=True)
        inputs = np.random.default_rng(3).integers(
            program.nodes[0].low, program.nodes[0].high + 1, (5000, program.nodes[0].size)
        )
        if not np.array_equal(rtl.Interpreter(trigger).score(inputs), trigger.score(inputs, golden=True)):
            raise SystemExit("a variant gives other scores")
        counted = synthesis.synthesise(made)
    return {"estimate": made.cost.lut, "delay_ns": made.cost.delay_ns, "lut": counted.lut,
            "inverters": counted.inverters, "dsp": counted.dsp, "ff": counted.ff, "carry": counted.carry}  # fmt: skip


def _reader(theirs: Path):
    own = templates.read

    def read(name: str) -> str:
        return theirs.read_text() if name == "rtl/shift_adder.v" else own(name)

    return read


def _small(trigger: Trigger) -> Trigger:
    """A few outputs of the first layer, for --quick."""
    nodes = trigger.program.nodes
    dense = next(node for node in nodes if node.op == "dense")
    weights = dense.weights.copy()
    weights[:, 3:] = 0
    return replace(trigger, program=replace(
        trigger.program, nodes=tuple(replace(n, weights=weights) if n is dense else n for n in nodes)
    ))  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    options = arguments("rtl", "Register-transfer level")
    trigger, events, origin = network()
    trigger = _small(trigger) if options.quick else trigger
    program = trigger.program
    steps = {
        "alkaid as it comes": {"casts": False, "adder": False, "unsigned": False},
        "our casts, scaling and squares": {"casts": True, "adder": False, "unsigned": False},
        "and our adder": {"casts": True, "adder": True, "unsigned": False},
        "and unsigned additions": {"casts": True, "adder": True, "unsigned": True},
    }
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        for i, (label, flags) in enumerate(steps.items()):
            rows[label] = _variant(program, trigger, Path(name) / str(i), **flags)
        simulated = verilator.VerilatorRtl(rtl.load(Path(name) / "3"), workers=1)
        simulated.compile()
        inputs = trigger.inputs(events)
        inputs = inputs[np.arange(4000 if options.quick else 20_000) % len(inputs)]
        traced = rtl.Interpreter(trigger)
        cases = [
            Case("alkaid interpreter", lambda: traced.score(inputs), len(inputs), note="traced once"),
            Case("verilator", lambda: simulated.score(inputs), len(inputs), ours=True, note="one process"),
        ]
        results = measure(cases, repeats=options.repeats)
    notes = [f"network: {origin}", "LUT by open synthesis (inverters counted), not placed; 2 clocks of 25 ns"]
    notes += [
        f"{label}: {row['lut']} LUT ({row['inverters']} of them inverters), {row['dsp']} DSP, {row['ff']} FF, "
        f"{row['carry']} CARRY; alkaid estimates {row['estimate']:.0f} LUT, {row['delay_ns']:g} ns"
        for label, row in rows.items()
    ]
    report("rtl", "Register-transfer level", results, options, extra={"luts": rows}, notes=notes)


if __name__ == "__main__":
    main()
