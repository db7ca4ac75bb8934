"""The scores that need no network: what every learned score is shown against.

`BASELINES` names the scalars; `isolation_forest` is the usual off-the-shelf detector; the strongest one, the joint tail
score, is a trigger of its own in `l1ad.trigger.tail`. `all_baselines` has them all, fitted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import require
from l1ad.events.store import Events
from l1ad.events.sums import ht_codes
from l1ad.trigger.program import Trigger
from l1ad.trigger.tail import JointTail

FloatArray = npt.NDArray[np.float64]


def ht(events: Events) -> FloatArray:
    """Scalar sum of jet pt in GeV: the column ``ht`` (hardware codes) where the data has it, else from the jets.

    >>> hw = np.zeros((1, 19, 3), int)
    >>> hw[0, 9] = 80, 10, 0
    >>> hw[0, 10] = 40, 0, 0
    >>> float(ht(Events.from_arrays(hw))[0])  # the second jet has 20 GeV
    40.0
    """
    return np.asarray(ht_codes(events)[0] * events.layout.group("jet").words[0].lsb, dtype=np.float64)


def met(events: Events) -> FloatArray:
    """Missing transverse momentum in GeV.

    >>> hw = np.zeros((1, 19, 3), int)
    >>> hw[0, 0, 0] = 41
    >>> float(met(Events.from_arrays(hw))[0])
    20.5
    """
    return np.asarray(events.objects("met")[:, 0, 0] * events.layout.group("met").words[0].lsb, dtype=np.float64)


def sum_pt(events: Events) -> FloatArray:
    """Sum of the first feature of all slots (GeV).

    >>> hw = np.zeros((1, 19, 3), int)
    >>> hw[0, :2, 0] = 10, 4
    >>> float(sum_pt(Events.from_arrays(hw))[0])
    7.0
    """
    return np.asarray((events.hw[:, :, 0] * events.layout.lsb[:, 0]).sum(axis=1))


def n_objects(events: Events) -> FloatArray:
    """Number of slots that are not empty.

    >>> hw = np.zeros((1, 19, 3), int)
    >>> hw[0, :3, 0] = 1
    >>> float(n_objects(Events.from_arrays(hw))[0])
    3.0
    """
    return np.asarray((events.hw[:, :, 0] > 0).sum(axis=1), dtype=np.float64)


#: Scalars by name.
BASELINES: Mapping[str, Callable[[Events], FloatArray]] = {
    "ht": ht,
    "met": met,
    "sum_pt": sum_pt,
    "n_objects": n_objects,
}
#: The object type that a scalar cannot do without.
_NEEDS = {"ht": "jet", "met": "met"}


def scaled_norm(events: Events, trigger: Trigger) -> FloatArray:
    """Squared norm of the scaled inputs of `trigger`: what is left of a network if its layers are taken away.

    Raises
    ------
    TriggerError
        If the events are not of the trigger's layout.
    """
    node = next(node for node in trigger.program.nodes if node.op == "scale")
    result = np.empty(len(events))
    for start in range(0, len(events), 16384):
        part = events[start : start + 16384]
        values = node.type.to_float(trigger.trace(part)[node.name])
        result[start : start + len(part)] = (values**2).sum(axis=1)
    return result


def fit_isolation_forest(train: Events, *, seed: int = 1, n_estimators: int = 100) -> Callable[[Events], FloatArray]:
    """Anomaly score of an isolation forest on log(1 + pt), eta and phi in codes (Liu, Ting, Zhou, ICDM 2008).

    Raises
    ------
    MissingToolError
        If scikit-learn is not installed.
    """
    require("sklearn", "search")
    from sklearn.ensemble import IsolationForest

    def features(sample: Events) -> FloatArray:
        values = sample.hw.astype(np.float64)
        values[:, :, 0] = np.log1p(values[:, :, 0])
        return values.reshape(len(sample), -1)

    forest = IsolationForest(n_estimators=n_estimators, random_state=seed)
    forest.fit(features(train), sample_weight=train.weight)
    return lambda events: -np.asarray(forest.score_samples(features(events)))


def isolation_forest(train: Events, events: Events, *, seed: int = 1, n_estimators: int = 100) -> FloatArray:
    """`fit_isolation_forest` on `train`, applied to `events`."""
    return fit_isolation_forest(train, seed=seed, n_estimators=n_estimators)(events)


def all_baselines(train: Events, triggers: Sequence[Trigger] = ()) -> dict[str, Callable[[Events], npt.NDArray[Any]]]:
    """Every baseline that the layout of `train` allows, by name: functions of events.

    `train` is the zero bias that the joint tail score and the isolation forest learn from; of each different input
    scaling among `triggers` the norm of the scaled inputs is one more.

    Raises
    ------
    MissingToolError
        If scikit-learn is not installed.
    """
    groups = {group.name for group in train.layout.groups}
    result: dict[str, Callable[[Events], npt.NDArray[Any]]] = {
        name: function for name, function in BASELINES.items() if _NEEDS.get(name, "") in {"", *groups}
    }
    seen: set[str] = set()
    for trigger in triggers:
        scales = [node for node in trigger.program.nodes if node.op == "scale"]
        if not scales:
            continue
        digest = json.dumps(scales[0].to_json())
        if digest not in seen:
            seen.add(digest)
            name = "input norm" if len(seen) == 1 else f"input norm {trigger.name}"
            result[name] = partial(scaled_norm, trigger=trigger)
    result["isolation forest"] = fit_isolation_forest(train)
    result["joint tail"] = JointTail.fit(train).trigger().score
    return result
