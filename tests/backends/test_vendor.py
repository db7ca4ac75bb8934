"""Reports of AMD tools of seven versions, and the runner with tools that only pretend."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from l1ad.backends import hls, native, vendor
from l1ad.backends.vendor import VendorReport
from l1ad.errors import CheckFailed, InputError, MissingToolError

# ---------------------------------------------------------------------------- what the tools write


def csynth_xml(version: str, **figures: object) -> str:
    """csynth.xml: DSP48E in Vivado HLS; DSP, and none at all if unused, in later Vitis HLS, which indents too."""
    f = {"lut": 70515, "ff": 1163, "dsp": 0, "bram": 0, "latency": 2, "ii": 1, "clock": "21.544", **figures}
    vivado, late = version < "2020.2", version >= "2022.1"
    cells = {"BRAM_18K": f["bram"], "DSP48E" if vivado else "DSP": f["dsp"], "FF": f["ff"], "LUT": f["lut"], "URAM": 0}
    if late:
        cells = {name: n for name, n in cells.items() if n or name in ("BRAM_18K", "URAM")}
    real = "".join(
        f"<{case}-caseRealTimeLatency>50.000 ns</{case}-caseRealTimeLatency>\n" for case in ("Best", "Worst")
    )
    target = "" if vivado else "<FlowTarget>vivado</FlowTarget>"
    return f"""<profile>
<ReportVersion>
<Version>{version}</Version>
</ReportVersion>
<UserAssignments>
<unit>ns</unit>
<ProductFamily>virtex7</ProductFamily>
<Part>xc7vx690t-ffg1927-2</Part>
<TopModelName>anomaly_trigger</TopModelName>
<TargetClockPeriod>25.00</TargetClockPeriod>
<ClockUncertainty>3.12</ClockUncertainty>
{target}
</UserAssignments>
<PerformanceEstimates>
<PipelineType>{"function" if vivado else "yes"}</PipelineType>
<SummaryOfTimingAnalysis>
<unit>ns</unit>
<EstimatedClockPeriod>{f["clock"]}</EstimatedClockPeriod>
</SummaryOfTimingAnalysis>
<SummaryOfOverallLatency>
<unit>clock cycles</unit>
<Best-caseLatency>{f["latency"]}</Best-caseLatency>
<Average-caseLatency>{f["latency"]}</Average-caseLatency>
<Worst-caseLatency>{f["latency"]}</Worst-caseLatency>
{real}
<Interval-min>{f["ii"]}</Interval-min>
<Interval-max>{f["ii"]}</Interval-max>
</SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates>
<Resources>
{"".join(f"<{name}>{n}</{name}>" for name, n in cells.items())}
</Resources>
<AvailableResources>
<BRAM_18K>2940</BRAM_18K><DSP48E>3600</DSP48E><FF>866400</FF><LUT>433200</LUT><URAM>0</URAM>
</AvailableResources>
</AreaEstimates>
<ModuleInformation><Module><Name>inner</Name><AreaEstimates><Resources><LUT>5</LUT></Resources></AreaEstimates></Module>
</ModuleInformation>
</profile>
"""


def csynth_rpt(version: str) -> str:
    """<top>_csynth.rpt: other columns for the latency, and units, from Vitis on."""
    vivado = version < "2020.2"
    rule = "=" * 64
    if vivado:
        timing = "|ap_clk  |  25.00|    21.544|        3.12|"
        latency = """    +-----+-----+-----+-----+----------+
    |  Latency  |  Interval | Pipeline |
    | min | max | min | max |   Type   |
    +-----+-----+-----+-----+----------+
    |    2|    3|    1|    1| function |
    +-----+-----+-----+-----+----------+"""
    else:
        timing = "|ap_clk  |  25.00 ns|  21.544 ns|     3.12 ns|"
        latency = """    +---------+---------+-----------+-----------+-----+-----+---------+
    |  Latency (cycles) |   Latency (absolute)  |  Interval | Pipeline|
    |   min   |   max   |    min    |    max    | min | max |   Type  |
    +---------+---------+-----------+-----------+-----+-----+---------+
    |        2|        3|  50.000 ns|  75.000 ns|    1|    1|      yes|
    +---------+---------+-----------+-----------+-----+-----+---------+"""
    dsp = "DSP48E" if vivado else " DSP "
    return f"""

