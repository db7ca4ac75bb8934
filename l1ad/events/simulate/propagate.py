"""Charged particles in the CMS magnet: where they reach the calorimeters and the second muon station.

Inside the solenoid a particle of transverse momentum pt moves on a circle of radius rho = pt / (0.3 B) (GeV, T, m).
From the beam axis to the radius r it turns by 2 alpha in direction and by alpha in azimuth, with sin(alpha) = r / (2
rho), over a transverse path of 2 rho alpha; a particle of charge +1 turns towards smaller azimuth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["B_FIELD_T", "CALO_R_M", "CALO_Z_M", "to_calorimeter", "to_second_station"]

B_FIELD_T = 3.8
CALO_R_M, CALO_Z_M = 1.29, 3.17  # inner faces of the electromagnetic barrel and endcap
COIL_R_M, COIL_Z_M = 2.95, 6.0  # beyond them the track is taken as straight
STATION_R_M, STATION_Z_M = 4.90, 8.30  # second drift-tube and second cathode-strip station

Floats = NDArray[np.float64]


def curvature_radius(pt: ArrayLike, charge: ArrayLike) -> Floats:
    """Radius of the transverse circle in m; a neutral particle gets 1e9 m."""
    pt, charge = np.asarray(pt, np.float64), np.abs(np.asarray(charge, np.float64))
    return np.where(charge > 0, pt / (0.3 * B_FIELD_T * np.maximum(charge, 1e-9)), 1e9)


def wrap(phi: ArrayLike) -> Floats:
    """Azimuth in [-pi, pi)."""
    out: Floats = np.mod(np.asarray(phi, np.float64) + np.pi, 2 * np.pi) - np.pi
    return out


def _to_cylinder(
    pt: Floats, eta: Floats, charge: Floats, z0: Floats, r_max: float, z_max: float
) -> tuple[Floats, Floats, Floats]:
    """Signed chord, z and alpha (half the turning angle) where the helix leaves the cylinder.

    The chord points along phi - sign(charge) alpha; it is negative after half a turn or more, up to the next full one.
    """
    slope = np.sinh(eta)
    radius = curvature_radius(pt, charge)
    with np.errstate(divide="ignore"):
        path_cap = np.abs((np.copysign(z_max, slope) - z0) / slope)
    path_wall = np.where(2 * radius > r_max, 2 * radius * np.arcsin(np.minimum(r_max / (2 * radius), 1.0)), np.inf)
    # A looper turns until it meets the endcap; one with no slope would turn for ever and is stopped after a kilometre.
    path = np.minimum(np.minimum(path_wall, path_cap), 1e3)
    alpha = path / (2 * radius)
    return 2 * radius * np.sin(alpha), z0 + path * slope, alpha


def to_calorimeter(
    pt: ArrayLike, eta: ArrayLike, phi: ArrayLike, charge: ArrayLike, z0: ArrayLike = 0.0
) -> tuple[Floats, Floats]:
    """Pseudorapidity and azimuth of the point where each particle meets the calorimeter face.

    Parameters
    ----------
    pt, eta, phi, charge:
        Transverse momentum (GeV), direction at the vertex (rad) and charge in units of e; arrays of one shape.
    z0:
        Vertex position along the beam, m.
    """
    pt, eta, phi, charge, z0 = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (pt, eta, phi, charge, z0)))
    chord, z, alpha = _to_cylinder(pt, eta, charge, z0, CALO_R_M, CALO_Z_M)
    behind = np.where(chord < 0, np.pi, 0.0)
    return np.arcsinh(z / np.maximum(np.abs(chord), 1e-3)), wrap(phi - np.sign(charge) * alpha + behind)


def to_second_station(pt: ArrayLike, eta: ArrayLike, phi: ArrayLike, charge: ArrayLike) -> tuple[Floats, Floats]:
    """Pseudorapidity and azimuth of muons at the second muon station: what the trigger calls extrapolated.

    A helix up to the coil (or its end), then a straight line to the station. The direction has turned by 2 alpha and
    the position by alpha, so the line meets the radial direction at alpha there; reaching r2 from r1 it gains alpha -
    asin(r1 sin(alpha) / r2) in azimuth. The return field of the yoke, which bends back by a fraction of this, is left
    out. Muons that reach a station (pt above about 2 GeV) turn less than half a circle; slower ones have no meaning
    here.
    """
    pt, eta, phi, charge = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (pt, eta, phi, charge)))
    slope = np.sinh(eta)
    r1, z1, alpha = _to_cylinder(pt, eta, charge, np.zeros_like(pt), COIL_R_M, COIL_Z_M)
    sin, cos = np.sin(alpha), np.cos(alpha)
    # transverse length of the straight part: to the station radius or to the station disc, whichever comes first
    to_wall = np.sqrt(np.maximum(STATION_R_M**2 - (r1 * sin) ** 2, 0.0)) - r1 * cos
    with np.errstate(divide="ignore"):
        to_disc = np.where(slope != 0, np.maximum(STATION_Z_M - np.abs(z1), 0.0) / np.abs(slope), np.inf)
    length = np.minimum(to_wall, to_disc)
    radial, across = r1 + length * cos, length * sin
    r2 = np.hypot(radial, across)
    turn = alpha + np.arctan2(across, radial)
    return np.arcsinh((z1 + length * slope) / r2), wrap(phi - np.sign(charge) * turn)
