"""Helix propagation against straight lines, closed forms and a step-by-step integration."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad.events.simulate import propagate as p


def steps(pt: float, eta: float, phi: float, charge: float, z0: float, r_max: float, z_max: float, r_field: float,
          z_field: float) -> tuple[float, float]:  # fmt: skip
    """Integrate the motion in small steps; the field is on inside (r_field, z_field)."""
    x, y, z = 0.0, 0.0, z0
    slope, h = np.sinh(eta), 2e-4
    while np.hypot(x, y) < r_max and abs(z) < z_max:
        inside = np.hypot(x, y) < r_field and abs(z) < z_field
        turn = -charge * 0.3 * p.B_FIELD_T / pt * h if inside else 0.0
        phi += 0.5 * turn
        x, y, z = x + h * np.cos(phi), y + h * np.sin(phi), z + h * slope
        phi += 0.5 * turn
    return float(np.arcsinh(z / np.hypot(x, y))), float(np.arctan2(y, x))


def test_neutral_particle_goes_straight() -> None:
    eta, phi = np.array([-2.5, -0.3, 0.0, 1.2, 4.0]), np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    got_eta, got_phi = p.to_calorimeter(5.0, eta, phi, 0)
    np.testing.assert_allclose(got_eta, eta, atol=1e-6)
    np.testing.assert_allclose(got_phi, phi, atol=1e-6)


def test_barrel_turn_is_the_closed_form() -> None:
    pt = np.array([1.0, 2.0, 5.0, 50.0])
    radius = pt / (0.3 * 3.8)
    _, phi = p.to_calorimeter(pt, 0.0, 0.0, 1)
    np.testing.assert_allclose(phi, -np.arcsin(p.CALO_R_M / (2 * radius)), rtol=1e-12)
    _, other = p.to_calorimeter(pt, 0.0, 0.0, -1)
    np.testing.assert_allclose(other, -phi)


@pytest.mark.parametrize("pt", [0.25, 0.6, 1.0, 4.0])
@pytest.mark.parametrize("eta", [-2.6, -1.4, 0.4, 1.9])
@pytest.mark.parametrize("charge", [-1, 1])
def test_calorimeter_against_integration(pt: float, eta: float, charge: int) -> None:
    z0 = 0.04
    want = steps(pt, eta, 0.3, charge, z0, p.CALO_R_M, p.CALO_Z_M, np.inf, np.inf)
    got_eta, got_phi = p.to_calorimeter(pt, eta, 0.3, charge, z0)
    assert got_eta == pytest.approx(want[0], abs=3e-3)
    assert p.wrap(got_phi - want[1]) == pytest.approx(0.0, abs=3e-3)


@pytest.mark.parametrize("pt", [3.0, 6.0, 20.0])
@pytest.mark.parametrize("eta", [-2.2, -1.3, 0.0, 0.7, 1.7])
@pytest.mark.parametrize("charge", [-1, 1])
def test_muon_station_against_integration(pt: float, eta: float, charge: int) -> None:
    want = steps(pt, eta, -1.0, charge, 0.0, p.STATION_R_M, p.STATION_Z_M, p.COIL_R_M, p.COIL_Z_M)
    got_eta, got_phi = p.to_second_station(pt, eta, -1.0, charge)
    assert got_eta == pytest.approx(want[0], abs=3e-3)
    assert p.wrap(got_phi - want[1]) == pytest.approx(0.0, abs=3e-3)


def test_stiff_muon_is_where_it_points() -> None:
    eta, phi = p.to_second_station(1e5, np.array([-2.0, 0.5]), np.array([1.0, -2.0]), 1)
    np.testing.assert_allclose(eta, [-2.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(phi, [1.0, -2.0], atol=1e-3)


def test_mirror_image_turns_the_same_way() -> None:
    pt, eta, phi = np.array([3.0, 8.0]), np.array([0.6, 1.8]), np.array([0.1, 2.0])
    eta_a, phi_a = p.to_second_station(pt, eta, phi, 1)
    eta_b, phi_b = p.to_second_station(pt, -eta, phi, 1)
    np.testing.assert_allclose(eta_a, -eta_b)
    np.testing.assert_allclose(phi_a, phi_b)