{rule}
== {"Vivado" if vivado else "Vitis"} HLS Report for 'anomaly_trigger'
{rule}
* Date:           Fri Jun  6 10:00:00 2025

* Version:        {version} (Build 1234567 on Some Day)
* Project:        hls
* Solution:       solution1{"" if vivado else " (Vivado IP Flow Target)"}
* Product family: virtex7
* Target device:  xc7vx690t-ffg1927-2


{rule}
== Performance Estimates
{rule}
+ Timing{" (ns)" if vivado else ""}:{" "}
    * Summary:{" "}
    +--------+----------+----------+------------+
    |  Clock |  Target  | Estimated| Uncertainty|
    +--------+----------+----------+------------+
    {timing}
    +--------+----------+----------+------------+

+ Latency{" (clock cycles)" if vivado else ""}:{" "}
    * Summary:{" "}
{latency}

    + Detail:{" "}
        * Instance:{" "}
        +--------+------+-----+-----+-----+-----+----------+
        |Instance|Module| min | max | min | max |   Type   |
        +--------+------+-----+-----+-----+-----+----------+
        |inner_U0|inner |   99|   99|   77|   77| function |
        +--------+------+-----+-----+-----+-----+----------+

{rule}
== Utilization Estimates
{rule}
* Summary:{" "}
+-----------------+---------+-------+--------+--------+-----+
|       Name      | BRAM_18K| {dsp} |   FF   |   LUT  | URAM|
+-----------------+---------+-------+--------+--------+-----+
|DSP              |        -|      -|       -|       -|    -|
|Expression       |        -|      -|       0|   60000|    -|
|Register         |        -|      -|    1163|       -|    -|
+-----------------+---------+-------+--------+--------+-----+
|Total            |        4|      7|    1163|   70515|    0|
+-----------------+---------+-------+--------+--------+-----+
|Available        |     2940|   3600|  866400|  433200|    0|
+-----------------+---------+-------+--------+--------+-----+
|Utilization (%)  |       ~0|     ~0|      ~0|      16|    0|
+-----------------+---------+-------+--------+--------+-----+
"""


def cosim_rpt(version: str, status: str = "Pass") -> str:
    total = version >= "2020.2"
    bar = "+" + "-" * 10 + "+" + "-" * 10
    wide = bar + ("+" + "-" * 47) * 2 + "+"
    narrow = bar + ("+" + "-" * 15) * 6 + "+"

    def row(rtl: str, result: str, values: list[str]) -> str:
        cells = "".join(f"{value:>15}|" for value in values)
        return f"|{rtl:>10}|{result:>10}|{cells}" + (f"{values[0]:>22}|" if total else "")

    clocks = ["2", "2", "2", "1", "1", "1"]
    return "\n".join(
        [
            "Report time       : Fri Jun  6 10:00:00 CEST 2025.",
            "Solution          : solution1.",
            "Simulation tool   : xsim.",
            "",
            wide,
            f"|{'':10}|{'':10}|{'Latency(Clock Cycles)':^47}|{'Interval(Clock Cycles)':^47}|",
            f"+   RTL    +  Status  +{'-' * 47}+{'-' * 47}+",
            row("", "", ["min", "avg", "max"] * 2),
            narrow,
            row("VHDL", "NA", ["NA"] * 6),
            row("Verilog", status, clocks),
            narrow,
            "",
        ]
    )


def vivado_header(version: str, command: str, state: str | None, part: str) -> str:
    amd = version >= "2023.1"
    lines = ["Copyright 1986-2022 Xilinx, Inc. All Rights Reserved."]
    if amd:
        lines[0] += f" Copyright 2022-{version[:4]} Advanced Micro Devices, Inc. All Rights Reserved."
    lines += [
        "-" * 80,
        f"| Tool Version : Vivado v.{version} (lin64) Build 1234567 Wed Nov  6 21:39:14 MST 2019",
        "| Date         : Fri Jun  6 10:00:00 2025",
        "| Host         : builder running 64-bit Linux",
        f"| Command      : {command}",
        "| Design       : anomaly_trigger",
        # Vivado of the first years writes the device without its xc.
        f"| Device       : {part if version >= '2021.1' else part.removeprefix('xc')}",
    ]
    if amd:
        lines.append("| Speed File   : -2")
    if state:
        lines.append(f"| Design State : {state}")
    return "\n".join([*lines, "-" * 80, ""])


def utilization_rpt(version: str, family: str = "7", state: str = "Fully Placed", lut: int = 7736) -> str:
    """report_utilization: a column "Prohibited" from 2021.1 on, other names for the cells of other families."""
    logic, part = ("Slice", "xc7vx690tffg1927-2") if family == "7" else ("CLB", "xcvu9p-flga2104-2L-e")
    dsps = "DSP Slices" if family == "versal" else "DSPs"
    part = "xcve2302-sfva784-1MP-e-S" if family == "versal" else part
    mark = "*" if state == "Synthesized" else ""
    later = version >= "2021.1"

    def table(*rows: tuple[str, float]) -> str:
        head = ["Site Type", "Used", "Fixed", *(["Prohibited"] if later else []), "Available", "Util%"]
        width = 26
        rule = "+" + "+".join(["-" * (width + 2), *["-" * 12] * (len(head) - 1)]) + "+"
        lines = [rule, "| " + " | ".join([head[0].center(width), *(h.rjust(10) for h in head[1:])]) + " |", rule]
        for name, used in rows:
            cells = [str(used), "0", *(["0"] if later else []), "433200", "<0.01"]
            lines.append("| " + " | ".join([name.ljust(width), *(c.rjust(10) for c in cells)]) + " |")
        return "\n".join([*lines, rule, ""])

    registers = "Registers" if family == "versal" else f"{logic} Registers"
    return "\n".join(
        [
            vivado_header(version, "report_utilization -file reports/utilization_placed.rpt", state, part),
            "Utilization Design Information\n\nTable of Contents\n-----------------\n1. Slice Logic\n2. Memory\n",
            "1. Slice Logic\n--------------\n",
            table((f"{logic} LUTs{mark}", lut), ("  LUT as Logic", lut - 1), ("  LUT as Memory", 1), (registers, 288)),
            "2. Memory\n---------\n",
            table(("Block RAM Tile", 1.5), ("  RAMB36/FIFO*", 1), ("  RAMB18", 1), ("URAM", 2)),
            "3. DSP\n------\n",
            table((dsps, 5)),
            "7. Primitives\n-------------\n\n+----------+------+---------------------+",
            "| Ref Name | Used | Functional Category |\n+----------+------+---------------------+",
            "| LUT6     | 4000 |                 LUT |\n+----------+------+---------------------+\n",
        ]
    )


def timing_rpt(version: str, slack: str = "0.412", state: str | None = "Routed") -> str:
    command = "report_timing_summary -delay_type max -file reports/timing_routed.rpt"
    heads = "WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)      THS(ns)"
    header = vivado_header(version, command, state, "xc7vx690tffg1927-2")
    rule = "-" * 96
    return f"""{header}
