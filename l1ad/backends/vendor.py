"""The vendor's tools: run them where they are installed, and read their reports wherever they come from.

`run` for csim, csynth, cosim and export of an HLS project, `place_and_route` for figures of the placed design,
`run_steps` for both (``l1ad convert --vendor``), `collect` for all reports of a project, `read_csynth`, `read_cosim`,
`read_utilization` and `read_timing` for single files of AMD tools 2019.2 to 2025.1. Without the tools the g++ csim
still runs, and the message says so.
"""

from __future__ import annotations

import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

from l1ad.backends import native
from l1ad.backends.hls import HlsProject
from l1ad.errors import CheckFailed, InputError, MissingToolError

Provenance = Literal["estimate", "synthesised", "placed"]
Stage = Literal["csynth", "cosim", "synthesis", "place and route"]
STEPS = ("csim", "csynth", "cosim", "export")
#: What `run_steps` calls place and route.
PLACE = "place"

#: HLS programs, the newest first, and how each is given a script.
_HLS_TOOLS = (
    ("vitis-run", ("--mode", "hls", "--tcl")),
    ("vitis_hls", ("-f",)),
    ("vivado_hls", ("-f",)),
)


@dataclass(frozen=True)
class VendorReport:
    """Figures of one report, or of the reports of one stage. What a report does not say is None.

    Attributes
    ----------
    stage : which step of the tools wrote it.
    provenance : ``estimate`` (HLS, before synthesis: never to be compared with a placed figure), ``synthesised`` or
        ``placed``.
    tool, version : such as ``Vitis HLS``, ``2023.2``.
    top, part : of the design.
    lut, ff, dsp : numbers of cells.
    bram_18k : block RAMs in units of 18 kbit; a tile of 36 kbit is two.
    uram : UltraRAMs.
    latency_min, latency_max : clocks from input to output.
    ii_min, ii_max : clocks from one input to the next.
    clock_target_ns, clock_estimate_ns : period asked for, and the one HLS believes in.
    slack_ns : worst slack after routing; negative if the clock is missed.
    passed : of a cosim, whether it passed.
    """

    stage: Stage
    provenance: Provenance
    tool: str
    version: str
    top: str | None = None
    part: str | None = None
    lut: int | None = None
    ff: int | None = None
    dsp: int | None = None
    bram_18k: int | None = None
    uram: int | None = None
    latency_min: int | None = None
    latency_max: int | None = None
    ii_min: int | None = None
    ii_max: int | None = None
    clock_target_ns: float | None = None
    clock_estimate_ns: float | None = None
    slack_ns: float | None = None
    passed: bool | None = None

    def __str__(self) -> str:
        figures = (
            ("LUT", self.lut),
            ("FF", self.ff),
            ("DSP", self.dsp),
            ("BRAM18", self.bram_18k),
            ("latency", _span(self.latency_min, self.latency_max)),
            ("II", _span(self.ii_min, self.ii_max)),
            ("clock estimate ns", self.clock_estimate_ns),
            ("slack ns", self.slack_ns),
            ("passed", self.passed),
        )
        shown = ", ".join(f"{name} {value}" for name, value in figures if value is not None)
        return f"{self.stage} ({self.provenance}, {self.tool} {self.version}): {shown}"


def _span(low: int | None, high: int | None) -> str | None:
    if low is None or high is None:
        return None
    return str(low) if low == high else f"{low}-{high}"


# ---------------------------------------------------------------------------- HLS reports


def read_csynth(path: str | os.PathLike[str]) -> VendorReport:
    """``csynth.xml`` or ``<top>_csynth.rpt`` of Vivado HLS or Vitis HLS.

    Raises
    ------
    InputError
        If the file is absent, cut off, or no such report.
    """
    text = _text(path)
    return _csynth_xml(path, text) if text.lstrip().startswith("<") else _csynth_rpt(path, text)


def _csynth_xml(path: str | os.PathLike[str], text: str) -> VendorReport:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(os.fspath(path), "XML", str(error), "a whole csynth.xml") from error

    def find(name: str) -> str | None:
        found = root.findtext(name)
        return found.strip() if found else None

    version = find("ReportVersion/Version")
    resources = root.find("AreaEstimates/Resources")
    if root.tag != "profile" or version is None or resources is None:
        raise InputError(os.fspath(path), "report", f"<{root.tag}> without version or resources", "a csynth.xml")
    cells = {child.tag: _integer(child.text) for child in resources}
    timing, latency = "PerformanceEstimates/SummaryOfTimingAnalysis/", "PerformanceEstimates/SummaryOfOverallLatency/"
    return VendorReport(
        "csynth",
        "estimate",
        # The report does not name its tool: Vivado HLS counts DSP48E, Vitis HLS counts DSP (and leaves out zeros).
        "Vivado HLS" if "DSP48E" in cells else "Vitis HLS",
        version,
        find("UserAssignments/TopModelName"),
        find("UserAssignments/Part"),
        **_cells(cells),
        latency_min=_integer(find(latency + "Best-caseLatency")),
        latency_max=_integer(find(latency + "Worst-caseLatency")),
        ii_min=_integer(find(latency + "Interval-min")),
        ii_max=_integer(find(latency + "Interval-max") or find(latency + "Interval-min")),
        clock_target_ns=_real(find("UserAssignments/TargetClockPeriod")),
        clock_estimate_ns=_real(find(timing + "EstimatedClockPeriod")),
    )


