"""Dijet events: features, mass windows, our own file format.

`Dijets` holds the events, `WINDOWS` are the published mass windows, `concatenate` puts samples together. Files are read
by `l1ad.search.readers`, particles are made dijets by `l1ad.search.clustering`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.io import atomic_hdf5

FloatArray = npt.NDArray[np.float64]
Jets = npt.NDArray[np.float32]

FORMAT = "l1ad-dijets"
FORMAT_VERSION = 1

#: Edges in GeV of the published overlapping mass bins A and B (arXiv:2412.03747).
EDGES: dict[str, tuple[float, ...]] = {
    "A": (1350, 1650, 2017, 2465, 3013, 3682, 4500, 5500, 8000),
    "B": (1492, 1824, 2230, 2725, 3331, 4071, 4975, 6081, 8000),
}
#: Least mass of a jet in GeV: a massless one may come out below 0 by rounding.
_LEAST_MASS = -1e-3
#: Largest |delta eta| of the signal region.
SIGNAL_DELTA_ETA = 1.3
#: |delta eta| of the sideband.
SIDEBAND_DELTA_ETA = (2.0, 2.5)

#: Ratios of N-subjettiness that `Dijets.feature` makes from the stored values.
_RATIOS = {"tau21": ("tau2", "tau1"), "tau32": ("tau3", "tau2"), "tau43": ("tau4", "tau3"), "tau41": ("tau4", "tau1")}


@dataclass(frozen=True)
class MassWindow:
    """A signal window in m_jj with its two neighbours.

    Attributes
    ----------
    name : ``A1`` ... ``A6``, ``B1`` ... ``B6``.
    low, high : of the window, in GeV; low is inside, high is not.
    below, above : the far ends of the lower and the upper sideband.
    """

    name: str
    low: float
    high: float
    below: float
    above: float

    def labels(self, m_jj: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """1 in the window, 0 in a sideband, -1 elsewhere.

        Raises
        ------
        InputError
            If the window or one of the sidebands has no event.
        """
        m = np.asarray(m_jj)
        out = np.full(m.shape, -1, np.int8)
        out[(m >= self.below) & (m < self.above)] = 0
        out[(m >= self.low) & (m < self.high)] = 1
        parts = {
            "window": (self.low, self.high),
            "lower sideband": (self.below, self.low),
            "upper sideband": (self.high, self.above),
        }
        for part, (a, b) in parts.items():
            if not np.any((m >= a) & (m < b)):
                raise InputError(f"mass window {self.name}", part, "no event", f"events in {a:g} to {b:g} GeV")
        return out


def _windows() -> dict[str, MassWindow]:
    out = {}
    for series, edges in EDGES.items():
        for i in range(1, 7):
            out[f"{series}{i}"] = MassWindow(f"{series}{i}", edges[i], edges[i + 1], edges[i - 1], edges[i + 2])
    return out


#: The 12 published signal windows by name.
WINDOWS: dict[str, MassWindow] = _windows()


@dataclass(frozen=True)
class Dijets:
    """Events with two jets.

    Attributes
    ----------
    jets : features of the two jets, shape (n, 2, k); pt, m in GeV. Ordered as stored, by pt in our own files.
    names : the k features; pt, eta, phi and m are always there.
    m_jj : invariant mass in GeV, shape (n,).
    label : 1 signal, 0 background, -1 unknown, shape (n,).
    weight : of the event, shape (n,).
    constituents : px, py, pz in GeV of up to c particles a jet, largest pt first, zeros after the last, shape
        (n, 2, c, 3); None if not stored.
    l1_hw : what the Level-1 trigger saw of the same crossings, hardware codes of shape (n, objects, features) as in
        `l1ad.Events`; None if not stored.
    """

    jets: Jets
    names: tuple[str, ...]
    m_jj: FloatArray
    label: npt.NDArray[np.int8]
    weight: FloatArray
    constituents: Jets | None = None
    l1_hw: npt.NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        n = len(self.jets)
        if self.jets.ndim != 3 or self.jets.shape[1:] != (2, len(self.names)):
            raise InputError("dijets", "jets", self.jets.shape, f"(n, 2, {len(self.names)})")
        missing = [name for name in ("pt", "eta", "phi", "m") if name not in self.names]
        if missing:
            raise InputError("dijets", "features", list(self.names), f"{', '.join(missing)} among them")
        for name in ("m_jj", "label", "weight"):
            if np.shape(getattr(self, name)) != (n,):
                raise InputError("dijets", name, np.shape(getattr(self, name)), f"({n},)")
        if self.l1_hw is not None and (self.l1_hw.ndim != 3 or len(self.l1_hw) != n):
            raise InputError("dijets", "l1_hw", self.l1_hw.shape, f"({n}, objects, features)")
        parts = self.constituents
        if parts is not None and (parts.ndim != 4 or parts.shape[:2] != (n, 2) or parts.shape[3] != 3):
            raise InputError("dijets", "constituents", parts.shape, f"({n}, 2, particles, 3)")
        self._check_values()

    def _check_values(self) -> None:
        good = np.isfinite(self.jets).all(axis=(1, 2)) & np.isfinite(self.m_jj)
        if not good.all():
            row = int(np.argmin(good))
            raise InputError("dijets", f"event {row}", "a feature that is not finite", "finite values")
        if np.any(self.m_jj < 0):
            row = int(np.argmax(self.m_jj < 0))
            raise InputError("dijets", f"event {row}, m_jj", f"{self.m_jj[row]:g} GeV", "a mass of at least 0")
        mass = self.jets[:, :, self.names.index("m")]
        if np.any(mass < _LEAST_MASS):
            row, jet = (int(i) for i in np.argwhere(mass < _LEAST_MASS)[0])
            found = f"{mass[row, jet]:g} GeV"
            raise InputError("dijets", f"event {row}, mass of jet {jet + 1}", found, "a mass of at least 0")
        if not np.isfinite(self.weight).all():
            row = int(np.argmin(np.isfinite(self.weight)))
            raise InputError("dijets", f"event {row}, weight", f"{self.weight[row]:g}", "a finite number")
        if self.constituents is not None:
            whole = np.isfinite(self.constituents).all(axis=(1, 2, 3))
            if not whole.all():
                row = int(np.argmin(whole))
                raise InputError("dijets", f"event {row}", "a constituent that is not finite", "finite momenta")

    def __len__(self) -> int:
        return len(self.jets)

    def __getitem__(self, rows: Any) -> Dijets:
        """Some of the events: a slice, a mask or indices."""
        return Dijets(
            jets=self.jets[rows],
            names=self.names,
            m_jj=self.m_jj[rows],
            label=self.label[rows],
            weight=self.weight[rows],
            constituents=None if self.constituents is None else self.constituents[rows],
            l1_hw=None if self.l1_hw is None else self.l1_hw[rows],
        )

    @property
    def delta_eta(self) -> FloatArray:
        """|eta1 - eta2|, shape (n,)."""
        eta = self.jets[:, :, self.names.index("eta")].astype(np.float64)
        return np.asarray(np.abs(eta[:, 0] - eta[:, 1]))

    def feature(self, name: str) -> FloatArray:
        """One feature of both jets, shape (n, 2): a stored one, or tau21, tau32, tau43, tau41.

        A ratio whose denominator is 0 (a jet of so few particles that nothing is left to measure) is 0.

        Raises
        ------
        InputError
            If these events have no such feature: the message lists those that they can give.
        """
        if name in self.names:
            return self.jets[:, :, self.names.index(name)].astype(np.float64)
        ratios = [ratio for ratio, needed in _RATIOS.items() if all(part in self.names for part in needed)]
        if name in ratios:
            top, bottom = (self.jets[:, :, self.names.index(part)].astype(np.float64) for part in _RATIOS[name])
            return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), 0.0)
        raise InputError("dijets", "feature", name, f"one of {', '.join((*self.names, *ratios))}")

    def features(self, names: tuple[str, ...]) -> FloatArray:
        """Several features, shape (n, 2, len(names))."""
        return np.stack([self.feature(name) for name in names], axis=2)

    def heavier_first(self) -> Dijets:
        """The same events with the heavier jet first."""
        mass = self.jets[:, :, self.names.index("m")]
        order = np.argsort(-mass, axis=1, kind="stable")
        jets = np.take_along_axis(self.jets, order[:, :, None], axis=1)
        constituents = self.constituents
        if constituents is not None:
            constituents = np.take_along_axis(constituents, order[:, :, None, None], axis=1)
        return replace(self, jets=jets, constituents=constituents)

    def in_signal_region(self) -> npt.NDArray[np.bool_]:
        """|delta eta| < 1.3."""
        return np.asarray(self.delta_eta < SIGNAL_DELTA_ETA)

    def in_sideband(self) -> npt.NDArray[np.bool_]:
        """2.0 < |delta eta| < 2.5."""
        low, high = SIDEBAND_DELTA_ETA
        return np.asarray((self.delta_eta > low) & (self.delta_eta < high))

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        attributes: Mapping[str, str | float] | None = None,
        half: bool = False,
        more: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Write our HDF5: ``jets``, ``mjj``, ``label``, ``weight``, the names; ``constituents`` and ``l1_hw`` if any.

        `half` stores constituents as 16-bit floats: half the size, momenta to 0.05 %. `more` are further datasets.

        Raises
        ------
        InputError
            If the folder cannot be written or the disk is full; nothing half-written is left.
        """
        with atomic_hdf5(path) as file:
            file.attrs["format"], file.attrs["format_version"] = FORMAT, FORMAT_VERSION
            file.attrs["features"] = list(self.names)
            for key, value in (attributes or {}).items():
                file.attrs[key] = value
            options = {"compression": "gzip", "shuffle": True, "chunks": True} if len(self) else {}
            file.create_dataset("jets", data=self.jets, **options)
            file.create_dataset("mjj", data=self.m_jj, **options)
            file.create_dataset("label", data=self.label, **options)
            file.create_dataset("weight", data=self.weight, **options)
            if self.constituents is not None:
                kept = self.constituents.astype(np.float16) if half else self.constituents
                file.create_dataset("constituents", data=kept, **options)
            if self.l1_hw is not None:
                file.create_dataset("l1_hw", data=self.l1_hw, **options)
            for key, values in (more or {}).items():
                file.create_dataset(key, data=values)


