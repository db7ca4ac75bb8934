"""From the particles of a batch to two jets with features: detector, clustering, substructure, b-tag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.search.jets import invariant_mass
from l1ad.search.simulate.recipe import FEATURES, FloatArray, ParticleFlow, Recipe

IntArray = npt.NDArray[np.int64]

MAX_CONSTITUENTS = 100
Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Particles:
    """What a detector sees of a batch, event by event in flat arrays; kind 0 photon, 1 electron or muon, 2 hadron."""

    event: IntArray
    pt: FloatArray
    eta: FloatArray
    phi: FloatArray
    track: npt.NDArray[np.bool_]
    kind: npt.NDArray[np.int8]


def _seen(prt: Any, particle_data: Any, detector: ParticleFlow, rng: np.random.Generator) -> _Particles:
    """Final particles of a batch after the detector."""
    import awkward as ak

    final = prt[prt.status > 0]
    event = np.repeat(np.arange(len(final)), ak.to_numpy(ak.num(final.id)))
    ids = ak.to_numpy(ak.flatten(final.id))
    px, py, pz = (ak.to_numpy(ak.flatten(final.p[c])) for c in ("px", "py", "pz"))
    unique, inverse = np.unique(ids, return_inverse=True)
    charged = np.array([particle_data.chargeType(int(i)) != 0 for i in unique], bool)[inverse]
    visible = np.array([particle_data.isVisible(int(i)) for i in unique], bool)[inverse]
    pt = np.hypot(px, py)
    # Below a fifth of the threshold no resolution brings a particle above it.
    kept = visible & (pt > 0.2 * detector.pt_min) & (np.abs(pz) < pt * np.sinh(5.0))
    event, pt, pz, px, py, charged = (v[kept] for v in (event, pt, pz, px, py, charged))
    absolute = np.abs(ids[kept])
    kind = np.where(absolute == 22, 0, np.where(np.isin(absolute, (11, 13)), 1, 2)).astype(np.int8)
    eta, phi = np.arcsinh(pz / pt), np.arctan2(py, px)
    energy = pt * np.cosh(eta)

    n = len(pt)
    track = charged & (np.abs(eta) < detector.track_eta_max)
    track &= (absolute == 13) | (rng.random(n) < detector.track_efficiency)

    def relative(terms: tuple[float, float], scale: FloatArray) -> FloatArray:
        return np.asarray(np.hypot(terms[0] * scale, terms[1]))

    electromagnetic = (kind == 0) | (absolute == 11)
    calorimeter = np.where(
        electromagnetic,
        relative(detector.photon_resolution, 1.0 / np.sqrt(energy)),
        relative(detector.hadron_resolution, 1.0 / np.sqrt(energy)),
    )
    constant, slope = detector.track_resolution
    resolution = np.where(track, relative((slope, constant), pt), calorimeter)
    angle = np.where(
        track, detector.track_angle, np.where(electromagnetic, detector.photon_angle, detector.hadron_angle)
    )
    pt = pt * np.clip(1.0 + resolution * rng.standard_normal(n), 0.0, 3.0)
    eta = eta + angle * rng.standard_normal(n)
    phi = phi + angle * rng.standard_normal(n)
    kept = pt > detector.pt_min
    return _Particles(event[kept], pt[kept], eta[kept], phi[kept], track[kept], kind[kept])


def _hadrons_of(prt: Any, flavour: int) -> tuple[Any, Any]:
    """eta and phi of the hadrons of a batch with this heaviest quark, above 5 GeV."""
    import awkward as ak

    code = np.abs(ak.to_numpy(ak.flatten(prt.id)))
    # PDG numbers of hadrons: the last digit is the spin, before it the quarks, the heaviest first.
    first = np.where((code // 1000) % 10 > 0, (code // 1000) % 10, (code // 100) % 10)
    heavy = ak.unflatten((code > 100) & (code < 10_000_000) & (first == flavour), ak.num(prt.id))
    momenta = prt.p[heavy]
    pt = np.hypot(momenta.px, momenta.py)
    hard = pt > 5.0
    return np.arcsinh(momenta.pz[hard] / pt[hard]), np.arctan2(momenta.py[hard], momenta.px[hard])


def columns(batch: Any, particle_data: Any, recipe: Recipe, rng: np.random.Generator) -> Columns:
    """Features of the selected events of a batch and their rows in it."""
    import awkward as ak
    import fastjet
    import vector

    vector.register_awkward()
    n, chosen = len(batch), recipe.selection
    seen = _seen(batch.prt, particle_data, recipe.detector, rng)
    fields = {
        "px": seen.pt * np.cos(seen.phi),
        "py": seen.pt * np.sin(seen.phi),
        "pz": seen.pt * np.sinh(seen.eta),
        "E": seen.pt * np.cosh(seen.eta),
    }
    counts = np.bincount(seen.event, minlength=n)
    full = np.flatnonzero(counts > 1)  # fastjet does not take events without particles
    zipped = ak.zip({**fields, "track": seen.track, "kind": seen.kind}, with_name="Momentum4D")
    particles = ak.to_packed(ak.unflatten(zipped, counts)[full])
    sequence = fastjet.ClusterSequence(
        ak.zip({c: particles[c] for c in fields}, with_name="Momentum4D"),
        fastjet.JetDefinition(fastjet.antikt_algorithm, chosen.radius),
    )
    jets = sequence.inclusive_jets(min_pt=chosen.pt_min)
    inside = sequence.constituent_index(min_pt=chosen.pt_min)
    two = np.flatnonzero(ak.to_numpy(ak.num(jets)) >= 2)
    jets, inside, particles, rows = jets[two], inside[two], particles[two], full[two]
    order = ak.argsort(np.hypot(jets.px, jets.py), ascending=False)[:, :2]
    jets, inside = jets[order], inside[order]
    momenta = np.stack([ak.to_numpy(jets[c]) for c in ("E", "px", "py", "pz")], axis=2).reshape(-1, 2, 4)
    kinematics = _kinematics(momenta)
    m_jj = invariant_mass(kinematics)
    delta_eta = np.abs(kinematics[:, 0, 1] - kinematics[:, 1, 1])
    good = (m_jj >= chosen.m_jj_min) & (m_jj < chosen.m_jj_max)
    good &= (delta_eta >= chosen.delta_eta_min) & (delta_eta < chosen.delta_eta_max)
    good &= (np.abs(kinematics[:, :, 1]) < chosen.eta_max).all(axis=1)
    kept = np.flatnonzero(good)
    kinematics, rows = kinematics[kept], rows[kept]
    if len(kept) == 0:
        return _nothing()

    # Both jets of all events in one array: first jets, then second ones.
    parts = ak.to_packed(ak.concatenate([particles[kept][inside[kept][:, j]] for j in (0, 1)]))
    tau, m_sd = _substructure(parts, chosen.radius)
    pt = np.hypot(parts.px, parts.py)
    total = ak.to_numpy(ak.sum(pt, axis=1))
    flat = kinematics.transpose(1, 0, 2).reshape(-1, 4)
    values = {
        **dict(zip(("pt", "eta", "phi", "m"), flat.T)),
        "m_sd": m_sd,
        **{f"tau{i + 1}": tau[:, i] for i in range(4)},
        "n_const": ak.to_numpy(ak.num(pt)),
        "n_charged": ak.to_numpy(ak.sum(parts.track, axis=1)),
        "lepton_fraction": ak.to_numpy(ak.sum(pt * (parts.kind == 1), axis=1)) / total,
        "b_tag": _b_tag(batch.prt[rows], flat, recipe, rng),
    }
    jets_out = np.stack([values[name] for name in FEATURES], axis=1).astype(np.float32)
    ranked = parts[ak.argsort(pt, ascending=False)]
    return {
        "row": rows,
        "jets": jets_out.reshape(2, -1, len(FEATURES)).transpose(1, 0, 2),
        "m_jj": m_jj[kept],
        "constituents": _padded(ranked).reshape(2, -1, MAX_CONSTITUENTS, 3).transpose(1, 0, 2, 3),
    }


def _nothing() -> Columns:
    return {
        "row": np.zeros(0, np.int64),
        "jets": np.zeros((0, 2, len(FEATURES)), np.float32),
        "m_jj": np.zeros(0),
        "constituents": np.zeros((0, 2, MAX_CONSTITUENTS, 3), np.float32),
    }


def _kinematics(momenta: FloatArray) -> FloatArray:
    """(E, px, py, pz) to (pt, eta, phi, m), shape (n, 2, 4)."""
    energy, px, py, pz = np.moveaxis(momenta, 2, 0)
    pt = np.hypot(px, py)
    mass = np.sqrt(np.maximum(energy**2 - pt**2 - pz**2, 0.0))
    return np.stack([pt, np.arcsinh(pz / pt), np.arctan2(py, px), mass], axis=2)


def _substructure(parts: Any, radius: float) -> tuple[FloatArray, FloatArray]:
    """tau1 ... tau4, shape (jets, 4), and the soft-drop mass in GeV, shape (jets,), of the particles of each jet."""
    import awkward as ak
    import fastjet

    from l1ad.search.softdrop import soft_drop_mass

    momenta = ak.zip({c: parts[c] for c in ("px", "py", "pz", "E")}, with_name="Momentum4D")
    # A radius at which all of a jet is one jet again.
    again = fastjet.ClusterSequence(momenta, fastjet.JetDefinition(fastjet.cambridge_algorithm, 10.0 * radius))
    tau = ak.to_numpy(
        again.njettiness(
            measure_definition="NormalizedMeasure",
            axes_definition="OnePass_KT_Axes",
            njets=[1, 2, 3, 4],
            beta=1.0,
            R0=radius,
        )
    )
    # A jet of fewer than N particles has tau_N = 0; some versions say a negative number or nothing.
    tau = np.where(np.isfinite(tau), np.maximum(tau, 0.0), 0.0)
    stacked = np.stack([ak.to_numpy(ak.flatten(parts[c])) for c in ("E", "px", "py", "pz")], axis=1)
    return tau, soft_drop_mass(stacked, ak.to_numpy(ak.num(parts.px)))


def _b_tag(prt: Any, flat: FloatArray, recipe: Recipe, rng: np.random.Generator) -> FloatArray:
    """0 or 1 for each jet of `flat`, (pt, eta, phi, m) of all first jets and then of all second ones."""
    import awkward as ak

    detector = recipe.detector
    chance = np.full(len(flat), detector.mistag)
    for flavour, efficiency in ((4, detector.c_efficiency), (5, detector.b_efficiency)):
        eta, phi = _hadrons_of(prt, flavour)
        eta, phi = ak.concatenate([eta, eta]), ak.concatenate([phi, phi])
        turn = (phi - flat[:, 2] + np.pi) % (2.0 * np.pi) - np.pi
        near = np.hypot(eta - flat[:, 1], turn) < recipe.selection.radius
        chance = np.where(ak.to_numpy(ak.any(near, axis=1)), efficiency, chance)
    return (rng.random(len(flat)) < chance).astype(np.float64)


def _padded(ranked: Any) -> npt.NDArray[np.float32]:
    """px, py, pz of particles to shape (jets, MAX_CONSTITUENTS, 3), zeros after the last."""
    import awkward as ak

    columns = (ak.fill_none(ak.pad_none(ranked[c], MAX_CONSTITUENTS, clip=True), 0.0) for c in ("px", "py", "pz"))
    return np.stack([ak.to_numpy(c) for c in columns], axis=2).astype(np.float32)
