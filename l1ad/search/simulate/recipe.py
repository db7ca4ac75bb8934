"""What is asked for: which dijets, which cuts in the generator, which detector; and what comes out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.simulate.processes import SQRT_S_GEV, Process
from l1ad.search.jets import SIDEBAND_DELTA_ETA, SIGNAL_DELTA_ETA, Dijets

FloatArray = npt.NDArray[np.float64]
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


PARTONS = tuple(f.name for f in fields(Partons))


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
