"""The muon momentum word of the Global Trigger, which counts from one.

`hwPt` (`muonIEt`) is 0 where there is no muon, and the momentum of a muon is (hwPt - 1) x 0.5 GeV. Our layouts have no
such offset, so a reader must say which of the two its codes are:

``physical``
    code = hwPt - 1: code x 0.5 GeV is the momentum, as for every other object.
``word``
    code = hwPt: what the Global Trigger hands to an anomaly trigger (the public emulator takes hwPt / 2,
    cmssw L1Trigger/L1TGlobal/src/AXOL1TLCondition.cc). Use it to reproduce the scores of a deployed trigger.

The saturation code stays the saturation code in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

import numpy as np

from l1ad.errors import InputError
from l1ad.events.layout import ObjectLayout
from l1ad.events.readers._jagged import Jagged, select

MuonPt = Literal["physical", "word"]


def check_muon_pt(choice: str) -> MuonPt:
    """The choice itself.

    Raises
    ------
    InputError
        If it is neither physical nor word.
    """
    if choice not in get_args(MuonPt):
        raise InputError("option", "muon_pt", choice, "physical or word")
    return cast(MuonPt, choice)


def muon_codes(
    lists: Sequence[Jagged], layout: ObjectLayout, choice: MuonPt, *, where: str, field: str
) -> list[Jagged]:
    """Muon lists (pt, eta, phi) with the momentum word turned into its code and the empty words (0) left out.

    Raises
    ------
    InputError
        If a word is negative or not an integer.
    """
    word = layout.group("mu").words[0]
    words = lists[0].values
    if not np.issubdtype(words.dtype, np.integer):
        raise InputError(where, field, f"values of type {words.dtype}", "integers")
    if not len(words):
        return list(lists)
    low = int(words.min())
    if low < 0:
        raise InputError(where, field, low, f"{word.code_min} to {word.code_max}")
    if low == 0:
        lists = select(lists, words > 0)
    if choice == "word":
        return list(lists)
    codes = lists[0].values.astype(np.int32)
    return [Jagged(lists[0].offsets, np.where(codes >= word.code_max, codes, codes - 1)), *lists[1:]]


def muon_note(field: str, choice: MuonPt) -> str:
    """What was done with the momentum word, in words."""
    if choice == "word":
        return f"muon pt codes are {field} itself, (code - 1) x 0.5 GeV, as the Global Trigger hands it on"
    return f"muon pt codes are {field} - 1, so that code x 0.5 GeV is the momentum (--muon-pt word keeps {field})"
