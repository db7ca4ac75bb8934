"""The trigger-tower grid and every knob of the detector and of the Level-1 emulation.

The grid is that of the CMS Level-1 calorimeter trigger: 80 towers in pseudorapidity (40 a side out to 5.19, tower 29
of the readout left out) by 72 in azimuth. Towers 1-16 are barrel, 17-28 endcap, 29-40 forward (HF), where real towers
are two or four times wider in azimuth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ABS_IETA", "ETA_CENTRE", "ETA_EDGES", "N_ETA", "N_PHI", "Detector", "gain_maps"]

_OUTER = (1.83, 1.93, 2.043, 2.172, 2.322, 2.5, 2.65, 3.0, 3.139, 3.314, 3.489, 3.664)
_FORWARD = (3.839, 4.013, 4.191, 4.363, 4.538, 4.716, 4.889, 5.191)
_SIDE = np.array([0.087 * i for i in range(21)] + [*_OUTER, *_FORWARD])

N_ETA, N_PHI = 80, 72
ETA_EDGES: NDArray[np.float64] = np.concatenate([-_SIDE[:0:-1], _SIDE])
ETA_CENTRE: NDArray[np.float64] = 0.5 * (ETA_EDGES[1:] + ETA_EDGES[:-1])
#: |ieta| of each row of the grid, 1 next to the centre.
ABS_IETA: NDArray[np.int64] = np.where(np.arange(N_ETA) >= 40, np.arange(N_ETA) - 39, 40 - np.arange(N_ETA))
FIRST_ENDCAP, FIRST_HF = 17, 29
#: Regions of 4 x 4 towers cover |ieta| up to 28 (|eta| < 3), 14 by 18; the first one in azimuth is centred on 0.
FIRST_REGION_ROW, FIRST_REGION_COLUMN = 12, -2


@dataclass(frozen=True)
class Detector:
    """Detector response and Level-1 settings. Energies and transverse energies in GeV.

    The defaults are tuned to two things: the seed bits of official CMS top-pair events, and the offsets of the deployed
    trigger's inputs, which are the middle of the 5 and 95 % points of real zero bias in GeV (see :mod:`.realism`).
    """

    # -- calorimeter response ------------------------------------------------------------------------------------
    ecal_stochastic: float = 0.04
    """Relative resolution of electrons and photons, term in 1/sqrt(E)."""
    ecal_constant: float = 0.015
    """The same, constant term."""
    hcal_stochastic: float = 1.0
    """Relative resolution of hadrons in barrel and endcap, term in 1/sqrt(E)."""
    hcal_constant: float = 0.07
    """The same, constant term."""
    hf_stochastic: float = 1.5
    """Relative resolution of everything in HF, term in 1/sqrt(E)."""
    hf_constant: float = 0.10
    """The same, constant term."""
    hadron_deficit: float = 0.45
    """Hadron response is 1 - deficit * E^-0.15: non-compensation, and energy lost in front."""
    hadron_mip: float = 0.45
    """Probability that a hadron showers only in the hadronic calorimeter."""
    shower_width: float = 0.035
    """Smearing of a hadron's impact point in pseudorapidity and azimuth: stands for lateral shower spread."""
    em_leak: float = 0.5
    """Share of an electromagnetic shower at a tower boundary that goes to the neighbour in azimuth."""
    gain_spread: float = 0.06
    """Relative spread of tower gains: intercalibration."""
    dead_em: float = 0.02
    """Share of dead electromagnetic towers, a fixed pattern."""
    dead_had: float = 0.01
    """Share of dead hadronic towers, a fixed pattern."""
    pattern_seed: int = 1
    """Seed of gains, dead towers and shower fluctuations: another seed is another detector."""
    noise_em: float = 0.12
    """Noise of an electromagnetic tower."""
    noise_had: float = 0.15
    """Noise of a hadronic tower."""
    spikes: float = 3e-4
    """Anomalous single-tower deposits a crossing at the reference pile-up (barrel APDs, HF photomultipliers)."""
    spike_min: float = 20.0
    """Smallest spike; their spectrum falls as ET^-2.5."""
    out_of_time: float = 0.0
    """Share of the previous crossing's energy that leaks into this one; 0 keeps the speed."""

    # -- trigger primitives --------------------------------------------------------------------------------------
    zs_em: float = 1.0
    """Zero suppression of electromagnetic towers."""
    zs_had: float = 1.5
    """Zero suppression of hadronic towers."""
    zs_hf: float = 3.0
    """Zero suppression of HF towers: the short fibres are not resolved."""
    scale_em: float = 1.03
    """Layer-1 scale factor, electromagnetic."""
    scale_had: float = 1.10
    """Layer-1 scale factor, hadronic."""

    # -- jets ----------------------------------------------------------------------------------------------------
    jet_seed: float = 4.0
    """Least energy of a seed tower."""
    jet_min: float = 3.0
    """Least calibrated pt of a jet."""
    jet_factor_soft: float = 1.45
    """Largest correction up to a raw pt of 16 GeV: the full one, 1.65 there, would lift pile-up into the menu."""
    jet_factor_hard: float = 1.37
    """The same from 30 GeV on, linear in between: holds back the many jets of 40 to 60 GeV that make HT."""
    jet_ramp: float = 10.0
    """Raw pt at which the correction is complete; below it grows from none at 0 in proportion."""

    # -- e/gamma -------------------------------------------------------------------------------------------------
    eg_seed: float = 1.0
    """Least energy of a seed tower."""
    eg_min: float = 1.0
    """Least pt of a candidate."""
    eg_h_over_e: float = 0.06
    """Largest hadronic over electromagnetic energy of the seed tower."""
    eg_fine_grain: float = 0.60
    """Least share of the seed tower in its leading particle: stands for the fine-grain bit."""
    eg_shape: float = 0.20
    """Largest energy of the 3 x 5 ring left out of the cluster, as a share of the seed (and 1.5 GeV)."""
    eg_veto_off: float = 120.0
    """Seed energy above which no veto applies."""
    eg_scale: float = 1.02
    """Calibration of clusters."""

    # -- taus (the atlas_l1topo layout) --------------------------------------------------------------------------
    tau_seed: float = 1.0
    """Least energy of a seed tower."""
    tau_min: float = 3.0
    """Least pt of a tau."""
    tau_scale: float = 1.0
    """Calibration of clusters: none, as the topological trigger gets them."""

    # -- missing transverse energy -------------------------------------------------------------------------------
    met_barrel: float = 2.5
    """Least energy of a barrel tower that enters."""
    met_endcap: float = 3.5
    """The same for the endcap, before the pile-up term."""
    met_hf: float = 5.5
    """The same for HF, before the pile-up term."""
    met_pileup: float = 0.010
    """Rise of those thresholds for each tower hit beyond 200."""
    met_scale: float = 1.17
    """Calibration of the sum without HF."""
    met_scale_hf: float = 1.19
    """Calibration of the sum with HF, whose towers are cut hardest and lose most."""

    # -- muons ---------------------------------------------------------------------------------------------------
    mu_efficiency: float = 0.93
    """Plateau of the efficiency."""
    mu_turn_on_barrel: float = 3.2
    """Range in the iron: pt of half efficiency for |eta| < 0.83."""
    mu_turn_on_overlap: float = 2.8
    """The same for 0.83 < |eta| < 1.24."""
    mu_turn_on_endcap: float = 2.2
    """The same for |eta| > 1.24, where momentum is several times pt."""
    mu_turn_on_width: float = 0.4
    """Width of the turn-on."""
    mu_scale: float = 1.12
    """Assigned over true pt: the trigger scale is set for 90 % efficiency at the nominal threshold."""
    mu_shift: float = 0.8
    """Added to the assigned pt: energy lost in the calorimeters and the coil is given back to all alike."""
    mu_sigma_barrel: float = 0.20
    """Relative resolution, barrel."""
    mu_sigma_endcap: float = 0.25
    """Relative resolution, overlap and endcap."""
    mu_tail: float = 0.012
    """Share of muons whose pt is badly overestimated."""
    mu_tail_sigma: float = 0.7
    """Width of that tail in ln(pt)."""
    mu_min: float = 0.5
    """Least assigned pt: the track finders give none below."""


def gain_maps(detector: Detector) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gains of electromagnetic and hadronic towers, (80, 72) each; 0 for a dead one."""
    rng = np.random.default_rng([detector.pattern_seed, 1])
    maps = []
    for dead in (detector.dead_em, detector.dead_had):
        gain = rng.normal(1.0, detector.gain_spread, (N_ETA, N_PHI))
        maps.append(np.where(rng.random((N_ETA, N_PHI)) < dead, 0.0, gain).astype(np.float32))
    return maps[0], maps[1]
