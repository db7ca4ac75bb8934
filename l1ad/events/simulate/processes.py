"""Verified PYTHIA 8.317 settings, one :class:`Process` an entry.

*Background strata* tile the inelastic cross section: soft collisions vetoed at a parton transverse momentum of 20 GeV,
eight hard-QCD slices above it, and the rare Z, W and top-pair production. *Signals* are overlaid on pile-up.

Traps that these lists already avoid (PYTHIA 8.317):

- ``NN:oneChannel`` on a Higgs removes H -> gg, and gluon fusion with it: the default channels are switched off and a
new
  one is added instead.
- A -> Z* Z* at 50 GeV needs a lowered ``23:mMin``.
- Leptoquark flavours are the products of its one channel (``42:0:products``).
- Muons from pions and kaons need the light hadrons to decay inside the tracker volume (``ParticleDecays``).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BACKGROUND", "COMMON", "PTHAT_EDGES", "SIGNALS", "SQRT_S_GEV", "TUNES", "Process", "forced", "get_process"]

SQRT_S_GEV = 13600.0

#: Set for every process: quiet, and light hadrons decay where CMS has its tracker and calorimeters (mm).
COMMON: tuple[str, ...] = (
    f"Beams:eCM = {SQRT_S_GEV}",
    "Print:quiet = on",
    "Next:numberCount = 0",
    "Check:nErrList = 0",
    "ParticleDecays:limitCylinder = on",
    "ParticleDecays:xyMax = 1290.",
    "ParticleDecays:zMax = 3170.",
    "211:mayDecay = on",
    "321:mayDecay = on",
    "130:mayDecay = on",
)

#: ``monash`` is PYTHIA's default; ``cp5`` is CMS's tune (arXiv:1903.12179) with PYTHIA's own NNPDF3.1 NNLO set.
TUNES: dict[str, tuple[str, ...]] = {
    "monash": (),
    "cp5": (
        "Tune:pp = 14",
        "Tune:ee = 7",
        "PDF:pSet = 20",
        "MultipartonInteractions:bProfile = 2",
        "MultipartonInteractions:ecmPow = 0.03344",
        "MultipartonInteractions:pT0Ref = 1.41",
        "MultipartonInteractions:coreRadius = 0.7634",
        "MultipartonInteractions:coreFraction = 0.63",
        "MultipartonInteractions:alphaSvalue = 0.118",
        "MultipartonInteractions:alphaSorder = 2",
        "ColourReconnection:range = 5.176",
        "SigmaTotal:zeroAXB = off",
        "SigmaProcess:alphaSvalue = 0.118",
        "SigmaProcess:alphaSorder = 2",
        "SpaceShower:alphaSvalue = 0.118",
        "SpaceShower:alphaSorder = 2",
        "TimeShower:alphaSvalue = 0.118",
        "TimeShower:alphaSorder = 2",
    ),
}

#: Lower edges (GeV) of the hard-QCD slices; the last slice is open. Below the first edge lies the soft stratum.
PTHAT_EDGES: tuple[float, ...] = (20.0, 30.0, 50.0, 80.0, 120.0, 170.0, 300.0, 600.0)


@dataclass(frozen=True)
class Process:
    """One generator process.

    Attributes
    ----------
    name:
        Name of the process and of its library file.
    settings:
        PYTHIA settings beyond :data:`COMMON` and the tune.
    n_default:
        Events of a library made without saying how many.
    pthat_veto:
        Collisions at or above this parton transverse momentum (GeV) are dropped: another stratum holds them.
    thermal_scalar:
        Identity of a particle that PYTHIA leaves stable and :mod:`.suep` decays thermally.
    block:
        Events generated from one child seed. Part of the definition of a library: it fixes which events a seed gives,
        whatever the number of workers.
    about:
        One line for ``--help``.
    """

    name: str
    settings: tuple[str, ...]
    n_default: int
    pthat_veto: float | None = None
    thermal_scalar: int | None = None
    block: int = 1000
    about: str = ""


def forced(pid: int, mass: float, width: float, *channels: str) -> tuple[str, ...]:
    """Mass, width and decays of an existing scalar, its default channels kept but switched off."""
    return (
        f"{pid}:m0 = {mass}",
        f"{pid}:mWidth = {width}",
        f"{pid}:mMin = {max(0.5 * mass, mass - 25.0 * width)}",
        f"{pid}:mMax = {mass + 25.0 * width}",
        f"{pid}:doForceWidth = on",
        f"{pid}:onMode = off",
        *(f"{pid}:addChannel = 1 {channel}" for channel in channels),
    )


def _hidden_valley(visible: float = 1.0) -> tuple[str, ...]:
    """A confining dark SU(2) with 20 GeV dark hadrons; ``visible`` of their decays go to quarks and taus."""
    out = [
        "HiddenValley:Ngauge = 2",
        "HiddenValley:nFlav = 2",
        "HiddenValley:FSR = on",
        "HiddenValley:fragment = on",
        "HiddenValley:alphaOrder = 1",
        "HiddenValley:Lambda = 10.",
        "HiddenValley:pTminFSR = 11.",
        "HiddenValley:probVector = 0.75",
        "4900101:m0 = 10.",
        "4900102:m0 = 10.",
        "51:m0 = 0.",
        "51:isResonance = off",
        "53:m0 = 0.",
        "53:isResonance = off",
    ]
    for hadron, dark in ((4900111, 51), (4900211, 51), (4900113, 53), (4900213, 53)):
        out += [f"{hadron}:m0 = 20.", f"{hadron}:oneChannel = 1 {1.0 - visible} 0 {dark} -{dark}"]
        if dark == 51:  # pseudoscalars couple to mass: bottom and tau
            out += [f"{hadron}:addChannel = 1 {0.94 * visible} 91 5 -5"]
            out += [f"{hadron}:addChannel = 1 {0.06 * visible} 91 15 -15"]
        else:
            out += [f"{hadron}:addChannel = 1 {0.2 * visible} 91 {quark} -{quark}" for quark in range(1, 6)]
    return tuple(out)


def _hard_qcd(low: float, high: float | None) -> tuple[str, ...]:
    edges = [f"PhaseSpace:pTHatMin = {low}"] + ([f"PhaseSpace:pTHatMax = {high}"] if high is not None else [])
    return ("HardQCD:all = on", *edges)


_LEPTONIC = "onIfAny = 11 13 15"
_QUARKS = "onIfAny = 1 2 3 4 5"
_N_HARD = (12000, 12000, 10000, 6000, 5000, 4000, 2500, 1500)


def _background() -> dict[str, Process]:
    soft = Process(
        "soft", ("SoftQCD:inelastic = on",), 100_000, PTHAT_EDGES[0], block=5000, about="inelastic, pTHat < 20"
    )
    out = [soft]
    for low, high, n in zip(PTHAT_EDGES, (*PTHAT_EDGES[1:], None), _N_HARD, strict=True):
        about = f"hard QCD, pTHat {low:g}-{'' if high is None else format(high, 'g')} GeV"
        out.append(Process(f"qcd_{low:g}", _hard_qcd(low, high), n, about=about))
    z_pole = ("WeakSingleBoson:ffbar2gmZ = on", "PhaseSpace:mHatMin = 15.", "23:onMode = off", f"23:{_LEPTONIC}")
    out.append(Process("z_ll", z_pole, 3000, about="Z/gamma* to leptons above 15 GeV"))
    out.append(
        Process(
            "w_lnu", ("WeakSingleBoson:ffbar2W = on", "24:onMode = off", f"24:{_LEPTONIC}"), 5000, about="W to leptons"
        )
    )
    out.append(Process("ttbar", ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on"), 1500, about="top pairs, all decays"))
    return {p.name: p for p in out}


#: Strata of a crossing, softest first: the order in which "hardest" is meant.
BACKGROUND: dict[str, Process] = _background()

_BSM = "Higgs:useBSM = on"
_SUEP_ID = 25

#: What the trigger is asked to keep. Masses in GeV are in the names.
SIGNALS: dict[str, Process] = {
    p.name: p
    for p in (
        Process(
            "haa4b_ma15",
            (
                "HiggsSM:gg2H = on",
                "25:onMode = off",
                "25:addChannel = 1 1.0 100 36 36",
                *forced(36, 15.0, 0.01, "1.0 100 5 -5"),
            ),
            3000,
            about="h(125) -> a a -> 4 b, m_a = 15",
        ),
        Process(
            "a4l_ma50",
            (
                _BSM,
                "HiggsBSM:gg2A3 = on",
                *forced(36, 50.0, 0.01, "1.0 100 23 23"),
                "23:mMin = 4.",
                "23:onMode = off",
                "23:onIfAny = 11 13",
            ),
            3000,
            about="A(50) -> 4 leptons (e, mu)",
        ),
        Process(
            "lq80_btau",
            (
                "LeptoQuark:gg2LQLQbar = on",
                "LeptoQuark:qqbar2LQLQbar = on",
                "42:m0 = 80.",
                "42:mMin = 60.",
                "42:mMax = 100.",
                "42:0:products = 5 15",
            ),
            3000,
            about="leptoquark pairs (80) -> b tau b tau",
        ),
        Process(
            "h0tautau_m60",
            (_BSM, "HiggsBSM:gg2H1 = on", *forced(25, 60.0, 0.01, "1.0 100 15 -15")),
            3000,
            about="h0(60) -> tau tau",
        ),
        Process(
            "hptaunu_m60",
            (_BSM, "HiggsBSM:ffbar2H+- = on", *forced(37, 60.0, 0.01, "1.0 100 -15 16")),
            3000,
            about="h+-(60) -> tau nu",
        ),
        Process(
            "tt_hadronic",
            ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onMode = off", f"24:{_QUARKS}"),
            3000,
            about="top pairs, both W to quarks",
        ),
        Process(
            "hv_zprime_jets",
            (
                "HiddenValley:ffbar2Zv = on",
                "4900023:m0 = 1000.",
                "4900023:mMin = 800.",
                "4900023:mMax = 1200.",
                "4900023:mWidth = 10.",
                "4900023:doForceWidth = on",
                "4900023:onMode = off",
                "4900023:onIfAny = 4900101",
                *_hidden_valley(),
            ),
            3000,
            about="Z'(1000) -> hidden-valley jets, all visible",
        ),
        Process(
            "suep_m300",
            (
                "HiggsSM:gg2H = on",
                f"{_SUEP_ID}:m0 = 300.",
                f"{_SUEP_ID}:mWidth = 0.1",
                f"{_SUEP_ID}:doForceWidth = on",
                f"{_SUEP_ID}:mMin = 298.",
                f"{_SUEP_ID}:mMax = 302.",
                f"{_SUEP_ID}:mayDecay = off",
            ),
            3000,
            thermal_scalar=_SUEP_ID,
            about="scalar(300) -> soft unclustered energy",
        ),
        Process("h125_all", ("HiggsSM:all = on",), 3000, about="Standard Model h(125), all production and decays"),
    )
}


def get_process(name: str) -> Process:
    """The background stratum or signal of that name.

    Raises
    ------
    l1ad.errors.InputError
        For a name that is neither.
    """
    from l1ad.errors import InputError

    found = BACKGROUND.get(name) or SIGNALS.get(name)
    if found is None:
        raise InputError(
            "process", found=repr(name), expected="one of " + ", ".join(["zero_bias", *SIGNALS, *BACKGROUND])
        )
    return found
