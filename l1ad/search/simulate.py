"""Simulated dijets: QCD and resonances with substructure, from PYTHIA to `l1ad.search.jets.Dijets`.

`simulate` makes a sample, `qcd` and `signal` say of what, `Selection` which events are kept, `GeneratorCuts` what
PYTHIA is asked for, `closure` whether those cuts shape the spectrum. Needs the extras ``[simulate,jets]``.

A sample is made in pieces of a fixed number of selected events, each from its own child of one seed and, with a folder,
in its own file: the sample is the same for any number of workers, the first events of a longer one are those of a
shorter one, and an interrupted run goes on from the pieces that are there.

Departures from the published samples: particles are smeared one by one (`ParticleFlow`), with no detector simulation
and no pile-up; by default no underlying event; PYTHIA's leading order for everything; ``b_tag`` is a coin with CMS-like
efficiencies. docs/how-to/dijets.md says what that does to the jets.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, require
from l1ad.events.simulate.generate import MAX_PYTHIA_SEED, start
from l1ad.events.simulate.processes import SQRT_S_GEV, Process, forced
from l1ad.search.jets import SIDEBAND_DELTA_ETA, SIGNAL_DELTA_ETA, Dijets, concatenate, invariant_mass, read

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Features of a simulated jet. ``m_sd``: soft drop with z_cut 0.1, beta 0; tau1 ... tau4: normalised N-subjettiness,
#: beta 1, one-pass kt axes; n_const: all particles, n_charged: those with a track; lepton_fraction: pt of electrons and
#: muons over the jet's; b_tag: 0 or 1.
FEATURES: tuple[str, ...] = (
    "pt",
    "eta",
    "phi",
    "m",
    "m_sd",
    "tau1",
    "tau2",
    "tau3",
    "tau4",
    "n_const",
    "n_charged",
    "lepton_fraction",
    "b_tag",
)
MAX_CONSTITUENTS = 100
#: Events tried at a time. As the block of the process, it is part of what a seed means.
_BATCH = 500
#: Events that are tried without finding one before a selection counts as impossible.
_PATIENCE = 20_000


@dataclass(frozen=True)
class Selection:
    """Which dijets are kept.

    Attributes
    ----------
    m_jj_min, m_jj_max : invariant mass of the two leading jets in GeV; the lower end is inside, the upper is not.
    delta_eta_min, delta_eta_max : |eta1 - eta2|, both ends as for the mass.
    pt_min : of both jets, in GeV.
    eta_max : |eta| of both jets.
    radius : of the anti-kt jets.
    """

    m_jj_min: float = 1300.0
    m_jj_max: float = SQRT_S_GEV
    delta_eta_min: float = 0.0
    delta_eta_max: float = SIGNAL_DELTA_ETA
    pt_min: float = 200.0
    eta_max: float = 2.5
    radius: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.m_jj_min < self.m_jj_max:
            raise InputError("selection", "m_jj", f"{self.m_jj_min:g} to {self.m_jj_max:g}", "a rising positive range")
        if not 0 <= self.delta_eta_min < self.delta_eta_max:
            found = f"{self.delta_eta_min:g} to {self.delta_eta_max:g}"
            raise InputError("selection", "delta eta", found, "a rising range, not negative")

    def sideband(self) -> Selection:
        """The same with |delta eta| of the sideband."""
        low, high = SIDEBAND_DELTA_ETA
        return replace(self, delta_eta_min=low, delta_eta_max=high)


@dataclass(frozen=True)
class GeneratorCuts:
    """What PYTHIA is asked for in QCD: parton pairs, and then showers, that can give selected dijets.

    Most of a hard event's time goes into soft emissions, hadrons and clustering. So the shower is stopped once, where
    its next emission is softer than `shower_pt`: the partons that are there are clustered, and the event is dropped if
    their dijet is far from the selection. The pair is cut on in mass and opening only; the cut on pTHat that PYTHIA is
    given follows from them (pT = m / (2 cosh(delta eta / 2)) for massless partons) and removes nothing more.

    Attributes
    ----------
    m_hat_min : mass of the parton pair in GeV.
    delta_eta_hat_max : |eta3 - eta4| of the pair.
    m_jj : range of the mass of the dijet of partons, in GeV.
    delta_eta : range of its |eta1 - eta2|.
    shower_pt : in GeV.
    """

    m_hat_min: float
    delta_eta_hat_max: float
    m_jj: tuple[float, float]
    delta_eta: tuple[float, float]
    shower_pt: float = 30.0

    @classmethod
    def around(cls, selection: Selection) -> GeneratorCuts:
        """Cuts that lose about 2 % of the selected events next to the least m_jj and nothing visible above.

        docs/how-to/dijets.md has the figures; `closure` judges these or others.
        """
        return cls(
            m_hat_min=0.65 * selection.m_jj_min,
            delta_eta_hat_max=selection.delta_eta_max + 0.8,
            m_jj=(0.8 * selection.m_jj_min, 1.12 * selection.m_jj_max),
            delta_eta=(max(selection.delta_eta_min - 0.15, 0.0), selection.delta_eta_max + 0.15),
        )

    def settings(self) -> tuple[str, ...]:
        """For PYTHIA; the rest is up to `_hook`."""
        pt = self.m_hat_min / (2.0 * np.cosh(0.5 * self.delta_eta_hat_max))
        return (f"PhaseSpace:mHatMin = {self.m_hat_min}", f"PhaseSpace:pTHatMin = {pt:.3f}")

    def passes(self, partons: Partons) -> npt.NDArray[np.bool_]:
        """Which events pass, shape (n,)."""
        return np.asarray(
            (partons.m_hat >= self.m_hat_min)
            & (partons.delta_eta_hat <= self.delta_eta_hat_max)
            & (partons.parton_m_jj >= self.m_jj[0])
            & (partons.parton_m_jj <= self.m_jj[1])
            & (partons.parton_delta_eta >= self.delta_eta[0])
            & (partons.parton_delta_eta <= self.delta_eta[1])
        )


@dataclass(frozen=True)
class Partons:
    """What the generator cuts look at, shape (n,) each; NaN for a resonance, on which nothing is cut.

    Attributes
    ----------
    m_hat, delta_eta_hat : mass in GeV and |eta3 - eta4| of the hard process.
    parton_m_jj, parton_delta_eta : of the two leading jets of partons where the shower was stopped.
    """

    m_hat: FloatArray
    delta_eta_hat: FloatArray
    parton_m_jj: FloatArray
    parton_delta_eta: FloatArray


@dataclass(frozen=True)
class ParticleFlow:
    """Response to single particles: a stand-in for a detector with particle flow.

    Attributes
    ----------
    track_efficiency, track_eta_max : charged particles outside are measured as neutral ones.
    track_resolution : relative resolution of pt, constant and per GeV, added in quadrature.
    photon_resolution, hadron_resolution : stochastic (times 1/sqrt(E/GeV)) and constant term, in quadrature.
    track_angle, photon_angle, hadron_angle : resolution in eta and in phi.
    pt_min : softer particles are lost, after smearing, in GeV.
    b_efficiency, c_efficiency, mistag : chance of ``b_tag`` for a jet with a b hadron, with a charmed one, with none.
    """

    track_efficiency: float = 0.95
    track_eta_max: float = 2.5
    track_resolution: tuple[float, float] = (0.01, 1e-4)
    photon_resolution: tuple[float, float] = (0.05, 0.01)
    hadron_resolution: tuple[float, float] = (0.8, 0.05)
    track_angle: float = 0.0005
    photon_angle: float = 0.003
    hadron_angle: float = 0.01
    pt_min: float = 0.5
    b_efficiency: float = 0.7
    c_efficiency: float = 0.15
    mistag: float = 0.01


@dataclass(frozen=True)
class Signal:
    """A resonance that decays to two jets with substructure.

    Attributes
    ----------
    name, about : for the command line.
    stands_for : which particles of PYTHIA play the parts.
    mass : default mass of the resonance in GeV.
    daughters : name and default mass in GeV of what it decays to, where that can be chosen.
    prongs : quarks in each of the two jets.
    """

    name: str
    about: str
    stands_for: str
    mass: float
    daughters: tuple[tuple[str, float], ...]
    prongs: tuple[int, int]


#: The signals by name; `signal` gives the generator settings at any masses.
SIGNALS: dict[str, Signal] = {
    s.name: s
    for s in (
        Signal(
            "x_yy_4q",
            "X -> Y Y' -> 4q",
            "X is the heavy scalar H2 from gluon fusion, Y and Y' the scalars h and A with decays to light quarks; "
            "all narrow, angles isotropic",
            3000.0,
            (("y", 170.0), ("y2", 170.0)),
            (2, 2),
        ),
        Signal(
            "wp_bpt",
            "W' -> B' t -> bZ t",
            "PYTHIA's W' with t b' as its only channel, b' -> b Z",
            3000.0,
            (("b_prime", 400.0),),
            (3, 3),
        ),
        Signal(
            "wkk_rw_3w",
            "W_KK -> R W -> 3W",
            "PYTHIA's W' with W h as its only channel; the radion R is the scalar h, h -> W W",
            3000.0,
            (("radion", 400.0),),
            (4, 2),
        ),
        Signal(
            "zp_tptp",
            "Z' -> T' T' -> tZ tZ",
            "PYTHIA's Z' without interference, coupled to the fourth generation, t' -> t Z",
            3000.0,
            (("t_prime", 400.0),),
            (5, 5),
        ),
        Signal(
            "y_hh_4t",
            "Y -> H H -> 4t",
            "Y is the heavy scalar H2 from gluon fusion, H the scalar h with t tbar as its only channel",
            3000.0,
            (("h", 400.0),),
            (6, 6),
        ),
        Signal(
            "qstar_qwp",
            "Q* -> q W' -> 3q",
            "PYTHIA's excited u and d quarks; the light W' is PYTHIA's W' with decays to light quarks",
            3000.0,
            (("w_prime", 170.0),),
            (1, 2),
        ),
    )
}


def signal(name: str, mass: float | None = None, **daughters: float) -> Process:
    """Generator settings of a signal.

    Parameters
    ----------
    name : a key of `SIGNALS`.
    mass : of the resonance in GeV.
    daughters : masses in GeV by the names in ``SIGNALS[name].daughters``.

    Widths are 0.1 % of the masses, so that a peak is as wide as the detector and radiation make it. W, Z and top decay
    to quarks.

    Raises
    ------
    InputError
        For an unknown name or daughter, or masses for which a decay is closed.
    """
    if name not in SIGNALS:
        raise InputError("signal", "name", repr(name), f"one of {', '.join(SIGNALS)}")
    entry = SIGNALS[name]
    m = entry.mass if mass is None else float(mass)
    masses = {**dict(entry.daughters), **daughters}
    unknown = sorted(set(daughters) - {key for key, _ in entry.daughters})
    if unknown:
        raise InputError(f"signal {name}", "daughter", ", ".join(unknown), ", ".join(k for k, _ in entry.daughters))
    lightest, decays = _DECAYS[name](masses)
    needed = 1.02 * lightest
    if not needed < m < 0.8 * SQRT_S_GEV:
        raise InputError(f"signal {name}", "mass", f"{m:g} GeV", f"{needed:.0f} to {0.8 * SQRT_S_GEV:.0f} GeV")
    for key, value in masses.items():
        least = _LEAST.get((name, key), 10.0)
        if not value >= least:
            raise InputError(f"signal {name}", key, f"{value:g} GeV", f"at least {least:g} GeV")
    bosons = tuple(f"{pid}:{switch}" for pid in (23, 24) for switch in ("onMode = off", "onIfAny = 1 2 3 4 5"))
    label = "_".join(f"{v:g}" for v in (m, *masses.values()))
    settings = (*_PRODUCTION[name](m), *decays, *bosons)
    return Process(f"{name}_{label}", settings, 2500, block=500, about=entry.about)


_TOP, _W, _Z = 172.5, 80.4, 91.2
_LIGHT = tuple(f"0.5 100 {q} -{q}" for q in (1, 2))
_SCALAR = ("Higgs:useBSM = on", "HiggsBSM:gg2H2 = on")

#: Lightest masses in GeV at which a daughter's own decay is open.
_LEAST = {
    ("wp_bpt", "b_prime"): _Z + 10.0,
    ("wkk_rw_3w", "radion"): 2 * _W + 5.0,
    ("zp_tptp", "t_prime"): _TOP + _Z + 5.0,
    ("y_hh_4t", "h"): 2 * _TOP + 5.0,
}


def _narrow(pid: int, mass: float, *channels: str) -> tuple[str, ...]:
    return forced(pid, mass, 1e-3 * mass, *channels)


_Masses = dict[str, float]
#: For each signal the sum of the daughters' masses, and the settings of their decays.
_DECAYS: dict[str, Callable[[_Masses], tuple[float, tuple[str, ...]]]] = {
    "x_yy_4q": lambda m: (m["y"] + m["y2"], (*_narrow(25, m["y"], *_LIGHT), *_narrow(36, m["y2"], *_LIGHT))),
    "wp_bpt": lambda m: (m["b_prime"] + _TOP, _narrow(7, m["b_prime"], "1.0 100 5 23")),
    "wkk_rw_3w": lambda m: (m["radion"] + _W, _narrow(25, m["radion"], "1.0 100 24 -24")),
    "zp_tptp": lambda m: (2 * m["t_prime"], _narrow(8, m["t_prime"], "1.0 100 6 23")),
    "y_hh_4t": lambda m: (2 * m["h"], _narrow(25, m["h"], "1.0 100 6 -6")),
    "qstar_qwp": lambda m: (m["w_prime"], _narrow(34, m["w_prime"], "0.5 100 2 -1", "0.5 100 4 -3")),
}
#: For each signal the settings that produce the resonance.
_PRODUCTION: dict[str, Callable[[float], tuple[str, ...]]] = {
    "x_yy_4q": lambda m: (*_SCALAR, *_narrow(35, m, "1.0 100 25 36")),
    "wp_bpt": lambda m: ("NewGaugeBoson:ffbar2Wprime = on", *_narrow(34, m, "1.0 100 6 -7")),
    "wkk_rw_3w": lambda m: ("NewGaugeBoson:ffbar2Wprime = on", *_narrow(34, m, "1.0 100 24 25")),
    "zp_tptp": lambda m: (
        "NewGaugeBoson:ffbar2gmZZprime = on",
        "Zprime:gmZmode = 3",
        "Zprime:coup2gen4 = on",
        *_narrow(32, m),
        "32:onIfAny = 8",
    ),
    "y_hh_4t": lambda m: (*_SCALAR, *_narrow(35, m, "1.0 100 25 25")),
    "qstar_qwp": lambda m: (
        "ExcitedFermion:dg2dStar = on",
        "ExcitedFermion:ug2uStar = on",
        f"ExcitedFermion:Lambda = {m}",
        *_narrow(4000001, m, "1.0 100 2 -34"),
        *_narrow(4000002, m, "1.0 100 1 34"),
    ),
}

#: Leading-order QCD; its generator cuts come from `GeneratorCuts`.
QCD = Process("qcd", ("HardQCD:all = on",), 50_000, block=1000, about="QCD dijets")


#: Hard collision, showers and hadrons, without multiparton interactions: 2 to 3 times as fast as with them.
NO_UNDERLYING_EVENT: tuple[str, ...] = ("PartonLevel:MPI = off",)
#: Moreover showers that end at 1 GeV instead of 0.5, which saves much for jets of several TeV.
FAST: tuple[str, ...] = (*NO_UNDERLYING_EVENT, "TimeShower:pTmin = 1.0")


@dataclass(frozen=True)
class Recipe:
    """All that a sample depends on besides its seed and its size.

    Attributes
    ----------
    process : `QCD` or what `signal` returns.
    selection, detector : see there.
    cuts : of the generator, None for a resonance.
    extra : settings of PYTHIA that save time: `NO_UNDERLYING_EVENT`, `FAST`, or none for all that PYTHIA does.
    tune : a key of `l1ad.events.simulate.processes.TUNES`.
    """

    process: Process
    selection: Selection = field(default_factory=Selection)
    detector: ParticleFlow = field(default_factory=ParticleFlow)
    cuts: GeneratorCuts | None = None
    extra: tuple[str, ...] = NO_UNDERLYING_EVENT
    tune: str = "monash"

    @property
    def generated(self) -> Process:
        """The process with the generator cuts and the extra settings."""
        cuts = () if self.cuts is None else self.cuts.settings()
        return replace(self.process, settings=(*self.process.settings, *cuts, *self.extra))

    def to_json(self) -> str:
        """One line that says everything; two recipes are the same if it is."""
        return json.dumps({**asdict(self), "features": FEATURES}, sort_keys=True)


@dataclass(frozen=True)
class Sample:
    """Simulated events with what the generator knows of them.

    Attributes
    ----------
    dijets : label 1 for a signal, 0 for QCD; weight 1.
    partons : what the generator cuts looked at.
    n_tried : generated events that passed the cuts.
    sigma_fb : cross section of the selected events.
    """

    dijets: Dijets
    partons: Partons
    n_tried: int
    sigma_fb: float

    def __len__(self) -> int:
        return len(self.dijets)


def qcd(selection: Selection | None = None, **changes: Any) -> Recipe:
    """The recipe of QCD dijets for a selection, generator cuts included; `changes` are fields of `Recipe`."""
    chosen = Selection() if selection is None else selection
    return Recipe(**{"process": QCD, "selection": chosen, "cuts": GeneratorCuts.around(chosen), **changes})


def simulate(
    recipe: Recipe,
    n: int,
    *,
    seed: int,
    workers: int = 1,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """`n` selected events.

    Parameters
    ----------
    seed : root seed; the recipe is mixed in.
    workers : processes to use; the result does not depend on it.
    folder : for the pieces, one file each; the ones that are there from the same recipe and seed are not made again.
        A temporary folder if not given.
    progress : called with the number of finished and of all pieces.

    Raises
    ------
    MissingToolError
        Without PYTHIA or fastjet.
    InputError
        If nothing generated passes the selection, or the folder holds pieces of another recipe.
    """
    import tempfile

    if n < 1:
        raise InputError("simulation", "events", n, "at least 1")
    for module, extra in (("pythia8mc", "simulate"), ("numba", "simulate"), ("fastjet", "jets"), ("vector", "jets")):
        require(module, extra)
    if folder is None:
        with tempfile.TemporaryDirectory() as own:
            return simulate(recipe, n, seed=seed, workers=workers, folder=own, progress=progress)
    pieces = _plan(recipe, n, seed, Path(folder))
    make_pieces(pieces, workers=workers, progress=progress)
    return gather(pieces)


@dataclass(frozen=True)
class Piece:
    """A part of a sample: `n` selected events from the child `index` of a seed, in the file `path`."""

    recipe: Recipe
    n: int
    seed: int
    index: int
    path: Path

    @property
    def key(self) -> str:
        """What the file must have been made from to be this piece, its length apart."""
        return hashlib.sha256(f"{self.recipe.to_json()} {self.seed} {self.index}".encode()).hexdigest()

    def done(self) -> bool:
        """Whether the file is there, with as many events as wanted.

        Raises
        ------
        InputError
            If it is there but of another recipe or seed.
        """
        import h5py

        if not self.path.is_file():
            return False
        with h5py.File(self.path, "r") as file:
            if file.attrs.get("piece") != self.key:
                expected = "a piece of this sample; use an empty folder for another one"
                raise InputError(str(self.path), "piece", "another recipe or seed", expected)
            return len(file["partons/m_hat"]) == self.n

    def make(self) -> None:
        """Generate and write; the file has its name only when all of it is there."""
        sample = _generate(self.recipe, self.n, np.random.SeedSequence(self._entropy, spawn_key=(self.index,)))
        attributes: dict[str, str | float] = {"piece": self.key, "n_tried": sample.n_tried, "sigma_fb": sample.sigma_fb}
        partons = {f"partons/{name}": values for name, values in vars(sample.partons).items()}
        sample.dijets.write(self.path, attributes=attributes, more=partons)

    @property
    def _entropy(self) -> list[int]:
        # The recipe is mixed in: samples of different recipes are independent under one seed.
        return [self.seed, int(hashlib.sha256(self.recipe.to_json().encode()).hexdigest()[:16], 16)]

    def load(self) -> Sample:
        """Read it back."""
        import h5py

        with h5py.File(self.path, "r") as file:
            partons = Partons(**{name: file[f"partons/{name}"][:] for name in _PARTONS})
            n_tried, sigma = int(file.attrs["n_tried"]), float(file.attrs["sigma_fb"])
        return Sample(read(self.path), partons, n_tried, sigma)


def _plan(recipe: Recipe, n: int, seed: int, folder: Path) -> list[Piece]:
    block = recipe.process.block
    sizes = [block] * (n // block) + ([n % block] if n % block else [])
    return [Piece(recipe, size, seed, i, folder / f"piece_{i:05d}.h5") for i, size in enumerate(sizes)]


def _make(piece: Piece) -> None:
    piece.make()


def make_pieces(
    pieces: Sequence[Piece], *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> None:
    """Make the pieces whose files are not there yet."""
    from l1ad.rates.tasks import process_pool

    todo = [piece for piece in pieces if not piece.done()]
    finished = len(pieces) - len(todo)
    for piece in todo[:1]:
        piece.path.parent.mkdir(parents=True, exist_ok=True)
    with process_pool(min(workers, max(len(todo), 1))) as pool:
        if pool is None:
            for piece in todo:
                piece.make()
                finished += 1
                if progress is not None:
                    progress(finished, len(pieces))
            return
        futures = [pool.submit(_make, piece) for piece in todo]
        try:
            for future in as_completed(futures):
                future.result()
                finished += 1
                if progress is not None:
                    progress(finished, len(pieces))
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def gather(pieces: Sequence[Piece]) -> Sample:
    """The sample that pieces make up, in their order."""
    parts = [piece.load() for piece in pieces]
    tried = sum(p.n_tried for p in parts)
    return Sample(
        dijets=concatenate([p.dijets for p in parts]),
        partons=Partons(**{name: np.concatenate([getattr(p.partons, name) for p in parts]) for name in _PARTONS}),
        n_tried=tried,
        # Weighted by the effort: PYTHIA's own estimate of each piece gets better with the events that it tried.
        sigma_fb=sum(p.sigma_fb * p.n_tried for p in parts) / tried,
    )


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


def _generate(recipe: Recipe, n: int, seed: np.random.SeedSequence) -> Sample:
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
    parts: list[_Columns] = []
    tried = found = 0
    while found < n:
        seen.clear()
        batch = pythia.nextBatch(min(_BATCH, recipe.process.block))
        columns = _columns(batch, pythia.particleData, recipe, rng)
        columns.update(_of_partons(batch, columns["row"], None if cuts is None else seen))
        rows = columns["row"][: n - found]
        last = found + len(columns["row"]) >= n
        # Stopped at the n-th selected event, so that the tried ones give the efficiency.
        tried += int(rows[-1]) + 1 if last else len(batch)
        parts.append({name: values[: len(rows)] for name, values in columns.items()})
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
    return Sample(dijets, Partons(**{name: out[name] for name in _PARTONS}), tried, sigma_fb)


_Columns = dict[str, npt.NDArray[Any]]


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


def _columns(batch: Any, particle_data: Any, recipe: Recipe, rng: np.random.Generator) -> _Columns:
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


def _nothing() -> _Columns:
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


def _of_partons(batch: Any, rows: npt.NDArray[np.int64], seen: Mapping[_Key, tuple[float, float]] | None) -> _Columns:
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


def _padded(ranked: Any) -> npt.NDArray[np.float32]:
    """px, py, pz of particles to shape (jets, MAX_CONSTITUENTS, 3), zeros after the last."""
    import awkward as ak

    columns = (ak.fill_none(ak.pad_none(ranked[c], MAX_CONSTITUENTS, clip=True), 0.0) for c in ("px", "py", "pz"))
    return np.stack([ak.to_numpy(c) for c in columns], axis=2).astype(np.float32)


_PARTONS = tuple(f.name for f in fields(Partons))


@dataclass(frozen=True)
class Closure:
    """Which fraction of the selected events tighter generator cuts keep, against m_jj.

    Attributes
    ----------
    edges : of the bins in GeV, shape (b + 1,).
    n, kept : events in each bin with the loose cuts, and of them inside the tight ones.
    ratio : kept / n; NaN in a bin without events.
    low, high : 68.3 % Clopper-Pearson interval of the ratio.
    lost_at_most : upper end of the 95 % interval on the largest loss of any bin, corrected for the number of bins.
    flat_p : probability that a kept fraction that is the same in all bins fluctuates as much (chi2 of the counts).
    """

    edges: FloatArray
    n: IntArray
    kept: IntArray
    ratio: FloatArray
    low: FloatArray
    high: FloatArray
    lost_at_most: float
    flat_p: float


def closure(m_jj: npt.ArrayLike, inside: npt.ArrayLike, edges: Sequence[float] | FloatArray) -> Closure:
    """Ratio of tight to loose generator cuts in bins of m_jj.

    Both spectra come from the same events, generated with the loose cuts: the ratio is an efficiency, with binomial
    errors, and much more precise than that of two samples.

    Parameters
    ----------
    m_jj : of the selected events of a loose sample, shape (n,).
    inside : whether their parton pair passes the tight cuts (`GeneratorCuts.passes`), shape (n,).

    Raises
    ------
    InputError
        If no event lies in the bins.
    """
    from scipy import stats

    m, passed, bins = np.asarray(m_jj), np.asarray(inside, bool), np.asarray(edges, np.float64)
    n = np.histogram(m, bins)[0].astype(np.int64)
    kept = np.histogram(m[passed], bins)[0].astype(np.int64)
    filled = n > 0
    if not filled.any():
        raise InputError("closure", "events", 0, f"some between {bins[0]:g} and {bins[-1]:g} GeV")
    low, high = _interval(kept, n, 0.6827)
    # Sidak: all bins cover together.
    joint = 0.95 ** (1.0 / int(filled.sum()))
    upper_loss = np.where(kept > 0, stats.beta.ppf(1.0 - joint, np.maximum(kept, 1), n - kept + 1), 0.0)
    largest = int(np.argmin(np.where(filled, kept / np.maximum(n, 1), np.inf)))
    overall = kept.sum() / n.sum()
    if 0.0 < overall < 1.0 and filled.sum() > 1:
        chi2 = float(np.sum((kept - overall * n)[filled] ** 2 / (n[filled] * overall * (1.0 - overall))))
        flat_p = float(stats.chi2.sf(chi2, int(filled.sum()) - 1))
    else:
        flat_p = 1.0
    ratio = np.where(filled, kept / np.maximum(n, 1), np.nan)
    return Closure(bins, n, kept, ratio, low, high, float(1.0 - upper_loss[largest]), flat_p)


def _interval(k: IntArray, n: IntArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Clopper-Pearson interval of k out of n."""
    from scipy import stats

    tail = 0.5 * (1.0 - level)
    low = np.where(k > 0, stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1), 0.0)
    high = np.where(k < n, stats.beta.ppf(1.0 - tail, k + 1, np.maximum(n - k, 1)), 1.0)
    return low, high


def draw_closure(result: Closure, path: str | os.PathLike[str]) -> None:
    """A figure (PNG) of the kept fraction against m_jj."""
    from matplotlib.figure import Figure

    centre, half = 0.5 * (result.edges[1:] + result.edges[:-1]), 0.5 * np.diff(result.edges)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    errors = np.stack([result.ratio - result.low, result.high - result.ratio])
    axes.errorbar(centre, result.ratio, np.maximum(errors, 0.0), half, fmt="ko", ms=4)
    axes.axhline(1.0, color="0.6", lw=0.8)
    axes.set_ylim(min(0.9, 0.99 * float(np.nanmin(result.low))), 1.01)
    axes.set_xscale("log")
    ticks = np.unique(np.round(result.edges[[0, len(result.edges) // 2, -1]]))
    axes.set_xticks(ticks, [f"{t:.0f}" for t in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("dijet mass [GeV]")
    axes.set_ylabel("usual / looser generator cuts")
    figure.savefig(path, format="png", dpi=110)
