"""A check that cannot fail is no check: whether the events of a validation catch each of many small changes.

`l1ad.validate.mutants` lists the changes, `run` scores each on the events. One that no event catches must be proven to
change nothing (`l1ad.validate.equivalence`), or an event be found that does (`l1ad.validate.hunt`), or the check has a
hole. A width that is narrowed by one bit where no crossing is known to use it, and no proof ended, is narrowed further,
until one does: what is asked is whether the check sees a word that is too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import Codes
from l1ad.trigger.graph import Program
from l1ad.validate.equivalence import Prover
from l1ad.validate.hunt import hunt
from l1ad.validate.mutants import Mutation, changed_values, narrower

#: Time for proofs by integer programming: the sum of eight squares of a quickstart takes a minute of one core.
PROOF_SECONDS = 240.0
_CHUNK = 16384


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation.

    Attributes
    ----------
    kind, what, node : of the mutation.
    caught : whether an event saw it.
    event : the first that did.
    events : with another score, among those compared.
    equivalent : proven to change no score for any input.
    undecided : neither: no event known changes a code of the node itself, and no proof ended in its time.
    reason : the proof, or how it was caught.
    """

    kind: str
    what: str
    node: str
    caught: bool
    event: int | None = None
    events: int = 0
    equivalent: bool = False
    undecided: bool = False
    reason: str = ""

    @property
    def missed(self) -> bool:
        """Whether the check has a hole: codes differ, and no score shows it."""
        return not (self.caught or self.equivalent or self.undecided)


def run(
    program: Program,
    inputs: npt.NDArray[np.integer[Any]],
    golden: Codes,
    changes: Sequence[Mutation],
    *,
    seconds: float = PROOF_SECONDS,
    seed: int = 20240501,
) -> list[Outcome]:
    """Whether the events see each mutation; those they do not see are proven equivalent, or reported as missed.

    Parameters
    ----------
    inputs, golden : events (N, inputs) of the validation and their scores (N,).
    seconds : that all proofs by integer programming may take together; a slower machine may leave more undecided.
    seed : of the search for events.
    """
    outcomes: dict[int, Outcome] = {}
    differs: set[int] = set()
    prover = Prover(program, seconds=seconds)
    open_ = dict(enumerate(changes))
    for begin in range(0, len(inputs), _CHUNK):
        values = program.evaluate(np.asarray(inputs[begin : begin + _CHUNK]))
        for i, change in list(open_.items()):
            fresh = changed_values(change, values)
            scores = fresh.get(program.score, values[program.score])[:, 0]
            wrong = np.flatnonzero(scores != golden[begin : begin + _CHUNK])
            if (fresh[change.node] != values[change.node]).any():
                differs.add(i)
            if len(wrong):
                outcomes[i] = Outcome(change.kind, change.what, change.node, True, begin + int(wrong[0]), len(wrong))
            elif not begin:
                # What is proven at once needs no million of events.
                outcome = _quick_proof(prover, change)
                if outcome is not None:
                    outcomes[i] = outcome
            if i in outcomes:
                del open_[i]
        if not open_:
            break
    known, rng = np.asarray(inputs[:_CHUNK]), np.random.default_rng(seed)
    for i, change in open_.items():
        outcomes[i] = _settle(prover, change, known, rng, differs=i in differs)
    return [outcomes[i] for i in sorted(outcomes)]


def _quick_proof(prover: Prover, change: Mutation) -> Outcome | None:
    reason = prover.reason(change, levels=("", "linear programming"))
    return Outcome(change.kind, change.what, change.node, False, equivalent=True, reason=reason) if reason else None


def _settle(
    prover: Prover,
    change: Mutation,
    known: npt.NDArray[np.integer[Any]],
    rng: np.random.Generator,
    *,
    differs: bool,
) -> Outcome:
    """What a mutation is that the events did not see and no quick proof explains.

    Parameters
    ----------
    known : events (N, inputs) from which an event for it is searched.
    differs : whether an event changed a code of the node itself.
    """
    result = Outcome(change.kind, change.what, change.node, caught=False)
    if hunt(prover.program, change, known, rng) is not None:
        return replace(result, caught=True, events=1, reason="caught by an event made for it")
    reason = prover.reason(change, levels=("reach",))
    if reason:
        return replace(result, equivalent=True, reason=reason)
    values = prover.program.evaluate(known)
    score = values[prover.program.score]
    for less in narrower(prover.program, change):
        wrong = np.flatnonzero((changed_values(less, values).get(prover.program.score, score) != score)[:, 0])
        if len(wrong):
            reason = "one bit less is not told apart by any crossing known"
            return replace(result, what=less.what, caught=True, event=int(wrong[0]), events=len(wrong), reason=reason)
    reason = prover.reason(change, levels=("integer programming",))
    if reason:
        return replace(result, equivalent=True, reason=reason)
    reason = "" if differs else "no crossing known changes a code of this node, and no proof ended in its time"
    return replace(result, undecided=not differs, reason=reason)