class _Cells(TypedDict):
    lut: int | None
    ff: int | None
    dsp: int | None
    bram_18k: int | None
    uram: int | None


def _cells(cells: dict[str, int | None]) -> _Cells:
    """Resources of an HLS report by our names; a kind that is not listed is not used."""
    return {
        "lut": cells.get("LUT", 0),
        "ff": cells.get("FF", 0),
        "dsp": cells.get("DSP48E", cells.get("DSP", 0)),
        "bram_18k": cells.get("BRAM_18K", 0),
        "uram": cells.get("URAM", 0),
    }


def _csynth_rpt(path: str | os.PathLike[str], text: str) -> VendorReport:
    title = re.search(r"== (Vivado|Vitis) HLS Report for '([^']+)'", text)
    version = re.search(r"^\* Version:\s+(\S+)", text, re.MULTILINE)
    if not title or not version:
        raise InputError(os.fspath(path), "report", "no title or no version", "a csynth.rpt of Vivado HLS or Vitis HLS")
    part = re.search(r"^\* Target device:\s+(\S+)", text, re.MULTILINE)
    clock = _row_after(text, r"^\+ Timing.*$", lambda row: len(row) == 4 and _real(row[1]) is not None)
    latency = _row_after(text, r"^\+ Latency.*$", lambda row: len(row) >= 5 and row[0] not in ("", "min", "Latency"))
    header = _row_after(text, r"^== Utilization Estimates", lambda row: row[0] == "Name" and "LUT" in row)
    total = _row_after(text, r"^== Utilization Estimates", lambda row: row[0] == "Total")
    if clock is None or latency is None or header is None or total is None:
        raise InputError(os.fspath(path), "tables", "timing, latency or utilization missing", "a whole csynth.rpt")
    # From 2020.1 on two columns with the absolute latency stand between the clocks and the interval.
    interval = latency[4:6] if len(latency) >= 7 else latency[2:4]
    return VendorReport(
        "csynth",
        "estimate",
        f"{title[1]} HLS",
        version[1],
        title[2],
        part[1] if part else None,
        **_cells(dict(zip(header, map(_integer, total), strict=False))),
        latency_min=_integer(latency[0]),
        latency_max=_integer(latency[1]),
        ii_min=_integer(interval[0]),
        ii_max=_integer(interval[1]),
        clock_target_ns=_real(clock[1]),
        clock_estimate_ns=_real(clock[2]),
    )


def read_cosim(path: str | os.PathLike[str], *, version: str = "") -> VendorReport:
    """``<top>_cosim.rpt``: whether the RTL agreed with the test bench, and the clocks it took.

    The report names no version: pass that of the csynth report.

    Raises
    ------
    InputError
        If the file is absent or no language was simulated.
    """
    text = _text(path)
    rows = [row for row in _rows(text) if row[0] in ("Verilog", "VHDL") and len(row) >= 8]
    if not rows:
        raise InputError(os.fspath(path), "report", "no row for Verilog or VHDL", "a cosim.rpt")
    run = [row for row in rows if row[1].upper() not in ("NA", "")]
    if not run:
        raise InputError(os.fspath(path), "status", "NA", "a simulation that was run")
    simulator = re.search(r"^Simulation tool\s*:\s*(\w+)", text, re.MULTILINE)
    row = run[0]
    return VendorReport(
        "cosim",
        "synthesised",
        f"cosim with {simulator[1]}" if simulator else "cosim",
        version,
        latency_min=_integer(row[2]),
        latency_max=_integer(row[4]),
        ii_min=_integer(row[5]),
        ii_max=_integer(row[7]),
        passed=all(other[1].lower() == "pass" for other in run),
    )


# ---------------------------------------------------------------------------- Vivado reports


