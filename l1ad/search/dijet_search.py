"""A whole dijet search: score, select, fit, scan, p-values, limits, and what the selection has understood.

`l1ad.search.config.SearchConfig` is the YAML file, `search` runs it on events in memory, `l1ad.search.outputs.write`
stores the result in a folder.

The events that define window and sidebands train the scores (k-fold, proved without leak); the threshold of the
selection comes from the sidebands alone, so that a signal cannot raise it; the fit goes over the whole spectrum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search import methods, understand
from l1ad.search.config import SearchConfig, SystematicsSection
from l1ad.search.errors import FitError
from l1ad.search.jets import Dijets, require_counts
from l1ad.search.methods import Tagged
from l1ad.search.stats import dijet, limits, lookelsewhere
from l1ad.search.stats.peak_model import PeakModel, spurious_signal

FloatArray = npt.NDArray[np.float64]

#: Probability of the chi2 of background and peak together below which they do not describe a spectrum.
_POOR_FIT = 1e-3
#: Level in sigma whose upcrossings are counted for the extrapolation of the global p-value.
_REFERENCE_Z = 0.5
#: Width in GeV of the bins of the limits' likelihood, whose systematic parameters make many fits.
LIMIT_BIN_WIDTH = 20.0


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes
    ----------
    config : its settings.
    events : of the signal region, heavier jet first; `tagged` has their scores.
    n_events, n_selected : in the range of the fit.
    choice : the background fits and which order was chosen.
    scan : local p-values.
    p_local, z_local, mass : of the most significant mass.
    described : probability of a chi2 at least as large as that of background and peak together at that mass: whether
        the function describes the spectrum, be there a signal or not. nan without a degree of freedom.
    p_window : global within the window, from toys, None without toys.
    p_window_gross_vitells : the same by extrapolation from a low level, None without toys.
    p_global : times the windows of the search (12, or 1 for one of one's own); from the toys if at least ten of them
        reach the data, else from the extrapolation.
    upper : for each mass the limit on the selected signal events, or why there is none.
    spurious : for each mass the events that the choice of the background function may feign, None without that.
    study : what the selection looks at, None for the inclusive search.
    """

    config: SearchConfig
    events: Dijets
    tagged: Tagged
    n_events: int
    n_selected: int
    choice: dijet.OrderChoice
    scan: dijet.MassScan
    mass: float
    p_local: float
    z_local: float
    described: float
    p_window: lookelsewhere.GlobalP | None
    p_window_gross_vitells: float | None
    p_global: float | None
    upper: tuple[limits.Limit | FitError, ...]
    spurious: tuple[float | None, ...]
    study: understand.Study | None

    @property
    def badly_described(self) -> bool:
        """Do background and peak together not describe the spectrum? Then the other figures mean nothing."""
        return self.described < _POOR_FIT


