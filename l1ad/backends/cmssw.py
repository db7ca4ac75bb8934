"""The emulator that CMSSW loads: ``GTADModel_<version>.so`` with the interface of cms-hls4ml/hls4mlEmulatorExtras.

A student on calorimeter regions becomes ``CICADAModel_<version>.so`` (cms-hls4ml/CICADA, v1p1p2 and v2p1p2): an array
of ``ap_uint<10>`` in, one ``ap_ufixed<16,8,RND_CONV,SAT>`` out.

`convert` writes the sources and a Makefile, `load` comes back to a folder, `CmsswEmulator.score` scores through a
program that does what CMSSW does, `menu_fragment` writes what a menu must know, `read_menu_fragment` refuses thresholds
of another model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from l1ad.backends import cpp, native, project, templates
from l1ad.errors import InputError, MissingToolError, TriggerError
from l1ad.io import atomic_path, write_text
from l1ad.scores import SCORE_FRACTION, SCORE_LSB
from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.layers import UGT_WORD, input_multiplier
from l1ad.trigger.nodes import Scale
from l1ad.trigger.program import Trigger

BACKEND = "cmssw"
Payload = Literal["auto", "latents", "score", "regions"]

#: The score as CMSSW reads it, whatever the type inside: ``std::any`` compares types to the letter.
SCORE_PAYLOAD = FixedType(18, 14, signed=False)
#: The first element of the pair of a model without a latent vector (v5 and v6).
RESULT_PAYLOAD = FixedType(18, 14, True, "RND_CONV", "SAT")
_GOLDEN_EVENTS = 1000


@dataclass(frozen=True)
class CmsswEmulator:
    """A folder with the emulator of one model.

    Attributes
    ----------
    folder : where its sources and its library are.
    trigger : what it emulates.
    version : of the model: the library is ``GTADModel_<version>.so``, or ``CICADAModel_<version>.so``.
    payload : ``latents`` or ``score``: the first element of the pair that it answers with; or ``regions``.
    ap_types : folder of ap_fixed.h; None for the one that hls4ml ships.
    workers : processes that score; None for one a processor.
    name : of this realisation in tables.
    """

    folder: Path
    trigger: Trigger
    version: str
    payload: Payload
    ap_types: Path | None = None
    workers: int | None = None
    name: str = BACKEND

    @property
    def trigger_hash(self) -> str:
        """Hash of the program that it was made from."""
        return self.trigger.hash

    @property
    def model(self) -> str:
        """Name by which CMSSW loads it."""
        return _model(self.version, self.payload)

    def build(self) -> Path:
        """The library, compiled if it is not up to date, with the loader beside it.

        Raises
        ------
        MissingToolError
            If the compiler, make or the ap_types are missing.
        BuildError
            If the compile fails; the log is ``build.log``.
        """
        return build(self.folder, self.model, ap_types=self.ap_types)

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        """Integer scores (N,) of hardware codes (N, inputs), as CMSSW gets them: score x 16."""
        return self._run(inputs)[:, 0]

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """Score and latent vector, by node."""
        codes = self._run(inputs)
        result = {self.trigger.program.score: codes[:, :1]}
        latents = self.trigger.program.latents
        if self.payload != "score" and latents is not None:
            result[latents] = codes[:, 1:]
        return result

    def _run(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        columns = 1 + _n_first(self.trigger.program, self.payload)
        return score_together([self], inputs, workers=self.workers).reshape(len(inputs), columns)


def convert(
    trigger: Trigger,
    encoder: object = None,
    out_dir: str | os.PathLike[str] = "firmware/cmssw",
    *,
    version: str | None = None,
    payload: Payload = "auto",
    ap_types: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    compile: bool = False,
) -> CmsswEmulator:
    """Write the emulator of a trigger.

    Parameters
    ----------
    encoder : not used: the emulator is printed from the program; here so that all back ends are called alike.
    version : of the model, such as ``v4``; by default what follows the last underscore of the trigger's name if that
        is a version, else the name.
    payload : the first element of the answer: the latent vector (as in v1-v4) or the score (as in v5, v6); ``regions``
        for the interface of CICADA, whose answer is the output of the network; or ``auto``: ``regions`` for a student
        on calorimeter regions, the latent vector if the score is made of it, else the score.
    ap_types : folder of ap_fixed.h to compile with.
    compile : build the library too.

    Raises
    ------
    InputError
        If the folder holds a project of another trigger, or the version is no name.
    TriggerError
        If the program cannot be printed or its payload not be made.
    """
    del encoder
    folder = Path(out_dir)
    program = trigger.program
    label = version or default_version(trigger.name)
    if not re.fullmatch(r"\w+", label, flags=re.ASCII):
        raise InputError("cmssw", "version", label, "letters, digits and underscores")
    if payload not in get_args(Payload):
        raise InputError("cmssw", "payload", payload, ", ".join(get_args(Payload)))
    kind: Payload = payload
    if payload == "auto":
        kind = "latents" if program.latents is not None and trigger.kind in ("mu2", "kl", "rz") else "score"
        if trigger.kind == "student" and _one_word(program) and program.latents is not None:
            kind = "regions"
    if kind == "regions":
        _check_regions(trigger)
    if kind == "latents" and program.latents is None:
        raise TriggerError(trigger.name, "latents", "none", "a program with a latent vector, or payload='score'")
    project.prepare(folder, trigger, BACKEND)
    model = _model(label, kind)
    native.write_files(folder, sources(program, model, kind))
    _write_golden(folder, trigger, kind)
    write_text(folder / "menu.yaml", menu_fragment(trigger, model))
    project.finish(folder, trigger, BACKEND, {"version": label, "payload": kind})
    headers = Path(ap_types) if ap_types is not None else None
    emulator = CmsswEmulator(folder, trigger, label, kind, headers, workers)
    if compile:
        emulator.build()
    return emulator


def load(
    out_dir: str | os.PathLike[str], *, ap_types: str | os.PathLike[str] | None = None, workers: int | None = None
) -> CmsswEmulator:
    """The emulator that `convert` wrote.

    Raises
    ------
    InputError
        If the folder is not one of this back end.
    """
    found = project.open_project(Path(out_dir), BACKEND)
    headers = Path(ap_types) if ap_types is not None else None
    return CmsswEmulator(
        found.folder, found.trigger, found.options["version"], found.options["payload"], headers, workers
    )


def default_version(name: str) -> str:
    """The version in a trigger's name.

    >>> default_version("axol1tl_v4"), default_version("my trigger")
    ('v4', 'my_trigger')
    """
    match = re.search(r"(?:^|_)(v\d\w*)$", name)
    return match[1] if match else cpp.identifier(name)


def payload_words(program: Program) -> tuple[FixedType, npt.NDArray[np.float64]]:
    """The type of the words that CMSSW fills, and the value (inputs,) of one hardware code of each.

    ``ap_fixed<18,13>`` with pt in GeV and angles in hardware codes (l1-facts, section 5) wherever the codes fit; the
    codes themselves otherwise.
    """
    source = program.nodes[0]
    low, high = program.intervals[source.name].low, program.intervals[source.name].high
    scales = [node for node in program.nodes if isinstance(node, Scale) and node.inputs == (source.name,)]
    word = UGT_WORD
    multiplier = input_multiplier(program.layout, word)
    if scales and scales[0].word.fraction == word.fraction and _powers_of_two(scales[0].multiplier):
        multiplier = scales[0].multiplier
    fits = word.holds(int((low * multiplier).min()), int((high * multiplier).max()))
    if fits and _powers_of_two(multiplier):
        return word, word.to_float(multiplier)
    return source.type, np.ones(source.size)


def _powers_of_two(values: Codes) -> bool:
    return bool(((values > 0) & (values & (values - 1) == 0)).all())


def _n_first(program: Program, payload: Payload) -> int:
    return program.node(program.latents).size if payload != "score" and program.latents is not None else 0


def _model(version: str, payload: Payload) -> str:
    return f"{'CICADA' if payload == 'regions' else 'GTAD'}Model_{version}"


def _one_word(program: Program) -> bool:
    """Whether every input is the same unsigned word, as calorimeter regions are."""
    words = {(word.bits, word.signed) for word in program.layout.input_words}
    return len(words) == 1 and not next(iter(words))[1]


def _check_regions(trigger: Trigger) -> None:
    """Raises
    ------
    TriggerError
        If the inputs are not words of one kind, or the score is not what the one output of the network is, in 1/16.
    """
    program = trigger.program
    if not _one_word(program):
        raise TriggerError(trigger.name, "payload regions", f"layout {program.layout.name}", "words of one kind")
    if program.latents is None or program.node(program.latents).size != 1:
        raise TriggerError(trigger.name, "payload regions", "no single output", "a network with one output")
    values = program.evaluate(project.golden_vectors(program, _GOLDEN_EVENTS))
    output, score = program.node(program.latents).type, program.node(program.score).type
    expected = np.floor(np.ldexp(output.to_float(values[program.latents]), SCORE_FRACTION))
    if not np.array_equal(expected, values[program.score]):
        raise TriggerError(
            trigger.name, "payload regions", f"a score of {score}", f"the output of {output}, cut to 1/16"
        )


def _words(program: Program, payload: Payload) -> tuple[str, npt.NDArray[np.float64]]:
    """The C++ type of the words that CMSSW fills, and the value (inputs,) of one hardware code of each."""
    if payload == "regions":
        return f"ap_uint<{program.layout.input_words[0].bits}>", np.ones(program.nodes[0].size)
    word, units = payload_words(program)
    return word.cpp(), units


def sources(program: Program, model: str, payload: Payload) -> dict[str, str]:
    """The texts of the emulator, by file name."""
    namespace = f"{model}_{program.hash[:12]}"
    code = cpp.print_program(program, namespace=namespace)
    word, units = _words(program, payload)
    first_node, latents = program.nodes[0], program.latents
    members = [(first_node.name, "input_"), (program.score, "score_")]
    if latents is not None and latents != program.score:
        members.insert(1, (latents, "latents_"))
    declarations = [f"    {code.names[name]}_t {member}[{program.node(name).size}];" for name, member in members]
    result = f"std::pair<{RESULT_PAYLOAD.cpp()}, {SCORE_PAYLOAD.cpp()}>"
    copy = "        to->first = score_[0];\n        to->second = score_[0];"
    if payload == "latents" and latents is not None:
        node = program.node(latents)
        result = f"std::pair<std::array<{node.type.cpp()}, {node.size}>, {SCORE_PAYLOAD.cpp()}>"
        copy = f"        for (int i = 0; i < {node.size}; i++)\n            to->first[i] = latents_[i];\n"
        copy += "        to->second = score_[0];"
    elif payload == "regions" and latents is not None:
        # The first element of an array: a student has one output.
        result, copy = program.node(latents).type.cpp(), "        to[0] = latents_[0];"
    header = templates.render(
        "cmssw/payload.h",
        model=model,
        guard=f"L1AD_{namespace.upper()}_PAYLOAD_H",
        namespace=namespace,
        word=word,
        result=result,
        inputs=first_node.size,
        units=", ".join(f"{unit:g}" for unit in units),
    )
    source = templates.render(
        "cmssw/model.cpp",
        model=model,
        hash=program.hash,
        namespace=namespace,
        input=code.names[first_node.name],
        arguments=", ".join(member for _, member in members),
        copy=copy,
        members="\n".join(declarations),
    )
    return {
        "program.h": code.header,
        "payload.h": header,
        "model.cpp": source,
        "loader.cpp": templates.read("cmssw/loader.cpp"),
        "exports.map": templates.read("cmssw/exports.map"),
        "interface/emulator.h": templates.read("cmssw/emulator.h"),
        "Makefile": templates.render("cmssw/Makefile", model=model),
    }


def _write_golden(folder: Path, trigger: Trigger, payload: Payload) -> None:
    """Events and what the loader must answer for them, for ``make check``."""
    program = trigger.program
    inputs = project.golden_vectors(program, _GOLDEN_EVENTS)
    values = program.evaluate(inputs)
    columns = [values[program.score]]
    if payload != "score" and program.latents is not None:
        columns.append(values[program.latents])
    with atomic_path(folder / "golden.codes") as path:
        inputs.astype("<i4").tofile(path)
    with atomic_path(folder / "golden.results") as path:
        np.hstack(columns).astype("<i8").tofile(path)


def build(folder: Path, model: str, *, ap_types: str | os.PathLike[str] | None = None) -> Path:
    """Run the Makefile of a folder for the library and the loader.

    Raises
    ------
    MissingToolError
        If the compiler, make or the ap_types are missing.
    BuildError
        If make fails; the log is ``build.log``.
    """
    import shutil

    compiler, headers = native.find_compiler(), native.ap_types(ap_types)
    if shutil.which("make") is None:
        raise MissingToolError("no make on PATH: install it (Debian: apt install make)")
    stamp, product = folder / "build.json", folder / f"{model}.so"
    files = ["program.h", "payload.h", "model.cpp", "loader.cpp", "exports.map", "interface/emulator.h", "Makefile"]
    fingerprint = native.sources_hash(folder, files, compiler, str(headers))
    if not (native.up_to_date(stamp, product, fingerprint) and (folder / "loader").is_file()):
        # -B: make looks at times, the stamp at contents.
        command = ["make", "-B", "-j2", product.name, "loader", f"CXX={compiler}", f"AP_TYPES={headers}"]
        native.run_logged(command, cwd=folder, log=folder / "build.log", what=f"make {product.name}")
        native.stamp_build(stamp, fingerprint)
    return product


def score_together(
    emulators: Sequence[CmsswEmulator],
    inputs: npt.NDArray[np.integer[Any]],
    *,
    workers: int | None = None,
    global_symbols: bool = False,
) -> Codes:
    """Load several models into one process and score each event with all of them in turn.

    All must take the same payload types. With `global_symbols` the libraries are opened with RTLD_GLOBAL.

    Returns
    -------
    (N, models x columns) int64: for each model the score and, if its payload has them, the latent codes.

    Raises
    ------
    InputError
        If the models do not take the same payloads.
    """
    payloads = {(_words(e.trigger.program, e.payload)[0], _payload_type(e)) for e in emulators}
    if len(payloads) != 1:
        raise InputError("cmssw", "payloads", sorted(map(str, payloads)), "the same for all models of one loader")
    libraries = [e.build().resolve() for e in emulators]
    command = [str(libraries[0].parent / "loader"), *(["--global"] if global_symbols else [])]
    command += [str(library.with_suffix("")) for library in libraries]
    columns = sum(1 + _n_first(e.trigger.program, e.payload) for e in emulators)
    return native.score_events(command, inputs, columns, workers=workers)


def _payload_type(emulator: CmsswEmulator) -> str:
    program = emulator.trigger.program
    if emulator.payload != "score" and program.latents is not None:
        node = program.node(program.latents)
        return f"{node.size} x {node.type}, {program.nodes[0].size} inputs"
    return f"{RESULT_PAYLOAD}, {program.nodes[0].size} inputs"


# ---------------------------------------------------------------------------- menu


def menu_fragment(trigger: Trigger, model: str) -> str:
    """What a menu must know of a model, as YAML: its name and hash, and the seeds with their integer thresholds."""
    lines = [
        f"# {model} fires where its integer score (score x {1 << SCORE_FRACTION}) is at or above the threshold.",
        "# The thresholds belong to this model alone: compare the hash before use.",
        f"model: {model}",
        f"trigger: {_quoted(trigger.name)}",
        f"score: {_quoted(trigger.kind)}",
        f"hash: {trigger.hash}",
        f"lsb: {SCORE_LSB}",
        "seeds:" if trigger.thresholds else "seeds: []",
    ]
    for name, threshold in sorted(trigger.thresholds.items(), key=lambda item: (item[1], item[0])):
        lines += [f"  - name: {_quoted(name)}", f"    threshold: {int(threshold)}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    import json

    return json.dumps(text)


def read_menu_fragment(path: str | os.PathLike[str], trigger: Trigger) -> Mapping[str, int]:
    """The thresholds of a fragment, by seed.

    Raises
    ------
    TriggerError
        If they were derived for another model: a menu once paired one version with the thresholds of the next.
    InputError
        If the file is no fragment.
    """
    import yaml

    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(str(path), "file", str(error).splitlines()[0], "a menu fragment") from error
    if not isinstance(value, dict) or not {"hash", "seeds"} <= set(value):
        raise InputError(str(path), "fields", "no hash or no seeds", "a menu fragment")
    if value["hash"] != trigger.hash:
        found = f"thresholds of trigger {str(value['hash'])[:12]}"
        raise TriggerError(str(path), "hash", found, f"{trigger.hash[:12]} ({trigger.name})")
    return {seed["name"]: int(seed["threshold"]) for seed in value["seeds"]}
