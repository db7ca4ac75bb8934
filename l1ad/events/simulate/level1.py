"""From drawn crossings to what a Level-1 trigger reports: integers in one of the layouts of :data:`LAYOUTS`.

``cms_ugt``: missing energy (towers without HF), 4 e/gammas, 4 muons at the second station, 10 jets; per-event columns
``ht`` and ``met_hf`` (missing energy with HF) in the same 0.5 GeV steps.

``cms_calo_regions``: 18 x 14 sums of 4 x 4 calibrated towers, electromagnetic and hadronic, after the towers' own zero
suppression and saturation (127.5 GeV each); 0.5 GeV a step, pegged at 1023 (``UCTRegion::process`` and the order of
``L1TCaloSummary`` in cmssw L1Trigger).

``atlas_l1topo``: the same crossing and detector in the words of another experiment's trigger: 6 jets (as above, HF
included), 4 taus (3 x 3 towers around the largest of them, |eta| < 2.5, no isolation), 4 muons, missing energy with HF;
0.1 GeV a step. A stand-in with the right multiplicities, spectrum and words, not an emulation of that detector, whose
muons come with one of some fixed thresholds where these have a continuous pt.

The same seed gives the same crossings in each layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l1ad.events.layout import ObjectLayout, get_layout
from l1ad.events.simulate.calibration import JetCalibration, default_calibration
from l1ad.events.simulate.detector import ETA_CENTRE, Detector, gain_maps
from l1ad.events.simulate.mixing import Crossings, Pool
from l1ad.events.simulate.propagate import to_second_station
from l1ad.events.sums import ht_of_jets

__all__ = ["LAYOUTS", "L1Objects", "RawObjects", "emulate", "reconstruct"]

#: Layouts that can be simulated, and the lists of candidates that each needs.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "cms_ugt": ("jets", "egs"),
    "cms_calo_regions": ("regions",),
    "atlas_l1topo": ("jets", "taus"),
}
_HT_CODE_MAX = 4095  # 12 bits, as the other sums
_NOISE_TABLE = 400_003  # normal numbers a chunk; a crossing reads 2 x 5760 of them from a random start
_TOWERS = 80 * 72

Array = NDArray[Any]


@dataclass(frozen=True)
class RawObjects:
    """Uncalibrated calorimeter objects of n crossings, k candidates each in no order, zero where there is none.

    ``jets`` (n, k, 4): pt after pile-up subtraction, pile-up, row, column; ``egs`` and ``taus`` (n, k, 3): pt,
    pseudorapidity, azimuth; ``met`` (n, 4): x and y without HF, x and y with it; ``towers_hit`` (n,); ``sum_et`` (n,).
    GeV. ``regions`` (n, 252): codes of 0.5 GeV. Those of the first four that were not asked for have no rows.
    """

    jets: Array
    egs: Array
    taus: Array
    regions: Array
    met: Array
    towers_hit: Array
    sum_et: Array


@dataclass(frozen=True)
class L1Objects:
    """Hardware integers: ``hw`` (n, slots, features) of a layout, and per-event columns (n,) beside them."""

    hw: NDArray[np.int16]
    columns: dict[str, NDArray[np.int16]]


def reconstruct(
    pool: Pool,
    crossings: Crossings,
    detector: Detector,
    rng: np.random.Generator,
    wanted: tuple[str, ...] = LAYOUTS["cms_ugt"],
) -> RawObjects:
    """Run the compiled emulation over all crossings, for the lists of candidates that are ``wanted``."""
    from l1ad.events.simulate import kernel

    n, d = len(crossings), detector
    rows = {name: n if name in wanted else 0 for name in ("jets", "egs", "taus", "regions")}
    jets = np.zeros((rows["jets"], kernel.N_CANDIDATES, 4), np.float32)
    egs = np.zeros((rows["egs"], kernel.N_CANDIDATES, 3), np.float32)
    taus = np.zeros((rows["taus"], kernel.N_CANDIDATES, 3), np.float32)
    regions = np.zeros((rows["regions"], kernel.N_REGIONS), np.int16)
    met = np.zeros((n, 4), np.float32)
    sums = np.zeros((n, 2), np.float32)
    gain_em, gain_had = gain_maps(d)
    deposits = pool.deposits
    kernel.crossings(
        crossings.first,
        crossings.events,
        crossings.turns,
        crossings.mirrors,
        crossings.scales,
        deposits.offset,
        deposits.forward,
        deposits.records,
        gain_em,
        gain_had,
        rng.standard_normal(_NOISE_TABLE, dtype=np.float32),
        rng.integers(0, _NOISE_TABLE - 2 * _TOWERS, n),
        crossings.spikes,
        ETA_CENTRE,
        np.array([d.noise_em, d.noise_had, d.zs_em, d.zs_had, d.zs_hf, d.scale_em, d.scale_had]),
        np.array([d.met_barrel, d.met_endcap, d.met_hf, d.met_pileup]),
        np.array([d.eg_seed, d.eg_h_over_e, d.eg_fine_grain, d.eg_shape, d.eg_veto_off]),
        np.array([d.tau_seed]),
        d.jet_seed,
        jets,
        egs,
        taus,
        regions,
        met,
        sums,
    )
    return RawObjects(jets, egs, taus, regions, met, sums[:, 0], sums[:, 1])


def magnitude_codes(values: Array, lsb: float, code_max: int) -> NDArray[np.int16]:
    """Transverse energies to codes: whole steps, rounded down as the hardware does, saturated at the largest code."""
    return np.clip(np.floor(values / lsb), 0, code_max).astype(np.int16)


def angle_codes(phi: Array, period: int) -> NDArray[np.int16]:
    """Azimuths (rad) to codes 0 .. period - 1.

    Tower centres lie exactly on the edge between two codes: a millionth of a code keeps rounding from deciding there.
    """
    turns = np.mod(np.asarray(phi, np.float64), 2 * np.pi) / (2 * np.pi)
    return np.asarray(np.floor(turns * period + 1e-6).astype(np.int64) % period, np.int16)


def _linear_codes(eta: Array, lsb: float, low: int, high: int) -> NDArray[np.int16]:
    return np.clip(np.rint(np.asarray(eta, np.float64) / lsb), low, high).astype(np.int16)


def _fill(
    hw: NDArray[np.int16], layout: ObjectLayout, name: str, pt: Array, eta: Array, phi: Array, least: float
) -> None:
    """Hardest candidates of (n, k) arrays into the slots of one object; below ``least`` GeV a slot stays empty."""
    group = layout.group(name)
    order = np.argsort(-pt, axis=1, kind="stable")[:, : group.count]
    pt, eta, phi = (np.take_along_axis(x, order, axis=1) for x in (pt, eta, phi))
    word_pt, word_eta, word_phi = group.words
    codes = magnitude_codes(pt, word_pt.lsb, word_pt.code_max)
    there = (pt >= least) & (codes > 0)
    block = hw[:, layout.slices[name]]
    block[:, :, 0] = np.where(there, codes, 0)
    block[:, :, 1] = np.where(there, _linear_codes(eta, word_eta.lsb, word_eta.code_min, word_eta.code_max), 0)
    block[:, :, 2] = np.where(there, angle_codes(phi, word_phi.period), 0)


def hadronic_sum(hw: NDArray[np.int16], layout: ObjectLayout) -> NDArray[np.int16]:
    """HT as the trigger stores it: clipped to its word."""
    return np.asarray(np.minimum(ht_of_jets(hw, layout), _HT_CODE_MAX), np.int16)


@dataclass(frozen=True)
class _Emulation:
    """One call of :func:`emulate`: what its steps share, and the codes as they are filled in."""

    pool: Pool
    crossings: Crossings
    detector: Detector
    rng: np.random.Generator
    calibration: JetCalibration
    layout: ObjectLayout
    raw: RawObjects
    hw: NDArray[np.int16]

    def fill_met(self, scale: float, x: Array, y: Array) -> None:
        """Missing energy of these components (n,), in GeV, into its slot."""
        word, _, phi_word = self.layout.group("met").words
        slot = self.hw[:, self.layout.slices["met"]][:, 0]
        slot[:, 0] = magnitude_codes(scale * np.hypot(x, y), word.lsb, word.code_max)
        slot[:, 2] = np.where(slot[:, 0] > 0, angle_codes(np.arctan2(y, x), phi_word.period), 0)

    def fill_clusters(self, name: str, clusters: Array, scale: float, least: float) -> None:
        """E/gammas or taus (n, k, 3), calibrated by one factor."""
        values = clusters.astype(np.float64)
        _fill(self.hw, self.layout, name, values[:, :, 0] * scale, values[:, :, 1], values[:, :, 2], least)

    def fill_jets(self) -> None:
        """Jets, calibrated by pt and region."""
        jets = self.raw.jets.astype(np.float64)
        row = jets[:, :, 2].astype(np.int64)
        pt = np.where(jets[:, :, 0] > 0, self.calibration(jets[:, :, 0], row, self.detector), 0.0)
        phi = (jets[:, :, 3] + 0.5) * (2 * np.pi / 72)
        _fill(self.hw, self.layout, "jet", pt, ETA_CENTRE[row], phi, self.detector.jet_min)

    def fill_muons(self) -> None:
        """Muons at the second station."""
        pt, eta, phi = muons(self.pool, self.crossings, self.detector, self.rng)
        _fill(self.hw, self.layout, "mu", pt, eta, phi, self.detector.mu_min)


def _ugt(e: _Emulation) -> dict[str, NDArray[np.int16]]:
    d, met = e.detector, e.raw.met
    e.fill_met(d.met_scale, met[:, 0], met[:, 1])
    e.fill_clusters("eg", e.raw.egs, d.eg_scale, d.eg_min)
    e.fill_jets()
    e.fill_muons()
    word = e.layout.group("met").words[0]
    met_hf = d.met_scale_hf * np.hypot(met[:, 2], met[:, 3])
    return {"ht": hadronic_sum(e.hw, e.layout), "met_hf": magnitude_codes(met_hf, word.lsb, word.code_max)}


def _calo_regions(e: _Emulation) -> dict[str, NDArray[np.int16]]:
    e.hw[:, :, 0] = e.raw.regions
    return {}


def _l1topo(e: _Emulation) -> dict[str, NDArray[np.int16]]:
    d, met = e.detector, e.raw.met
    e.fill_jets()
    e.fill_clusters("tau", e.raw.taus, d.tau_scale, d.tau_min)
    e.fill_muons()
    e.fill_met(d.met_scale_hf, met[:, 2], met[:, 3])
    return {}


_FILL: dict[str, Callable[[_Emulation], dict[str, NDArray[np.int16]]]] = {
    "cms_ugt": _ugt,
    "cms_calo_regions": _calo_regions,
    "atlas_l1topo": _l1topo,
}


def emulate(
    pool: Pool,
    crossings: Crossings,
    detector: Detector,
    rng: np.random.Generator,
    calibration: JetCalibration | None = None,
    layout: str = "cms_ugt",
) -> L1Objects:
    """What the trigger reports of drawn crossings, in a layout of :data:`LAYOUTS`."""
    shape = get_layout(layout)
    raw = reconstruct(pool, crossings, detector, rng, LAYOUTS[layout])
    hw = np.zeros((len(crossings), *shape.shape), np.int16)
    e = _Emulation(pool, crossings, detector, rng, calibration or default_calibration(), shape, raw, hw)
    columns = _FILL[layout](e)
    return L1Objects(hw, columns)


def muons(
    pool: Pool, crossings: Crossings, d: Detector, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Muon candidates, (n, 4) each: assigned pt (0 for none), pseudorapidity and azimuth at the second station."""
    n = len(crossings)
    counts = pool.mu_offset[crossings.events + 1] - pool.mu_offset[crossings.events]
    counts = np.where(crossings.scales == 1.0, counts, 0)  # none out of time
    collision = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(collision)) - np.repeat(np.cumsum(counts) - counts, counts)
    pt, eta, phi, charge = pool.muons[pool.mu_offset[crossings.events[collision]] + within].astype(np.float64).T
    mirror = crossings.mirrors[collision].astype(bool)
    eta = np.where(mirror, -eta, eta)
    phi = phi + crossings.turns[collision] * (2 * np.pi / 72)
    owner = np.searchsorted(crossings.first, collision, side="right") - 1

    region = np.digitize(np.abs(eta), (0.83, 1.24))  # barrel, overlap, endcap track finder
    turn_on = np.array([d.mu_turn_on_barrel, d.mu_turn_on_overlap, d.mu_turn_on_endcap])[region]
    seen = rng.random(len(pt)) * (1.0 + np.exp(np.minimum((turn_on - pt) / d.mu_turn_on_width, 50.0))) < d.mu_efficiency
    seen &= np.abs(eta) < 2.4
    sigma = np.where(region == 0, d.mu_sigma_barrel, d.mu_sigma_endcap)
    log_pt = np.log(pt * d.mu_scale + d.mu_shift) + sigma * rng.standard_normal(len(pt))
    tail = rng.random(len(pt)) < d.mu_tail
    log_pt += np.where(tail, np.abs(d.mu_tail_sigma * rng.standard_normal(len(pt))), 0.0)
    assigned = np.exp(log_pt)
    # the station measures position; the mirror image of a particle bends the same way in azimuth
    eta, phi = to_second_station(pt, eta, phi, charge)
    eta = eta + 0.012 * rng.standard_normal(len(pt))
    phi = phi + 0.005 * rng.standard_normal(len(pt))

    out = np.zeros((3, n, 4))
    owner, values = owner[seen], np.stack([assigned, eta, phi])[:, seen]
    order = np.lexsort((-values[0], owner))
    owner, values = owner[order], values[:, order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner, side="left")
    first = rank < out.shape[2]
    out[:, owner[first], rank[first]] = values[:, first]
    return out[0], out[1], out[2]