def search(
    events: Dijets,
    config: SearchConfig,
    *,
    executor: Executor | None = None,
    progress: Callable[[str], None] = lambda _text: None,
) -> Result:
    """Run one search.

    The signal region (|delta eta| < 1.3) is searched; the autoencoder learns from 2.0 < |delta eta| < 2.5; the rest is
    left out.

    Raises
    ------
    InputError
        An unknown window or feature, weighted events, an empty window or sideband, too few events for the folds, masses
        outside of the range of the fit, or a range that starts below the spectrum.
    FitError
        If the background fit does not converge, or no tested mass has a fit that does.
    LeakError
        If a model scored what it had seen.
    """
    window = config.mass_window
    require_counts("dijet search", events)
    used = events[events.in_signal_region()].heavier_first()
    if not len(used):
        raise InputError("dijet search", "signal region", "no event", "events with |delta eta| < 1.3")
    labels = window.labels(used.m_jj)
    masses = tested_masses(config, window.low, window.high)
    dijet.check_falling(*dijet.histogram(used.m_jj, config.fit.low, config.fit.high, width=config.fit.bin_width))
    side = events[events.in_sideband()]
    progress(f"{config.method}: {len(used)} events, {int((labels == 1).sum())} in the window {window.name}")
    tagged = methods.tag(used, labels, config, sideband=side, executor=executor)
    low, high, width = config.fit.low, config.fit.high, config.fit.bin_width
    counts, edges = dijet.histogram(used.m_jj[tagged.selected], low, high, width=width)
    progress(f"fitting {int(counts.sum())} selected events")
    choice = dijet.choose_order(counts, edges, 0.5 * (window.low + window.high), orders=config.fit.orders)

    def shape(mass: float, e: FloatArray) -> FloatArray:
        return config.peak.at(mass).probabilities(e)

    scan = dijet.scan_masses(counts, edges, masses, shape, choice.order)
    if len(scan.failed) == len(masses):
        raise FitError("dijet search: the fit did not converge at any mass")
    best = int(np.nanargmin(scan.p0))
    z_best = float(scan.z[best])
    p_window = p_extrapolated = p_global = None
    if config.toys:
        progress(f"{config.toys} background-only toys for the global p-value")
        rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(1,)))
        toys = lookelsewhere.scan_toys(choice.fit, masses, shape, config.toys, rng)
        p_window = lookelsewhere.global_p(z_best, toys.z_max)
        level = min(_REFERENCE_Z, max(z_best, 0.0))
        rises, _ = lookelsewhere.mean_upcrossings(toys, level)
        p_extrapolated = lookelsewhere.gross_vitells(z_best, rises, level) if z_best > 0 else 1.0
        enough = p_window.p * p_window.n_toys >= 10
        within = p_window.p if enough else p_extrapolated
        p_global = min(within * config.n_windows, 1.0)
    upper: tuple[limits.Limit | FitError, ...] = ()
    spurious: tuple[float | None, ...] = ()
    if config.limits:
        progress(f"limits at {len(masses)} masses")
        upper, spurious = upper_limits(
            used.m_jj[tagged.selected], config, choice.order, masses, signal_at=float(scan.masses[best])
        )
    study = None
    if config.method != "inclusive":
        progress("what the selection looks at")
        study = understand.study(used, labels, tagged, config, sideband=side, executor=executor)
    return Result(
        config=config,
        events=used,
        tagged=tagged,
        n_events=int(np.count_nonzero((used.m_jj >= edges[0]) & (used.m_jj < edges[-1]))),
        n_selected=int(counts.sum()),
        choice=choice,
        scan=scan,
        mass=float(scan.masses[best]),
        p_local=float(scan.p0[best]),
        z_local=z_best,
        described=dijet.goodness(
            counts, edges, shape(float(scan.masses[best]), edges), choice.order, background=choice.fit
        ),
        p_window=p_window,
        p_window_gross_vitells=p_extrapolated,
        p_global=p_global,
        upper=upper,
        spurious=spurious,
        study=study,
    )


def upper_limits(
    selected_masses: npt.ArrayLike,
    config: SearchConfig,
    order: int,
    masses: list[float],
    *,
    signal_at: float | None = None,
) -> tuple[tuple[limits.Limit | FitError, ...], tuple[float | None, ...]]:
    """Limits on the selected signal events at each mass, with the systematic uncertainties of the configuration.

    `signal_at` is the mass in GeV at which the data may hold a signal, which is not to be taken for a fault of the
    background function; each mass itself if None.

    Returns
    -------
    The limits, or why there is none; and the events that the choice of the background function may feign.
    """
    if config.systematics is None:
        counts, edges = dijet.histogram(selected_masses, config.fit.low, config.fit.high, width=config.fit.bin_width)
        plain = [limits.DijetModel(edges, config.peak.at(m).probabilities(edges), order) for m in masses]
        return tuple(limits.upper_limits(plain, [counts] * len(plain))), (None,) * len(masses)
    width = max(config.fit.bin_width, LIMIT_BIN_WIDTH)
    counts, edges = dijet.histogram(selected_masses, config.fit.low, config.fit.high, width=width)
    found: list[limits.Limit | FitError] = []
    feigned: list[float | None] = []
    for mass in masses:
        try:
            model, spurious = limit_model(counts, edges, config, order, mass, signal_at=signal_at)
            found.append(limits.asymptotic_limit(model, model.data(counts)))
            feigned.append(spurious)
        except FitError as error:
            found.append(error)
            feigned.append(None)
    return tuple(found), tuple(feigned)


