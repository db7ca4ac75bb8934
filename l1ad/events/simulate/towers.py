"""Particles at the calorimeter face to deposits in trigger towers.

Done once a library: a crossing then only adds up integers rows and columns, turned in azimuth by whole towers and
mirrored in pseudorapidity, which gives each collision 144 appearances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l1ad.events.simulate.detector import ABS_IETA, ETA_EDGES, FIRST_HF, N_ETA, N_PHI, Detector
from l1ad.events.simulate.library import EM, HADRON, MUON, Library

__all__ = ["LEAK_STEPS", "RECORD", "Deposits", "deposit"]

_CHUNK = 2_000_000
_CHUNK_COLLISIONS = 20_000
_HF_ROWS = int(ABS_IETA[0]) - FIRST_HF + 1  # on each side
_MIP_GEV = 2.5  # what a muon leaves, as energy
_LEAK_LENGTH = 0.007 / 0.0873  # lateral size of an electromagnetic shower in towers
LEAK_STEPS = 200  # a leaking share is stored in steps of 1/200, signed by the neighbour's side


#: One deposit: transverse energies in GeV; ``cell`` is 72 * row + column; ``leak`` is the share of ``em`` that goes
#: to the neighbouring column, times :data:`LEAK_STEPS`, positive for the next one and negative for the previous. One
#: record and not four arrays: a collision is then one place in memory, which the kernel reads faster.
RECORD = np.dtype([("em", "f4"), ("had", "f4"), ("cell", "u2"), ("leak", "i1"), ("unused", "i1")])


@dataclass(frozen=True)
class Deposits:
    """Tower deposits of libraries joined: ``records[offset[i]:offset[i + 1]]`` are those of collision i.

    Those in HF come last, from ``forward[i]`` on: the kernel then need not ask of each one where it is.
    """

    offset: NDArray[np.int64]
    forward: NDArray[np.int64]
    records: NDArray[Any]

    @staticmethod
    def concatenate(parts: list[Deposits]) -> Deposits:
        """Join them in order."""
        ends = np.cumsum([0] + [int(p.offset[-1]) for p in parts])
        offset = [parts[0].offset[:1], *(p.offset[1:] + end for p, end in zip(parts, ends, strict=False))]
        forward = [p.forward + end for p, end in zip(parts, ends, strict=False)]
        return Deposits(np.concatenate(offset), np.concatenate(forward), np.concatenate([p.records for p in parts]))

    @staticmethod
    def of(offset: NDArray[np.int64], records: NDArray[Any]) -> Deposits:
        """Deposits in any order within a collision; the order among those in HF and among the others is kept."""
        forward = np.empty(len(offset) - 1, np.int64)
        ordered = np.empty_like(records)
        for a in range(0, len(forward), _CHUNK_COLLISIONS):
            ends = offset[a : a + _CHUNK_COLLISIONS + 1]
            part = records[ends[0] : ends[-1]]
            rows = part["cell"] // N_PHI
            in_hf = (rows < _HF_ROWS) | (rows >= N_ETA - _HF_ROWS)
            owner = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
            forward[a : a + _CHUNK_COLLISIONS] = ends[:-1] + np.bincount(owner[~in_hf], minlength=len(ends) - 1)
            ordered[ends[0] : ends[-1]] = part[np.argsort(2 * owner + in_hf, kind="stable")]
        return Deposits(offset, forward, ordered)


def deposit(library: Library, detector: Detector) -> Deposits:
    """Shower every particle of a library: response, resolution, lateral spread, sharing between the calorimeters.

    The fluctuations are drawn from ``detector.pattern_seed`` and the library's name, so that every worker makes the
    same deposits.
    """
    rng = np.random.default_rng([detector.pattern_seed, 2, *library.process.encode()])
    n = len(library.et)
    records = np.zeros(n, RECORD)
    for a in range(0, n, _CHUNK):
        piece = slice(a, a + _CHUNK)
        _deposit(
            records[piece],
            library.eta[piece],
            library.phi[piece],
            library.et[piece],
            library.kind[piece],
            detector,
            rng,
        )
    return Deposits.of(library.offset.astype(np.int64), records)


def _deposit(
    out: NDArray[Any],
    eta: NDArray[Any],
    phi: NDArray[Any],
    et: NDArray[Any],
    kind: NDArray[Any],
    d: Detector,
    rng: np.random.Generator,
) -> None:
    """Fill the records ``out`` (k,) from k particles."""
    eta, phi, et = (x.astype(np.float32) for x in (eta, phi, et))
    n = len(et)
    energy = np.maximum(et * np.cosh(eta), 0.05)
    hadron, muon = kind == HADRON, kind == MUON
    width = np.where(hadron, np.float32(d.shower_width), np.float32(0.0))
    eta = eta + width * rng.standard_normal(n, dtype=np.float32)
    phi = phi + width * rng.standard_normal(n, dtype=np.float32)
    forward = np.abs(eta) > 3.0
    stochastic = np.where(forward, d.hf_stochastic, np.where(hadron, d.hcal_stochastic, d.ecal_stochastic))
    constant = np.where(forward, d.hf_constant, np.where(hadron, d.hcal_constant, d.ecal_constant))
    sigma = np.hypot(stochastic / np.sqrt(energy), constant)
    response = np.where(hadron, 1.0 - d.hadron_deficit * np.maximum(energy, 1.0) ** -0.15, 1.0)
    seen = np.maximum(et * response * (1.0 + sigma * rng.standard_normal(n, dtype=np.float32)), 0.0)
    seen = np.where(muon, np.minimum(seen, _MIP_GEV / np.cosh(eta)), seen)

    # Share of the electromagnetic calorimeter: all of an electron, a MIP or part of a hadron, a little of a muon.
    mip = rng.random(n, dtype=np.float32) < d.hadron_mip
    share = np.where(mip, np.minimum(0.3 / np.maximum(energy, 0.3), 0.5), 0.1 + 0.7 * rng.random(n, dtype=np.float32))
    share = np.where(kind == EM, 1.0, np.where(muon, 0.15, share))

    column = np.mod(phi, 2 * np.pi) * (N_PHI / (2 * np.pi))
    iphi = np.minimum(column.astype(np.int64), N_PHI - 1)
    ieta = np.clip(np.searchsorted(ETA_EDGES, eta, side="right") - 1, 0, N_ETA - 1)
    inside = column - iphi - 0.5  # -0.5 .. 0.5 within the tower
    leak = np.where((kind == EM) & ~forward, d.em_leak * np.exp(-(0.5 - np.abs(inside)) / _LEAK_LENGTH), 0.0)
    out["em"] = seen * share
    out["had"] = seen * (1.0 - share)
    out["cell"] = ieta * N_PHI + iphi
    out["leak"] = np.rint(np.copysign(leak, inside) * LEAK_STEPS)