Timing Summary Report

{rule}
| Timer Settings
| --------------
{rule}

  Enable Multi Corner Analysis               :  Yes

{rule}
| Design Timing Summary
| ---------------------
{rule}

    {heads}
    -------      -------  ---------------------  -------------------      -------      -------
     {slack}        0.000                      0                  314        0.104        0.000


All user specified timing constraints are met.

{rule}
| Clock Summary
| -------------
{rule}

Clock  Waveform(ns)       Period(ns)      Frequency(MHz)
-----  ------------       ----------      --------------
clock  {{0.000 12.500}}     25.000          40.000
"""


# ---------------------------------------------------------------------------- reading


@pytest.mark.parametrize("version", ["2019.2", "2020.1", "2020.2", "2021.2", "2022.2", "2023.2", "2024.2", "2025.1"])
def test_csynth_xml_of_every_version(version, tmp_path) -> None:
    path = tmp_path / "csynth.xml"
    path.write_text(csynth_xml(version))
    assert vendor.read_csynth(path) == VendorReport(
        stage="csynth",
        provenance="estimate",
        tool="Vivado HLS" if version < "2020.2" else "Vitis HLS",
        version=version,
        top="anomaly_trigger",
        part="xc7vx690t-ffg1927-2",
        lut=70515,
        ff=1163,
        dsp=0,
        bram_18k=0,
        uram=0,
        latency_min=2,
        latency_max=2,
        ii_min=1,
        ii_max=1,
        clock_target_ns=25.0,
        clock_estimate_ns=21.544,
    )


def test_dsps_are_counted_under_both_names(tmp_path) -> None:
    path = tmp_path / "csynth.xml"
    for version in ("2019.2", "2025.1"):
        path.write_text(csynth_xml(version, dsp=12, bram=3))
        report = vendor.read_csynth(path)
        assert (report.dsp, report.bram_18k) == (12, 3)


def test_a_latency_that_hls_does_not_know_is_none(tmp_path) -> None:
    path = tmp_path / "csynth.xml"
    path.write_text(csynth_xml("2020.2", latency="undef", ii="undef"))
    report = vendor.read_csynth(path)
    assert (report.latency_min, report.latency_max, report.ii_max) == (None, None, None)
    assert "latency" not in str(report)


@pytest.mark.parametrize("version", ["2019.2", "2021.2", "2023.1", "2024.2", "2025.1"])
def test_csynth_rpt_of_every_version(version, tmp_path) -> None:
    path = tmp_path / "anomaly_trigger_csynth.rpt"
    path.write_text(csynth_rpt(version))
    report = vendor.read_csynth(path)
    assert (report.tool, report.version) == ("Vivado HLS" if version == "2019.2" else "Vitis HLS", version)
    assert (report.latency_min, report.latency_max, report.ii_min, report.ii_max) == (2, 3, 1, 1)
    assert (report.clock_target_ns, report.clock_estimate_ns) == (25.0, 21.544)
    assert (report.lut, report.ff, report.dsp, report.bram_18k, report.uram) == (70515, 1163, 7, 4, 0)
    assert report.part == "xc7vx690t-ffg1927-2"


@pytest.mark.parametrize("version", ["2019.2", "2022.2"])
def test_cosim(version, tmp_path) -> None:
    path = tmp_path / "anomaly_trigger_cosim.rpt"
    path.write_text(cosim_rpt(version))
    report = vendor.read_cosim(path, version=version)
    assert (report.passed, report.latency_min, report.latency_max, report.ii_max) == (True, 2, 2, 1)
    assert report.tool == "cosim with xsim"
    path.write_text(cosim_rpt(version, "Fail"))
    assert vendor.read_cosim(path).passed is False
    path.write_text(cosim_rpt(version, "NA"))
    with pytest.raises(InputError, match="status: found NA"):
        vendor.read_cosim(path)


@pytest.mark.parametrize(
    ("version", "family"),
    [
        ("2019.2", "7"),
        ("2020.2", "us"),
        ("2021.2", "7"),
        ("2022.2", "us"),
        ("2023.1", "us"),
        ("2024.2", "versal"),
        ("2025.1", "7"),
    ],
)
def test_placed_utilization_of_every_version(version, family, tmp_path) -> None:
    path = tmp_path / "utilization.rpt"
    path.write_text(utilization_rpt(version, family))
    report = vendor.read_utilization(path)
    assert (report.lut, report.ff, report.dsp, report.bram_18k, report.uram) == (7736, 288, 5, 3, 2)
    assert (report.provenance, report.stage, report.tool, report.version) == (
        "placed",
        "place and route",
        "Vivado",
        version,
    )
    assert report.part
    assert report.part.startswith("xc")


def test_a_synthesised_design_is_not_taken_for_a_placed_one(tmp_path) -> None:
    path = tmp_path / "utilization.rpt"
    path.write_text(utilization_rpt("2022.2", state="Synthesized"))
    report = vendor.read_utilization(path)
    assert (report.provenance, report.lut) == ("synthesised", 7736)
    path.write_text(utilization_rpt("2022.2").replace("| Design State", "| Something   "))
    assert vendor.read_utilization(path).provenance == "synthesised"


@pytest.mark.parametrize("version", ["2019.2", "2020.2", "2022.2", "2023.2", "2025.1"])
def test_slack(version, tmp_path) -> None:
    path = tmp_path / "timing.rpt"
    path.write_text(timing_rpt(version))
    report = vendor.read_timing(path)
    assert (report.slack_ns, report.clock_target_ns, report.version) == (0.412, 25.0, version)
    path.write_text(timing_rpt(version, "-3.250"))
    assert vendor.read_timing(path).slack_ns == -3.25
    path.write_text(timing_rpt(version, "   NA"))
    with pytest.raises(InputError, match="no constrained path"):
        vendor.read_timing(path)


def test_a_timing_report_that_does_not_say_whether_it_is_routed(tmp_path) -> None:
    """As Vivado 2021.2 writes it, seen in public reports: wider labels, the grade, and no state of the design."""
    text = timing_rpt("2021.2", state=None).replace("| Tool Version :", "| Tool Version      :")
    text = text.replace(
        "| Device       : xc7", "| Speed File        : -2  PRODUCTION 1.12\n| Temperature Grade : C\n| Device : xc7"
    )
    path = tmp_path / "timing.rpt"
    path.write_text(text)
    report = vendor.read_timing(path)
    assert (report.slack_ns, report.version, report.part) == (0.412, "2021.2", "xc7vx690tffg1927-2")
    assert report.provenance == "synthesised"


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (vendor.read_csynth, csynth_xml("2022.2")[:900], "XML"),
        (vendor.read_csynth, "<project/>", "without version or resources"),
        (vendor.read_csynth, "no report at all", "no title"),
        (vendor.read_csynth, csynth_rpt("2022.2")[:1500], "missing"),
        (vendor.read_cosim, "", "no row for Verilog"),
        (vendor.read_utilization, timing_rpt("2022.2"), "no row Slice LUTs"),
        (vendor.read_utilization, "", "no Tool Version"),
        (vendor.read_timing, utilization_rpt("2022.2"), "no Design Timing Summary"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(reader, text, message, tmp_path) -> None:
    path = tmp_path / "report"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        reader(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match="No such file"):
        reader(tmp_path / "absent")


# ---------------------------------------------------------------------------- a project


@pytest.fixture(scope="module")
def project(small, tmp_path_factory):
    return hls.convert(small(1), None, tmp_path_factory.mktemp("vendor") / "hls", wrapper="words")


def pretend(folder: Path, name: str, files: dict[str, str], status: int = 0) -> None:
    """A program on PATH that notes how it was called and leaves files behind."""
    lines = ["#!/bin/sh", f'echo "$@ [$L1AD_STEPS]" > {name}.called', 'echo "running"']
    for i, (path, text) in enumerate(files.items()):
        (folder / f"{name}.{i}").write_text(text)
        lines += [f"/bin/mkdir -p {Path(path).parent}", f"/bin/cp {folder / f'{name}.{i}'} {path}"]
    tool = folder / name
    tool.write_text("\n".join([*lines, f"exit {status}", ""]))
    tool.chmod(0o755)


@pytest.fixture
def path_only(tmp_path, monkeypatch, project):
    """A PATH with nothing but what a test puts there; the compiler is named."""
    monkeypatch.setenv("CXX", native.find_compiler())
    folder = tmp_path / "bin"
    folder.mkdir()
    # A compiler looks for its assembler and linker on PATH.
    for name in ("as", "ld"):
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))
    yield folder
    for name in ("hls", "reports"):
        shutil.rmtree(project.folder / name, ignore_errors=True)


REPORTS = "hls/solution1"


def test_without_a_tool_one_line_says_what_was_still_checked(project, path_only) -> None:
    assert path_only.is_dir()
    with pytest.raises(
        MissingToolError, match=r"install AMD Vitis.*csim with g\+\+, PASSED: 200 events, 0 differ"
    ) as error:
        vendor.run(project)
    assert "\n" not in str(error.value)
    with pytest.raises(MissingToolError, match=r"no vivado.*\(estimate\)"):
        vendor.place_and_route(project)
    with pytest.raises(InputError, match="steps: found bitstream"):
        vendor.run(project, ["bitstream"])


@pytest.mark.parametrize(
    ("tool", "version", "call"),
    [
        ("vivado_hls", "2019.2", "-f tcl/build.tcl [csynth cosim]"),
        ("vitis_hls", "2022.2", "-f tcl/build.tcl [csynth cosim]"),
        ("vitis-run", "2024.2", "--mode hls --tcl tcl/build.tcl [csynth cosim]"),
    ],
)
def test_each_tool_is_called_in_its_way(tool, version, call, project, path_only) -> None:
    files = {
        f"{REPORTS}/syn/report/csynth.xml": csynth_xml(version),
        f"{REPORTS}/sim/report/anomaly_trigger_cosim.rpt": cosim_rpt(version),
    }
    pretend(path_only, tool, files)
    reports = vendor.run(project, ("csynth", "cosim"))
    assert (project.folder / f"{tool}.called").read_text().strip() == call
    assert [(r.stage, r.provenance, r.version) for r in reports] == [
        ("csynth", "estimate", version),
        ("cosim", "synthesised", version),
    ]


def test_a_failed_cosim_and_a_failed_tool(project, path_only) -> None:
    files = {
        f"{REPORTS}/syn/report/csynth.xml": csynth_xml("2023.2"),
        f"{REPORTS}/sim/report/anomaly_trigger_cosim.rpt": cosim_rpt("2023.2", "Fail"),
    }
    pretend(path_only, "vitis_hls", files)
    with pytest.raises(CheckFailed, match="cosim failed"):
        vendor.run(project)
    pretend(path_only, "vitis_hls", {}, status=7)
    with pytest.raises(native.BuildError, match=r"exit status 7.*hls\.log") as error:
        vendor.run(project)
    assert str(error.value).splitlines()[-1] == "running"


def test_place_and_route(project, path_only) -> None:
    files = {
        "reports/utilization_placed.rpt": utilization_rpt("2023.1"),
        "reports/timing_routed.rpt": timing_rpt("2023.1"),
    }
    pretend(path_only, "vivado", files)
    report = vendor.place_and_route(project)
    assert (report.provenance, report.lut, report.slack_ns) == ("placed", 7736, 0.412)
    assert str(report).startswith("place and route (placed, Vivado 2023.1): LUT 7736")
    (project.folder / "reports" / "timing_routed.rpt").write_text(timing_rpt("2020.2"))
    with pytest.raises(InputError, match=r"found anomaly_trigger with 2020\.2"):
        vendor.collect(project.folder)


def test_steps_of_both_tools_in_their_order(project, path_only) -> None:
    pretend(path_only, "vitis_hls", {f"{REPORTS}/syn/report/csynth.xml": csynth_xml("2023.1")})
    placed = {
        "reports/utilization_placed.rpt": utilization_rpt("2023.1"),
        "reports/timing_routed.rpt": timing_rpt("2023.1"),
    }
    pretend(path_only, "vivado", placed)
    reports = vendor.run_steps(project, ["csynth", "place"])
    assert [r.provenance for r in reports] == ["estimate", "placed"]
    assert [r.provenance for r in vendor.run_steps(project, ["place"])] == ["placed"]
    with pytest.raises(InputError, match="steps: found bitstream, expected some of csim, csynth, cosim, export, place"):
        vendor.run_steps(project, ["csynth", "bitstream"])


def test_a_folder_without_reports(tmp_path) -> None:
    with pytest.raises(InputError, match="reports: found none"):
        vendor.collect(tmp_path)


def test_the_scripts_name_what_the_project_has(project) -> None:
    options = (project.folder / "tcl" / "options.tcl").read_text()
    assert "set part {xc7vx690tffg1927-2}" in options
    assert "set clock_ns {25}" in options
    assert "set latency_clocks {2}" in options
    for name in project.sources:
        assert name in options
        assert (project.folder / name).is_file()
    build = (project.folder / "tcl" / "build.tcl").read_text()
    for step in vendor.STEPS:
        assert f'"{step}" in $steps' in build
    assert (project.folder / "tcl" / "place_and_route.tcl").is_file()


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh to run the scripts with commands that only note")
def test_the_build_script_runs(project, tmp_path) -> None:
    import subprocess

    commands = ["open_project", "set_top", "add_files", "open_solution", "set_part", "create_clock", "config_op"]
    commands += ["set_clock_uncertainty", "config_array_partition", "config_compile"]
    commands += ["csim_design", "csynth_design", "cosim_design", "export_design"]
    notes = "\n".join(f'proc {c} args {{ puts "{c} $args" }}' for c in commands)
    script = tmp_path / "run.tcl"
    script.write_text(f"{notes}\nsource {project.folder}/tcl/build.tcl\n")
    done = subprocess.run(
        ["tclsh", script], env={"L1AD_STEPS": "csim cosim"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split()[0] for line in done.stdout.splitlines()]
    assert lines[-3:] == ["csim_design", "csynth_design", "cosim_design"]
    assert "export_design" not in lines