def read_utilization(path: str | os.PathLike[str]) -> VendorReport:
    """``report_utilization`` of Vivado, of a synthesised or a placed design.

    Raises
    ------
    InputError
        If the file is absent, no such report, or has no LUTs.
    """
    text = _text(path)
    tool, version, top, part = _vivado_header(path, text)
    used: dict[str, float] = {}
    for row in _rows(text):
        # The first table that names a cell counts; later ones list primitives. A star marks a figure before placement.
        value = _real(row[1]) if len(row) > 1 else None
        if value is not None:
            used.setdefault(row[0].rstrip("*"), value)

    def cells(*names: str) -> int | None:
        return next((int(used[name]) for name in names if name in used), None)

    lut = cells("Slice LUTs", "CLB LUTs", "LUTs")
    if lut is None:
        raise InputError(os.fspath(path), "table", "no row Slice LUTs or CLB LUTs", "a report_utilization")
    tiles = used.get("Block RAM Tile")
    placed = _is_placed(text)
    return VendorReport(
        "place and route" if placed else "synthesis",
        "placed" if placed else "synthesised",
        tool,
        version,
        top,
        part,
        lut=lut,
        ff=cells("Slice Registers", "CLB Registers", "Registers"),
        dsp=cells("DSPs", "DSP Slices", "DSP"),
        bram_18k=None if tiles is None else round(2 * tiles),
        uram=cells("URAM"),
    )


def read_timing(path: str | os.PathLike[str]) -> VendorReport:
    """``report_timing_summary`` of Vivado: the worst slack and the clock.

    Raises
    ------
    InputError
        If the file is absent, no such report, or the design has no constrained path.
    """
    text = _text(path)
    tool, version, top, part = _vivado_header(path, text)
    summary = re.search(r"^\|\s*Design Timing Summary(.*)", text, re.MULTILINE | re.DOTALL)
    lines = summary[1].splitlines() if summary else []
    numbers = next((line.split() for line in lines if re.match(r"\s*(-?\d+\.\d+|NA)\s+(-?\d+\.\d+|NA)\s", line)), None)
    if numbers is None or _real(numbers[0]) is None:
        found = "no Design Timing Summary" if numbers is None else "WNS NA: no constrained path"
        raise InputError(os.fspath(path), "slack", found, "a report_timing_summary with a clock")
    period = re.search(r"^\s*\S+\s+\{[\d. ]+\}\s+(\d+\.\d+)", text, re.MULTILINE)
    placed = _is_placed(text)
    return VendorReport(
        "place and route" if placed else "synthesis",
        "placed" if placed else "synthesised",
        tool,
        version,
        top,
        part,
        slack_ns=_real(numbers[0]),
        clock_target_ns=float(period[1]) if period else None,
    )


def _vivado_header(path: str | os.PathLike[str], text: str) -> tuple[str, str, str | None, str | None]:
    tool = re.search(r"^\|\s*Tool Version\s*:\s*(Vivado) v\.(\d{4}\.\d)", text, re.MULTILINE)
    if not tool:
        raise InputError(os.fspath(path), "header", "no Tool Version", "a report of Vivado")
    design = re.search(r"^\|\s*Design\s*:\s*(\S+)", text, re.MULTILINE)
    device = re.search(r"^\|\s*Device\s*:\s*(\S+)", text, re.MULTILINE)
    # Vivado until about 2021 leaves out the xc of the part.
    part = None if not device else device[1] if device[1].startswith("xc") else f"xc{device[1]}"
    return tool[1], tool[2], design[1] if design else None, part


