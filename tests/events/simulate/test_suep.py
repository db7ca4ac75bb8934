"""Thermal decays conserve what they must and follow the spectrum they claim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from l1ad.events.simulate.suep import ThermalDecay, boost, thermal_decay


@pytest.fixture(scope="module")
def scalars() -> np.ndarray:
    rng = np.random.default_rng(1)
    p = rng.normal(0, 120, (40, 3))
    mass = rng.uniform(200, 400, 40)
    return np.column_stack([np.sqrt((p * p).sum(1) + mass**2), p])


def test_energy_and_momentum_are_conserved(scalars: np.ndarray) -> None:
    owner, _, products = thermal_decay(scalars, np.random.default_rng(2))
    total = np.array([np.bincount(owner, products[:, c], len(scalars)) for c in range(4)]).T
    np.testing.assert_allclose(total, scalars, rtol=0, atol=1e-8 * scalars[:, 0].max())


def test_charge_and_masses(scalars: np.ndarray) -> None:
    owner, ids, products = thermal_decay(scalars, np.random.default_rng(3))
    assert set(np.abs(ids)) == {11, 13, 211}
    for event in range(len(scalars)):
        mine = ids[owner == event]
        assert {k: (mine == k).sum() for k in (11, 13, 211)} == {k: (mine == -k).sum() for k in (11, 13, 211)}
    mass2 = products[:, 0] ** 2 - (products[:, 1:] ** 2).sum(1)
    for pid, mass in ((13, 0.105658), (211, 0.139570)):
        chosen = np.abs(ids) == pid
        # a difference of squares: the tolerance grows with the energy
        np.testing.assert_array_less(np.abs(mass2[chosen] - mass**2), 1e-10 * products[chosen, 0] ** 2 + 1e-9)


def test_branching_fractions() -> None:
    at_rest = np.tile([300.0, 0.0, 0.0, 0.0], (100, 1))
    _, ids, _ = thermal_decay(at_rest, np.random.default_rng(4))
    n = len(ids)
    for pid, fraction in ((211, 0.70), (11, 0.15), (13, 0.15)):
        share = (np.abs(ids) == pid).mean()
        assert share == pytest.approx(fraction, abs=5 * np.sqrt(2 * fraction * (1 - fraction) / n))


def test_mean_energy_is_thermal() -> None:
    """Multiplicity follows from the mean meson energy of the Boltzmann spectrum, here by quadrature."""
    model = ThermalDecay(temperature=3.0, m_meson=1.5, m_photon=0.5)

    def weight(p: float) -> float:
        return p * p * np.exp(-np.hypot(p, model.m_meson) / model.temperature)

    norm = integrate.quad(weight, 0, 200)[0]
    mean_energy = integrate.quad(lambda p: weight(p) * np.hypot(p, model.m_meson), 0, 200)[0] / norm
    mass = 2000.0
    owner, _, _ = thermal_decay(np.tile([mass, 0, 0, 0], (40, 1)), np.random.default_rng(5), model)
    mesons = len(owner) / 40 / 4  # two photons a meson, two particles a photon
    assert mesons == pytest.approx(mass / mean_energy, rel=0.03)


def test_boost_against_matrix() -> None:
    rng = np.random.default_rng(6)
    four, beta = rng.normal(0, 1, (5, 4)) + [10, 0, 0, 0], rng.uniform(-0.5, 0.5, (5, 3))
    got = boost(four, beta)
    for v, b, g in zip(four, beta, got, strict=True):
        gamma, b2 = 1 / np.sqrt(1 - b @ b), b @ b
        matrix = np.block(
            [
                [np.array([[gamma]]), gamma * b[None]],
                [gamma * b[:, None], np.eye(3) + (gamma - 1) * np.outer(b, b) / b2],
            ]
        )
        np.testing.assert_allclose(g, matrix @ v, rtol=1e-12)


def test_nothing_in_nothing_out() -> None:
    owner, ids, products = thermal_decay(np.zeros((0, 4)), np.random.default_rng(7))
    assert len(owner) == len(ids) == 0
    assert products.shape == (0, 4)
