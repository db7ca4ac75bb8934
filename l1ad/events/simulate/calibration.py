"""Jet energy calibration of the emulated trigger: raw (pile-up subtracted) pt to generator pt, by region.

Derived from hard-QCD collisions under pile-up by numerical inversion: in bins of generator pt, the median raw pt of
the matched jet gives one point of the curve. Binning in the generator's pt and not in the raw one keeps the falling
spectrum from biasing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from l1ad.errors import InputError
from l1ad.events.simulate.detector import ABS_IETA, Detector
from l1ad.io import read_json, write_json

__all__ = ["JetCalibration", "default_calibration", "read_calibration", "write_calibration"]

Floats = NDArray[np.float64]

#: Upper |ieta| of each region.
REGIONS = (7, 14, 20, 24, 28, 33, 40)
FORMAT_VERSION = 1
_CAP_SPAN_GEV = (16.0, 30.0)


@dataclass(frozen=True)
class JetCalibration:
    """For each region of :data:`REGIONS`: raw pt (GeV, rising) and the factor to multiply it by."""

    raw: tuple[tuple[float, ...], ...]
    factor: tuple[tuple[float, ...], ...]

    def __call__(self, pt: Floats, row: NDArray[np.int64], detector: Detector) -> Floats:
        """Calibrated pt of jets with raw ``pt`` at tower ``row``; both of any one shape.

        The correction is capped (``jet_factor_soft``, ``jet_factor_hard`` of the detector) and
        phased in up to a raw pt of ``detector.jet_ramp``.
        """
        region = np.searchsorted(REGIONS, ABS_IETA[row], side="left")
        factor = np.ones(pt.shape)
        for k, (raw, value) in enumerate(zip(self.raw, self.factor, strict=True)):
            here = region == k
            factor[here] = np.interp(pt[here], raw, value)
        cap = np.interp(pt, _CAP_SPAN_GEV, (detector.jet_factor_soft, detector.jet_factor_hard))
        factor = np.minimum(factor, cap)
        ramp = np.clip(pt / max(detector.jet_ramp, 1e-6), 0.0, 1.0)
        out: Floats = pt * (1.0 + (factor - 1.0) * ramp)
        return out


def write_calibration(path: str | Path, calibration: JetCalibration, about: str = "") -> None:
    """Write as JSON."""
    value = {
        "format_version": FORMAT_VERSION,
        "about": about,
        "regions_abs_ieta": list(REGIONS),
        "raw_gev": [list(x) for x in calibration.raw],
        "factor": [list(x) for x in calibration.factor],
    }
    write_json(Path(path), value)


def read_calibration(path: str | Path) -> JetCalibration:
    """Read what :func:`write_calibration` wrote.

    Raises
    ------
    InputError
        If the file is of another version or for other regions.
    """
    value = read_json(Path(path))
    if value.get("format_version") != FORMAT_VERSION:
        raise InputError(str(path), "format_version", value.get("format_version"), FORMAT_VERSION)
    if value.get("regions_abs_ieta") != list(REGIONS):
        raise InputError(str(path), "regions_abs_ieta", value.get("regions_abs_ieta"), list(REGIONS))
    return JetCalibration(tuple(map(tuple, value["raw_gev"])), tuple(map(tuple, value["factor"])))


def default_calibration() -> JetCalibration:
    """The calibration that comes with the package, derived for the default :class:`Detector`."""
    with resources.as_file(resources.files("l1ad.events.simulate") / "jet_calibration.json") as path:
        return read_calibration(path)


def fit_calibration(raw: Floats, generated: Floats, row: NDArray[np.int64], *, min_jets: int = 40) -> JetCalibration:
    """Calibration from matched jets: raw and generator pt (GeV) and tower row, all (n,)."""
    edges = np.array([12, 16, 20, 25, 30, 40, 50, 65, 85, 110, 150, 200, 300, 450, 700, 1500], np.float64)
    region = np.searchsorted(REGIONS, ABS_IETA[row], side="left")
    all_raw, all_factor = [], []
    for k in range(len(REGIONS)):
        points = []
        for low, high in pairwise(edges):
            here = (region == k) & (generated > low) & (generated <= high)
            if here.sum() >= min_jets:
                median = float(np.median(raw[here]))
                if median > 0:
                    points.append((median, float(np.clip(np.median(generated[here]) / median, 0.8, 2.5))))
        points = sorted(points) or [(1.0, 1.0)]
        all_raw.append(tuple(round(p[0], 2) for p in points))
        all_factor.append(tuple(round(p[1], 4) for p in points))
    return JetCalibration(tuple(all_raw), tuple(all_factor))
