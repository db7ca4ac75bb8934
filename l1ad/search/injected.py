"""Limits by injection with a whole search at each cross section.

`Injection` says what is put into what, `scan` does the trainings (each a resumable task on any
`concurrent.futures.Executor`), and reads limit and reach from them; `write` and `table` show what came out.

At each cross section sigma, ``sigma L A`` events of the signal (a Poisson number) are put into the data and the search
is trained again. The other events of the signal are scored by the same models, which have never seen them, and give the
efficiency. The expected significance is that of the selected signal on the fit to the selected background, which
supposes that the data hold no other signal.

Systematic uncertainties of the jets change what is injected and what is selected. A variation that moves a feature of
the signal by more than the injected events could show (`retrained`) gets trainings of its own, at that cross section;
the change of the efficiency is an uncertainty of the limit there. The others are as good as invisible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.io import write_json, write_text
from l1ad.search import methods
from l1ad.search.config import PeakSection, SearchConfig
from l1ad.search.dijet_search import category_model
from l1ad.search.errors import FitError
from l1ad.search.jets import Dijets, concatenate, require_counts
from l1ad.search.stats import crystal_ball, dijet, injection, limits

FloatArray = npt.NDArray[np.float64]

#: Bins in GeV of the fits of a scan.
_BIN_WIDTH = 20.0
#: Relative uncertainties of the efficiency at which a training's limit is computed; between them it is interpolated.
_EFFICIENCY_ERRORS = (0.1, 0.3, 0.6)


@dataclass(frozen=True)
class Injection:
    """A signal to be put into data; a task of `l1ad.search.stats.injection.run`.

    Attributes
    ----------
    data : events, without the signal as far as one knows.
    signal : events of the signal that pass the acceptance; those of the signal region are injected, or measure the
        efficiency.
    config : of the search.
    mass : of the resonance in GeV.
    luminosity : in 1/fb; cross sections are in fb.
    acceptance : fraction of the produced signal that `signal` holds, inside the signal region or not.
    """

    data: Dijets
    signal: Dijets
    config: SearchConfig
    mass: float
    luminosity: float
    acceptance: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.luminosity < np.inf or not 0 < self.acceptance <= 1:
            found = f"{self.luminosity:g}, {self.acceptance:g}"
            raise InputError("injection", "luminosity, acceptance", found, "positive, acceptance at most 1")
        fit, window = self.config.fit, self.config.mass_window
        low, high = max(fit.low, window.low), min(fit.high, window.high)
        if not low <= self.mass < high:
            expected = f"{low:g} to {high:g} GeV, in the window {window.name} and the range of the fit"
            raise InputError("injection", "mass", f"{self.mass:g} GeV", expected)
        for name, events in (("data", self.data), ("signal", self.signal)):
            require_counts(f"injection: {name}", events)

    @property
    def context(self) -> dict[str, str | float]:
        """What a stored training depends on, besides its task."""
        digest = hashlib.sha256()
        for part in (self.data, self.signal):
            digest.update(repr((part.names, part.jets.shape)).encode())
            digest.update(np.ascontiguousarray(part.jets).tobytes())
            digest.update(np.ascontiguousarray(part.m_jj).tobytes())
            for more in (part.constituents, part.l1_hw):
                digest.update(b"" if more is None else np.ascontiguousarray(more).tobytes())
        # What the configuration only names.
        digest.update(repr(self.config.peak.at(self.mass)).encode())
        if self.config.trigger is not None:
            from l1ad.trigger import Trigger

            digest.update(Trigger.load(self.config.trigger).hash.encode())
        return {
            "events": digest.hexdigest(),
            "config": self.config.model_dump_json(),
            "mass": self.mass,
            "luminosity": self.luminosity,
            "acceptance": self.acceptance,
        }

    def __call__(self, task: injection.Task) -> Mapping[str, float]:
        """Inject, train, and measure.

        Returns
        -------
        ``injected`` events, ``efficiency`` of signal region and selection together for the signal, ``selected`` events,
        expected limit on the selected signal events ``n95`` (and ``n95 10 %`` ... with so much uncertainty of the
        efficiency), the same as ``observed``, ``observed 10 %`` ... for the data without what was injected, and the
        expected significances ``z`` after and ``z_inclusive`` before the selection. Where the selection has categories
        they are fitted together, with the shares of the signal that is measured.

        Raises
        ------
        InputError
            If the signal has too few events to inject and to measure.
        FitError
            If a fit does not converge.
        """
        rng = task.rng()
        region = self.signal[self.signal.in_signal_region()]
        inside = len(region) / max(len(self.signal), 1)
        n = int(rng.poisson(task.cross_section * self.luminosity * self.acceptance * inside))
        if len(region) - n < 50:
            raise InputError(
                "injection", "signal events", len(region), f"at least {n + 50}: {n} to inject, 50 to measure"
            )
        order = rng.permutation(len(region))
        n_region = int(np.sum(self.data.in_signal_region()))
        used = concatenate([self.data[self.data.in_signal_region()], region[order]]).heavier_first()
        labels = self.config.mass_window.labels(used.m_jj)
        labels[n_region + n :] = methods.SPECTATOR
        config = self.config.model_copy(update={"seed": int(rng.integers(0, 2**31 - 1))})
        sideband = self.data[self.data.in_sideband()]
        tagged = methods.tag(used, labels, config, sideband=sideband)
        injected = np.arange(len(used)) >= n_region
        measured = injected & (labels == methods.SPECTATOR)
        selection = float(np.mean(tagged.selected[measured]))
        real = ~measured
        # One selection, or the categories of the regression, which hold different shares of signal and background.
        groups = [tagged.selected] if tagged.category is None else [tagged.category == c for c in (1, 2, 3)]
        kept = np.array([float(np.mean(g[measured])) for g in groups])
        z = [self._significance(used.m_jj[g & ~injected], n * k) for g, k in zip(groups, kept)]
        return {
            "injected": float(n),
            "efficiency": inside * selection,
            "selected": float(np.sum(tagged.selected & real)),
            # Limits are those of data without what was put in, selected by what was trained with it.
            **self._limits([used.m_jj[g & ~injected] for g in groups], kept),
            "z": float(np.sqrt(np.sum(np.square(z)))),
            "z_inclusive": self._significance(used.m_jj[~injected], float(n)),
        }

    def _limits(self, masses: Sequence[FloatArray], kept: FloatArray) -> dict[str, float]:
        """Expected and observed limits on the signal in all selections; `kept` is its efficiency in each."""
        fit = self.config.fit
        width = max(fit.bin_width, _BIN_WIDTH)
        # Without any signal to measure with, as without an efficiency, all shares are as good.
        shares = kept / kept.sum() if kept.sum() > 0 else np.full(kept.size, 1.0 / kept.size)
        spectra = [dijet.histogram(m, fit.low, fit.high, width=width) for m in masses]
        edges = spectra[0][1]
        counts = [c for c, _ in spectra]
        orders = [dijet.choose_order(c, edges, self.mass, orders=fit.orders).order for c in counts]
        found: dict[str, float] = {}
        for error in (0.0, *_EFFICIENCY_ERRORS) if self.config.systematics is not None else (0.0,):
            model, _ = category_model(
                counts, edges, self.config, orders, self.mass, shares=shares.tolist(), efficiency=error
            )
            limit = limits.asymptotic_limit(model, model.data(*counts))
            found |= {_at("n95", error): limit.expected[2], _at("observed", error): limit.observed}
        return found

    def _significance(self, background: FloatArray, n_signal: float) -> float:
        fit = self.config.fit
        counts, edges = dijet.histogram(background, fit.low, fit.high, width=max(fit.bin_width, _BIN_WIDTH))
        peak = self.config.peak.at(self.mass).probabilities(edges)
        return expected_significance(counts, edges, peak, n_signal, self.mass, orders=fit.orders)


def _at(name: str, error: float) -> str:
    """The name of a limit with a relative uncertainty of the efficiency."""
    return f"{name} {100 * error:g} %" if error else name


def expected_significance(
    background: npt.ArrayLike,
    edges: npt.ArrayLike,
    peak: npt.ArrayLike,
    n_signal: float,
    mass: float,
    *,
    orders: Sequence[int] = (2, 3, 4),
) -> float:
    """Median expected local significance of `n_signal` events on the smooth fit to `background`, the fit's freedom
    included: the peak is fitted to the sum of both, without fluctuation."""
    choice = dijet.choose_order(background, edges, mass, orders=orders)
    asimov = choice.fit.expected + n_signal * np.asarray(peak)
    return dijet.fit_peak(asimov, edges, peak, choice.order).z


@dataclass(frozen=True)
class Scan:
    """A finished injection scan.

    Attributes
    ----------
    cross_sections : injected, in fb, shape (n,).
    values : medians over the repetitions by name, see `Injection.__call__`, shape (n,) each; ``n95`` is that of the
        limit, with the uncertainty of the efficiency.
    failed : cross section and reason of each training that gave no result.
    limit : expected, by the intersection, None if there is none.
    observed : the same of the data, None if the scan does not begin without signal or there is none.
    reach : smallest cross section with an expected significance of 3 and 5; infinite beyond the scan.
    reach_inclusive : the same without selection.
    moved : for each variation with trainings of its own, for each cross section the features that it moves, with the
        shift in units of the statistical error of the injected events.
    changes : relative change of the efficiency for each of them, shape (n,), 0 where it needs no training, infinite
        where all its trainings failed.
    uncertainty : of the efficiency, all together, shape (n,). Where it is above 60 % there is no limit.
    """

    cross_sections: FloatArray
    values: dict[str, FloatArray]
    failed: tuple[tuple[float, str], ...]
    limit: injection.InjectionLimit | None
    observed: injection.InjectionLimit | None
    reach: dict[float, float]
    reach_inclusive: dict[float, float]
    moved: dict[str, dict[float, dict[str, float]]]
    changes: dict[str, FloatArray]
    uncertainty: FloatArray


def scan(
    what: Injection,
    cross_sections: Sequence[float],
    folder: str | Path,
    *,
    repeats: int = 1,
    executor: Executor | None = None,
    progress: Callable[[str], None] = lambda _text: None,
) -> Scan:
    """Train at each cross section and read limit and reach.

    Raises
    ------
    InputError
        Bad cross sections, or too little signal.
    FitError
        If no training at all gives a result.
    """
    region = what.data.m_jj[what.data.in_signal_region()]
    fit = what.config.fit
    dijet.check_falling(*dijet.histogram(region, fit.low, fit.high, width=max(fit.bin_width, _BIN_WIDTH)))
    todo = injection.tasks(cross_sections, repeats=repeats, seed=what.config.seed)
    progress(f"{len(todo)} trainings at {len(cross_sections)} cross sections")
    outcomes = injection.run(what, todo, folder, executor=executor, context=what.context)
    reused = sum(o.reused for o in outcomes)
    if reused:
        progress(f"{reused} trainings were there already")
    good = [o for o in outcomes if o.error is None]
    failed = tuple((o.task.cross_section, o.error) for o in outcomes if o.error is not None)
    if not good:
        raise FitError(f"injection scan: no training gave a result; the first: {failed[0][1]}")
    sigma = np.unique([o.task.cross_section for o in good])
    values = {
        name: np.array([np.median([o.values[name] for o in good if o.task.cross_section == s]) for s in sigma])
        for name in good[0].values
    }
    moved, changes, more = _systematics(what, todo, good, folder, executor, progress)
    failed += more
    # The two directions of one source are one uncertainty, the larger; sources are independent.
    sources: dict[str, FloatArray] = {}
    for name, change in changes.items():
        source = name.removesuffix(" up").removesuffix(" down")
        sources[source] = np.maximum(sources.get(source, np.zeros(sigma.size)), np.abs(change))
    uncertainty = np.sqrt(sum((v**2 for v in sources.values()), np.zeros(sigma.size)))
    if moved:
        values["n95"] = _with_uncertainty("n95", values, uncertainty)
    found, observed = None, None
    given = {"luminosity": what.luminosity, "acceptance": what.acceptance}
    try:
        found = injection.limit(sigma, values["efficiency"], values["n95"], **given)
        if sigma[0] == 0.0:
            # The data themselves: what is selected without injection, against the efficiency at each cross section.
            alone = {k: np.full(sigma.size, v[0]) for k, v in values.items()}
            n_observed = _with_uncertainty("observed", alone, uncertainty) if moved else alone["observed"]
            observed = injection.limit(sigma, values["efficiency"], n_observed, **given)
    except FitError as error:
        failed = (*failed, (float("nan"), str(error)))
    reaches = [{z: injection.reach(sigma, values[name], level=z) for z in (3.0, 5.0)} for name in ("z", "z_inclusive")]
    return Scan(sigma, values, failed, found, observed, reaches[0], reaches[1], moved, changes, uncertainty)


def _with_uncertainty(name: str, values: Mapping[str, FloatArray], uncertainty: FloatArray) -> FloatArray:
    """A limit at each injection with the uncertainty of its efficiency."""
    # A log-normal uncertainty enters the limit with its square.
    nodes = np.array([0.0, *_EFFICIENCY_ERRORS])
    curves = np.stack([values[_at(name, e)] for e in nodes], axis=1)
    # An efficiency that is known to worse than the last of them, or not at all, excludes nothing.
    known = np.array([np.interp(u**2, nodes**2, c) for u, c in zip(np.minimum(uncertainty, nodes[-1]), curves)])
    return np.where(uncertainty <= nodes[-1], known, np.inf)


def _systematics(
    what: Injection,
    todo: Sequence[injection.Task],
    good: Sequence[injection.Outcome],
    folder: str | Path,
    executor: Executor | None,
    progress: Callable[[str], None],
) -> tuple[dict[str, dict[float, dict[str, float]]], dict[str, FloatArray], tuple[tuple[float, str], ...]]:
    """Trainings with varied signals: features that move, changes of the efficiency, and what failed."""
    s = what.config.systematics
    nominal = {o.task: o.values for o in good}
    sigma = np.unique([task.cross_section for task in nominal])
    moved: dict[str, dict[float, dict[str, float]]] = {}
    changes: dict[str, FloatArray] = {}
    failed: tuple[tuple[float, str], ...] = ()
    if s is None or what.config.method in ("inclusive", "vae_qr", "trigger"):
        # These select nothing, or look at what is not a feature of the jets, and never train on a signal.
        return moved, changes, failed
    varied = variations(what.signal, scale=s.jet_mass_scale, smearing=s.jet_mass_resolution, seed=what.config.seed)
    for name, signal in varied.items():
        own = {}
        for x in sigma[sigma > 0]:
            n = float(x) * what.luminosity * what.acceptance
            features = retrained(what.signal, {name: signal}, what.config.features, n)
            if features:
                own[float(x)] = features[name]
        if not own:
            continue
        again = [task for task in todo if task in nominal and task.cross_section in own]
        progress(f"{name}: {len(again)} trainings at {len(own)} cross sections; the others would not show it")
        other = replace(what, signal=signal)
        place = Path(folder) / name.replace(" ", "_")
        outcomes = injection.run(other, again, place, executor=executor, context=other.context)
        failed += tuple((o.task.cross_section, f"{name}: {o.error}") for o in outcomes if o.error is not None)
        change = np.zeros(sigma.size)
        for i, x in enumerate(sigma):
            pairs = [
                (o.values["efficiency"], nominal[o.task]["efficiency"])
                for o in outcomes
                if o.error is None and o.task.cross_section == x
            ]
            if pairs:
                # The same random numbers in both: what differs is the variation.
                after, before = np.median(np.array(pairs), axis=0)
                change[i] = after / before - 1.0 if before > 0 else 0.0
            elif float(x) in own:
                change[i] = np.inf
        moved[name], changes[name] = own, change
    return moved, changes, failed


def write(found: Scan, folder: str | Path, *, energy: float = 13_600.0) -> tuple[Path, ...]:
    """``limits.json`` and ``hepdata/`` (collisions of `energy` GeV); returns the paths."""
    import yaml

    base = Path(folder)

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    content = {
        "format": "l1ad-injection-limits",
        "format_version": 1,
        "cross_sections_fb": found.cross_sections.tolist(),
        "values": {k: [number(x) for x in v] for k, v in found.values.items()},
        "failed": [[number(s), reason] for s, reason in found.failed],
        "limit_fb": None if found.limit is None else found.limit.limit,
        "bracketed": None if found.limit is None else found.limit.bracketed,
        "observed_limit_fb": None if found.observed is None else found.observed.limit,
        "reach_fb": {f"{z:g} sigma": number(s) for z, s in found.reach.items()},
        "reach_inclusive_fb": {f"{z:g} sigma": number(s) for z, s in found.reach_inclusive.items()},
        "systematics": {
            name: {
                "efficiency_change": [number(x) for x in found.changes[name]],
                "features_moved": {f"{x:g} fb": features for x, features in own.items()},
            }
            for name, own in found.moved.items()
        },
        "efficiency_uncertainty": [number(x) for x in found.uncertainty],
    }
    write_json(base / "limits.json", content)
    names = {
        "efficiency": "signal efficiency",
        "n95": "expected limit on selected events",
        "z": "expected significance",
    }
    table_ = {
        "independent_variables": [
            {
                "header": {"name": "injected cross section", "units": "fb"},
                "values": [{"value": float(s)} for s in found.cross_sections],
            }
        ],
        "dependent_variables": [
            {"header": {"name": text}, "values": [{"value": _hepdata(v)} for v in found.values[key]]}
            for key, text in names.items()
        ],
    }
    document = {
        "name": "Injection scan",
        "description": "Efficiency, expected limit and expected significance against the injected cross section.",
        "keywords": [{"name": "cmenergies", "values": [energy]}, {"name": "phrases", "values": ["dijet"]}],
        "data_file": "injection.yaml",
    }
    submission = yaml.safe_dump_all([{"comment": "Limits by injection", "additional_resources": []}, document])
    tables = base / "hepdata"
    write_text(tables / "injection.yaml", yaml.safe_dump(table_, sort_keys=False))
    write_text(tables / "submission.yaml", str(submission))
    return base / "limits.json", tables / "injection.yaml", tables / "submission.yaml"


def _hepdata(value: float) -> float | str:
    """A number, or the word for one that is not known."""
    return float(value) if np.isfinite(value) else "unknown"


def table(found: Scan) -> str:
    """The scan for a terminal, with the limit and the reaches below."""
    lines = ["sigma [fb]  injected  efficiency  uncertainty  N95      Z      Z inclusive"]
    for i, s in enumerate(found.cross_sections):
        v = {k: x[i] for k, x in found.values.items()}
        lines.append(
            f"{s:10.4g}  {v['injected']:8.0f}  {v['efficiency']:10.4f}  {found.uncertainty[i]:11.3f}  "
            f"{v['n95']:7.2f}  {v['z']:5.2f}  "
            f"{v['z_inclusive']:11.2f}"
        )
    for name, own in found.moved.items():
        features = sorted({f for moved in own.values() for f in moved})
        text = f"{name}: trained again at {len(own)} cross sections, it moves {', '.join(features)}"
        known = np.abs(found.changes[name][np.isfinite(found.changes[name])])
        lines.append(f"{text}; efficiency {100 * float(known.max(initial=0.0)):.1f} % at most")
    lines += [f"failed at {s:g} fb: {reason}" for s, reason in found.failed]
    if found.limit is not None:
        note = "" if found.limit.bracketed else " (the scan does not bracket it)"
        lines.append(f"limit: {found.limit.limit:.4g} fb expected{note}")
    if found.observed is not None:
        note = "" if found.observed.bracketed else " (the scan does not bracket it)"
        lines.append(f"limit: {found.observed.limit:.4g} fb observed{note}")
    for z in found.reach:
        lines.append(f"{z:g} sigma at {found.reach[z]:.4g} fb, without selection at {found.reach_inclusive[z]:.4g} fb")
    return "\n".join(lines)


def with_peak_of(signal: Dijets, config: SearchConfig, mass: float) -> tuple[SearchConfig, crystal_ball.PeakShapeFit]:
    """The configuration with the peak that a simulated signal of this mass has in the signal region.

    Raises
    ------
    InputError
        If the signal is too few events, or its dijets are of another mass.
    FitError
        If the fit does not converge.
    """
    found = crystal_ball.fit(signal.m_jj[signal.in_signal_region()])
    if not 0.7 < found.peak.mean / mass < 1.3:
        expected = f"dijets of the resonance at {mass:g} GeV"
        raise InputError("injection", "signal", f"a peak at {found.peak.mean:.0f} GeV", expected)
    relative = {**asdict(found.peak), "mean": found.peak.mean / mass, "sigma": found.peak.sigma / mass}
    return config.model_copy(update={"peak": PeakSection(**relative)}), found


def variations(signal: Dijets, *, scale: float = 0.01, smearing: float = 0.1, seed: int = 0) -> dict[str, Dijets]:
    """Signal with jet masses scaled by +-`scale`, and smeared by `smearing`: for `retrained`."""
    columns = [signal.names.index(name) for name in ("m", "m_sd", "msd") if name in signal.names]
    out = {}
    rng = np.random.default_rng(seed)
    factors = {
        "mass scale up": np.full((len(signal), 2), 1.0 + scale),
        "mass scale down": np.full((len(signal), 2), 1.0 - scale),
        "mass resolution": np.maximum(1.0 + smearing * rng.normal(size=(len(signal), 2)), 0.0),
    }
    for name, factor in factors.items():
        jets = signal.jets.copy()
        jets[:, :, columns] *= factor[:, :, None]
        out[name] = replace(signal, jets=jets.astype(np.float32))
    return out


def retrained(
    signal: Dijets, varied: Mapping[str, Dijets], features: Sequence[str], n_injected: float
) -> dict[str, dict[str, float]]:
    """Variations that move some feature by more than the injected signal could show, with those features: only they
    need trainings of their own (`injection.shifted_features`)."""

    def columns(events: Dijets) -> dict[str, FloatArray]:
        return {name: events.feature(name).ravel() for name in features}

    nominal = columns(signal)
    found = {name: injection.shifted_features(nominal, columns(v), 2.0 * n_injected) for name, v in varied.items()}
    return {name: moved for name, moved in found.items() if moved}