def limit_model(
    counts: FloatArray,
    edges: FloatArray,
    config: SearchConfig,
    order: int,
    mass: float,
    *,
    efficiency: float = 0.0,
    signal_at: float | None = None,
) -> tuple[PeakModel, float | None]:
    """The likelihood of the limits at one mass, and the spurious signal in it.

    `efficiency` is the relative uncertainty of the selection's efficiency, `signal_at` as for `upper_limits`.

    The spurious signal is what the fit finds in a smooth spectrum of the function with one more parameter, also one
    that the search does not choose from: of a function with fewer it would find nothing. None where there is no such
    function, or too few events for its fit to converge.
    """
    model, spurious = category_model([counts], edges, config, [order], mass, efficiency=efficiency, signal_at=signal_at)
    return model, spurious[0]


def category_model(
    counts: Sequence[FloatArray],
    edges: FloatArray,
    config: SearchConfig,
    orders: Sequence[int],
    mass: float,
    *,
    shares: Sequence[float] = (),
    efficiency: float = 0.0,
    signal_at: float | None = None,
) -> tuple[PeakModel, tuple[float | None, ...]]:
    """`limit_model` of several exclusive selections that share the signal, and the spurious signal in each.

    `shares` are the fractions of the signal in each, which sum to 1; all of it in each if there are none.
    """
    s = config.systematics or SystematicsSection(scale=0.0, resolution=0.0, luminosity=0.0, background_function=False)
    nominal = config.peak.at(mass).probabilities(edges)
    shifts = {}
    if s.scale:
        shifts["scale"] = tuple(config.peak.at(mass, scale=1 + k * s.scale).probabilities(edges) for k in (-1, 1))
    if s.resolution:
        shifts["resolution"] = tuple(
            config.peak.at(mass, resolution=1 + k * s.resolution).probabilities(edges) for k in (-1, 1)
        )
    n = len(counts)
    signal = config.peak.at(mass if signal_at is None else signal_at).probabilities(edges)
    spurious: list[float | None] = [None] * n
    for c, (values, order) in enumerate(zip(counts, orders)):
        if s.background_function and order < 4:
            with contextlib.suppress(FitError):
                spurious[c] = abs(spurious_signal(values, edges, nominal, order, order + 1, signal=signal))
    model = PeakModel(
        edges=(edges,) * n,
        shapes=(nominal,) * n,
        orders=tuple(orders),
        shifts=({k: (a, b) for k, (a, b) in shifts.items()},) * n,
        normalisation={k: v for k, v in (("efficiency", efficiency), ("luminosity", s.luminosity)) if v},
        spurious=tuple(v or 0.0 for v in spurious),
        shares=tuple(shares),
    )
    return model, tuple(spurious)


def tested_masses(config: SearchConfig, low: float, high: float) -> list[float]:
    """Multiples of the step within the window and the range of the fit.

    Raises
    ------
    InputError
        If there is none.
    """
    step = config.mass_step
    grid = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    inside = grid[(grid >= config.fit.low) & (grid <= config.fit.high)]
    if not inside.size:
        found = f"none every {step:g} GeV in {low:g} to {high:g}"
        expected = f"at least one within the fit, {config.fit.low:g} to {config.fit.high:g}"
        raise InputError("dijet search", "masses", found, expected)
    return [float(m) for m in inside]
