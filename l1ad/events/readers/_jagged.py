"""From lists of objects of any length to the fixed slots of a layout, without a loop over events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.layout import ObjectLayout, Word

IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Jagged:
    """Lists of numbers, one list an event: list ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    Attributes
    ----------
    offsets : int64 (N + 1,), starting at 0.
    values : (total,), all lists one after the other.
    """

    offsets: npt.NDArray[np.int64]
    values: npt.NDArray[Any]

    @classmethod
    def from_slice(cls, offsets: npt.NDArray[Any], values: npt.NDArray[Any]) -> Jagged:
        """Lists given as a window into longer arrays: offsets need not start at 0."""
        first, last = int(offsets[0]), int(offsets[-1])
        return cls(offsets.astype(np.int64) - first, values[first:last])

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Length of each list, (N,)."""
        return np.diff(self.offsets)


def select(lists: Sequence[Jagged], mask: npt.NDArray[np.bool_]) -> list[Jagged]:
    """Lists of the same objects without the objects whose mask (total,) is False."""
    if mask.all():
        return list(lists)
    kept = np.flatnonzero(mask)
    offsets = np.searchsorted(kept, lists[0].offsets)
    return [Jagged(offsets, part.values[kept]) for part in lists]


@dataclass(frozen=True)
class FillCounts:
    """What `fill_group` could not take as it was.

    Attributes
    ----------
    surplus : objects beyond the last slot, left out.
    clipped : objects whose magnitude exceeds its word, set to the saturation code.
    unsorted : (N,) events whose objects had to be put in order.
    """

    surplus: int
    clipped: int
    unsorted: npt.NDArray[np.bool_]


def same_lengths(lists: Sequence[Jagged], names: Sequence[str], where: str) -> None:
    """Check that lists of the same objects have the same lengths.

    Raises
    ------
    InputError
        Naming the first that differs.
    """
    for other, name in zip(lists[1:], names[1:]):
        if not np.array_equal(other.offsets, lists[0].offsets):
            found, expected = len(other.values), len(lists[0].values)
            raise InputError(where, name, f"{found} entries", f"the same lists as {names[0]} ({expected} entries)")


def check_codes(codes: npt.NDArray[Any], word: Word, *, where: str, field: str) -> tuple[IntArray, int]:
    """Codes that fit `word`: magnitudes above it become the saturation code and are counted.

    Raises
    ------
    InputError
        If the codes are not integers, a magnitude is negative, or another code lies outside its word.
    """
    if not np.issubdtype(codes.dtype, np.integer):
        raise InputError(where, field, f"values of type {codes.dtype}", "integers")
    if not codes.size:
        return codes, 0
    low, high = int(codes.min()), int(codes.max())
    if low < word.code_min or (high > word.code_max and word.kind != "magnitude"):
        found = low if low < word.code_min else high
        raise InputError(where, field, found, f"{word.code_min} to {word.code_max}")
    if high > word.code_max:
        return np.minimum(codes, word.code_max), int((codes > word.code_max).sum())
    return codes, 0


def physical_codes(values: npt.NDArray[Any], word: Word, *, where: str, field: str) -> tuple[IntArray, int]:
    """GeV, pseudorapidity or radians put onto the grid of `word`, and the number that saturates there.

    Raises
    ------
    InputError
        If a value is NaN or infinite, a magnitude is negative, or another value lies outside its word.
    """
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError(where, field, f"values of type {values.dtype}", "floating point numbers")
    clipped = 0
    if word.kind == "magnitude" and values.size:
        clipped = int((np.rint(values / word.lsb) > word.word_max).sum())
    try:
        return word.to_hardware(values), clipped
    except InputError as error:
        raise InputError(where, field, error.found, error.expected) from None


def fill_group(
    hw: npt.NDArray[np.int16],
    layout: ObjectLayout,
    group: str,
    offsets: npt.NDArray[np.int64],
    codes: Sequence[IntArray],
    *,
    where: str,
    fields: Sequence[str],
) -> FillCounts:
    """Write lists of objects into the slots of one object type: falling pt, the leading ones, the rest counted.

    Parameters
    ----------
    hw : int16 (N, slots, features), written in place; the slots of `group` must be zero.
    layout, group : where the objects belong.
    offsets : (N + 1,) as in `Jagged`.
    codes : one array (total,) a feature.
    where, fields : the file and the name of each feature in it, for messages.

    Raises
    ------
    InputError
        As `check_codes`.
    """
    members = layout.group(group)
    first = layout.slices[group].start
    n_events = len(offsets) - 1
    n_slots = layout.n_objects
    clipped = 0
    checked: list[IntArray] = []
    for values, word, field in zip(codes, members.words, fields):
        fitting, n_clipped = check_codes(values, word, where=where, field=field)
        checked.append(fitting.astype(np.int16, copy=False))
        clipped += n_clipped
    unsorted = np.zeros(n_events, dtype=bool)
    total = len(checked[0])
    if not total:
        return FillCounts(0, clipped, unsorted)
    counts = np.diff(offsets)
    pt = checked[0]
    begins = np.zeros(total + 1, dtype=bool)
    begins[offsets] = True
    rising = (pt[1:] > pt[:-1]) & ~begins[1:-1]
    if rising.any():
        late = np.flatnonzero(rising) + 1
        unsorted[np.searchsorted(offsets, late, side="right") - 1] = True
        # Order only the events that need it; objects of equal pt keep theirs.
        rows = np.repeat(np.arange(n_events), counts)
        touched = np.flatnonzero(unsorted[rows])
        order = touched[np.lexsort((touched, -pt[touched].astype(np.int32), rows[touched]))]
        checked = [values.copy() for values in checked]
        for values in checked:
            values[touched] = values[order]
    # Object j of event i goes to slot `first + j` of row i; in the flat array that is one addition an object.
    targets = np.arange(total) + np.repeat(np.arange(n_events) * n_slots + first - offsets[:-1], counts)
    surplus = 0
    if counts.max() > members.count:
        inside = np.arange(total) < np.repeat(offsets[:-1] + members.count, counts)
        surplus = int(total - np.count_nonzero(inside))
        targets = targets[inside]
        checked = [values[inside] for values in checked]
    flat = hw.reshape(n_events * n_slots, layout.n_features)
    for feature, values in enumerate(checked):
        flat[targets, feature] = values
    return FillCounts(surplus, clipped, unsorted)


