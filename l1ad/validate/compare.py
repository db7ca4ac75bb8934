"""A realisation against the golden program, and where they part.

`compare` counts differing scores; `first_divergence` finds the first node, element and event that differ.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.backends import Realisation
from l1ad.trigger.fixed import Codes
from l1ad.trigger.graph import Program
from l1ad.trigger.program import Trigger

#: Events scored at a time.
CHUNK = 100_000
#: Differing events that are traced.
TRACED = 16


@dataclass(frozen=True)
class Divergence:
    """Where a realisation first leaves the golden program, in the order of the nodes.

    Attributes
    ----------
    event : number of the event.
    node, op, element : the node and its element; the score if the realisation shows nothing before it.
    golden, found : codes, and `golden_value`, `found_value` as real numbers.
    type : of the node; `source_types` those of the nodes it reads.
    score_golden, score_found : of the event.
    inputs : the words of the event.
    shown : how many nodes the realisation shows.
    """

    event: int
    node: str
    op: str
    element: int
    golden: int
    found: int
    golden_value: float
    found_value: float
    type: str
    source_types: Mapping[str, str]
    score_golden: int
    score_found: int
    inputs: tuple[int, ...]
    shown: int

    def __str__(self) -> str:
        sources = ", ".join(f"{name} {kind}" for name, kind in self.source_types.items())
        return (
            f"event {self.event}: {self.node}[{self.element}] ({self.op}, {self.type}, from {sources or 'the inputs'}) "
            f"is {self.found} = {self.found_value:g}, golden {self.golden} = {self.golden_value:g}; "
            f"score {self.score_found}, golden {self.score_golden}"
        )


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes
    ----------
    name : of the realisation.
    events : compared, or None if it was not run.
    mismatches : events with another score, or None if it was not run.
    seconds : it took to score.
    reason : why it was not run.
    first : where it diverges.
    """

    name: str
    events: int | None
    mismatches: int | None
    seconds: float = 0.0
    reason: str = ""
    first: Divergence | None = None

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        value = asdict(self)
        if self.first is not None:
            value["first"]["inputs"] = list(self.first.inputs)
        value["seconds"] = round(self.seconds, 3)
        return value


def compare(
    trigger: Trigger, realisation: Realisation, inputs: npt.NDArray[np.integer[Any]], golden: Codes
) -> Comparison:
    """Score events with a realisation and count those whose integer differs from `golden`."""
    start = time.monotonic()
    differing: list[int] = []
    mismatches = 0
    for begin in range(0, len(inputs), CHUNK):
        chunk = inputs[begin : begin + CHUNK]
        wrong = np.flatnonzero(realisation.score(chunk) != golden[begin : begin + len(chunk)])
        mismatches += len(wrong)
        differing += [begin + int(i) for i in wrong[: TRACED - len(differing)]]
    seconds = time.monotonic() - start
    first = None
    if differing:
        first = first_divergence(trigger.program, realisation, inputs[differing], np.array(differing))
    return Comparison(realisation.name, len(inputs), mismatches, seconds, "", first)


def first_divergence(
    program: Program, realisation: Realisation, inputs: npt.NDArray[np.integer[Any]], events: Codes
) -> Divergence:
    """The first node, in program order, at which a realisation differs on any of some events (numbered `events`).

    The realisation's own trace is compared; where it shows nothing that differs, the score itself is the answer.
    """
    golden = program.evaluate(inputs)
    found = dict(realisation.trace(inputs))
    shown = len(found)
    scores = realisation.score(inputs)
    found.setdefault(program.score, scores[:, None])
    # What a trace shows may be built apart from what scores: the score that was seen counts.
    if (found[program.score][:, 0] == golden[program.score][:, 0]).all():
        found[program.score] = scores[:, None]
    for node in program.nodes[1:]:
        if node.name not in found:
            continue
        wrong = np.argwhere(found[node.name] != golden[node.name])
        if len(wrong):
            row, element = (int(i) for i in wrong[0])
            right, bad = int(golden[node.name][row, element]), int(found[node.name][row, element])
            return Divergence(
                event=int(events[row]),
                node=node.name,
                op=node.op,
                element=element,
                golden=right,
                found=bad,
                golden_value=right * node.type.lsb,
                found_value=bad * node.type.lsb,
                type=str(node.type),
                source_types={name: str(program.node(name).type) for name in node.inputs},
                score_golden=int(golden[program.score][row, 0]),
                score_found=int(scores[row]),
                inputs=tuple(int(code) for code in inputs[row]),
                shown=shown,
            )
    # Equal when it is asked again: the realisation does not always give the same answer.
    node = program.node(program.score)
    right = int(golden[program.score][0, 0])
    return Divergence(
        int(events[0]), node.name, "not reproduced", 0, right, right, right * node.type.lsb, right * node.type.lsb,
        str(node.type), {}, right, right, tuple(int(code) for code in inputs[0]), shown,
    )  # fmt: skip
