"""Derive the jet calibration that ships with the package: run once when the detector's defaults change.

Hard-QCD collisions are placed on soft pile-up; each isolated generator jet is matched to the nearest trigger jet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from l1ad.events.simulate.calibration import JetCalibration, fit_calibration
from l1ad.events.simulate.detector import ETA_CENTRE, Detector
from l1ad.events.simulate.level1 import RawObjects, reconstruct
from l1ad.events.simulate.library import Library
from l1ad.events.simulate.mixing import Crossings, draw, make_pool
from l1ad.events.simulate.propagate import wrap

__all__ = ["derive_calibration", "match_jets"]

_ISOLATION, _MATCH = 0.9, 0.25


def match_jets(
    library: Library, numbers: NDArray[np.int64], crossings: Crossings, raw: RawObjects
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Raw pt, generator pt and tower row of matched jets.

    ``numbers`` (n,) is the collision of ``library`` that each crossing holds as its signal, which :func:`draw` puts
    last.
    """
    out: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]] = []
    last = crossings.first[1:] - 1
    for i, number in enumerate(numbers):
        a, b = library.jet_offset[number], library.jet_offset[number + 1]
        found = raw.jets[i][raw.jets[i, :, 0] > 0]
        if a == b or len(found) == 0:
            continue
        sign = -1.0 if crossings.mirrors[last[i]] else 1.0
        eta = sign * library.jet_eta[a:b]
        phi = library.jet_phi[a:b] + crossings.turns[last[i]] * (2 * np.pi / 72)
        own = np.hypot(eta[:, None] - eta, wrap(phi[:, None] - phi)) + 10.0 * np.eye(b - a)
        row = found[:, 2].astype(np.int64)
        apart = np.hypot(eta[:, None] - ETA_CENTRE[row], wrap(phi[:, None] - (found[:, 3] + 0.5) * (2 * np.pi / 72)))
        nearest = apart.argmin(axis=1)
        good = (own.min(axis=1) > _ISOLATION) & (apart.min(axis=1) < _MATCH)
        picked = nearest[good]
        out.append((found[picked, 0].astype(np.float64), library.jet_pt[a:b][good].astype(np.float64), row[picked]))
    columns = zip(*out, strict=True)
    raw_pt, generated, rows = (np.concatenate(column) for column in columns)
    return raw_pt, generated, rows


def derive_calibration(
    soft: Library,
    hard: list[Library],
    detector: Detector,
    *,
    seed: int,
    per_library: int = 3000,
    mu: float = 52.0,
) -> JetCalibration:
    """Calibration of ``detector`` from hard-QCD libraries on soft pile-up."""
    parts = []
    for library, child in zip(hard, np.random.SeedSequence(seed).spawn(len(hard)), strict=True):
        rng = np.random.default_rng(child)
        library = library.head(per_library)
        pool = make_pool([soft], detector, library)
        numbers = np.arange(len(library))
        crossings = draw(pool, len(library), detector, rng, mu=mu, signal=pool.signal[numbers])
        parts.append(match_jets(library, numbers, crossings, reconstruct(pool, crossings, detector, rng)))
    raw, generated, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    return fit_calibration(raw, generated, rows)