def fill_met(
    hw: npt.NDArray[np.int16], layout: ObjectLayout, codes: Sequence[IntArray], *, where: str, fields: Sequence[str]
) -> int:
    """Write magnitude and angle (N,) of ETmiss into its slot; how many saturated on the way.

    Raises
    ------
    InputError
        As `check_codes`.
    """
    words = layout.group("met").words
    slot = layout.slices["met"].start
    clipped = 0
    for values, feature, field in zip(codes, (0, 2), fields):
        fitting, n_clipped = check_codes(values, words[feature], where=where, field=f"{field} of ETmiss")
        hw[:, slot, feature] = fitting
        clipped += n_clipped
    return clipped


def one_per_event(lists: Jagged, *, where: str, field: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The single number of each event and whether there was one (0 where there was none).

    Raises
    ------
    InputError
        If an event has more than one.
    """
    n_events = len(lists.offsets) - 1
    if np.array_equal(lists.offsets, np.arange(n_events + 1)):
        return lists.values, np.ones(n_events, dtype=bool)
    counts = lists.counts
    if counts.max() > 1:
        raise InputError(where, field, f"{int(counts.max())} entries in one event", "one entry an event")
    present = counts == 1
    result = np.zeros(len(counts), dtype=lists.values.dtype)
    result[present] = lists.values
    return result, present


class SumLists:
    """Where each energy sum of each event is, in lists that hold sums of all kinds and crossings.

    Parameters
    ----------
    kinds : numbers of `names` (the sum's type).
    crossing : crossing of each sum, of which 0 is wanted; None if all belong to it.
    names : name of each type, in the order of the numbers.
    where : what messages call the file.
    """

    def __init__(self, kinds: Jagged, crossing: Jagged | None, names: Sequence[str], *, where: str) -> None:
        self._names, self._where = names, where
        self._kinds, self._crossing = kinds, crossing
        self._n = len(kinds.offsets) - 1
        # Nearly always each event has the same sums in the same order: then one column of a table is the answer.
        self._row: tuple[npt.NDArray[Any], npt.NDArray[np.bool_]] | None = None
        width = int(kinds.offsets[1]) if self._n else 0
        if width and np.array_equal(kinds.offsets, np.arange(self._n + 1) * width):
            types = kinds.values.reshape(self._n, width)
            times = np.zeros_like(types) if crossing is None else crossing.values.reshape(self._n, width)
            if (types == types[0]).all() and (times == times[0]).all():
                self._row = types[0], times[0] == 0

    def pick(self, name: str, *values: Jagged) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.bool_]]:
        """Numbers (N,) of the sum called `name`, one array for each of `values`, and whether an event has it.

        Raises
        ------
        InputError
            If an event has it twice.
        """
        code = self._names.index(name)
        if self._row is not None:
            types, now = self._row
            columns = np.flatnonzero((types == code) & now)
            if len(columns) > 1:
                self._twice(code)
            if len(columns) == 1:
                width = len(types)
                picked = [part.values.reshape(self._n, width)[:, columns[0]] for part in values]
                return picked, np.ones(self._n, dtype=bool)
            return [np.zeros(self._n, dtype=part.values.dtype) for part in values], np.zeros(self._n, dtype=bool)
        mask = self._kinds.values == code
        if self._crossing is not None:
            mask &= self._crossing.values == 0
        places = np.flatnonzero(mask)
        rows = np.searchsorted(self._kinds.offsets, places, side="right") - 1
        if len(rows) > 1 and not np.diff(rows).all():
            self._twice(code)
        present = np.zeros(self._n, dtype=bool)
        present[rows] = True
        result = []
        for part in values:
            numbers = np.zeros(self._n, dtype=part.values.dtype)
            numbers[rows] = part.values[places]
            result.append(numbers)
        return result, present

    def _twice(self, code: int) -> None:
        raise InputError(
            self._where, f"sum of type {code} ({self._names[code]})", "twice in one event", "once an event"
        )