def _is_placed(text: str) -> bool:
    """Whether the figures are those of a placed design; a report that does not say is not taken for one."""
    state = re.search(r"^\|\s*Design State\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return bool(state and re.search("placed|routed|physopt postroute", state[1], re.IGNORECASE))


# ---------------------------------------------------------------------------- a project


def collect(folder: str | os.PathLike[str]) -> tuple[VendorReport, ...]:
    """All reports of an HLS project: estimate, cosim and placed figures, as far as they are there.

    Raises
    ------
    InputError
        If there is none, or one cannot be read.
    """
    root = Path(folder)
    result: list[VendorReport] = []
    solution = root / "hls" / "solution1"
    folder_of_csynth = solution / "syn" / "report"
    for path in [*folder_of_csynth.glob("csynth.xml"), *sorted(folder_of_csynth.glob("*_csynth.rpt"))][:1]:
        result.append(read_csynth(path))
    for path in sorted((solution / "sim" / "report").glob("*_cosim.rpt")):
        result.append(read_cosim(path, version=result[0].version if result else ""))
    utilization, timing = root / "reports" / "utilization_placed.rpt", root / "reports" / "timing_routed.rpt"
    if utilization.is_file():
        report = read_utilization(utilization)
        if timing.is_file():
            report = _with_timing(report, read_timing(timing), timing)
        result.append(report)
    if not result:
        raise InputError(
            str(root), "reports", "none", "csynth.xml below hls/solution1, or reports/utilization_placed.rpt"
        )
    return tuple(result)


def _with_timing(report: VendorReport, timing: VendorReport, path: Path) -> VendorReport:
    if (timing.version, timing.top) != (report.version, report.top):
        found, expected = f"{timing.top} with {timing.version}", f"{report.top} with {report.version}"
        raise InputError(str(path), "design", found, expected)
    return replace(report, slack_ns=timing.slack_ns, clock_target_ns=timing.clock_target_ns)


def hls_command() -> list[str] | None:
    """How the installed HLS tool is called with a script; None if there is none."""
    for name, flags in _HLS_TOOLS:
        found = shutil.which(name)
        if found:
            return [found, *flags]
    return None


def run(project: HlsProject, steps: Sequence[str] = STEPS) -> tuple[VendorReport, ...]:
    """Check the project with g++, then run the steps of the vendor's HLS tool and read its reports.

    Raises
    ------
    InputError
        If a step is unknown.
    MissingToolError
        If no HLS tool is installed: says what was checked without it.
    BuildError
        If the tool fails; the log is ``hls.log``.
    CheckFailed
        If the cosim does not agree.
    """
    unknown = [step for step in steps if step not in STEPS]
    if unknown or not steps:
        raise InputError("vendor", "steps", ", ".join(unknown) or "none", f"some of {', '.join(STEPS)}")
    checked = project.check_golden()
    command = hls_command()
    if command is None:
        raise MissingToolError(
            "no vitis-run, vitis_hls or vivado_hls on PATH: install AMD Vitis (2020.2 or later) and source its "
            f"settings64.sh; checked without it: csim with g++, {checked}"
        )
    environment = {"L1AD_STEPS": " ".join(steps)}
    log = project.folder / "hls.log"
    native.run_logged([*command, "tcl/build.tcl"], cwd=project.folder, log=log, what="the HLS tool", env=environment)
    if list(steps) == ["csim"]:
        return ()
    reports = collect(project.folder)
    failed = [report for report in reports if report.passed is False]
    if failed and "cosim" in steps:
        raise CheckFailed(f"{project.folder}: cosim failed: the RTL differs from the golden events; log: {log}")
    return reports


def run_steps(project: HlsProject, steps: Sequence[str]) -> tuple[VendorReport, ...]:
    """`run` for the steps of HLS, then `place_and_route` if ``place`` is among them; all reports.

    Raises
    ------
    InputError
        If a step is unknown.
    L1adError
        What the two raise.
    """
    unknown = [step for step in steps if step not in (*STEPS, PLACE)]
    if unknown or not steps:
        expected = f"some of {', '.join((*STEPS, PLACE))}"
        raise InputError("vendor", "steps", ", ".join(unknown) or "none", expected)
    of_hls = [step for step in steps if step != PLACE]
    reports = run(project, of_hls) if of_hls else ()
    return (*reports, place_and_route(project)) if PLACE in steps else reports


def place_and_route(project: HlsProject) -> VendorReport:
    """Synthesise, place and route the RTL that csynth wrote; the placed figures.

    Raises
    ------
    MissingToolError
        If Vivado is not installed: says which figures there are without it.
    BuildError
        If it fails; the log is ``place_and_route.log``.
    """
    vivado = shutil.which("vivado")
    if vivado is None:
        raise MissingToolError(
            "no vivado on PATH: install AMD Vivado and source its settings64.sh; without it there are estimates only: "
            f"{project.estimate}"
        )
    command = [vivado, "-mode", "batch", "-source", "tcl/place_and_route.tcl"]
    log = project.folder / "place_and_route.log"
    native.run_logged(command, cwd=project.folder, log=log, what="place and route")
    report = collect(project.folder)[-1]
    if report.provenance != "placed":
        raise InputError(str(project.folder / "reports"), "Design State", report.provenance, "a placed design")
    return report


# ---------------------------------------------------------------------------- text


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(os.fspath(path), "report", error.strerror, "a readable file") from error


def _rows(text: str) -> list[list[str]]:
    """Rows of tables drawn with bars, their cells stripped."""
    lines = (line.strip() for line in text.splitlines())
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if re.fullmatch(r"\|.+\|", line)]


def _row_after(text: str, heading: str, wanted: Callable[[list[str]], bool]) -> list[str] | None:
    """The first row after a heading that satisfies `wanted`."""
    match = re.search(heading, text, re.MULTILINE)
    return next((row for row in _rows(text[match.end() :]) if wanted(row)), None) if match else None


def _integer(text: str | None) -> int | None:
    """A count; what HLS cannot know (``undef``, ``?``, ``-``) is None."""
    stripped = (text or "").strip().lstrip("~")
    return int(stripped) if stripped.isdigit() else None


def _real(text: str | None) -> float | None:
    """A number, perhaps with its unit."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)(?:\s*ns)?", (text or "").strip())
    return float(match[1]) if match else None
