"""How real the simulation is: two tables against public figures.

*Top pairs*: fractions of 200 official CMS Run-3 fully hadronic top-pair events in which a seed fires, against the same
seed on our events at the same pile-up. The score is the rms pull.

*Zero bias*: the input offsets of the deployed trigger (AXOL1TL v4, 2024). They were derived from real zero bias as
the middle of the 5 and 95 % points of the non-empty slots, and are in **GeV**: the firmware subtracts them from pt in
GeV in 0.5 GeV steps. Quantiles of hardware codes must be halved before they are compared. The exponents of the same
scaling give the 5-95 % width to a factor of two. Rates are compared with those of an earlier, separately validated
simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l1ad.errors import InputError
from l1ad.events.store import Events

__all__ = [
    "OFFICIAL_MU",
    "OFFICIAL_MU_SPREAD",
    "QuantileRow",
    "RateRow",
    "RealismReport",
    "TopRow",
    "bundled_sources",
    "format_report",
    "quantile_table",
    "rate_table",
    "realism_tables",
    "seed_decisions",
    "top_table",
]

CROSSINGS_KHZ = 2544 * 11.2456  # colliding bunches times revolutions: zero-bias rate

#: Pile-up of the official top-pair events: mean and spread of their true number of interactions.
OFFICIAL_MU, OFFICIAL_MU_SPREAD = 46.4, 9.1
OFFICIAL_EVENTS = 200

#: Fractions of the official events (official NanoAODv15, seed bits of the event).
OFFICIAL_FRACTIONS: dict[str, float] = {
    "DoubleEG_25_14_er2p5": 0.090,
    "DoubleJet40er2p5": 0.905,
    "DoubleJet100er2p5": 0.310,
    "DoubleJet120er2p5": 0.170,
    "DoubleJet150er2p5": 0.070,
    "DoubleMu_15_7": 0.005,
    "ETMHF70": 0.090,
    "ETMHF80": 0.075,
    "ETMHF90": 0.055,
    "ETMHF100": 0.045,
    "ETMHF120": 0.030,
    "ETMHF150": 0.020,
    "HTT120er": 0.945,
    "HTT160er": 0.905,
    "HTT200er": 0.805,
    "HTT255er": 0.625,
    "HTT280er": 0.510,
    "HTT320er": 0.390,
    "HTT360er": 0.305,
    "HTT400er": 0.240,
    "HTT450er": 0.180,
    "QuadJet60er2p5": 0.175,
    "SingleEG8er2p5": 0.670,
    "SingleEG10er2p5": 0.610,
    "SingleEG15er2p5": 0.450,
    "SingleEG26er2p5": 0.245,
    "SingleEG36er2p5": 0.180,
    "SingleEG45er2p5": 0.130,
    "SingleEG60": 0.085,
    "SingleJet35": 0.995,
    "SingleJet60": 0.970,
    "SingleJet90": 0.780,
    "SingleJet120": 0.460,
    "SingleJet180": 0.150,
    "SingleJet200": 0.085,
    "SingleMu7": 0.230,
    "SingleMu22": 0.065,
    "TripleMu_5_3_3": 0.005,
}

#: Rates in kHz at a pile-up of 52 and 2544 bunches.
REFERENCE_RATES_KHZ: dict[str, float] = {
    "SingleMu22": 5.9,
    "SingleEG36er2p5": 11.4,
    "SingleJet180": 3.25,
    "HTT360er": 3.25,
    "QuadJet60er2p5": 0.6,
    "ETMHF100": 2.5,
    "OR": 29.0,
}
OR_SEEDS = (
    "SingleMu22",
    "DoubleMu_15_7",
    "TripleMu_5_3_3",
    "SingleEG36er2p5",
    "SingleEG60",
    "DoubleEG_25_14",
    "SingleJet180",
    "DoubleJet150er2p5",
    "HTT360er",
    "QuadJet60er2p5",
    "ETMHF100",
)

#: Fewest entries of a slot for its median to be judged.
MIN_ENTRIES = 20

#: Deployed offsets (GeV) and exponents of the 19 transverse-momentum inputs; the muon slots 2 to 4 are rarely filled.
DEPLOYED_OFFSETS_GEV = (18, 7, 4.5, 4, 3, 5, 3, 3, 3, 29, 22, 17.5, 13.5, 11, 10.5, 10, 9, 9, 8)
DEPLOYED_SHIFTS = (3, 2, 0, 0, -1, 1, 0, 0, 0, 4, 3, 3, 3, 3, 3, 3, 3, 3, 2)


@dataclass(frozen=True)
class TopRow:
    """One seed on top pairs: fraction here and officially, the official error, the difference over both errors."""

    seed: str
    simulated: float
    official: float
    error: float
    pull: float


@dataclass(frozen=True)
class QuantileRow:
    """One slot in natural zero bias, GeV, over its non-empty entries.

    ``median_ratio`` and ``middle_ratio`` divide the median and the middle of the 5 and 95 % points by the deployed
    offset; ``width`` is the 5-95 % distance and ``width_deployed`` the interval that the deployed exponent allows.
    """

    slot: str
    offset: float
    median: float
    middle: float
    median_ratio: float
    middle_ratio: float
    width: float
    width_deployed: tuple[float, float]
    filled: float
    entries: int

    @property
    def judged(self) -> bool:
        """Enough entries for a median: a fourth muon is found in a handful of 100,000 crossings."""
        return self.entries >= MIN_ENTRIES


@dataclass(frozen=True)
class RateRow:
    """One seed in zero bias: rate and its statistical error, the reference (kHz), and their ratio."""

    seed: str
    rate_khz: float
    error_khz: float
    reference_khz: float
    ratio: float


@dataclass(frozen=True)
class RealismReport:
    """Both tables, as far as the samples for them were given."""

    top: tuple[TopRow, ...]
    top_mu: float
    quantiles: tuple[QuantileRow, ...]
    rates: tuple[RateRow, ...]

    @property
    def rms_pull(self) -> float:
        """Root mean square of the pulls of the top-pair table."""
        return float(np.sqrt(np.mean([row.pull**2 for row in self.top])))

    @property
    def passed(self) -> bool:
        """rms pull below 1.5, medians within 25 % of the offsets, rates within a factor of 1.5; of what is there."""
        return (
            (not self.top or self.rms_pull < 1.5)
            and all(abs(row.median_ratio - 1.0) <= 0.25 for row in self.quantiles if row.judged)
            and all(1 / 1.5 <= row.ratio <= 1.5 for row in self.rates)
        )


def seed_decisions(events: Events) -> dict[str, NDArray[np.bool_]]:
    """Decisions (N,) of every seed of the tables; ``ht`` and ``met_hf`` are taken from the columns.

    Raises
    ------
    InputError
        If a column is missing: the events are not of this simulation.
    """
    for column in ("ht", "met_hf"):
        if column not in events.columns:
            raise InputError("events", "columns", ", ".join(events.columns) or "none", f"{column} among them")
    pt = {name: events.objects(name)[:, :, 0] * 0.5 for name in ("eg", "mu", "jet")}
    central = {name: np.abs(events.objects(name)[:, :, 1] * 0.0435) < 2.5 for name in ("eg", "jet")}
    ht = np.asarray(events.columns["ht"]) * 0.5
    met = np.asarray(events.columns["met_hf"]) * 0.5

    def count(name: str, least: float, er: bool = False) -> NDArray[Any]:
        ok = pt[name] >= least
        return np.asarray((ok & central[name] if er else ok).sum(axis=1))

    out: dict[str, NDArray[np.bool_]] = {
        "DoubleEG_25_14": (count("eg", 25) >= 1) & (count("eg", 14) >= 2),
        "DoubleEG_25_14_er2p5": (count("eg", 25, True) >= 1) & (count("eg", 14, True) >= 2),
        "DoubleMu_15_7": (count("mu", 15) >= 1) & (count("mu", 7) >= 2),
        "TripleMu_5_3_3": (count("mu", 5) >= 1) & (count("mu", 3) >= 3),
        "QuadJet60er2p5": count("jet", 60, True) >= 4,
        "SingleEG60": count("eg", 60) >= 1,
    }
    out.update({f"SingleEG{x}er2p5": count("eg", x, True) >= 1 for x in (8, 10, 15, 26, 36, 45)})
    out.update({f"SingleMu{x}": count("mu", x) >= 1 for x in (7, 22)})
    out.update({f"SingleJet{x}": count("jet", x) >= 1 for x in (35, 60, 90, 120, 180, 200)})
    out.update({f"DoubleJet{x}er2p5": count("jet", x, True) >= 2 for x in (40, 100, 120, 150)})
    out.update({f"HTT{x}er": ht >= x for x in (120, 160, 200, 255, 280, 320, 360, 400, 450)})
    out.update({f"ETMHF{x}": met >= x for x in (70, 80, 90, 100, 120, 150)})
    out["OR"] = np.any([out[name] for name in OR_SEEDS], axis=0)
    return out


def top_table(events: Events) -> tuple[TopRow, ...]:
    """Hadronic top pairs against the official fractions; errors are binomial, at least one event of 200."""
    decisions = seed_decisions(events)
    rows = []
    for seed, official in OFFICIAL_FRACTIONS.items():
        simulated = float(decisions[seed].mean())
        floor = 1.0 / OFFICIAL_EVENTS
        error = max(np.sqrt(max(official, floor) * (1 - official) / OFFICIAL_EVENTS), floor)
        own = np.sqrt(max(simulated * (1 - simulated), 0.0) / len(events))
        rows.append(
            TopRow(seed, simulated, official, float(error), float((simulated - official) / np.hypot(error, own)))
        )
    return tuple(rows)


def quantile_table(events: Events) -> tuple[QuantileRow, ...]:
    """Natural zero bias against the deployed offsets."""
    pt = events.hw[:, :, 0] * 0.5
    rows = []
    for slot, (name, offset, shift) in enumerate(
        zip(events.layout.slot_names, DEPLOYED_OFFSETS_GEV, DEPLOYED_SHIFTS, strict=True)
    ):
        filled = pt[pt[:, slot] > 0, slot]
        low, median, high = (float(x) for x in np.percentile(filled, (5, 50, 95))) if len(filled) else (0.0,) * 3
        middle = 0.5 * (low + high)
        rows.append(
            QuantileRow(
                slot=name,
                offset=offset,
                median=median,
                middle=middle,
                median_ratio=median / offset,
                middle_ratio=middle / offset,
                width=high - low,
                # (p95 - p5) / 4 was rounded up to the power of two 2^shift
                width_deployed=(4 * 2.0 ** (shift - 1), 4 * 2.0**shift),
                filled=len(filled) / len(pt),
                entries=len(filled),
            )
        )
    return tuple(rows)


def rate_table(events: Events) -> tuple[RateRow, ...]:
    """Zero-bias rates, natural or weighted, against the reference."""
    weight = events.weight
    rows = []
    for seed, reference in REFERENCE_RATES_KHZ.items():
        fired = seed_decisions(events)[seed]
        scale = CROSSINGS_KHZ / len(events)
        rate, error = float(weight[fired].sum() * scale), float(np.sqrt((weight[fired] ** 2).sum()) * scale)
        rows.append(RateRow(seed, rate, error, reference, rate / reference))
    return tuple(rows)


def bundled_sources() -> list[Path]:
    """The files of the bundled sample that the tables need: zero bias, natural and weighted, and official top pairs."""
    import l1ad

    folder = Path(l1ad.__file__).parent / "data"
    return [folder / f"{stem}.h5" for stem in ("zero_bias", "zero_bias_weighted", "tt_hadronic_mu46")]


def realism_tables(*sources: str | Path | Events) -> RealismReport:
    """Both tables from samples of this simulation, or from a folder of libraries.

    Parameters
    ----------
    sources:
        Events or files of them: natural zero bias gives the quantiles, weighted zero bias (or the natural one, when
        there is no other) the rates, ``tt_hadronic`` the top-pair table. A folder is taken as one of generator
        libraries: samples of 20,000, 30,000 and 10,000 events are then simulated from it, the top pairs at the
        official pile-up.

    Raises
    ------
    InputError
        If a source is not of this simulation.
    """
    top: list[Events] = []
    natural: list[Events] = []
    weighted: list[Events] = []
    for source in sources:
        for events in _expand(source):
            if events.layout.name != "cms_ugt":
                name = str(source) if not isinstance(source, Events) else "events"
                raise InputError(name, "layout", events.layout.name, "cms_ugt")
            process = events.meta.get("process")
            if process == "tt_hadronic":
                top.append(events)
            elif process == "zero_bias":
                (weighted if events.meta.get("stratified") else natural).append(events)
            else:
                raise InputError(
                    str(source) if not isinstance(source, Events) else "events",
                    "process",
                    process,
                    "zero_bias or tt_hadronic of this simulation",
                )
    for_rates = weighted or natural
    return RealismReport(
        top_table(Events.concatenate(top)) if top else (),
        float(np.mean([events.meta["mu"] for events in top])) if top else 0.0,
        quantile_table(Events.concatenate(natural)) if natural else (),
        rate_table(Events.concatenate(for_rates)) if for_rates else (),
    )


def _expand(source: str | Path | Events) -> list[Events]:
    from l1ad.events.simulate.produce import simulate

    if isinstance(source, Events):
        return [source]
    if not Path(source).is_dir():
        return [Events.read(source)]
    folder = Path(source)
    return [
        simulate(n=20_000, seed=1, library=folder),
        simulate(n=30_000, seed=1, library=folder, stratified=True),
        simulate("tt_hadronic", 10_000, seed=1, library=folder, mu=OFFICIAL_MU, mu_spread=OFFICIAL_MU_SPREAD),
    ]


def format_report(report: RealismReport) -> str:
    """The tables as text."""
    lines: list[str] = []
    if report.top:
        lines.append("hadronic top pairs: fraction of events a seed fires on, against 200 official CMS events")
        lines.append(f"  {'seed':22s} {'here':>6s} {'CMS':>6s} {'error':>6s} {'pull':>5s}")
        lines += [
            f"  {r.seed:22s} {r.simulated:6.3f} {r.official:6.3f} {r.error:6.3f} {r.pull:+5.1f}" for r in report.top
        ]
        if abs(report.top_mu - OFFICIAL_MU) > 1.0:
            lines.append(f"  at a pile-up of {report.top_mu:g}, where the official events have {OFFICIAL_MU:g}")
        lines.append(f"  rms pull {report.rms_pull:.2f} over {len(report.top)} seeds (figure: below 1.5)")
    if report.quantiles:
        lines.append("natural zero bias: pt of the non-empty slots (GeV) against the deployed input offsets (GeV)")
        lines.append(
            f"  {'slot':6s} {'offset':>6s} {'median':>6s} {'ratio':>5s} {'(p5+p95)/2':>10s} {'ratio':>5s}"
            f" {'p95-p5':>6s} {'deployed':>10s} {'filled':>6s}"
        )
        for r in report.quantiles:
            allowed = f"{r.width_deployed[0]:g}-{r.width_deployed[1]:g}"
            lines.append(
                f"  {r.slot:6s} {r.offset:6.1f} {r.median:6.1f} {r.median_ratio:5.2f}"
                f" {r.middle:10.2f} {r.middle_ratio:5.2f} {r.width:6.1f} {allowed:>10s} {r.filled:6.3f}"
                + ("" if r.judged else f" only {r.entries} entries, not judged")
            )
        worst = max((r for r in report.quantiles if r.judged), key=lambda r: abs(r.median_ratio - 1))
        lines.append(f"  worst median: {worst.slot} at {worst.median_ratio:.2f} of its offset (figure: 0.75 to 1.25)")
    if report.rates:
        lines.append("zero-bias rates at 2544 bunches (kHz)")
        lines.append(f"  {'seed':22s} {'here':>6s} {'error':>6s} {'ref.':>6s} {'ratio':>5s}")
        lines += [
            f"  {r.seed:22s} {r.rate_khz:6.2f} {r.error_khz:6.2f} {r.reference_khz:6.2f} {r.ratio:5.2f}"
            for r in report.rates
        ]
        lines.append("  figure: within a factor of 1.5")
    return "\n".join(lines)
