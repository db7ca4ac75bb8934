"""Verilog and VHDL of a whole trigger, from hardware words to the score, traced with alkaid.

`convert` writes a project folder (sources, constraints, a Vivado script, a test harness), `load` comes back to it,
`trace_program` gives alkaid's program; `Interpreter`, `l1ad.backends.verilator.VerilatorRtl` and
`l1ad.backends.ghdl.GhdlRtl` score with it. Needs ``pip install 'l1ad[rtl]'``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from l1ad.backends import alir, cpp, lowering, project, templates, timing
from l1ad.errors import InputError, TriggerError, require
from l1ad.io import write_json, write_text
from l1ad.trigger.fixed import Codes
from l1ad.trigger.graph import Program
from l1ad.trigger.program import Trigger

BACKEND = "alkaid"
Flavor = Literal["verilog", "vhdl"]
SUFFIX = {"verilog": "v", "vhdl": "vhd"}


@dataclass(frozen=True)
class RtlOptions:
    """How the project is built.

    Attributes
    ----------
    flavor : ``verilog`` or ``vhdl``.
    latency_clocks : clocks from the inputs to the score; 0 for logic without registers.
    clock_ns : clock period.
    part : FPGA.
    top : name of the top module; by default the trigger's.
    effort : orders of each layer that are tried for fewer look-up tables; none for 0.
    """

    flavor: Flavor = "verilog"
    latency_clocks: int = 2
    clock_ns: float = 25.0
    part: str = "xc7vx690tffg1927-2"
    top: str = ""
    effort: int = 16

    def __post_init__(self) -> None:
        if self.flavor not in get_args(Flavor):
            raise InputError("rtl", "flavor", self.flavor, ", ".join(get_args(Flavor)))
        if self.effort < 0:
            raise InputError("rtl", "effort", self.effort, "0 or more")
        if self.latency_clocks < 0:
            raise InputError("rtl", "latency_clocks", self.latency_clocks, "0 (no registers) or more")
        if not self.clock_ns > 0:
            raise InputError("rtl", "clock_ns", self.clock_ns, "more than 0")


@dataclass(frozen=True)
class Field:
    """Where an element lies in a port: `width` bits from `lsb` on; its code is that number times ``2**shift``."""

    name: str
    lsb: int
    width: int
    signed: bool
    shift: int = 0


@dataclass(frozen=True)
class Cost:
    """alkaid's estimate of a design: an estimate, never a placed figure.

    Attributes
    ----------
    lut : look-up tables.
    delay_ns : longest path, for the part that alkaid was calibrated on.
    ff : register bits (counted, not estimated).
    """

    lut: float
    delay_ns: float
    ff: int
    provenance: str = "estimate of alkaid, calibrated on xcvu13p (UltraScale+)"


@dataclass(frozen=True)
class RtlProject:
    """A project of one trigger.

    Attributes
    ----------
    folder : where.
    trigger : of which.
    options : how it is built.
    cost : alkaid's estimate.
    timing : the estimate of the latency on the part, made before the build.
    """

    folder: Path
    trigger: Trigger
    options: RtlOptions
    cost: Cost
    timing: timing.LatencyEstimate | None

    @property
    def top(self) -> str:
        """Name of the top module."""
        return self.options.top

    @property
    def sources(self) -> tuple[Path, ...]:
        """HDL files, in an order in which each comes after what it uses."""
        names = (self.folder / "src" / "order.txt").read_text(encoding="utf-8").split()
        return tuple(self.folder / "src" / name for name in names)


def trace_program(program: Program, outputs: Sequence[str] | None = None, *, effort: int = 0) -> Any:
    """alkaid's program (`CombLogic`) of the nodes `outputs`, by default the score; for `effort` see `RtlOptions`.

    Raises
    ------
    MissingToolError
        If alkaid is not installed.
    TriggerError
        If a node cannot be expressed: the message names it, and the back ends that can.
    """
    lowering.check_expressible(program)
    require("alkaid", "rtl")
    from alkaid.trace import trace

    inputs, elements = lowering.lower(program, outputs or [program.score], effort=effort)
    return alir.unsigned_adders(trace(inputs, elements, keep_dead_inputs=True))


@dataclass(frozen=True)
class Interpreter:
    """A realisation: alkaid's own interpreter of the traced program."""

    trigger: Trigger
    name: str = "alkaid interpreter"

    @property
    def trigger_hash(self) -> str:
        """Hash of the program that it was made from."""
        return self.trigger.hash

    @cached_property
    def _comb(self) -> Any:
        return trace_program(self.trigger.program)

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        """Integer scores (N,) of hardware codes (N, inputs)."""
        program = self.trigger.program
        return _run(self._comb, program, [program.score], inputs)[program.score][:, 0]

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """Codes of every node, by name."""
        program = self.trigger.program
        names = [node.name for node in program.nodes[1:]]
        return _run(trace_program(program, names), program, names, inputs)


