"""The VHDL of a project simulated with GHDL, where that is installed.

`GhdlRtl(project)` is a realisation, as `l1ad.backends.verilator.VerilatorRtl` is for Verilog; much slower.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.backends import rtl, templates
from l1ad.backends.native import run_logged
from l1ad.errors import InputError, MissingToolError
from l1ad.io import read_json, write_text
from l1ad.trigger.fixed import Codes

_STANDARD = "--std=08"


def find() -> str:
    """GHDL on PATH.

    Raises
    ------
    MissingToolError
        If it is not installed.
    """
    found = shutil.which("ghdl")
    if not found:
        raise MissingToolError("ghdl is not installed: Debian and Ubuntu have it as apt install ghdl")
    return found


@dataclass(frozen=True)
class GhdlRtl:
    """A realisation: the VHDL of a project in simulation, clock by clock.

    Attributes
    ----------
    project : whose VHDL.
    name : of this realisation in tables.
    """

    project: rtl.RtlProject
    name: str = "ghdl rtl"

    def __post_init__(self) -> None:
        if self.project.options.flavor != "vhdl":
            raise InputError(str(self.project.folder), "flavor", self.project.options.flavor, "vhdl")

    @property
    def trigger_hash(self) -> str:
        """Hash of the program that it was made from."""
        return self.project.trigger.hash

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        """Integer scores (N,) of hardware codes (N, inputs).

        Raises
        ------
        MissingToolError
            If GHDL is not installed.
        BuildError
            If it fails; the log is ``sim/ghdl.log``.
        """
        return simulate(self.project, inputs)[:, 0]

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """The score alone."""
        return {self.project.trigger.program.score: self.score(inputs)[:, None]}


def simulate(project: rtl.RtlProject, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
    """Codes (N, outputs) of the port ``outputs``; see `GhdlRtl.score`."""
    tool = find()
    ports = read_json(project.folder / "ports.json")
    fields = {side: [rtl.Field(**field) for field in ports[side]] for side in ("inputs", "outputs")}
    bits = {side: max(sum(field.width for field in part), 1) for side, part in fields.items()}
    clocked = project.options.latency_clocks > 0
    bench = templates.render(
        "rtl/bench.vhd",
        top=project.top,
        input_bits=bits["inputs"],
        output_bits=bits["outputs"],
        latency=max(project.options.latency_clocks, 1),
        connect="clk => clk, " if clocked else "",
        open=", decisions => open" if ports["decisions"] else "",
    )
    sim = (project.folder / "sim").resolve()
    write_text(sim / "bench.vhd", bench)
    if not len(inputs):
        return np.empty((0, len(fields["outputs"])), dtype=np.int64)
    with tempfile.TemporaryDirectory(prefix="l1ad-ghdl-") as scratch:
        work = Path(scratch)
        codes, results = work / "codes.txt", work / "results.txt"
        codes.write_text(pack(inputs, fields["inputs"], bits["inputs"]), encoding="ascii")
        sources = [*(str(path.resolve()) for path in project.sources), str(sim / "bench.vhd")]
        log = sim / "ghdl.log"
        run_logged([tool, "-a", _STANDARD, *sources], cwd=work, log=log, what="ghdl analysis")
        command = [tool, "-r", _STANDARD, "l1ad_bench", f"-gcodes={codes}", f"-gresults={results}"]
        run_logged([*command, "--ieee-asserts=disable-at-0"], cwd=work, log=log, what="ghdl simulation")
        return unpack(results.read_text(encoding="ascii"), fields["outputs"])


def pack(codes: npt.NDArray[np.integer[Any]], fields: list[rtl.Field], bits: int) -> str:
    """A line of bits an event, the highest bit of the port first."""
    rows = np.zeros((len(codes), bits), dtype=np.uint8)
    for column, field in enumerate(fields):
        for i in range(field.width):
            rows[:, bits - 1 - field.lsb - i] = (codes[:, column] >> i) & 1
    lines = np.concatenate([rows + ord("0"), np.full((len(rows), 1), ord("\n"), dtype=np.uint8)], axis=1)
    return lines.astype(np.uint8).tobytes().decode("ascii")


def unpack(text: str, fields: list[rtl.Field]) -> Codes:
    """Codes (N, fields) of lines of bits."""
    lines = text.split()
    bits = np.frombuffer("".join(lines).encode("ascii"), dtype=np.uint8).reshape(len(lines), -1) - ord("0")
    result = np.zeros((len(lines), len(fields)), dtype=np.int64)
    for column, field in enumerate(fields):
        for i in range(field.width):
            bit = bits[:, bits.shape[1] - 1 - field.lsb - i].astype(np.int64)
            top = field.signed and i == field.width - 1
            result[:, column] += -(bit << i) if top else bit << i
        result[:, column] <<= field.shift
    return result
