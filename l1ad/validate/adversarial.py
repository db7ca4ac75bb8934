"""Input words that hurt, made from the program itself.

`adversarial_inputs(program, rng)` returns events that hit ties at every rounding, both ends of every saturation and
wrap, empty and full crossings, one feature at a time, and random codes over the full words, together with what of that
could be reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Dense, Input, Interval, Node, Scale
from l1ad.validate.ascent import Target, ascend, exact_values

Inputs = npt.NDArray[np.int64]

#: Events a target (an element and what should happen to it) keeps.
KEEP = 2
#: Codes of one input word that are tried one by one.
ENUMERATED = 1 << 14


@dataclass(frozen=True)
class Coverage:
    """How many elements of a node were seen to do something, of those that can by the interval proof.

    Attributes
    ----------
    node : whose cast.
    kind : ``tie to even``, ``tie to odd``, ``above``, ``below``, ``largest`` or ``smallest``.
    reached, possible : elements. Intervals are upper bounds: `possible` may include what no input can do.
    """

    node: str
    kind: str
    reached: int
    possible: int


@dataclass(frozen=True)
class Adversarial:
    """Events (N, inputs), and what they cover."""

    inputs: Inputs
    coverage: tuple[Coverage, ...]


def adversarial_inputs(
    program: Program, rng: np.random.Generator, *, random_events: int = 8192, rounds: int = 12
) -> Adversarial:
    """Events that hurt.

    Parameters
    ----------
    random_events : random codes over the full words that are part of the result.
    rounds : of the search for internal ties and saturations, 4096 events each.
    """
    first = program.nodes[0]
    assert isinstance(first, Input)
    low, high = first.low, first.high
    fixed = [
        corners(low, high),
        scale_edges(program, rng),
        extremes(program),
        random_codes(low, high, rng, random_events),
    ]
    pool = np.unique(np.concatenate(fixed), axis=0)
    archive = _Archive(program)
    archive.look(pool)
    candidates = pool
    for _ in range(rounds):
        candidates = _mutate(np.concatenate([archive.events(), candidates[:512]]), pool, low, high, rng, 4096)
        archive.look(candidates)
    archive.look(ascend(program, archive.targets(), rng))
    archive.look(_climb(program, archive, words(program)))
    found = archive.events()
    return Adversarial(np.unique(np.concatenate([*fixed, found]), axis=0), archive.coverage())


def words(program: Program, *, most: int = 9) -> list[Codes]:
    """A few words of each input, from one end of what the scaling makes of them to the other."""
    first = program.nodes[0]
    assert isinstance(first, Input)
    tables = _scale_tables(program)
    if tables is None:
        return [np.unique(np.linspace(a, b, most).astype(np.int64)) for a, b in zip(first.low, first.high, strict=True)]
    scale, codes, exact = tables
    result = []
    for code, (value, fraction) in zip(codes, exact, strict=True):
        order = np.argsort(scale.type.cast(value, fraction), kind="stable")
        result.append(np.unique(code[order[np.linspace(0, len(order) - 1, most).astype(int)]]))
    return result


def _climb(program: Program, archive: _Archive, choices: list[Codes], *, steps: int = 40, targets: int = 160) -> Inputs:
    """Coordinate ascent on the elements whose casts can overflow, from the best events known, towards both ends."""
    column = np.concatenate([np.full(len(codes), j) for j, codes in enumerate(choices)])
    value = np.concatenate(choices)
    rows = []
    for name, element, upward in archive.open_ends()[:targets]:
        node = program.node(name)
        best, event = archive.ends[name, element, upward]
        for _ in range(steps):
            trial = np.tile(event, (len(column), 1))
            trial[np.arange(len(column)), column] = value
            exact = exact_values(program, node, program.evaluate(trial))[0][:, element]
            row = int(exact.argmax() if upward else exact.argmin())
            if (int(exact[row]) > best) != upward or int(exact[row]) == best:
                break
            best, event = int(exact[row]), trial[row]
        rows.append(event)
    return np.array(rows) if rows else np.empty((0, len(choices)), dtype=np.int64)


def corners(low: Codes, high: Codes) -> Inputs:
    """Empty, lowest and highest crossings, and one feature at a time at either end, on empty and on full ones."""
    zero = np.clip(np.zeros_like(low), low, high)
    rows = [zero, low, high]
    for background in (zero, high):
        for ends in (low, high):
            hot = np.tile(background, (len(low), 1))
            np.fill_diagonal(hot, ends)
            rows.append(hot)
    return np.vstack(rows)


def random_codes(low: Codes, high: Codes, rng: np.random.Generator, n: int) -> Inputs:
    """Random codes over the full words; half of the events squeezed towards zero, as real crossings are."""
    codes = rng.integers(low, high + 1, size=(n, len(low)))
    shift = rng.integers(0, 12, (n - n // 2, 1))
    soft = codes[n // 2 :]
    codes[n // 2 :] = np.clip(np.where(soft >= 0, soft >> shift, -(-soft >> shift)), low, high)
    return codes


def perturbed(events: Inputs, low: Codes, high: Codes, rng: np.random.Generator, n: int) -> Inputs:
    """Crossings near given ones: drawn with repetition, some words of another crossing, some random or a code further.

    They are no sample of any physics, only more words of the kind that the detector sends.
    """
    return _mutate(events, events, low, high, rng, n) if n else np.empty((0, len(low)), dtype=np.int64)


def _scale_tables(program: Program) -> tuple[Scale, list[Codes], list[tuple[Codes, int]]] | None:
    """The scaling of the inputs, the words of each, and what each word becomes before the cast."""
    first = program.nodes[0]
    scales = [node for node in program.nodes if isinstance(node, Scale) and node.inputs == (first.name,)]
    if not scales or not isinstance(first, Input):
        return None
    scale = scales[0]
    words, exact = [], []
    for j in range(scale.size):
        count = int(first.high[j] - first.low[j]) + 1
        codes = np.unique(np.linspace(first.low[j], first.high[j], min(count, ENUMERATED)).astype(np.int64))
        part = slice(j, j + 1)
        one = Scale(
            scale.name,
            scale.inputs,
            scale.type,
            scale.multiplier[part],
            scale.offset[part],
            scale.shift[part],
            scale.word,
        )
        value, fraction = one.exact(codes[:, None], fractions=(0,))
        words.append(codes)
        exact.append((value[:, 0], fraction))
    return scale, words, exact


def scale_edges(program: Program, rng: np.random.Generator, *, most: int = 48) -> Inputs:
    """Back-solved words: every tie of the scaling's cast and the codes around its saturation, of every feature.

    Each special code of a feature appears once on an empty crossing, and once among random special codes of the others.
    """
    tables = _scale_tables(program)
    first = program.nodes[0]
    assert isinstance(first, Input)
    if tables is None:
        return np.empty((0, first.size), dtype=np.int64)
    scale, words, exact = tables
    special = []
    for codes, (value, fraction) in zip(words, exact, strict=True):
        kinds = cast_events(scale.type, value, fraction)
        chosen: list[int] = []
        for hits in kinds.values():
            where = np.flatnonzero(hits)
            if len(where):
                picked = where[np.unique(np.linspace(0, len(where) - 1, min(len(where), most // 6)).astype(int))]
                chosen += [int(codes[i]) for i in picked]
        special.append(sorted(set(chosen)) or [int(codes[0])])
    n = max(len(codes) for codes in special)
    zero = np.clip(np.zeros(first.size, dtype=np.int64), first.low, first.high)
    rows = []
    for j, codes_j in enumerate(special):
        alone = np.tile(zero, (len(codes_j), 1))
        alone[:, j] = codes_j
        rows.append(alone)
    crowd = np.empty((2 * n, first.size), dtype=np.int64)
    for j, codes_j in enumerate(special):
        cycle = np.resize(rng.permutation(codes_j), n)
        crowd[:n, j], crowd[n:, j] = cycle, rng.permutation(cycle)
    return np.vstack([*rows, crowd])


def extremes(program: Program) -> Inputs:
    """Words that drive each output of the layers on the scaled inputs to the ends of its interval, exactly."""
    tables = _scale_tables(program)
    first = program.nodes[0]
    assert isinstance(first, Input)
    if tables is None:
        return np.empty((0, first.size), dtype=np.int64)
    scale, words, exact = tables
    ends = []
    for codes, (value, fraction) in zip(words, exact, strict=True):
        scaled = scale.type.cast(value, fraction)
        ends.append((int(codes[np.argmin(scaled)]), int(codes[np.argmax(scaled)])))
    lowest, highest = np.array(ends).T
    rows = [lowest, highest]
    for node in program.nodes:
        if isinstance(node, Dense) and node.inputs == (scale.name,):
            for output in range(node.size):
                up = node.weights[:, output] > 0
                rows += [np.where(up, highest, lowest), np.where(up, lowest, highest)]
    return np.vstack(rows)


def cast_events(target: FixedType, exact: Codes, fraction: int) -> dict[str, npt.NDArray[np.bool_]]:
    """What a cast does to each exact code: ties, overflow to either side, and the codes at the ends of the type."""
    drop = fraction - target.fraction
    result: dict[str, npt.NDArray[np.bool_]] = {}
    if 0 < drop <= 60 and target.rounding.startswith("RND"):
        tie = (exact & ((1 << drop) - 1)) == 1 << (drop - 1)
        odd = (exact >> drop) & 1 == 1
        result["tie to even"], result["tie to odd"] = tie & ~odd, tie & odd
    rounded = target.round(exact, fraction)
    result["above"], result["below"] = rounded > target.max_code, rounded < target.min_code
    result["largest"], result["smallest"] = rounded == target.max_code, rounded == target.min_code
    return result


def _possible(target: FixedType, exact: Interval) -> dict[str, npt.NDArray[np.bool_]]:
    """What the intervals allow, by element."""
    low, high = target.round(exact.low, exact.fraction), target.round(exact.high, exact.fraction)
    drop = exact.fraction - target.fraction
    wide = exact.high - exact.low >= (1 << min(max(drop, 0), 60))
    some = wide if 0 < drop <= 60 and target.rounding.startswith("RND") else np.zeros(len(low), dtype=bool)
    return {
        "tie to even": some,
        "tie to odd": some,
        "above": high > target.max_code,
        "below": low < target.min_code,
        "largest": (low <= target.max_code) & (high >= target.max_code),
        "smallest": (low <= target.min_code) & (high >= target.min_code),
    }


class _Archive:
    """The first events that reach each target, and for each element the events nearest to its ends."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes = [node for node in program.nodes[1:] if not _exact_type(program, node)]
        self.kept: dict[tuple[str, str, int], list[Inputs]] = {}
        self.ends: dict[tuple[str, int, bool], tuple[int, Inputs]] = {}

    def look(self, inputs: Inputs) -> None:
        """Keep what these events reach."""
        if not len(inputs):
            return
        values = self.program.evaluate(inputs)
        for node in self.nodes:
            exact, fraction = exact_values(self.program, node, values)
            for kind, hits in cast_events(node.type, exact, fraction).items():
                for element in np.flatnonzero(hits.any(axis=0)).tolist():
                    kept = self.kept.setdefault((node.name, kind, element), [])
                    if len(kept) < KEEP:
                        rows = np.flatnonzero(hits[:, element])[: KEEP - len(kept)]
                        kept += [inputs[row] for row in rows]
            for element in range(node.size):
                ends = exact[:, element]
                for upward, row in ((True, int(ends.argmax())), (False, int(ends.argmin()))):
                    value = int(ends[row])
                    known = self.ends.get((node.name, element, upward))
                    if known is None or ((value > known[0]) == upward and value != known[0]):
                        self.ends[node.name, element, upward] = (value, inputs[row])

    def open_ends(self) -> list[tuple[str, int, bool]]:
        """Overflows that the intervals allow and no event has reached: node, element, and whether upwards."""
        result = []
        for node in self.nodes:
            sources = [self.program.intervals[name] for name in node.inputs]
            possible = _possible(node.type, node.exact_interval(*sources))
            for kind in ("above", "below"):
                for i in np.flatnonzero(possible[kind]):
                    if (node.name, kind, int(i)) not in self.kept:
                        result.append((node.name, int(i), kind == "above"))
        return result

    def targets(self, *, most: int = 160) -> list[Target]:
        """Where slopes are followed: both ends of the score, and the overflows that no event has reached."""
        score = [Target(self.program.score, 0, upward) for upward in (True, False)]
        rest = [Target(*end) for end in self.open_ends() if end[0] != self.program.score]
        return [*score, *rest[:most]]

    def events(self) -> Inputs:
        """What was kept."""
        rows = [row for kept in self.kept.values() for row in kept] + [row for _, row in self.ends.values()]
        return np.unique(np.array(rows), axis=0) if rows else np.empty((0, self.program.nodes[0].size), dtype=np.int64)

    def coverage(self) -> tuple[Coverage, ...]:
        """What was reached, against what the intervals allow."""
        result = []
        for node in self.nodes:
            sources = [self.program.intervals[name] for name in node.inputs]
            for kind, possible in _possible(node.type, node.exact_interval(*sources)).items():
                reached = np.array([(node.name, kind, i) in self.kept for i in range(node.size)])
                if (possible | reached).any():
                    result.append(Coverage(node.name, kind, int(reached.sum()), int((possible | reached).sum())))
        return tuple(result)


def _exact_type(program: Program, node: Node) -> bool:
    """Whether the cast of a node can do nothing."""
    exact = node.exact_interval(*(program.intervals[name] for name in node.inputs))
    return exact.fraction <= node.type.fraction and node.type.holds(
        *(int(end) << (node.type.fraction - exact.fraction) for end in exact.span)
    )


def _mutate(
    parents: Inputs, pool: Inputs, low: Codes, high: Codes, rng: np.random.Generator, n: int
) -> npt.NDArray[np.int64]:
    """Events near those that were kept: some features taken from others, some random, some one code further."""
    base = parents[rng.integers(len(parents), size=n)].copy()
    rate = rng.choice([0.02, 0.1, 0.4], size=(n, 1))
    draw = rng.random(base.shape)
    other = np.concatenate([parents, pool])[rng.integers(len(parents) + len(pool), size=n)]
    base = np.where(draw < rate, other, base)
    kind: npt.NDArray[Any] = rng.random(base.shape)
    base = np.where(kind < rate / 4, rng.integers(low, high + 1, size=base.shape), base)
    base = np.where(kind > 1 - rate / 2, base + rng.integers(-2, 3, size=base.shape), base)
    return np.clip(base, low, high)
