"""Resonances that decay to jets with substructure: which there are, and what PYTHIA needs to make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from l1ad.errors import InputError
from l1ad.events.simulate.processes import SQRT_S_GEV, Process, forced


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
