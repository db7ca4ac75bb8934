"""The whole trigger as an HLS project, and its csim without a vendor tool.

`convert` writes the project: object words or input words in, scaling, network, score and threshold bits out. The
network is hls4ml's if an encoder is given, else it is printed from the program like the rest. `load` comes back to a
project; `HlsProject.score` compiles it with g++ and scores. `l1ad.backends.vendor` runs the vendor's tools on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.backends import cpp, native, project, templates, timing
from l1ad.backends.hls_network import convert_network, print_glue
from l1ad.backends.hls_options import HlsOptions, read_options, thresholds
from l1ad.backends.hls_ports import Ports, choose_wrapper, make_ports
from l1ad.errors import InputError
from l1ad.io import write_text
from l1ad.trigger.fixed import Codes
from l1ad.trigger.program import Trigger

BACKEND = "hls"
_GOLDEN_EVENTS = 200
_NETWORK_SOURCE = ("firmware/network/network.cpp",)


@dataclass(frozen=True)
class HlsProject:
    """A project of one trigger.

    Attributes
    ----------
    folder : where.
    trigger : of which.
    options : how it is built.
    printed : the nodes that `trace` shows.
    has_network : whether the network is hls4ml's.
    estimate : of the latency, made before the build.
    ap_types : folder of ap_fixed.h; None for the one that hls4ml ships.
    workers : processes that score; None for one a processor.
    name : of this realisation in tables.
    """

    folder: Path
    trigger: Trigger
    options: HlsOptions
    printed: tuple[str, ...]
    has_network: bool
    estimate: timing.LatencyEstimate
    ap_types: Path | None = None
    workers: int | None = None
    name: str = "hls csim"

    @property
    def trigger_hash(self) -> str:
        """Hash of the program that it was made from."""
        return self.trigger.hash

    @property
    def sources(self) -> tuple[str, ...]:
        """What is synthesised, relative to the folder."""
        return ("firmware/top.cpp", *(_NETWORK_SOURCE if self.has_network else ()))

    def compile(self) -> Path:
        """The csim program, compiled if it is not up to date.

        Raises
        ------
        MissingToolError
            If there is no compiler or no ap_types.
        BuildError
            If it does not compile; the logs are in ``csim/``.
        """
        read = [*(self.folder / "firmware").rglob("*.h"), self.folder / "firmware" / "top.cpp"]
        return native.compile_program(
            self.folder,
            ["tb/test_bench.cpp", *(_NETWORK_SOURCE if self.has_network else ())],
            "csim/test_bench",
            headers=[str(path.relative_to(self.folder)) for path in sorted(read)],
            include=[native.ap_types(self.ap_types)],
            flags=[*native.FLAGS, "-DL1AD_BATCH"],
            what="csim compile",
        )

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        """Integer scores (N,) of hardware codes (N, inputs), through the ports of the top function."""
        return self._run(inputs, 2)[:, 0]

    def decisions(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, npt.NDArray[np.bool_]]:
        """The threshold bits (N,) by seed name; empty if the wrapper has none."""
        bits = self._run(inputs, 2)[:, 1]
        return {
            name: (bits >> i & 1).astype(bool) for i, (name, _) in enumerate(thresholds(self.trigger, self.options))
        }

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """Codes of every node that is printed: with hls4ml's network all but the insides of that."""
        size = sum(self.trigger.program.node(name).size for name in self.printed)
        codes = self._run(inputs, 2 + size, "--trace")[:, 2:]
        return cpp.split_trace(self.trigger.program, self.printed, codes)

    def check_golden(self) -> str:
        """Run the test bench on the golden vectors of the project; its last line.

        Raises
        ------
        BuildError
            If an event differs.
        """
        log = self.folder / "csim" / "golden.log"
        command = [str(self.compile().resolve())]
        native.run_logged(command, cwd=self.folder / "tb", log=log, what="test bench")
        return log.read_text(encoding="utf-8").splitlines()[-1]

    def _run(self, inputs: npt.NDArray[np.integer[Any]], columns: int, *flags: str) -> Codes:
        command = [str(self.compile().resolve()), *flags]
        return native.score_events(command, inputs, columns, workers=self.workers)


