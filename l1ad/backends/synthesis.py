"""Open synthesis: what Yosys makes of the Verilog of a project, in look-up tables, flip-flops, DSPs and carry cells.

`synthesise(project)` for the counts, `write_table` keeps them beside alkaid's estimate. Neither is a placed figure: the
placer packs two small tables into one and removes others, so that it reports fewer.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from l1ad.backends.native import BuildError, run_logged
from l1ad.backends.rtl import RtlProject
from l1ad.errors import InputError, require
from l1ad.io import write_json

#: Yosys families by what the name of a part begins with.
FAMILIES = {"xc7": "xc7", "xcku": "xcu", "xcvu": "xcu", "xczu": "xcup", "xcu": "xcup", "xck2": "xcup"}
#: Where the figures of a project are written, in its folder.
RESOURCES = "resources.json"
_SCRIPT = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for line in open(sys.argv[1], encoding="utf-8"):
    if line.strip():
        libyosys.run_pass(line.strip(), design)
"""


@dataclass(frozen=True)
class Synthesis:
    """What open synthesis counted.

    Attributes
    ----------
    lut : look-up tables of every size, and inverters, which take one each where nothing absorbs them.
    inverters : how many of `lut` are inverters.
    ff, dsp, bram, carry, muxf : cells.
    family : of the FPGA, as Yosys names it.
    seconds : how long it took.
    tool : program and version.
    cells : every cell type and its number.
    provenance : what kind of figure this is.
    """

    lut: int
    inverters: int
    ff: int
    dsp: int
    bram: int
    carry: int
    muxf: int
    family: str
    seconds: float
    tool: str
    cells: Mapping[str, int]
    provenance: str = "open synthesis, not placed"

    def row(self) -> dict[str, object]:
        """The figures in JSON types, for ``resources.json``."""
        return {
            "name": f"{self.tool}, synth_xilinx -family {self.family}",
            "provenance": self.provenance,
            "lut": self.lut,
            "ff": self.ff,
            "dsp": self.dsp,
            "bram": self.bram,
            "carry": self.carry,
        }


def family_of(part: str) -> str:
    """The Yosys family of a part.

    Raises
    ------
    InputError
        If `synth_xilinx` has none for it.

    >>> family_of("xc7vx690tffg1927-2"), family_of("xcvu13p-flga2577-2-e"), family_of("xcku115-flvb2104-2-e")
    ('xc7', 'xcup', 'xcu')
    """
    name = part.lower()
    for start, family in FAMILIES.items():
        if name.startswith(start):
            plus = re.match(r"xc[kv]u\d+p", name)
            return "xcup" if plus else family
    raise InputError("part", "family", part, "a 7-series, UltraScale or UltraScale+ part")


def script(sources: Sequence[Path], top: str, family: str, statistics: Path, *, verify: bool = False) -> str:
    """The Yosys commands, one a line.

    Differs from a bare ``synth_xilinx`` in two points: the adders are read as the `$alu` cells that they are, and the
    technology mapper's proof of its own work, which takes an hour, is left out.
    """
    files = " ".join(str(path) for path in sources)
    return "\n".join(
        [
            f"read_verilog -sv -icells -DL1AD_OPEN_SYNTHESIS {files}",
            f"scratchpad -set abc9.verify {int(verify)}",
            f"synth_xilinx -family {family} -top {top} -flatten -noiopad -noclkbuf -nodsp -nobram -nosrl",
            f"tee -o {statistics} stat -json",
            "",
        ]
    )


def run_yosys(commands: str, folder: Path, what: str) -> None:
    """Run commands in a process of their own: an error in Yosys ends its process.

    Raises
    ------
    MissingToolError
        If pyosys is not installed.
    BuildError
        If a command fails; the log is ``yosys.log`` in `folder`.
    """
    require("pyosys", "rtl")
    (folder / "run.ys").write_text(commands, encoding="utf-8")
    run_logged([sys.executable, "-c", _SCRIPT, "run.ys"], cwd=folder, log=folder / "yosys.log", what=what)


def synthesise(project: RtlProject, *, family: str | None = None) -> Synthesis:
    """Synthesise the Verilog of a project.

    Parameters
    ----------
    family : ``xc7``, ``xcu`` or ``xcup``; by default that of the project's part.

    Raises
    ------
    InputError
        If the project is VHDL, or its part has no family that Yosys knows.
    MissingToolError
        If pyosys is not installed.
    BuildError
        If Yosys fails.
    """
    if project.options.flavor != "verilog":
        raise InputError(str(project.folder), "flavor", project.options.flavor, "verilog")
    family = family or family_of(project.options.part)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="l1ad-yosys-") as scratch:
        folder = Path(scratch)
        statistics = folder / "cells.json"
        sources = [path.resolve() for path in project.sources]
        try:
            run_yosys(script(sources, project.top, family, statistics), folder, "open synthesis")
        except BuildError as error:
            kept = project.folder / "yosys.log"
            kept.write_bytes((folder / "yosys.log").read_bytes())
            raise BuildError(str(error).replace(str(folder / "yosys.log"), str(kept))) from error
        cells = count(statistics.read_text(encoding="utf-8"))
    return summarise(cells, family, time.monotonic() - start)


