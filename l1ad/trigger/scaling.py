"""Fitting the input scaling to data: offsets and shifts from percentiles, and what they cut off.

`CodeCounts` collects the distribution of every input word in one pass over any number of events; `fit_scaling` turns it
into a `Scaling`; `check_scaling` reports what is lost on the way into the network's input type.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.layout import ObjectLayout
from l1ad.io import read_json, write_json
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.layers import OFFSET_TYPE, UGT_WORD, Scaling, input_multiplier
from l1ad.trigger.nodes import Scale

FloatArray = npt.NDArray[np.float64]

SCALING_VERSION = 1


@dataclass
class CodeCounts:
    """Weighted counts of every code of every input, filled piece by piece.

    Attributes
    ----------
    layout : of the events.
    tables : one array an input, counts from the smallest code of its word on.
    n_events : events that were added.
    """

    layout: ObjectLayout
    tables: list[FloatArray] = field(default_factory=list)
    entries: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_events: int = 0

    def __post_init__(self) -> None:
        if not self.tables:
            self.tables = [np.zeros(w.word_max - w.word_min + 1) for w in self.layout.input_words]
            self.entries = np.zeros(self.layout.n_inputs, dtype=np.int64)

    def add(self, inputs: npt.NDArray[np.int16], weight: FloatArray | None = None) -> None:
        """Add events: hardware codes (N, inputs) and their weights (N,)."""
        self.n_events += len(inputs)
        self.entries += np.count_nonzero(inputs, axis=0)
        for i, word in enumerate(self.layout.input_words):
            codes = inputs[:, i].astype(np.int64) - word.word_min
            self.tables[i] += np.bincount(codes, weights=weight, minlength=len(self.tables[i]))

    def percentiles(self, index: int, percent: Sequence[float]) -> FloatArray:
        """Percentiles of the non-zero codes of one input.

        The inverse of the (weighted) empirical distribution: the smallest code at which it reaches the percentage;
        with unit weights ``numpy.percentile(..., method="inverted_cdf")``.
        """
        word = self.layout.input_words[index]
        counts = self.tables[index].copy()
        counts[-word.word_min] = 0.0
        cumulative = np.cumsum(counts)
        wanted = np.asarray(percent, dtype=np.float64) / 100.0 * cumulative[-1]
        # A percentile of 0 is the smallest code that occurs at all.
        wanted = np.maximum(wanted, np.nextafter(0.0, 1.0))
        # One rounding of the sum must not push a percentile over the edge of a code.
        positions = np.searchsorted(cumulative, wanted * (1 - 1e-12), side="left")
        return np.asarray(positions + word.word_min, dtype=np.float64)


@dataclass(frozen=True)
class ScalingFit:
    """A scaling and how it came about.

    Attributes
    ----------
    scaling : the result.
    borrowed : names of inputs with too few entries, and the input whose scaling they take.
    constant : names of inputs that can only be zero.
    limited : names of inputs whose offset lies beyond its type, and that offset; the end of the type is taken.
    """

    scaling: Scaling
    borrowed: tuple[tuple[str, str], ...] = ()
    constant: tuple[str, ...] = ()
    limited: tuple[tuple[str, float], ...] = ()


def fit_scaling(
    counts: CodeCounts,
    *,
    percentiles: tuple[float, float] = (5.0, 95.0),
    span: float = 4.0,
    min_entries: int = 20,
    offset_type: FixedType = OFFSET_TYPE,
    word: FixedType = UGT_WORD,
    where: str = "scaling",
) -> ScalingFit:
    """Offsets and power-of-two shifts that map two percentiles of the non-zero entries to about -span/2 and span/2.

    ``2**shift`` is ``(p95 - p5) / span`` rounded up to a power of two, the offset ``round((p5 + p95) / 2)``, with pt in
    GeV and the rest in hardware codes (the recipe of the AXOL1TL training, l1-facts section 2). An offset beyond its
    type becomes the end of the type: the ap_fixed<10,9> of AXOL1TL v1 and v3 ends below the middle of a muon's phi.

    Raises
    ------
    InputError
        If an input has no variance in any slot of its object type: a dead feature cannot be scaled.
    """
    layout = counts.layout
    unit = input_multiplier(layout, word) * word.lsb
    offset = np.zeros(layout.n_inputs)
    shift = np.zeros(layout.n_inputs, dtype=np.int64)
    borrowed: list[tuple[str, str]] = []
    constant: list[str] = []
    limited: list[tuple[str, float]] = []
    lowest, highest = (float(np.trunc(code * offset_type.lsb)) for code in (offset_type.min_code, offset_type.max_code))
    previous: dict[tuple[str, str], int] = {}
    groups = [name.rstrip("0123456789") for name in layout.slot_names for _ in range(layout.n_features)]
    flat_groups = [groups[i] for i in layout.input_index]
    pending: list[int] = []
    for i, (name, w) in enumerate(zip(layout.input_names, layout.input_words)):
        if not w.bits:
            constant.append(name)
            continue
        if counts.entries[i] >= min_entries:
            low, high = counts.percentiles(i, percentiles) * unit[i]
            if high > low:
                shift[i] = int(np.ceil(np.log2((high - low) / span)))
                middle = float(round((low + high) / 2))
                offset[i] = min(max(middle, lowest), highest)
                if offset[i] != middle:
                    limited.append((name, middle))
                previous[flat_groups[i], w.name] = i
                continue
        pending.append(i)
    for i in pending:
        source = previous.get((flat_groups[i], layout.input_words[i].name))
        if source is None:
            found = f"{counts.entries[i]} non-zero entries without variance in {counts.n_events} events"
            raise InputError(where, layout.input_names[i], found, "a feature that varies")
        offset[i], shift[i] = offset[source], shift[source]
        borrowed.append((layout.input_names[i], layout.input_names[source]))
    scaling = Scaling(offset, shift, offset_type, word)
    scaling.check(layout.n_inputs)
    return ScalingFit(scaling, tuple(borrowed), tuple(constant), tuple(limited))


def scale_node(scaling: Scaling, layout: ObjectLayout, type: FixedType) -> Scale:
    """The node that scales hardware codes as the trigger will."""
    scaling.check(layout.n_inputs)
    return Scale(
        "scale",
        ("input",),
        type,
        input_multiplier(layout, scaling.word),
        scaling.word.quantize(scaling.stored_offset()),
        scaling.shift,
        scaling.word,
    )


@dataclass(frozen=True)
class ScalingLoss:
    """What one input loses.

    Attributes
    ----------
    name : of the input.
    offset, stored_offset : as fitted, and as the offset type holds it.
    shift : bits to the right.
    clipped : fraction of the non-zero entries beyond the range of the input type.
    wraps : whether some code of the word would wrap in the subtraction or in a left shift.
    """

    name: str
    offset: float
    stored_offset: float
    shift: int
    clipped: float
    wraps: bool


def scaling_report(scaling: Scaling, counts: CodeCounts, input_type: FixedType) -> tuple[ScalingLoss, ...]:
    """What each input loses in its offset, by clipping and by wrapping."""
    layout = counts.layout
    node = scale_node(scaling, layout, input_type)
    stored = scaling.stored_offset()
    rows = []
    for i, (name, w) in enumerate(zip(layout.input_names, layout.input_words)):
        codes = np.arange(w.word_min, w.word_max + 1, dtype=np.int64)
        difference = codes * node.multiplier[i] - node.offset[i]
        exact = difference << max(-scaling.shift[i], 0)
        wraps = bool((scaling.word.fit(exact) != exact).any() or (scaling.word.fit(difference) != difference).any())
        rounded = input_type.round(exact >> max(scaling.shift[i], 0), scaling.word.fraction)
        outside = (rounded < input_type.min_code) | (rounded > input_type.max_code)
        table = np.where(codes == 0, 0.0, counts.tables[i])
        total = table.sum()
        clipped = float(table[outside].sum() / total) if total else 0.0
        rows.append(
            ScalingLoss(name, float(scaling.offset[i]), float(stored[i]), int(scaling.shift[i]), clipped, wraps)
        )
    return tuple(rows)


def write_scaling(path: str | os.PathLike[str], fit: ScalingFit, counts: CodeCounts, input_type: FixedType) -> None:
    """Write ``scaling.json``."""
    scaling = fit.scaling
    rows = scaling_report(scaling, counts, input_type)
    value = {
        "format": "l1ad-scaling",
        "format_version": SCALING_VERSION,
        "layout": counts.layout.name,
        "offset": scaling.offset.tolist(),
        "shift": scaling.shift.tolist(),
        "offset_type": str(scaling.offset_type),
        "word": str(scaling.word),
        "borrowed": [list(pair) for pair in fit.borrowed],
        "inputs": [
            {"name": row.name, "stored_offset": row.stored_offset, "clipped_fraction": row.clipped} for row in rows
        ],
    }
    write_json(path, value)


def read_scaling(path: str | os.PathLike[str]) -> tuple[Scaling, str]:
    """The scaling of a run and the name of its layout.

    Raises
    ------
    InputError
        If the file is not of this format and version.
    """
    value = read_json(path)
    found = value.get("format") if isinstance(value, dict) else type(value).__name__
    if found != "l1ad-scaling":
        raise InputError(os.fspath(path), "format", found, "l1ad-scaling")
    if value.get("format_version") != SCALING_VERSION:
        raise InputError(os.fspath(path), "format_version", value.get("format_version"), SCALING_VERSION)
    fields = ("offset", "shift", "offset_type", "word")
    missing = [name for name in (*fields, "layout") if name not in value]
    if missing:
        raise InputError(os.fspath(path), missing[0], "nothing", "a value")
    return Scaling.of({name: value[name] for name in fields}), str(value["layout"])