def convert(
    trigger: Trigger,
    encoder: Any = None,
    out_dir: str | os.PathLike[str] = "firmware/hls",
    *,
    outputs: Sequence[str] | None = None,
    ap_types: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    compile: bool = False,
    ignore_estimate: bool = False,
    **options: Any,
) -> HlsProject:
    """Write the HLS project of a trigger.

    Parameters
    ----------
    encoder : the Keras encoder that the trigger was frozen from, or the path of its HDF5 file: hls4ml converts it.
        None: the network is printed from the program.
    outputs : the nodes of the program that the encoder's outputs are, in their order. By default the nodes that carry
        the names of the outputs' layers, else those with the same values.
    ap_types : folder of ap_fixed.h for the csim.
    compile : compile the csim too.
    ignore_estimate : go on even if the latency is out of reach by the estimate.
    options : fields of `HlsOptions`.

    Raises
    ------
    InputError
        If an option is wrong, the folder holds a project of another trigger, the clock is out of reach, or the encoder
        has what hls4ml converts wrongly.
    TriggerError
        If the program has no such form, or the encoder is not the one of the trigger.
    """
    program, folder = trigger.program, Path(out_dir)
    settings = choose_wrapper(read_options(options), program.layout)
    estimate = timing.estimate(program, settings.part, clock_ns=settings.clock_ns, clocks=settings.latency_clocks)
    if estimate.verdict == "out of reach" and not ignore_estimate:
        found = f"about {estimate.logic_ns:.0f} ns of logic in {estimate.levels} levels (estimate)"
        expected = (
            f"at most {estimate.budget_ns:g} ns: more clocks, a longer period or a faster part than {estimate.part}"
        )
        raise InputError(trigger.name, "latency", found, expected)
    ports = make_ports(program, settings, trigger)
    project.prepare(folder, trigger, BACKEND)
    network: cpp.Network | None = None
    network_files: dict[str, str] = {}
    if encoder is not None:
        network, network_files = convert_network(trigger, encoder, settings, outputs)
    namespace = f"l1ad_{program.hash[:12]}"
    code = cpp.print_program(program, namespace=namespace, network=network)
    shutil.rmtree(folder / "firmware", ignore_errors=True)
    native.write_files(folder / "firmware" / "network", network_files)
    if network is not None:
        write_text(
            folder / "firmware" / "network_glue.h", print_glue(program, code, network, network_files["network.h"])
        )
    native.write_files(folder, _texts(trigger, settings, code, ports, has_network=network is not None))
    kept = {"hls": asdict(settings), "printed": list(code.printed), "has_network": network is not None}
    project.finish(folder, trigger, BACKEND, kept)
    made = load(folder, ap_types=ap_types, workers=workers)
    if compile:
        made.compile()
    return made


def load(
    out_dir: str | os.PathLike[str], *, ap_types: str | os.PathLike[str] | None = None, workers: int | None = None
) -> HlsProject:
    """The project that `convert` wrote.

    Raises
    ------
    InputError
        If the folder is not one of this back end.
    """
    found = project.open_project(Path(out_dir), BACKEND)
    settings = read_options(found.options["hls"])
    has_network = bool(found.options["has_network"])
    return HlsProject(
        found.folder,
        found.trigger,
        settings,
        tuple(found.options["printed"]),
        has_network,
        timing.estimate(
            found.trigger.program, settings.part, clock_ns=settings.clock_ns, clocks=settings.latency_clocks
        ),
        Path(ap_types) if ap_types is not None else None,
        workers,
        "hls4ml csim" if has_network else "hls csim",
    )


# ---------------------------------------------------------------------------- texts