def require_counts(where: str, events: Dijets) -> None:
    """Refuse weighted events where likelihoods count.

    Raises
    ------
    InputError
        If a weight is not 1.
    """
    other = np.flatnonzero(events.weight != 1.0)
    if other.size:
        found = f"{events.weight[other[0]]:g} for event {int(other[0])}"
        raise InputError(where, "weight", found, "1: the fits count events, weighted ones have to be unweighted first")


def concatenate(parts: Sequence[Dijets]) -> Dijets:
    """Several samples as one; features, constituents and Level-1 words that not all have are left out.

    Raises
    ------
    InputError
        If the Level-1 words are of different layouts.
    """
    if not parts:
        raise InputError("dijets", "samples", 0, "at least one")
    names = tuple(n for n in parts[0].names if all(n in p.names for p in parts))
    jets = [p.jets[:, :, [p.names.index(n) for n in names]] for p in parts]
    constituents = None
    if all(p.constituents is not None for p in parts):
        kept = [p.constituents for p in parts if p.constituents is not None]
        shortest = min(c.shape[2] for c in kept)
        constituents = np.concatenate([c[:, :, :shortest] for c in kept])
    words = [p.l1_hw for p in parts if p.l1_hw is not None]
    shapes = sorted({w.shape[1:] for w in words})
    if len(words) == len(parts) and len(shapes) > 1:
        raise InputError("dijets", "l1_hw", " and ".join(map(str, shapes)), "the same objects and features everywhere")
    return Dijets(
        jets=np.concatenate(jets),
        names=names,
        m_jj=np.concatenate([p.m_jj for p in parts]),
        label=np.concatenate([p.label for p in parts]),
        weight=np.concatenate([p.weight for p in parts]),
        constituents=constituents,
        l1_hw=np.concatenate(words) if len(words) == len(parts) else None,
    )


def invariant_mass(jets: npt.ArrayLike) -> FloatArray:
    """Mass in GeV of the sum of two (pt, eta, phi, m), shape (n, 2, 4) -> (n,).

    >>> float(invariant_mass([[[50.0, 0.0, 0.0, 0.0], [50.0, 0.0, np.pi, 0.0]]])[0])
    100.0
    """
    pt, eta, phi, m = np.moveaxis(np.asarray(jets, np.float64), 2, 0)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(px**2 + py**2 + pz**2 + m**2)
    squared = energy.sum(axis=1) ** 2 - px.sum(axis=1) ** 2 - py.sum(axis=1) ** 2 - pz.sum(axis=1) ** 2
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))
