"""Object layouts: which objects a trigger sees, in which order, in which integer words.

`get_layout(name)` for one of the shipped layouts, `ObjectLayout` to describe another, `to_physical`/`to_hardware` to go
between codes and GeV, pseudorapidity and radians.

A layout is the only place that knows an LSB, a word width or a saturation code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from l1ad.errors import LayoutError

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]
Kind = Literal["magnitude", "linear", "angle"]

TWO_PI = 2.0 * math.pi


@dataclass(frozen=True)
class Word:
    """One integer word of an object.

    Attributes
    ----------
    name : feature name, such as ``pt``, ``eta``, ``phi`` or ``et``.
    bits : width in bits; 0 for a feature that the object does not have (its code is always 0).
    signed : two's complement if true.
    lsb : physical value of one code, in `unit`.
    unit : ``GeV``, ``rad`` or an empty string (pseudorapidity).
    kind : ``magnitude`` (saturates at its largest code), ``linear`` (pseudorapidity) or ``angle`` (periodic).
    period : number of codes in a full turn, for ``angle`` only; codes from `period` on are not legal.
    """

    name: str
    bits: int
    signed: bool = False
    lsb: float = 1.0
    unit: str = ""
    kind: Kind = "magnitude"
    period: int = 0

    @property
    def word_min(self) -> int:
        """Smallest code that the bits can hold."""
        return -(1 << (self.bits - 1)) if self.signed and self.bits else 0

    @property
    def word_max(self) -> int:
        """Largest code that the bits can hold."""
        if not self.bits:
            return 0
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def code_min(self) -> int:
        """Smallest legal code."""
        return self.word_min

    @property
    def code_max(self) -> int:
        """Largest legal code: the end of the word, or the end of the turn for an angle."""
        return self.period - 1 if self.period else self.word_max

    @property
    def saturation(self) -> int | None:
        """The code that says "this much or more"; None for a feature that does not saturate."""
        return self.word_max if self.kind == "magnitude" and self.bits else None

    def to_physical(self, codes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Codes to physical values, ``code * lsb`` in float64: exact up to one rounding, and inverted by `to_hardware`.

        Raises
        ------
        LayoutError
            If a code is not legal for this word.
        """
        values = np.asarray(codes)
        if values.size:
            low, high = int(values.min()), int(values.max())
            if low < self.code_min or high > self.code_max:
                found = low if low < self.code_min else high
                raise LayoutError("codes", self.name, found, f"{self.code_min} to {self.code_max}")
        return values.astype(np.float64) * self.lsb

    def to_hardware(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Physical values to the nearest code; magnitudes saturate, angles wrap.

        Raises
        ------
        LayoutError
            If a value is NaN or infinite, a magnitude is negative, or a linear value lies outside the word.
        """
        physical = np.asarray(values, dtype=np.float64)
        if physical.size and not np.isfinite(physical).all():
            raise LayoutError("values", self.name, "NaN or infinity", "finite numbers")
        if not self.bits:
            return np.zeros(physical.shape, dtype=np.int64)
        scaled = np.rint(physical / self.lsb)
        if self.kind == "angle":
            return np.asarray(np.mod(scaled, self.period), dtype=np.int64)
        if self.kind == "magnitude":
            if physical.size and physical.min() < 0:
                raise LayoutError("values", self.name, f"{physical.min():g}", "0 or more")
            return np.minimum(scaled, self.word_max).astype(np.int64)
        if physical.size and (scaled.min() < self.word_min or scaled.max() > self.word_max):
            worst = physical.flat[int(np.argmax(np.abs(physical)))]
            limits = f"{self.word_min * self.lsb:g} to {self.word_max * self.lsb:g}"
            raise LayoutError("values", self.name, f"{worst:g}", limits)
        return scaled.astype(np.int64)


#: Events whose words lie side by side in one pass for the extremes: rows long enough for vector instructions.
_SIDE_BY_SIDE = 64


def _extremes(hw: IntArray) -> tuple[IntArray, IntArray]:
    """Smallest and largest code of each word over the events of (N, slots, features), N at least 1."""
    whole = len(hw) - len(hw) % _SIDE_BY_SIDE
    rest = hw[whole:] if whole < len(hw) else hw[-1:]
    low, high = rest.min(axis=0), rest.max(axis=0)
    if whole:
        # numpy reduces rows of 57 words one by one, rows of some thousand ten times as fast
        rows = hw[:whole].reshape(-1, _SIDE_BY_SIDE * low.size)
        shape = (_SIDE_BY_SIDE, *low.shape)
        low = np.minimum(low, rows.min(axis=0).reshape(shape).min(axis=0))
        high = np.maximum(high, rows.max(axis=0).reshape(shape).max(axis=0))
    return low, high


@dataclass(frozen=True)
class ObjectGroup:
    """A run of slots of one object type: its name, how many, and one word a feature.

    ``has_inputs`` says for each feature whether a network sees it (a word of 0 bits may still be an input that is
    always zero, as the pseudorapidity of ETmiss is in the uGT).
    """

    name: str
    count: int
    words: tuple[Word, ...]
    inputs: tuple[bool, ...] = ()

    @property
    def input_flags(self) -> tuple[bool, ...]:
        """Which features are network inputs; all of them unless `inputs` says otherwise."""
        return self.inputs or (True,) * len(self.words)


@dataclass(frozen=True)
class ObjectLayout:
    """The order of objects in a crossing and the words of each.

    Attributes
    ----------
    name : the name under which files carry it.
    groups : object types in slot order.
    source : where the words are documented.
    """

    name: str
    groups: tuple[ObjectGroup, ...]
    source: str = ""

    def __post_init__(self) -> None:
        widths = {len(group.words) for group in self.groups}
        if len(widths) != 1:
            raise LayoutError(self.name, "features", sorted(widths), "the same number for each object")

    @property
    def n_objects(self) -> int:
        """Number of slots."""
        return sum(group.count for group in self.groups)

    @property
    def n_features(self) -> int:
        """Number of features a slot."""
        return len(self.groups[0].words)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one crossing, (slots, features)."""
        return self.n_objects, self.n_features

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Slots of each object type."""
        result, start = {}, 0
        for group in self.groups:
            result[group.name] = slice(start, start + group.count)
            start += group.count
        return result

    @cached_property
    def words(self) -> tuple[tuple[Word, ...], ...]:
        """Words of each slot, (slots)(features)."""
        return tuple(group.words for group in self.groups for _ in range(group.count))

    @cached_property
    def slot_names(self) -> tuple[str, ...]:
        """Name of each slot, such as ``jet3``; the number is left out where there is only one."""
        names = []
        for group in self.groups:
            names += [group.name] if group.count == 1 else [f"{group.name}{i + 1}" for i in range(group.count)]
        return tuple(names)

    @cached_property
    def input_index(self) -> npt.NDArray[np.int64]:
        """Positions of the network inputs in a flattened crossing, in slot order."""
        flags = [flag for group in self.groups for _ in range(group.count) for flag in group.input_flags]
        return np.flatnonzero(flags)

    @property
    def n_inputs(self) -> int:
        """Number of network inputs."""
        return len(self.input_index)

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """Name of each network input, such as ``jet3_eta``."""
        flat = [f"{slot}_{word.name}" for slot, words in zip(self.slot_names, self.words) for word in words]
        return tuple(flat[i] for i in self.input_index)

    @cached_property
    def input_words(self) -> tuple[Word, ...]:
        """Word of each network input."""
        flat = [word for words in self.words for word in words]
        return tuple(flat[i] for i in self.input_index)

    def group(self, name: str) -> ObjectGroup:
        """The group called `name`.

        Raises
        ------
        LayoutError
            If there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        known = ", ".join(group.name for group in self.groups)
        raise LayoutError(self.name, "object", name, f"one of {known}")

    @cached_property
    def code_min(self) -> npt.NDArray[np.int16]:
        """Smallest legal code, (slots, features)."""
        return np.array([[word.code_min for word in words] for words in self.words], dtype=np.int16)

    @cached_property
    def code_max(self) -> npt.NDArray[np.int16]:
        """Largest legal code, (slots, features)."""
        return np.array([[word.code_max for word in words] for words in self.words], dtype=np.int16)

    @cached_property
    def saturation(self) -> npt.NDArray[np.int16]:
        """Saturation code of the first feature of each slot, (slots,)."""
        return np.array([words[0].saturation or 0 for words in self.words], dtype=np.int16)

    @cached_property
    def lsb(self) -> npt.NDArray[np.float64]:
        """Physical value of one code, (slots, features)."""
        return np.array([[word.lsb for word in words] for words in self.words])

    def to_physical(self, hw: IntArray) -> npt.NDArray[np.float64]:
        """Hardware codes (N, slots, features) to GeV, pseudorapidity and radians in [0, 2 pi).

        Raises
        ------
        LayoutError
            If the shape or a code does not fit.
        """
        self.check(hw, where="hw")
        return hw.astype(np.float64) * self.lsb

    def to_hardware(self, physical: npt.ArrayLike) -> npt.NDArray[np.int16]:
        """Physical values (N, slots, features) to the nearest codes, (N, slots, features) int16.

        Raises
        ------
        LayoutError
            If the shape does not fit, or as `Word.to_hardware` says; the message names slot and feature.
        """
        values = np.asarray(physical, dtype=np.float64)
        if values.ndim != 3 or values.shape[1:] != self.shape:
            raise LayoutError("values", "shape", values.shape, f"(N, {self.n_objects}, {self.n_features})")
        hw = np.empty(values.shape, dtype=np.int16)
        for slot, words in enumerate(self.words):
            for feature, word in enumerate(words):
                try:
                    hw[:, slot, feature] = word.to_hardware(values[:, slot, feature])
                except LayoutError as error:
                    name = f"{self.slot_names[slot]}_{word.name}"
                    raise LayoutError("values", name, error.found, error.expected) from None
        return hw

    def check(self, hw: IntArray, *, where: str) -> None:
        """Check shape, integer type and that every code is legal.

        Raises
        ------
        LayoutError
            Naming `where`, the feature, the code found and the range expected.
        """
        if hw.ndim != 3 or hw.shape[1:] != self.shape:
            raise LayoutError(where, "shape", hw.shape, f"(N, {self.n_objects}, {self.n_features}) for {self.name}")
        if not np.issubdtype(hw.dtype, np.integer):
            raise LayoutError(where, "type", hw.dtype, "integers")
        if not len(hw):
            return
        low, high = _extremes(hw)
        bad = (low < self.code_min) | (high > self.code_max)
        if bad.any():
            slot, feature = np.argwhere(bad)[0]
            word = self.words[slot][feature]
            found = low[slot, feature] if low[slot, feature] < word.code_min else high[slot, feature]
            name = f"{self.slot_names[slot]}_{word.name}"
            raise LayoutError(where, name, int(found), f"{word.code_min} to {word.code_max}")

    def saturated(self, hw: IntArray) -> npt.NDArray[np.bool_]:
        """Slots whose magnitude carries the saturation code, (N, slots)."""
        return np.asarray(hw[:, :, 0] == self.saturation)


def _ugt_groups() -> tuple[ObjectGroup, ...]:
    calo_eta = Word("eta", 8, signed=True, lsb=0.0435, kind="linear")
    calo_phi = Word("phi", 8, lsb=TWO_PI / 144, unit="rad", kind="angle", period=144)
    muon_eta = Word("eta", 9, signed=True, lsb=0.010875, kind="linear")
    muon_phi = Word("phi", 10, lsb=TWO_PI / 576, unit="rad", kind="angle", period=576)

    def pt(bits: int) -> Word:
        return Word("pt", bits, lsb=0.5, unit="GeV")

    return (
        ObjectGroup("met", 1, (pt(12), Word("eta", 0, kind="linear"), calo_phi)),
        ObjectGroup("eg", 4, (pt(9), calo_eta, calo_phi)),
        ObjectGroup("mu", 4, (pt(9), muon_eta, muon_phi)),
        ObjectGroup("jet", 10, (pt(11), calo_eta, calo_phi)),
    )


def _l1topo_groups() -> tuple[ObjectGroup, ...]:
    eta = Word("eta", 9, signed=True, lsb=0.025, kind="linear")
    phi = Word("phi", 7, lsb=TWO_PI / 128, unit="rad", kind="angle", period=128)

    def et(bits: int) -> Word:
        return Word("pt", bits, lsb=0.1, unit="GeV")

    return (
        ObjectGroup("jet", 6, (et(13), eta, phi)),
        ObjectGroup("tau", 4, (et(13), eta, phi)),
        ObjectGroup("mu", 4, (et(8), eta, phi)),
        ObjectGroup("met", 1, (et(15), Word("eta", 0, kind="linear"), phi), inputs=(True, False, True)),
    )


_UGT_SOURCE = "CMS uGT scales: cms-l1-globaltrigger/mp7_ugt_legacy, cmssw L1Trigger/L1TGlobal"

LAYOUTS: dict[str, ObjectLayout] = {
    layout.name: layout
    for layout in (
        ObjectLayout("cms_ugt", _ugt_groups(), _UGT_SOURCE),
        # GeV and radians quantised onto the uGT grid, so that the same words and the same firmware serve.
        ObjectLayout("adc2021", _ugt_groups(), f"arXiv:2107.02157, on the grid of {_UGT_SOURCE}"),
        ObjectLayout(
            "cms_calo_regions",
            (ObjectGroup("region", 252, (Word("et", 10, lsb=0.5, unit="GeV"),)),),
            "18 x 14 calorimeter regions (phi x eta) of CICADA, ap_uint<10> each",
        ),
        ObjectLayout(
            "atlas_l1topo",
            _l1topo_groups(),
            "words of athena Trigger/L1Topo/L1TopoEvent (g_nBitsEt, g_nBitsEta, g_nBitsPhi); "
            "objects of max-cohen54/AD_trigger_training",
        ),
    )
}


def get_layout(layout: str | ObjectLayout) -> ObjectLayout:
    """The layout called `layout`; a layout is passed through.

    Raises
    ------
    LayoutError
        If no layout has that name.
    """
    if isinstance(layout, ObjectLayout):
        return layout
    try:
        return LAYOUTS[layout]
    except KeyError:
        raise LayoutError("layout", "name", layout, f"one of {', '.join(LAYOUTS)}") from None
