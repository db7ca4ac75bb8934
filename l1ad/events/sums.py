"""Sums over the objects of a crossing, defined once for the menu, the baselines and the simulation.

HT is the uGT's HTT: the scalar sum of jets with pt of at least 30 GeV inside |eta| of 2.5.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from l1ad.events.layout import ObjectLayout
from l1ad.events.store import Events

HT_JET_PT_GEV = 30.0
HT_JET_ETA_MAX = 2.5
#: Room for the rounding of a decimal threshold such as 2.5 / 0.0435.
_EPSILON = 1e-9


def code_at_least(value: float, lsb: float) -> int:
    """The smallest code whose physical value is at least `value`.

    >>> code_at_least(30.0, 0.5)
    60
    """
    return math.ceil(value / lsb - _EPSILON)


def code_at_most(value: float, lsb: float) -> int:
    """The largest code whose physical value is at most `value`.

    >>> code_at_most(2.5, 0.0435)
    57
    """
    return math.floor(value / lsb + _EPSILON)


def ht_of_jets(hw: npt.NDArray[np.int16], layout: ObjectLayout) -> npt.NDArray[np.int64]:
    """HT of crossings (N, slots, features) in codes of the jet pt, (N,); only the jets that have a slot count."""
    pt, eta = layout.group("jet").words[:2]
    jets = hw[:, layout.slices["jet"]]
    used = jets[:, :, 0] >= code_at_least(HT_JET_PT_GEV, pt.lsb)
    used &= np.abs(jets[:, :, 1]) <= code_at_most(HT_JET_ETA_MAX, eta.lsb)
    return np.asarray(np.where(used, jets[:, :, 0], 0).sum(axis=1, dtype=np.int64))


def ht_codes(events: Events) -> tuple[npt.NDArray[np.int64], str]:
    """HT in codes of the jet pt, (N,), and in words where it is from: the column ``ht`` of the data, or its jets."""
    column = events.columns.get("ht")
    if column is not None:
        return np.asarray(column, dtype=np.int64), "ht is the column of the data"
    note = f"ht is summed from the jets of the layout with pt >= {HT_JET_PT_GEV:g} GeV and |eta| <= {HT_JET_ETA_MAX:g}"
    return ht_of_jets(events.hw, events.layout), note