def count(text: str) -> dict[str, int]:
    """Cells of a design by type, of the JSON that Yosys' ``stat -json`` prints.

    Raises
    ------
    InputError
        If it holds no counts.
    """
    # The report may stand between lines of the log.
    try:
        value = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return {str(kind): int(n) for kind, n in value["design"]["num_cells_by_type"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("yosys", "statistics", str(error) or "nothing", "design: num_cells_by_type") from error


def summarise(cells: Mapping[str, int], family: str, seconds: float = 0.0) -> Synthesis:
    """Cells by type as figures."""

    def total(pattern: str) -> int:
        return sum(n for kind, n in cells.items() if re.fullmatch(pattern, kind))

    return Synthesis(
        lut=total(r"LUT[1-6]|INV"),
        inverters=total("INV"),
        ff=total(r"FD[CPRS]E(_1)?"),
        dsp=total(r"DSP.*"),
        bram=total(r"RAMB.*"),
        carry=total(r"CARRY[48]"),
        muxf=total(r"MUXF[789]"),
        family=family,
        seconds=seconds,
        tool=version(),
        cells=dict(cells),
    )


def version() -> str:
    """Name and version of Yosys; ``yosys`` if it is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return f"yosys (pyosys {installed('pyosys')})"
    except PackageNotFoundError:
        return "yosys"


def table(project: RtlProject, synthesis: Synthesis | None) -> list[dict[str, object]]:
    """alkaid's estimate and the count of open synthesis, each with its provenance and the clocks of the design."""
    cost, clocks = project.cost, project.options.latency_clocks
    rows: list[dict[str, object]] = [
        {
            "name": f"alkaid {metadata.version('alkaid')}",
            "provenance": cost.provenance,
            "lut": round(cost.lut),
            "ff": cost.ff,
            "dsp": 0,
            "bram": 0,
            "delay_ns": cost.delay_ns,
        }
    ]
    return [{**row, "latency": clocks, "ii": 1} for row in rows + ([synthesis.row()] if synthesis else [])]


def write_table(project: RtlProject, synthesis: Synthesis | None) -> list[dict[str, object]]:
    """Write ``resources.json`` into the project and return its rows: what the design is expected to cost, and why."""
    rows = table(project, synthesis)
    write_json(project.folder / RESOURCES, rows)
    return rows


def equivalent(left: Sequence[Path], right: Sequence[Path], tops: tuple[str, str], *, seconds: int = 240) -> bool:
    """Whether two modules with the same ports give the same outputs for every input: a proof by SAT, not a sample.

    Parameters
    ----------
    left, right : Verilog of the two.
    tops : their top modules.
    seconds : after which the solver gives up.

    Raises
    ------
    InputError
        If the solver gives up.
    MissingToolError
        If pyosys is not installed.
    BuildError
        If Yosys cannot read a file or the ports differ.
    """
    commands = []
    for name, files, top in zip(("gold", "gate"), (left, right), tops, strict=True):
        listed = " ".join(str(path.resolve()) for path in files)
        commands += [
            f"read_verilog -sv {listed}",
            f"hierarchy -check -top {top}",
            "proc",
            "flatten",
            "opt -full",
            f"rename {top} {name}",
            f"design -stash {name}",
        ]
    commands += [
        "design -copy-from gold -as gold gold",
        "design -copy-from gate -as gate gate",
        "miter -equiv -make_assert -flatten gold gate miter",
        "hierarchy -top miter",
        "opt -full",
        "techmap",
        "opt -full",
        "abc -g AND,XOR,MUX",
        "opt_clean",
        f"sat -verify -prove-asserts -timeout {seconds} miter",
        "",
    ]
    with tempfile.TemporaryDirectory(prefix="l1ad-sat-") as scratch:
        folder = Path(scratch)
        done = False
        try:
            run_yosys("\n".join(commands), folder, "equivalence proof")
            done = True
        except BuildError:
            log = (folder / "yosys.log").read_text(encoding="utf-8", errors="replace")
            if "Interrupted SAT solver: TIMEOUT" in log:
                raise InputError(tops[0], "proof", f"no answer in {seconds} s", "a smaller block") from None
            if "SAT proof finished - model found: FAIL!" not in log:
                raise
        return done
