"""Every realisation of a trigger against the golden integer program.

What to use when: `validate` for a run folder or a trigger, with its table and ``validation.json``;
`l1ad.validate.adversarial` for the events that hurt; `l1ad.validate.compare` for one realisation of your own;
`l1ad.validate.mutate` to see that the check can fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.backends import Realisation
from l1ad.backends.native import BuildError
from l1ad.errors import InputError, MissingToolError, TriggerError
from l1ad.events.readers import open_events
from l1ad.events.store import Events
from l1ad.io import write_json
from l1ad.trigger.fixed import Codes
from l1ad.trigger.nodes import Input
from l1ad.trigger.program import Trigger
from l1ad.validate.adversarial import Coverage, adversarial_inputs, perturbed, random_codes
from l1ad.validate.compare import Comparison, Divergence, compare, first_divergence
from l1ad.validate.mutants import mutations
from l1ad.validate.mutate import PROOF_SECONDS, Outcome
from l1ad.validate.mutate import run as run_mutations
from l1ad.validate.realisations import REALISATIONS, SLOW, NotApplicable, make

FORMAT = "l1ad-validation"
FORMAT_VERSION = 1
#: Events that are made at a time.
_CHUNK = 1 << 16

EventsLike = Events | npt.NDArray[np.integer[Any]] | str | os.PathLike[str]


@dataclass(frozen=True)
class Validation:
    """What `validate` found.

    Attributes
    ----------
    trigger_name, trigger_hash : of the trigger.
    events : golden scores that were compared with: `given` from the files, `perturbed` from them with features
        exchanged and moved, `adversarial` made from the program, `random` codes over the full words.
    comparisons : one a realisation.
    coverage : what the adversarial events reach.
    mutations : outcomes, or None if none were made.
    """

    trigger_name: str
    trigger_hash: str
    events: int
    given: int
    perturbed: int
    adversarial: int
    random: int
    comparisons: tuple[Comparison, ...]
    coverage: tuple[Coverage, ...]
    mutations: tuple[Outcome, ...] | None

    @property
    def equal(self) -> bool:
        """Whether every realisation that was run gives the golden integer on every event."""
        return all(not row.mismatches for row in self.comparisons)

    @property
    def missed(self) -> tuple[Outcome, ...]:
        """Mutations that change codes and that no event caught."""
        return tuple(row for row in self.mutations or () if row.missed)

    @property
    def passed(self) -> bool:
        """Whether the check says yes: all equal, at least one compared, and no mutation missed."""
        return self.equal and not self.missed and any(row.mismatches is not None for row in self.comparisons)

    @property
    def summary(self) -> str:
        """One line."""
        run = [row for row in self.comparisons if row.mismatches is not None]
        wrong = [row.name for row in run if row.mismatches]
        text = f"{len(run)} of {len(self.comparisons)} realisations on {self.events:,} events: "
        text += f"{', '.join(wrong)} DIFFERENT" if wrong else "all equal" if run else "NOTHING COMPARED"
        if self.mutations is not None:
            caught = sum(row.caught for row in self.mutations)
            same = sum(row.equivalent for row in self.mutations)
            undecided = sum(row.undecided for row in self.mutations)
            text += f"; {caught} of {caught + len(self.missed)} mutations caught, {same} proven equivalent"
            text += f", {undecided} undecided" if undecided else ""
        return text

    def to_json(self) -> dict[str, Any]:
        """``validation.json``."""
        value: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "trigger": self.trigger_name,
            "hash": self.trigger_hash,
            "passed": self.passed,
            "events": {
                "total": self.events,
                "given": self.given,
                "perturbed": self.perturbed,
                "adversarial": self.adversarial,
                "random": self.random,
            },
            "realisations": [row.to_json() for row in self.comparisons],
            "coverage": [asdict(row) for row in self.coverage],
        }
        if self.mutations is not None:
            value["mutations"] = {"rows": [asdict(row) for row in self.mutations], "missed": len(self.missed)}
        return value


def validate(
    target: Trigger | str | os.PathLike[str],
    events: EventsLike | Sequence[EventsLike] | None = None,
    *,
    n: int = 1_000_000,
    n_rtl: int = 200_000,
    realisations: Sequence[str | Realisation] | None = None,
    mutate: bool = False,
    proof_seconds: float = PROOF_SECONDS,
    seed: int = 20240501,
    workers: int | None = None,
    write: bool = True,
    note: Callable[[str], None] = lambda _: None,
    compared: Callable[[Comparison], None] = lambda _: None,
) -> Validation:
    """Compare realisations with the golden program.

    Parameters
    ----------
    target : a run folder, a trigger file or a `Trigger`. A run folder gets ``validation.json``, its projects and its
        trained model are used.
    events : files, `Events` or hardware codes to compare on, besides adversarial ones. What is missing to `n` is half
        made of them, by exchanging and moving features, and half random codes over the full words.
    n : events in all, adversarial ones included; all of those and half of `n` given ones are compared even if that is
        more.
    n_rtl : of them for simulations clock by clock.
    realisations : names of `REALISATIONS`, or objects that score; by default all names.
    mutate : show that the events catch a change of every kind.
    proof_seconds : that proofs of mutations which nothing can catch may take together.
    seed : of the random events.
    workers : processes of those realisations that use several.
    note : is told what is being done.
    compared : is given each row of the table as soon as it is known.

    Raises
    ------
    InputError
        If a file cannot be read, is of another layout, or a name is unknown.
    """
    trigger, run_dir = _target(target)
    program = trigger.program
    first = program.nodes[0]
    assert isinstance(first, Input)
    if n < 1 or n_rtl < 1:
        raise InputError("validate", "events", min(n, n_rtl), "1 or more")
    wanted = list(realisations) if realisations is not None else list(REALISATIONS)
    for item in wanted:
        if isinstance(item, str) and item not in REALISATIONS:
            raise InputError("validate", "realisation", item, ", ".join(REALISATIONS))
    rng = np.random.default_rng(seed)
    note("adversarial events")
    hurt = adversarial_inputs(program, rng)
    # Half of few events are the given ones, too: who names a file wants it compared.
    given = _given(trigger, events, max(n - len(hurt.inputs), n // 2))
    missing = max(n - len(hurt.inputs) - len(given), 0)
    n_near = missing // 2 if len(given) else 0
    n_hurt = len(hurt.inputs)
    # Words fit in 32 bits: half the memory of a million crossings of hundreds of words.
    inputs = np.empty((n_hurt + len(given) + missing, first.size), dtype=np.int32)
    inputs[:n_hurt], inputs[n_hurt : n_hurt + len(given)] = hurt.inputs, given
    for begin in range(n_hurt + len(given), len(inputs), _CHUNK):
        end = min(begin + _CHUNK, len(inputs))
        near = min(max(n_hurt + len(given) + n_near - begin, 0), end - begin)
        inputs[begin : begin + near] = perturbed(given, first.low, first.high, rng, near)
        inputs[begin + near : end] = random_codes(first.low, first.high, rng, end - begin - near)
    # Simulations see the first events: a fair share of each kind.
    inputs[n_hurt:] = inputs[n_hurt:][rng.permutation(len(inputs) - n_hurt)]
    note(f"golden scores of {len(inputs):,} events")
    golden = trigger.score(inputs, golden=True)
    rows = []
    with _scratch() as scratch:
        for item in wanted:
            rows.append(_row(trigger, item, inputs, golden, n_rtl, run_dir, scratch, workers, note))
            compared(rows[-1])
    outcomes = None
    if mutate:
        note("mutations")
        outcomes = tuple(run_mutations(program, inputs, golden, list(mutations(program, rng)), seconds=proof_seconds))
    result = Validation(
        trigger.name,
        trigger.hash,
        len(inputs),
        len(given),
        n_near,
        n_hurt,
        missing - n_near,
        tuple(rows),
        hurt.coverage,
        outcomes,
    )
    if run_dir is not None and write:
        write_json(run_dir / "validation.json", result.to_json())
    return result


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for projects that no run folder holds; it stays if a compile failed, for the message names its log."""
    folder = Path(tempfile.mkdtemp(prefix="l1ad-validate-"))
    try:
        yield folder
    except BuildError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _row(
    trigger: Trigger,
    item: str | Realisation,
    inputs: npt.NDArray[np.integer[Any]],
    golden: Codes,
    n_rtl: int,
    run_dir: Path | None,
    scratch: Path,
    workers: int | None,
    note: Callable[[str], None],
) -> Comparison:
    name = item if isinstance(item, str) else item.name
    note(name)
    try:
        realisation = (
            item
            if not isinstance(item, str)
            else make(item, trigger, run_dir=run_dir, scratch=scratch, workers=workers)
        )
        if realisation.trigger_hash != trigger.hash:
            raise InputError(name, "hash", realisation.trigger_hash[:12], f"{trigger.hash[:12]}: of another trigger")
        limit = n_rtl if isinstance(item, str) and item in SLOW else len(inputs)
        return compare(trigger, realisation, inputs[:limit], golden[:limit])
    except (MissingToolError, NotApplicable, TriggerError) as error:
        return Comparison(name, None, None, reason=f"not run: {error}")


