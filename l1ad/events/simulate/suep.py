"""Thermal decay of a heavy scalar: soft unclustered energy patterns (SUEP), which PYTHIA does not have.

The scalar turns into dark mesons with a Boltzmann momentum spectrum dN/d3p ~ exp(-E/T) in its rest frame
(arXiv:1612.00850), each meson into two dark photons, each dark photon into pi pi, e e or mu mu. Energy and momentum are
conserved exactly: momenta are balanced by a common shift and scaled by the one root that gives the invariant mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ThermalDecay", "thermal_decay"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ELECTRON, _MUON, _PION = 11, 13, 211
_MASS = {_ELECTRON: 0.000511, _MUON: 0.105658, _PION: 0.139570}


@dataclass(frozen=True)
class ThermalDecay:
    """Model of the dark sector: temperature and masses in GeV, branching fractions of the dark photon."""

    temperature: float = 2.0
    m_meson: float = 2.0
    m_photon: float = 0.7
    br_pion: float = 0.70
    br_electron: float = 0.15


def _directions(n: int, rng: np.random.Generator) -> Floats:
    """``n`` isotropic unit vectors, shape (n, 3)."""
    cos = rng.uniform(-1.0, 1.0, n)
    phi = rng.uniform(-np.pi, np.pi, n)
    sin = np.sqrt(1.0 - cos * cos)
    return np.column_stack([sin * np.cos(phi), sin * np.sin(phi), cos])


def boost(four: Floats, beta: Floats) -> Floats:
    """Boost (E, px, py, pz) rows from a frame that moves with velocity ``beta`` (rows of 3) into the laboratory."""
    b2 = (beta * beta).sum(axis=1)
    gamma = 1.0 / np.sqrt(1.0 - b2)
    along = (beta * four[:, 1:]).sum(axis=1)
    scale = gamma * gamma / (gamma + 1.0) * along + gamma * four[:, 0]  # (gamma - 1)/beta^2 without its 0/0 at rest
    return np.column_stack([gamma * (four[:, 0] + along), four[:, 1:] + scale[:, None] * beta])


def _two_body(parents: Floats, m_parent: float, m_child: Floats, rng: np.random.Generator) -> Floats:
    """Both children of each parent, (2 n, 4): all first children, then all second ones."""
    n = len(parents)
    p = np.sqrt(np.maximum(0.25 * m_parent**2 - m_child**2, 0.0))
    v = p[:, None] * _directions(n, rng)
    energy = np.full(n, 0.5 * m_parent)
    beta = parents[:, 1:] / parents[:, :1]
    first = boost(np.column_stack([energy, v]), beta)
    second = boost(np.column_stack([energy, -v]), beta)
    return np.concatenate([first, second])


def _mesons_at_rest(mass: float, model: ThermalDecay, rng: np.random.Generator) -> Floats:
    """Momenta (n, 3) of the dark mesons of one scalar at rest: they sum to zero and their energies to ``mass``."""
    p = np.linspace(0.0, 20.0 * model.temperature, 4001)
    e = np.hypot(p, model.m_meson)
    cdf = np.cumsum(p * p * np.exp(-(e - model.m_meson) / model.temperature))
    n_max = int(mass / model.m_meson) + 1
    drawn = np.interp(rng.random(n_max), cdf / cdf[-1], p)
    total = np.cumsum(np.hypot(drawn, model.m_meson))
    n = max(int(np.searchsorted(total, mass)), 2)  # the last whole meson that fits, two at the least
    v = drawn[:n, None] * _directions(n, rng)
    v -= v.mean(axis=0)
    p2 = (v * v).sum(axis=1)
    low, high = 0.0, 1.0
    while np.sqrt(high * high * p2 + model.m_meson**2).sum() < mass:
        high *= 2.0
    for _ in range(60):  # bisection: the sum of energies rises with the scale
        mid = 0.5 * (low + high)
        if np.sqrt(mid * mid * p2 + model.m_meson**2).sum() < mass:
            low = mid
        else:
            high = mid
    return 0.5 * (low + high) * v


def thermal_decay(
    scalars: Floats, rng: np.random.Generator, model: ThermalDecay | None = None
) -> tuple[Ints, Ints, Floats]:
    """Decay scalars with four-momenta (n, 4) = (E, px, py, pz) in GeV.

    Returns
    -------
    owner, pdg_id, four_momenta:
        Row of ``scalars`` each product comes from, its identity, and its (E, px, py, pz).
    """
    model = model or ThermalDecay()
    scalars = np.asarray(scalars, np.float64)
    mass = np.sqrt(np.maximum(scalars[:, 0] ** 2 - (scalars[:, 1:] ** 2).sum(axis=1), 0.0))
    at_rest = [_mesons_at_rest(m, model, rng) for m in mass]
    owner = np.repeat(np.arange(len(scalars)), [len(v) for v in at_rest])
    v = np.concatenate(at_rest) if at_rest else np.zeros((0, 3))
    energy = np.sqrt((v * v).sum(axis=1) + model.m_meson**2)
    beta = scalars[:, 1:] / scalars[:, :1]
    mesons = boost(np.column_stack([energy, v]), beta[owner])
    photons = _two_body(mesons, model.m_meson, np.full(len(mesons), model.m_photon), rng)
    owner = np.tile(owner, 2)
    u = rng.random(len(photons))
    species = np.where(u < model.br_pion, _PION, np.where(u < model.br_pion + model.br_electron, _ELECTRON, _MUON))
    m_child = np.select([species == k for k in _MASS], list(_MASS.values()))
    products = _two_body(photons, model.m_photon, m_child, rng)
    return np.tile(owner, 2), np.concatenate([species, -species]), products
