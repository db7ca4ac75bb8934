"""PYTHIA with cuts between its steps: selected events from one seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.simulate.generate import MAX_PYTHIA_SEED, start
from l1ad.search.jets import Dijets
from l1ad.search.simulate.features import Columns, columns
from l1ad.search.simulate.recipe import FEATURES, PARTONS, GeneratorCuts, Partons, Recipe, Sample

#: Events tried at a time. As the block of the process, it is part of what a seed means.
_BATCH = 500
#: Events that are tried without finding one before a selection counts as impossible.
_PATIENCE = 20_000
_Key = tuple[float, float]


def _hook(module: Any, cuts: GeneratorCuts, radius: float, seen: dict[_Key, tuple[float, float]]) -> Any:
    """A PYTHIA hook that applies the cuts; what it found of the events that it let pass goes to `seen`.

    The events are known by the momentum of entry 5, the first outgoing parton, which stays as it is.
    """
    # Anti-kt, as exact as fastjet's; partons beyond the detector cannot be in a jet that is kept.
    finder = module.SlowJet(-1, radius, 0.25 * cuts.m_jj[0] / np.cosh(0.5 * cuts.delta_eta_hat_max), 5.0)

    class Hook(module.UserHooks):  # type: ignore[misc]
        """PYTHIA calls these by their names."""

        def canVetoProcessLevel(self) -> bool:
            return True

        def doVetoProcessLevel(self, process: Any) -> bool:
            return bool(abs(process[5].eta() - process[6].eta()) > cuts.delta_eta_hat_max)

        def canVetoPT(self) -> bool:
            return True

        def scaleVetoPT(self) -> float:
            return cuts.shower_pt

        def doVetoPT(self, _position: int, event: Any) -> bool:
            finder.analyze(event)
            if finder.sizeJet() < 2:
                return True
            first, second = finder.p(0), finder.p(1)
            mass, opening = (first + second).mCalc(), abs(first.eta() - second.eta())
            if not (cuts.m_jj[0] <= mass <= cuts.m_jj[1] and cuts.delta_eta[0] <= opening <= cuts.delta_eta[1]):
                return True
            seen[event[5].px(), event[5].pz()] = (mass, opening)
            return False

    return Hook()


def generate(recipe: Recipe, n: int, seed: np.random.SeedSequence) -> Sample:
    """`n` selected events from one child seed."""
    seed_pythia, seed_numpy = seed.spawn(2)
    rng = np.random.default_rng(seed_numpy)
    cuts = recipe.cuts
    kept_alive: list[Any] = []
    seen: dict[_Key, tuple[float, float]] = {}

    def hook(module: Any) -> Any:
        kept_alive.append(_hook(module, cuts, recipe.selection.radius, seen)) if cuts is not None else None
        return kept_alive[-1]

    pythia = start(
        recipe.generated,
        recipe.tune,
        1 + int(seed_pythia.generate_state(1)[0]) % MAX_PYTHIA_SEED,
        None if cuts is None else hook,
    )
    parts: list[Columns] = []
    tried = found = 0
    while found < n:
        seen.clear()
        batch = pythia.nextBatch(min(_BATCH, recipe.process.block))
        found_here = columns(batch, pythia.particleData, recipe, rng)
        found_here.update(_of_partons(batch, found_here["row"], None if cuts is None else seen))
        rows = found_here["row"][: n - found]
        last = found + len(found_here["row"]) >= n
        # Stopped at the n-th selected event, so that the tried ones give the efficiency.
        tried += int(rows[-1]) + 1 if last else len(batch)
        parts.append({name: values[: len(rows)] for name, values in found_here.items()})
        found += len(rows)
        if found == 0 and tried >= _PATIENCE:
            raise InputError(f"simulation of {recipe.process.name}", "selection", f"0 of {tried} events", "some")
    out = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    dijets = Dijets(
        jets=out["jets"],
        names=FEATURES,
        m_jj=out["m_jj"],
        label=np.full(n, 0 if recipe.cuts is not None else 1, np.int8),
        weight=np.ones(n),
        constituents=out["constituents"],
    )
    sigma_fb = float(pythia.infoPython().sigmaGen()) * 1e12 * n / tried
    return Sample(dijets, Partons(**{name: out[name] for name in PARTONS}), tried, sigma_fb)


def _of_partons(batch: Any, rows: npt.NDArray[np.int64], seen: Mapping[_Key, tuple[float, float]] | None) -> Columns:
    """The fields of `Partons` for some rows of a batch."""
    import awkward as ak

    m_hat = ak.to_numpy(batch.info.mHat)[rows]
    if seen is None or len(rows) == 0:
        nan = np.full(len(rows), np.nan)
        return {"m_hat": m_hat, "delta_eta_hat": nan, "parton_m_jj": nan, "parton_delta_eta": nan}
    # The outgoing partons of the hard process are entries 5 and 6.
    px, py, pz = (np.stack([ak.to_numpy(batch.prt.p[c][rows, i]) for i in (5, 6)]) for c in ("px", "py", "pz"))
    eta = np.arcsinh(pz / np.hypot(px, py))
    stopped = np.array([seen[key] for key in zip(px[0].tolist(), pz[0].tolist())])
    return {
        "m_hat": m_hat,
        "delta_eta_hat": np.abs(eta[0] - eta[1]),
        "parton_m_jj": stopped[:, 0],
        "parton_delta_eta": stopped[:, 1],
    }
