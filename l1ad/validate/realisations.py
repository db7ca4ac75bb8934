"""Which realisations there are, and how each is made for a trigger.

`REALISATIONS` by name; `make(name, ...)` gives the object that scores, from the project in the run folder if that is of
this trigger, else from one in a scratch folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.backends import Realisation
from l1ad.errors import InputError, L1adError, MissingToolError
from l1ad.io import read_json
from l1ad.trigger.fixed import Codes
from l1ad.trigger.nodes import Scale
from l1ad.trigger.program import Trigger

#: Name in options and what it is, in the order of the table.
REALISATIONS = {
    "keras": "QKeras, replayed in float64",
    "hls4ml": "csim of the HLS project",
    "alkaid": "interpreter of the traced RTL",
    "verilator": "the Verilog in simulation",
    "cmssw": "emulator library as CMSSW loads it",
    "fast": "fast emulation",
}
#: Too slow for all events: compared on the first ones.
SLOW = ("verilator",)
#: Name of the layer that quantises the scaled inputs (see `l1ad.trigger.freeze`).
_INPUT_LAYER = "input_quantizer"
#: What stands for a value that is on no grid or in no range: a code that nothing else has.
_OFF_GRID = 1 << 40


class NotApplicable(L1adError):
    """A realisation that this trigger or this folder does not have; the message is the reason in the table."""


@dataclass(frozen=True)
class FastKernel:
    """The fast emulation that `Trigger.score` uses."""

    trigger: Trigger
    name: str = "fast kernel"

    @property
    def trigger_hash(self) -> str:
        """Hash of the program that it was made from."""
        return self.trigger.hash

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        """Integer scores (N,) of hardware codes (N, inputs)."""
        return np.asarray(self.trigger.score(inputs), dtype=np.int64)

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """Nothing but the score."""
        return {self.trigger.program.score: self.score(inputs)[:, None]}


@dataclass(frozen=True)
class KerasReplay:
    """The trained QKeras model in float64, between the program's scaling and its score.

    A node that carries the name of a layer takes the layer's values; the others are evaluated as they are.
    """

    trigger: Trigger
    model: Any
    name: str = "QKeras float64"

    @property
    def trigger_hash(self) -> str:
        """Hash of the program that it was made from."""
        return self.trigger.hash

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> Codes:
        """Integer scores (N,) of hardware codes (N, inputs)."""
        return self._values(inputs)[self.trigger.program.score][:, 0]

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """Codes of every node after the scaling."""
        values = self._values(inputs)
        return {name: codes for name, codes in values.items() if name in self.layers() or name in self._after()}

    def layers(self) -> dict[str, str]:
        """Node by node, the layer whose output it is."""
        names = {node.name for node in self.trigger.program.nodes}
        result = {}
        scales = [node.name for node in self.trigger.program.nodes if isinstance(node, Scale)]
        for layer in self.model.layers:
            if layer.name == _INPUT_LAYER and scales:
                result[scales[0]] = layer.name
                continue
            activation = f"{layer.name}_activation"
            node = activation if activation in names else layer.name
            if node in names and type(layer).__name__ != "InputLayer":
                result[node] = layer.name
        return result

    def _after(self) -> set[str]:
        program = self.trigger.program
        known = set(self.layers())
        for node in program.nodes:
            if any(name in known for name in node.inputs):
                known.add(node.name)
        return known

    def _values(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        from l1ad.model.replay import replay

        program = self.trigger.program
        values: dict[str, Codes] = {}
        layers = self.layers()
        replayed: dict[str, npt.NDArray[np.float64]] = {}
        for node in program.nodes:
            sources = [values[name] for name in node.inputs] or [np.asarray(inputs, dtype=np.int64)]
            fractions = tuple(program.node(name).type.fraction for name in node.inputs) or (0,)
            if isinstance(node, Scale):
                # The model's own quantiser of the inputs does the last rounding and the saturation.
                exact, fraction = node.exact(*sources, fractions=fractions)
                replayed = replay(self.model, np.ldexp(exact.astype(np.float64), -fraction))
            if node.name in layers and replayed:
                values[node.name] = _codes(replayed[layers[node.name]], node.type.fraction)
            else:
                values[node.name] = node.evaluate(*sources, fractions=fractions)
        return values


def _codes(values: npt.NDArray[np.float64], fraction: int) -> Codes:
    scaled = np.ldexp(values, fraction)
    codes = np.rint(scaled)
    return np.where((codes == scaled) & (np.abs(codes) < _OFF_GRID), codes, _OFF_GRID).astype(np.int64)


def make(
    name: str, trigger: Trigger, *, run_dir: Path | None, scratch: Path, workers: int | None = None
) -> Realisation:
    """The realisation called `name`.

    Parameters
    ----------
    run_dir : run folder, or None: its projects are used if they are of this trigger, and its model.
    scratch : where projects are made that are not there.

    Raises
    ------
    InputError
        If there is none of that name.
    NotApplicable
        If the trigger has no such realisation, with the reason.
    MissingToolError
        If a tool is not installed.
    """
    if name not in REALISATIONS:
        raise InputError("realisations", "name", name, ", ".join(REALISATIONS))
    if name == "fast":
        return FastKernel(trigger)
    if name == "keras":
        return _keras(trigger, run_dir)
    from l1ad.backends import rtl
    from l1ad.backends.lowering import check_expressible

    if name == "alkaid":
        check_expressible(trigger.program)
        return rtl.Interpreter(trigger)
    backend = "alkaid" if name == "verilator" else name
    made = _project(backend, trigger, run_dir, scratch)
    if name == "verilator":
        from l1ad.backends.verilator import VerilatorRtl

        if made.options.flavor != "verilog":
            made = _project(backend, trigger, None, scratch)
        simulation = VerilatorRtl(made, workers=workers)
        simulation.compile()
        return simulation
    compile_ = made.build if name == "cmssw" else made.compile
    compile_()
    result: Realisation = made
    return result


def _keras(trigger: Trigger, run_dir: Path | None) -> Realisation:
    if run_dir is None or not (run_dir / "model.h5").is_file():
        raise NotApplicable("no trained model: not a run folder")
    from l1ad.model.keras import load_model

    replayed = KerasReplay(trigger, load_model(run_dir / "model.h5"))
    if not replayed.layers() or not any(isinstance(node, Scale) for node in trigger.program.nodes):
        raise NotApplicable("no node of the trigger carries the name of a layer")
    return replayed


def _project(backend: str, trigger: Trigger, run_dir: Path | None, scratch: Path) -> Any:
    """The project of the run folder, or a new one in the scratch folder."""
    from l1ad.backends import registry

    if run_dir is not None:
        folder = run_dir / "firmware" / backend
        note = folder / "project.json"
        if note.is_file() and read_json(note).get("hash") == trigger.hash:
            return registry.backend_function(backend, "load")(folder)
    # Only the integers are of interest here: whether the latency can be met is for `l1ad convert` to say.
    return registry.convert(backend, trigger, scratch / backend, run_dir=run_dir, ignore_estimate=True)


__all__ = ["REALISATIONS", "SLOW", "FastKernel", "KerasReplay", "MissingToolError", "NotApplicable", "make"]