def _texts(
    trigger: Trigger, options: HlsOptions, code: cpp.CppProgram, ports: Ports, *, has_network: bool
) -> dict[str, str]:
    program = trigger.program
    names, seeds = code.names, thresholds(trigger, options)
    first = program.nodes[0]
    locals_, arguments = [], ["input"]
    if program.latents is not None and program.latents != program.score:
        locals_.append(("latents", program.latents))
        arguments.append("latents")
    locals_.append(("score", program.score))
    arguments.append("score")
    declared = []
    for variable, node in locals_:
        declared.append(f"    {code.namespace}::{names[node]}_t {variable}[{program.node(node).size}];")
        declared.append(f"#pragma HLS ARRAY_PARTITION variable={variable} complete")
    kind = program.node(program.score).type
    guard, glue = code.namespace.upper(), '#include "network_glue.h"' if has_network else ""
    decisions = [f"    decisions[{i}] = word >= {value};" for i, (_, value) in enumerate(seeds)]
    parameters = ",\n".join(f"    {parameter}" for parameter in ports.parameters)
    common = {"hash": program.hash, "wrapper": options.wrapper, "top": options.top, "parameters": parameters}
    pack = list(ports.pack)
    if seeds:
        pack.append(f"    ap_uint<{len(seeds)}> decisions = 0;")
    return {
        "firmware/program.h": code.header,
        "firmware/top.h": templates.render("hls/top.h", guard=guard, **common),
        "firmware/top.cpp": templates.render(
            "hls/top.cpp",
            **common,
            includes=glue,
            pragmas="\n".join(ports.pragmas),
            latency=options.latency_clocks,
            # A multiplier of hls4ml's network that does several products is free again only after them.
            interval=options.reuse_factor if has_network else 1,
            namespace=code.namespace,
            input=names[first.name],
            inputs=first.size,
            unpack="\n".join(ports.unpack),
            locals="\n".join(declared),
            arguments=", ".join(arguments),
            code=f"ap_{'' if kind.signed else 'u'}int<{kind.width}>",
            decisions="\n".join(decisions),
        ),
        "tb/test_bench.cpp": templates.render(
            "hls/test_bench.cpp",
            top=options.top,
            inputs=first.size,
            pack="\n".join(pack),
            ports=", ".join(ports.arguments),
            signed="true" if kind.signed else "false",
            bits="decisions.to_uint64()" if seeds else "0",
            trace_size=code.trace_size,
            namespace=code.namespace,
            input=names[first.name],
        ),
        "tb/golden.dat": _golden(trigger, options),
        "tcl/build.tcl": templates.read("hls/build.tcl"),
        "tcl/options.tcl": _tcl_options(options, has_network),
        "tcl/place_and_route.tcl": templates.read("vendor/place_and_route.tcl"),
    }


def _golden(trigger: Trigger, options: HlsOptions) -> str:
    inputs = project.golden_vectors(trigger.program, _GOLDEN_EVENTS)
    scores = trigger.score(inputs)
    lines = []
    for codes, score in zip(inputs.tolist(), scores.tolist(), strict=True):
        bits = sum(1 << i for i, (_, value) in enumerate(thresholds(trigger, options)) if score >= value)
        lines.append(" ".join(map(str, [*codes, score, bits])))
    return "\n".join(lines) + "\n"


def _tcl_options(options: HlsOptions, has_network: bool) -> str:
    sources = ["firmware/top.cpp", *(_NETWORK_SOURCE if has_network else ())]
    values = {
        "top": options.top,
        "part": options.part,
        "clock_ns": f"{options.clock_ns:g}",
        "clock_uncertainty": options.clock_uncertainty,
        "latency_clocks": options.latency_clocks,
        "dsp": int(options.dsp),
        "ip_version": "1.0.0",
        "sources": " ".join(sources),
    }
    return "\n".join(["# Read by the scripts beside it.", *(f"set {k} {{{v}}}" for k, v in values.items())]) + "\n"
