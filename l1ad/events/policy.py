"""What happens to objects that do not fit as they are: saturated, unsorted, too many.

Nothing here is silent: each function returns what it did as counts, which `Events` carries in ``meta["counts"]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from l1ad.errors import LayoutError
from l1ad.events.layout import ObjectLayout

SaturationPolicy = Literal["keep", "mask", "drop"]
Counts = dict[str, int]


def check_saturation_policy(policy: str) -> SaturationPolicy:
    """The policy itself.

    Raises
    ------
    LayoutError
        If it is none of keep, mask and drop.
    """
    if policy not in get_args(SaturationPolicy):
        raise LayoutError("saturation", "policy", policy, "keep, mask or drop")
    return policy  # type: ignore[return-value]


def sort_objects(hw: npt.NDArray[np.int16], layout: ObjectLayout) -> tuple[npt.NDArray[np.int16], int]:
    """Order the objects of each type by falling first feature, (N, slots, features).

    Objects of equal pt keep their order. Returns the sorted codes (the input itself if nothing was out of order) and
    the number of events in which something had to move.
    """
    moved = np.zeros(len(hw), dtype=bool)
    result = hw
    for group in layout.groups:
        if group.count < 2 or group.name == "region":
            continue
        part = hw[:, layout.slices[group.name]]
        # Slot by slot: each comparison then runs through memory of one slot, not over all words of all events.
        first = np.ascontiguousarray(part[:, :, 0].T)
        unsorted = (first[1:] > first[:-1]).any(axis=0)
        if not unsorted.any():
            continue
        if result is hw:
            result = hw.copy()
        rows = part[unsorted]
        order = np.argsort(-rows[:, :, 0].astype(np.int32), axis=1, kind="stable")
        result[unsorted, layout.slices[group.name]] = np.take_along_axis(rows, order[:, :, None], axis=1)
        moved |= unsorted
    return result, int(moved.sum())


def apply_saturation(
    hw: npt.NDArray[np.int16], layout: ObjectLayout, policy: SaturationPolicy
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_], Counts]:
    """Keep, mask or drop what carries a saturation code.

    ``keep`` leaves the codes, as the firmware does. ``mask`` sets all features of a saturated object to zero and drops
    the events whose ETmiss (a group called ``met``) saturates, as the published training does (l1-facts, section 1).
    ``drop`` drops every event with a saturated object.

    Returns
    -------
    hw : (N, slots, features), of all events, masked where the policy says so.
    keep : (N,) events that stay.
    counts : ``saturated_objects`` and ``dropped_events``.
    """
    saturated = layout.saturated(hw)
    counts = {"saturated_objects": int(saturated.sum()), "dropped_events": 0}
    keep: npt.NDArray[np.bool_] = np.ones(len(hw), dtype=bool)
    if policy == "keep" or not counts["saturated_objects"]:
        return hw, keep, counts
    if policy == "drop":
        keep = np.logical_not(saturated.any(axis=1))
    else:
        if "met" in layout.slices:
            keep = np.logical_not(saturated[:, layout.slices["met"]].any(axis=1))
        hw = np.where(saturated[:, :, None], np.int16(0), hw)
    counts["dropped_events"] = int((~keep).sum())
    return hw, keep, counts


def add_counts(*parts: Mapping[str, Any]) -> Counts:
    """Sum of counts, name by name."""
    total: Counts = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + int(value)
    return total