def _target(target: Trigger | str | os.PathLike[str]) -> tuple[Trigger, Path | None]:
    if isinstance(target, Trigger):
        return target, None
    path = Path(target)
    return Trigger.load(path), path if path.is_dir() else None


def _given(trigger: Trigger, events: EventsLike | Sequence[EventsLike] | None, n: int) -> npt.NDArray[np.int64]:
    """Up to n events of the files, in their order."""
    items: Iterable[Any] = () if events is None else events if isinstance(events, (list, tuple)) else (events,)
    parts: list[npt.NDArray[np.int64]] = []
    have = 0
    for item in items:
        for part in _read(item):
            if have >= n:
                break
            rows = np.asarray(trigger.inputs(part), dtype=np.int64)[: n - have]
            _check_words(trigger, rows)
            parts.append(rows)
            have += len(rows)
    return np.concatenate(parts) if parts else np.empty((0, trigger.layout.n_inputs), dtype=np.int64)


def _read(item: EventsLike) -> Iterable[Events | npt.NDArray[np.integer[Any]]]:
    if isinstance(item, (str, os.PathLike)):
        with open_events(item) as source:
            yield from source.chunks()
    else:
        yield item


def _check_words(trigger: Trigger, rows: npt.NDArray[np.int64]) -> None:
    first = trigger.program.nodes[0]
    assert isinstance(first, Input)
    bad = np.argwhere((rows < first.low) | (rows > first.high))
    if len(bad):
        i, j = (int(k) for k in bad[0])
        raise InputError("events", f"input {j} of event {i}", int(rows[i, j]), f"{first.low[j]} to {first.high[j]}")


__all__ = [
    "REALISATIONS",
    "Comparison",
    "Coverage",
    "Divergence",
    "Outcome",
    "Validation",
    "adversarial_inputs",
    "compare",
    "first_divergence",
    "mutations",
    "run_mutations",
    "validate",
]
