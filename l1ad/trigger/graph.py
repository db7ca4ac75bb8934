"""`Program`, the integer arithmetic of a trigger: nodes, their golden evaluation and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import TriggerError
from l1ad.events.layout import ObjectLayout, get_layout
from l1ad.scores import SCORE_BITS, SCORE_FRACTION
from l1ad.trigger.fixed import Codes
from l1ad.trigger.nodes import Input, Interval, Node, node_from_json


@dataclass(frozen=True, eq=False)
class Program:
    """Nodes in an order in which each comes after what it reads.

    Attributes
    ----------
    layout : what the inputs are.
    nodes : the first is an `Input`.
    score : name of the node of size 1 that is the score.
    latents : name of the node that is the latent vector, or None.
    """

    layout: ObjectLayout
    nodes: tuple[Node, ...]
    score: str
    latents: str | None = None

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0], Input):
            raise TriggerError("program", "first node", self.nodes[0].op if self.nodes else "none", "input")
        if self.nodes[0].size != self.layout.n_inputs:
            raise TriggerError("program", "inputs", self.nodes[0].size, f"{self.layout.n_inputs} of {self.layout.name}")
        seen: set[str] = set()
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in seen]
            if missing or node.name in seen:
                raise TriggerError("program", f"node {node.name}", missing or "a second one", "earlier nodes only")
            seen.add(node.name)
        for role, name in (("score", self.score), ("latents", self.latents)):
            if name is not None and name not in seen:
                raise TriggerError("program", role, name, "the name of a node")
        output = self.node(self.score)
        if output.size != 1 or output.type.fraction != SCORE_FRACTION:
            found = f"{output.size} x {output.type}"
            raise TriggerError("program", "score", found, f"one element with {SCORE_FRACTION} fraction bits")
        if output.type.width > SCORE_BITS:
            raise TriggerError("program", "score", str(output.type), f"at most {SCORE_BITS} bits")

    def node(self, name: str) -> Node:
        """The node called `name`."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The codes that each node can take for any input word (see `l1ad.trigger.widths`)."""
        result: dict[str, Interval] = {}
        for node in self.nodes:
            result[node.name] = node.interval(*(result[name] for name in node.inputs))
        return result

    def evaluate(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, Codes]:
        """Codes of every node for hardware codes (N, inputs): the golden evaluation, exact in int64."""
        values: dict[str, Codes] = {}
        for node in self.nodes:
            sources = node.inputs or ("",)
            arguments = [values[name] if name else inputs.astype(np.int64) for name in sources]
            fractions = tuple(self.node(name).type.fraction if name else 0 for name in sources)
            values[node.name] = node.evaluate(*arguments, fractions=fractions)
        return values

    def to_json(self) -> dict[str, Any]:
        """The program in JSON types."""
        return {
            "layout": self.layout.name,
            "nodes": [node.to_json() for node in self.nodes],
            "score": self.score,
            "latents": self.latents,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str = "program") -> Program:
        """The program from its JSON.

        Raises
        ------
        TriggerError
            If it is not valid.
        """
        for name in ("layout", "nodes", "score"):
            if name not in value:
                raise TriggerError(where, name, "nothing", "a value")
        nodes = tuple(node_from_json(node, where=where) for node in value["nodes"])
        return cls(get_layout(value["layout"]), nodes, value["score"], value.get("latents"))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the program: equal for two programs exactly if they are the same arithmetic on the same inputs."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