def _run(comb: Any, program: Program, names: Sequence[str], inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
    return split(program, names, comb.predict(np.ascontiguousarray(inputs, dtype=np.float64), n_threads=1))


def split(program: Program, names: Sequence[str], values: npt.NDArray[np.float64]) -> dict[str, Codes]:
    """Columns of real numbers as codes by node."""
    result, start = {}, 0
    for name in names:
        node = program.node(name)
        part = values[:, start : start + node.size]
        result[name] = np.rint(np.ldexp(part, node.type.fraction)).astype(np.int64)
        start += node.size
    return result


# ---------------------------------------------------------------------- projects


def convert(
    trigger: Trigger,
    encoder: object = None,
    out_dir: str | os.PathLike[str] = "firmware/alkaid",
    *,
    outputs: Sequence[str] | None = None,
    ignore_estimate: bool = False,
    **options: Any,
) -> RtlProject:
    """Write the RTL project of a trigger.

    Parameters
    ----------
    encoder : not used: the logic is traced from the program; here so that all back ends are called alike.
    outputs : nodes that the port ``outputs`` carries, by default the score alone.
    ignore_estimate : go on even if the latency is out of reach by the estimate.
    options : fields of `RtlOptions`.

    Raises
    ------
    InputError
        If an option is wrong, the folder holds a project of another trigger, or the clock is out of reach.
    TriggerError
        If a node cannot be expressed, or the score is a constant.
    MissingToolError
        If alkaid is not installed.
    """
    del encoder
    settings = _options({"top": cpp.identifier(trigger.name), **{k: v for k, v in options.items() if v is not None}})
    if cpp.identifier(settings.top) != settings.top:
        raise InputError("rtl", "top", settings.top, f"a name such as {cpp.identifier(settings.top)}")
    program, folder = trigger.program, Path(out_dir)
    lowering.check_expressible(program)
    low, high = program.intervals[program.score].span
    if low == high:
        raise TriggerError(trigger.name, "score", f"{low} for every crossing", "a score that depends on the inputs")
    estimate = _timing(program, settings)
    if estimate is not None and estimate.verdict == "out of reach" and not ignore_estimate:
        clocks = int(np.ceil(estimate.logic_ns / settings.clock_ns))
        found = f"{estimate.logic_ns:.0f} ns of logic in {estimate.levels} levels on {settings.part} (estimate)"
        expected = f"{estimate.budget_ns:g} ns; {clocks} clocks of {settings.clock_ns:g} ns would hold it"
        raise InputError(trigger.name, "latency", found, expected)
    project.prepare(folder, trigger, BACKEND)
    names = list(outputs or [program.score])
    design = _design(trace_program(program, names, effort=settings.effort), settings)
    texts = _sources(trigger, settings, design, names)
    shutil.rmtree(folder / "src", ignore_errors=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    inputs, fields = _fields(program, design, names)
    ports = {
        "inputs": [asdict(field) for field in inputs],
        "outputs": [asdict(field) for field in fields],
        "decisions": [{"name": name, "threshold": cut} for name, cut in _thresholds(trigger, names)],
    }
    write_json(folder / "ports.json", ports)
    kept = {"rtl": asdict(settings), "outputs": names, "cost": asdict(design.cost)}
    project.finish(folder, trigger, BACKEND, kept)
    return RtlProject(folder, trigger, settings, design.cost, estimate)


def load(out_dir: str | os.PathLike[str]) -> RtlProject:
    """The project that `convert` wrote.

    Raises
    ------
    InputError
        If the folder is not one of this back end.
    """
    found = project.open_project(Path(out_dir), BACKEND)
    settings = _options(found.options["rtl"])
    cost = Cost(**found.options["cost"])
    return RtlProject(found.folder, found.trigger, settings, cost, _timing(found.trigger.program, settings))


def _options(given: Mapping[str, Any]) -> RtlOptions:
    unknown = sorted(set(given) - set(RtlOptions.__dataclass_fields__))
    if unknown:
        raise InputError("rtl", "options", ", ".join(unknown), ", ".join(sorted(RtlOptions.__dataclass_fields__)))
    return RtlOptions(**given)


def _timing(program: Program, options: RtlOptions) -> timing.LatencyEstimate | None:
    if not options.latency_clocks:
        timing.part_family(options.part)
        return None
    return timing.estimate(program, options.part, clock_ns=options.clock_ns, clocks=options.latency_clocks)


def _thresholds(trigger: Trigger, outputs: Sequence[str]) -> list[tuple[str, int]]:
    """Thresholds of the decision bits; none where the port shows other nodes than the score."""
    return sorted(trigger.thresholds.items()) if list(outputs) == [trigger.program.score] else []


@dataclass(frozen=True)
class _Design:
    """What alkaid makes of a program: its state machine (registers between stages), and the figures."""

    comb: Any
    fsm: Any
    cost: Cost


def _design(comb: Any, options: RtlOptions) -> _Design:
    from alkaid.trace.pipeline import to_pipeline

    clocks = options.latency_clocks
    # The inputs come from registers of the board; ours are between the stages and at the output.
    fsm = to_pipeline(comb, n_stages=max(clocks, 1), reg_inp=False, reg_out=clocks > 0, verbose=False)
    registers = sum(signal.width for signal in fsm.signals.values() if signal.reg)
    return _Design(comb, fsm, Cost(round(comb.cost, 1), round(float(comb.latency[1]), 2), int(registers)))


def _fields(program: Program, design: _Design, names: Sequence[str]) -> tuple[list[Field], list[Field]]:
    """The elements of the two ports, from bit 0 up."""
    words = [f"{slot}_{w.name}" for slot, w in _input_words(program)]
    inputs = _packed(words, [q.kif for q in design.comb.inp_qint], [0] * len(words))
    labels, fractions = [], []
    for name in names:
        node = program.node(name)
        labels += [name if node.size == 1 else f"{name}_{i}" for i in range(node.size)]
        fractions += [node.type.fraction] * node.size
    return inputs, _packed(labels, [q.kif for q in design.comb.out_qint], fractions)


def _input_words(program: Program) -> list[tuple[str, Any]]:
    layout = program.layout
    every = [(slot, w) for slot, words in zip(layout.slot_names, layout.words) for w in words]
    return [every[i] for i in layout.input_index]


def _packed(names: Sequence[str], formats: Sequence[Any], fractions: Sequence[int]) -> list[Field]:
    fields, lsb = [], 0
    for name, (signed, integers, fraction), wanted in zip(names, formats, fractions, strict=True):
        width = int(signed) + integers + fraction
        # A number whose lowest bits are always zero is wired without them.
        fields.append(Field(name, lsb, width, bool(signed), wanted - fraction if width else 0))
        lsb += width
    return fields


def _bits(fields: Sequence[Field]) -> int:
    return max(sum(field.width for field in fields), 1)


def _sources(trigger: Trigger, options: RtlOptions, design: _Design, names: Sequence[str]) -> dict[str, str]:
    """Every text of the project, by path in the folder."""
    import alkaid

    core = f"l1ad_{trigger.hash[:12]}"
    static = Path(alkaid.__file__).parent / "codegen" / "rtl" / options.flavor / "source"
    suffix = SUFFIX[options.flavor]
    if options.flavor == "verilog":
        from alkaid.codegen.rtl.verilog.fsm import fsm_logic_gen
    else:
        from alkaid.codegen.rtl.vhdl.fsm import fsm_logic_gen
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(static.glob(f"*.{suffix}"))}
    if options.flavor == "verilog":
        texts["shift_adder"] = templates.read("rtl/shift_adder.v")
    generated = fsm_logic_gen(design.fsm, core, print_latency=False)
    # Blocks that other blocks use come first; the generator returns stages, tables, and the core last.
    tables = {name: text for name, text in generated.items() if name.endswith("_tables")}
    stages = {name: text for name, text in generated.items() if name not in tables and name != core}
    texts = {**texts, **tables, **stages, core: generated[core]}
    texts = _in_namespace(texts, core, options.flavor)
    used = _used(texts, core)
    texts = {name: text for name, text in texts.items() if name in used or name.endswith("_tables")}
    inputs, outputs = _fields(trigger.program, design, names)
    cuts = _thresholds(trigger, names)
    texts[options.top] = _top(trigger, options, core, _bits(inputs), _bits(outputs), cuts)
    order = [f"{name}.{suffix}" for name in texts]
    result = {f"src/{name}.{suffix}": text for name, text in texts.items()}
    result["src/order.txt"] = "\n".join(order) + "\n"
    common = {"trigger": trigger.name, "hash": trigger.hash[:12]}
    reader = "read_verilog" if options.flavor == "verilog" else "read_vhdl -vhdl2008"
    read = "\n".join(f"{reader} $here/src/{name}" for name in order)
    result["build.tcl"] = templates.render("rtl/build.tcl", **common, part=options.part, top=options.top, read=read)
    if options.latency_clocks:
        result["constraints.xdc"] = templates.render(
            "rtl/constraints.xdc", trigger=trigger.name, clock_ns=f"{options.clock_ns:g}"
        )
    result["sim/ports.h"] = _ports_header(inputs, outputs, options.latency_clocks)
    result["sim/harness.cpp"] = templates.read("rtl/harness.cpp")
    return result


def _in_namespace(texts: Mapping[str, str], core: str, flavor: Flavor) -> dict[str, str]:
    """Every module under a name of this trigger's own, so that two triggers fit into one project.

    (Two emulators with the same symbols once fired on every event: l1-facts, section 8, number 1.)
    """
    pattern = r"^\s*module\s+(\w+)" if flavor == "verilog" else r"^\s*entity\s+(\w+)\s+is"
    modules = {name for text in texts.values() for name in re.findall(pattern, text, re.MULTILINE | re.IGNORECASE)}
    rename = {name: f"{core}_{name}" for name in modules if not name.startswith(core)}
    # VHDL packages of tables already carry the core's name or a hash of their content.
    wanted = re.compile(r"\b(" + "|".join(sorted(map(re.escape, rename), key=len, reverse=True)) + r")\b")
    return {
        rename.get(name, name): wanted.sub(lambda match: rename[match[1]], text) if rename else text
        for name, text in texts.items()
    }


def _used(texts: Mapping[str, str], core: str) -> set[str]:
    """Modules that the core needs."""
    found, todo = {core}, [core]
    while todo:
        text = texts[todo.pop()]
        for name in set(re.findall(r"\b\w+\b", text)) & set(texts) - found:
            found.add(name)
            todo.append(name)
    return found


def _top(
    trigger: Trigger, options: RtlOptions, core: str, n_in: int, n_out: int, cuts: Sequence[tuple[str, int]]
) -> str:
    clocked = options.latency_clocks > 0
    latency = f"{options.latency_clocks} clocks of {options.clock_ns:g} ns" if clocked else "no clock"
    common = {
        "trigger": trigger.name,
        "hash": trigger.hash[:12],
        "latency": latency,
        "top": options.top,
        "core": core,
        "input_bits": n_in,
        "output_bits": n_out,
    }
    if options.flavor == "verilog":
        compare = "".join(f"  assign decisions[{i}] = outputs >= {cut};  // {n}\n" for i, (n, cut) in enumerate(cuts))
        return templates.render(
            "rtl/top.v",
            **common,
            clock="    input wire clk,\n" if clocked else "",
            connect="      .clk(clk),\n" if clocked else "",
            decisions=f",\n    output wire [{len(cuts)}-1:0] decisions" if cuts else "",
            compare=compare,
        )
    compare = "".join(
        f"  decisions({i}) <= '1' when unsigned(score) >= {cut} else '0';  -- {n}\n" for i, (n, cut) in enumerate(cuts)
    )
    return templates.render(
        "rtl/top.vhd",
        **common,
        clock="    clk : in std_logic;\n" if clocked else "",
        connect="      clk => clk,\n" if clocked else "",
        decisions=f";\n    decisions : out std_logic_vector({len(cuts)}-1 downto 0)" if cuts else "",
        compare=compare,
    )


def _ports_header(inputs: Sequence[Field], outputs: Sequence[Field], latency: int) -> str:
    def table(name: str, fields: Sequence[Field]) -> str:
        rows = ", ".join(f"{{{f.lsb}, {f.width}, {str(f.signed).lower()}, {f.shift}}}" for f in fields)
        return f"constexpr Field {name}[] = {{{rows}}};"

    # Two words at least: a scalar port is written as two.
    words = {name: max((_bits(fields) + 31) // 32, 2) for name, fields in (("INPUT", inputs), ("OUTPUT", outputs))}
    return "\n".join(
        [
            "#pragma once",
            "#include <cstddef>",
            "struct Field { unsigned lsb, width; bool is_signed; unsigned shift; };",
            f"#define LATENCY {latency}",
            f"constexpr std::size_t N_INPUTS = {len(inputs)}, N_OUTPUTS = {len(outputs)};",
            *(f"constexpr std::size_t {name}_WORDS = {n};" for name, n in words.items()),
            table("INPUTS", inputs),
            table("OUTPUTS", outputs),
            "",
        ]
    )
