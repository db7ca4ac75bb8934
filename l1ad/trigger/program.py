"""`Trigger`, the integer program with its name, thresholds and provenance.

`Trigger.load(path)` and `trigger.score(events)` are all that a user of a frozen trigger needs; neither imports
TensorFlow. `Trigger.from_layers` makes one of plain integer arrays, `l1ad.trigger.build.ProgramBuilder` of anything
else, `l1ad.trigger.freeze` of a trained QKeras model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import TriggerError
from l1ad.events.layout import ObjectLayout
from l1ad.events.store import Events
from l1ad.io import read_json, write_json
from l1ad.trigger import emulate
from l1ad.trigger.emulate import ExactProgram
from l1ad.trigger.fixed import Codes
from l1ad.trigger.graph import Program
from l1ad.trigger.layers import LayerTypes, Scaling, dense_program

FORMAT = "l1ad-trigger"
FORMAT_VERSION = 1
#: Events that are evaluated at a time: the intermediates of a chunk stay in the cache.
CHUNK_EVENTS = 16384


@dataclass(frozen=True, eq=False, repr=False)
class Trigger:
    """A frozen trigger: from hardware codes to an integer score, LSB 1/16.

    Attributes
    ----------
    program : the arithmetic.
    name : what menus and files call it.
    kind : the score it computes, a key of `l1ad.scores.SCORES` or ``tail``.
    thresholds : integers by seed name; an event fires if ``score >= threshold``.
    provenance : hashes of the model, the configuration and the data it came from (JSON types).
    """

    program: Program
    name: str = "trigger"
    kind: str = "mu2"
    thresholds: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Trigger({self.name!r}, {self.kind} on {self.layout.name}, {self.hash[:12]})"

    @property
    def layout(self) -> ObjectLayout:
        """What the inputs are."""
        return self.program.layout

    @property
    def hash(self) -> str:
        """SHA-256 of the arithmetic; names, thresholds and provenance do not enter."""
        return self.program.hash

    # ------------------------------------------------------------------ evaluation

    def score(
        self,
        events: Events | npt.ArrayLike,
        *,
        golden: bool = False,
        threads: int = 1,
        isa: str | None = None,
    ) -> Codes:
        """Integer scores (N,), LSB 1/16.

        Parameters
        ----------
        events : `Events` of the trigger's layout, hardware codes (N, slots, features) or network inputs (N, inputs).
        golden : use the reference evaluation instead of the fast emulation, which gives the same integers.
        threads : how many threads the emulation uses.
        isa : instruction-set level of the emulation (see `l1ad.trigger.emulate`), the best of the machine by default.

        Raises
        ------
        TriggerError
            If the shape or the layout does not match, or `threads` or `isa` cannot be.
        """
        if golden:
            return self._evaluate(events, self.program.score)[:, 0]
        rows, columns = self._rows(events)
        return emulate.score(self.program, rows, columns=columns, threads=threads, isa=isa)

    def latents(self, events: Events | npt.ArrayLike, *, golden: bool = False) -> Codes:
        """Codes of the latent vector (N, latents) on the grid of its node.

        Computed with numpy, several times faster than the golden evaluation and the same integers; the compiled kernel
        has scores only.

        Parameters
        ----------
        events : as for `score`.
        golden : use the reference evaluation.

        Raises
        ------
        TriggerError
            If the program has no latent vector.
        """
        if self.program.latents is None:
            raise TriggerError(self.name, "latents", "none", "a program with a latent vector")
        if golden:
            return self._evaluate(events, self.program.latents)
        inputs, exact = self.inputs(events), ExactProgram(self.program, self.program.latents)
        result = np.empty((len(inputs), self.program.node(self.program.latents).size), dtype=np.int64)
        for start in range(0, len(inputs), CHUNK_EVENTS):
            result[start : start + CHUNK_EVENTS] = exact.codes(inputs[start : start + CHUNK_EVENTS])
        return result

    def trace(self, events: Events | npt.ArrayLike) -> dict[str, Codes]:
        """Codes of every node, by name, (N, size) each.

        Always the golden evaluation, node by node in int64 and all in memory at once: what other ways of computing the
        same are compared with, on thousands of events and not on millions.
        """
        return self.program.evaluate(self.inputs(events))

    def inputs(self, events: Events | npt.ArrayLike) -> npt.NDArray[np.integer[Any]]:
        """The network inputs (N, inputs) of what `score` takes."""
        rows, columns = self._rows(events)
        return rows if columns is None else rows[:, columns]

    def _rows(self, events: Events | npt.ArrayLike) -> tuple[npt.NDArray[np.integer[Any]], Codes | None]:
        """Flat rows (N, words), not copied where possible, and the inputs' positions unless a row is them."""
        layout = self.layout
        if isinstance(events, Events):
            # The adc2021 layout is the uGT's words under another name: what counts is the words.
            if events.layout.words != layout.words:
                raise TriggerError(self.name, "layout of the events", events.layout.name, layout.name)
            return self._flat(events.hw)
        array = np.asarray(events)
        if not np.issubdtype(array.dtype, np.integer):
            raise TriggerError(self.name, "type of the inputs", array.dtype, "integers")
        if array.ndim == 3 and array.shape[1:] == layout.shape:
            return self._flat(array)
        if array.ndim == 2 and array.shape[1] == layout.n_inputs:
            return array, None
        expected = f"(N, {layout.n_objects}, {layout.n_features}) or (N, {layout.n_inputs})"
        raise TriggerError(self.name, "shape of the inputs", array.shape, expected)

    def _flat(self, hw: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.integer[Any]], Codes | None]:
        rows, index = hw.reshape(len(hw), self.layout.n_objects * self.layout.n_features), self.layout.input_index
        return rows, None if len(index) == rows.shape[1] else index

    def _evaluate(self, events: Events | npt.ArrayLike, node: str) -> Codes:
        inputs = self.inputs(events)
        result = np.empty((len(inputs), self.program.node(node).size), dtype=np.int64)
        for start in range(0, len(inputs), CHUNK_EVENTS):
            chunk = inputs[start : start + CHUNK_EVENTS]
            result[start : start + CHUNK_EVENTS] = self.program.evaluate(chunk)[node]
        return result

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``trigger.json``.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        value = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "kind": self.kind,
            "hash": self.hash,
            "program": self.program.to_json(),
            "thresholds": dict(self.thresholds),
            "provenance": dict(self.provenance),
        }
        write_json(path, value)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trigger:
        """Read ``trigger.json`` (or the run folder that holds one).

        Raises
        ------
        TriggerError
            If it is not a trigger of this format, or its program was edited after its hash was written.
        """
        file = os.path.join(path, "trigger.json") if os.path.isdir(path) else path
        value = read_json(file)
        where = os.fspath(file)
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        if found != FORMAT:
            raise TriggerError(where, "format", found, FORMAT)
        if value.get("format_version") != FORMAT_VERSION:
            raise TriggerError(where, "format_version", value.get("format_version"), FORMAT_VERSION)
        program = Program.from_json(value["program"], where=where)
        if value.get("hash") != program.hash:
            raise TriggerError(where, "hash", str(value.get("hash"))[:12], f"{program.hash[:12]}: the file was edited")
        return cls(program, value["name"], value["kind"], value["thresholds"], value["provenance"])

    def with_thresholds(self, thresholds: Mapping[str, int]) -> Trigger:
        """The same trigger with named thresholds."""
        return replace(self, thresholds=dict(thresholds))

    @classmethod
    def from_layers(
        cls,
        weights: Sequence[npt.ArrayLike],
        biases: Sequence[npt.ArrayLike],
        types: LayerTypes | Mapping[str, Any],
        scaling: Scaling | Mapping[str, Any],
        score: str = "mu2",
        *,
        layout: str | ObjectLayout = "cms_ugt",
        name: str = "trigger",
        embedding: int | None = None,
    ) -> Trigger:
        """A trigger of dense layers from plain integer arrays, without Keras (see `l1ad.trigger.layers.dense_program`).

        >>> import numpy as np
        >>> zeros = Trigger.from_layers(
        ...     [np.zeros((57, 2), int)], [np.array([8, 16])],
        ...     {"input": "ap_fixed<8,6,RND_CONV,SAT>", "weight": "ap_fixed<6,3>", "bias": "ap_fixed<10,7>",
        ...      "result": "ap_fixed<10,7,RND_CONV,SAT>"},
        ...     {"offset": np.zeros(57), "shift": np.zeros(57, int)})
        >>> int(zeros.score(np.zeros((1, 19, 3), int))[0])  # 1^2 + 2^2, in units of 1/16
        80
        """
        program = dense_program(weights, biases, types, scaling, score, layout=layout, embedding=embedding)
        return cls(program, name, score)
