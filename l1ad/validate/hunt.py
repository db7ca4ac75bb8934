"""An event made for one mutation: `hunt(program, mutation, events)` looks for words at which the two scores differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import Codes
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Input, Lut
from l1ad.validate.adversarial import words
from l1ad.validate.ascent import Target, ascend, exact_values
from l1ad.validate.mutants import Mutation, changed_values

#: How good each event is for a goal, (N,): what the search drives up.
Goal = Callable[[Mapping[str, Codes]], Codes]
#: Elements of a node that are tried where all of them were changed.
_ELEMENTS = 16
#: Codes by which a word is moved.
_MOVES = (-8, -1, 1, 8)


def hunt(
    program: Program,
    change: Mutation,
    events: npt.NDArray[np.integer[Any]],
    rng: np.random.Generator,
    *,
    starts: int = 4,
    steps: int = 40,
    walk: int = 200,
) -> Codes | None:
    """An event that tells a mutant from its program, (inputs,), or None.

    First one word at a time towards where the changed node differs: the code of a table's entry, or either end of the
    element, for there the rectifiers behind it are open. Then at random among events at which the node does differ,
    until the difference comes through to the score.

    Parameters
    ----------
    events : known ones, (N, inputs), from the best of which it starts.
    starts : of each goal.
    steps : of each start, all words tried in each.
    walk : steps at random.
    """
    search = _Search(program, change)
    if not isinstance(program.node(change.node), Lut):
        # Slopes find ends that no known event is near.
        targets = [Target(change.node, i, upward) for i in search.elements for upward in (True, False)]
        events = np.concatenate([np.asarray(events), ascend(program, targets, rng, starts=48)])
    found = search.look(np.asarray(events))
    if found is not None:
        return found
    values = program.evaluate(np.asarray(events))
    for goal in search.goals():
        rank = np.argsort(-goal(values), kind="stable")
        differs = search.differs(values)
        # Where nothing differs yet, such as beyond a saturation, the best are where it will.
        seeds = [row for row in rank if differs[row]][:starts] or list(rank[:starts])
        for row in seeds:
            found = search.climb(goal, np.asarray(events[row], dtype=np.int64), steps)
            if found is not None:
                return found
    return search.walk(rng, walk)


class _Search:
    """One mutation, the words that are tried, and the events at which its node differs."""

    def __init__(self, program: Program, change: Mutation) -> None:
        self.program, self.change = program, change
        self.node = program.node(change.node)
        self.elements = [change.element] if change.element >= 0 else list(range(min(self.node.size, _ELEMENTS)))
        first = program.nodes[0]
        assert isinstance(first, Input)
        self._low, self._high = first.low, first.high
        choices = words(program)
        self._column = np.concatenate([np.full(len(codes), j) for j, codes in enumerate(choices)])
        self._value = np.concatenate(choices)
        self._parted: list[Codes] = []

    def goals(self) -> Sequence[Goal]:
        """What is driven up: closeness to the entry of a table, or either end of each element."""
        if isinstance(self.node, Lut) and self.change.kind == "table":
            mutant = self.change.program.node(self.node.name)
            assert isinstance(mutant, Lut)
            entry = int(np.flatnonzero((self.node.tables != mutant.tables).any(axis=0))[0]) + self.node.first
            source = self.node.inputs[0]

            def near(i: int) -> Goal:
                return lambda values: -np.abs(values[source][:, i] - entry)

            return [near(i) for i in self.elements]

        def end(i: int, sign: int) -> Goal:
            return lambda values: sign * exact_values(self.program, self.node, values)[0][:, i]

        return [end(i, sign) for i in self.elements for sign in (1, -1)]

    def differs(self, values: Mapping[str, Codes]) -> npt.NDArray[np.bool_]:
        """Whether an element of the node does, (N,)."""
        fresh = changed_values(self.change, values)[self.node.name]
        return np.asarray((fresh != values[self.node.name])[:, self.elements].any(axis=1))

    def look(self, trial: Codes) -> Codes | None:
        """The first event whose score differs; those at which the node does are remembered."""
        values = self.program.evaluate(trial)
        return self._look(trial, values)

    def _look(self, trial: Codes, values: Mapping[str, Codes]) -> Codes | None:
        fresh = changed_values(self.change, values)
        score = self.program.score
        seen = (fresh.get(score, values[score]) != values[score])[:, 0]
        if seen.any():
            return np.asarray(trial[int(seen.argmax())], dtype=np.int64)
        parted = (fresh[self.node.name] != values[self.node.name])[:, self.elements].any(axis=1)
        self._parted += list(trial[np.flatnonzero(parted)[:8]])
        return None

    def _neighbours(self, event: Codes) -> Codes:
        """The event with one word at a time set to each of a few values, or moved by a few codes."""
        n = len(event)
        moved = np.clip(event + np.array(_MOVES)[:, None], self._low, self._high)
        column = np.concatenate([self._column, np.tile(np.arange(n), len(_MOVES))])
        trial = np.tile(event, (len(column), 1))
        trial[np.arange(len(column)), column] = np.concatenate([self._value, moved.ravel()])
        return trial

    def climb(self, goal: Goal, event: Codes, steps: int) -> Codes | None:
        """Coordinate ascent; among events at which the node differs as soon as there is one."""
        first = self.program.evaluate(event[None])
        best, alive = int(goal(first)[0]), bool(self.differs(first)[0])
        for _ in range(steps):
            trial = self._neighbours(event)
            values = self.program.evaluate(trial)
            found = self._look(trial, values)
            if found is not None:
                return found
            parted = self.differs(values)
            allowed = np.flatnonzero(parted) if alive or parted.any() else np.arange(len(trial))
            ends = goal(values)[allowed]
            if not len(allowed) or (ends.max() <= best and alive == bool(parted.any())):
                return None
            row = allowed[int(ends.argmax())]
            best, event, alive = int(ends.max()), trial[row], bool(parted[row])
        return None

    def walk(self, rng: np.random.Generator, steps: int) -> Codes | None:
        """At random among events at which the node differs: each step tries every word of one of them."""
        for _ in range(steps if self._parted else 0):
            found = self.look(self._neighbours(self._parted[int(rng.integers(len(self._parted)))]))
            if found is not None:
                return found
            self._parted = self._parted[-512:]
        return None
