"""Limits by injection with a whole search at each cross section.

`Injection` says what is put into what, `scan` does the trainings (each a resumable task on any
`concurrent.futures.Executor`), and reads limit and reach from them; `write` and `table` show what came out.

At each cross section sigma, ``sigma L A`` events of the signal (a Poisson number) are put into the data and the search
is trained again. The other events of the signal are scored by the same models, which have never seen them, and give the
efficiency. The expected significance is that of the selected signal on the fit to the selected background, which
supposes that the data hold no other signal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.io import write_json, write_text
from l1ad.search import methods
from l1ad.search.config import SearchConfig
from l1ad.search.dijet_search import limit_model
from l1ad.search.errors import FitError
from l1ad.search.jets import WINDOWS, Dijets, concatenate
from l1ad.search.stats import dijet, injection, limits

FloatArray = npt.NDArray[np.float64]

#: Bins in GeV of the fits of a scan.
_BIN_WIDTH = 20.0


@dataclass(frozen=True)
class Injection:
    """A signal to be put into data; a task of `l1ad.search.stats.injection.run`.

    Attributes
    ----------
    data : events, without the signal as far as one knows.
    signal : events of the signal that pass the acceptance; those that are not injected measure the efficiency.
    config : of the search.
    mass : of the resonance in GeV.
    luminosity : in 1/fb; cross sections are in fb.
    acceptance : fraction of the produced signal that `signal` holds.
    """

    data: Dijets
    signal: Dijets
    config: SearchConfig
    mass: float
    luminosity: float
    acceptance: float = 1.0

    def __post_init__(self) -> None:
        if not self.luminosity > 0 or not 0 < self.acceptance <= 1:
            found = f"{self.luminosity:g}, {self.acceptance:g}"
            raise InputError("injection", "luminosity, acceptance", found, "positive, acceptance at most 1")
        if not self.config.fit.low < self.mass < self.config.fit.high:
            expected = f"{self.config.fit.low:g} to {self.config.fit.high:g} GeV, the range of the fit"
            raise InputError("injection", "mass", f"{self.mass:g} GeV", expected)

    @property
    def context(self) -> dict[str, str | float]:
        """What a stored training depends on, besides its task."""
        digest = hashlib.sha256()
        for part in (self.data, self.signal):
            digest.update(np.ascontiguousarray(part.jets).tobytes())
            digest.update(np.ascontiguousarray(part.m_jj).tobytes())
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
        ``injected`` events, ``efficiency`` of the selection for the signal, ``selected`` events, expected limit on the
        selected signal events ``n95``, and the expected significances ``z`` after and ``z_inclusive`` before the
        selection.

        Raises
        ------
        InputError
            If the signal has too few events to inject and to measure.
        FitError
            If a fit does not converge.
        """
        rng = task.rng()
        n = int(rng.poisson(task.cross_section * self.luminosity * self.acceptance))
        region = self.signal[self.signal.in_signal_region()]
        if len(region) - n < 50:
            raise InputError(
                "injection", "signal events", len(region), f"at least {n + 50}: {n} to inject, 50 to measure"
            )
        order = rng.permutation(len(region))
        n_region = int(np.sum(self.data.in_signal_region()))
        used = concatenate([self.data[self.data.in_signal_region()], region[order]]).heavier_first()
        window = WINDOWS[self.config.window]
        labels = window.labels(used.m_jj)
        labels[n_region + n :] = methods.SPECTATOR
        config = self.config.model_copy(update={"seed": int(rng.integers(0, 2**31 - 1))})
        sideband = self.data[self.data.in_sideband()]
        tagged = methods.tag(used, labels, config, sideband=sideband)
        injected = np.arange(len(used)) >= n_region
        measured = injected & (labels == methods.SPECTATOR)
        efficiency = float(np.mean(tagged.selected[measured]))
        real = ~measured
        return {
            "injected": float(n),
            "efficiency": efficiency,
            "selected": float(np.sum(tagged.selected & real)),
            "n95": self._expected_limit(used.m_jj[tagged.selected & real]),
            "z": self._significance(used.m_jj[tagged.selected & ~injected], n * efficiency),
            "z_inclusive": self._significance(used.m_jj[~injected], float(n)),
        }

    def _expected_limit(self, masses: FloatArray) -> float:
        fit = self.config.fit
        counts, edges = dijet.histogram(masses, fit.low, fit.high, width=max(fit.bin_width, _BIN_WIDTH))
        order = dijet.choose_order(counts, edges, self.mass, orders=fit.orders).order
        if self.config.systematics is None:
            plain = limits.DijetModel(edges, self.config.peak.at(self.mass).probabilities(edges), order)
            return limits.asymptotic_limit(plain, counts).expected[2]
        model, _ = limit_model(counts, edges, self.config, order, self.mass)
        return limits.asymptotic_limit(model, model.data(counts)).expected[2]

    def _significance(self, background: FloatArray, n_signal: float) -> float:
        fit = self.config.fit
        counts, edges = dijet.histogram(background, fit.low, fit.high, width=max(fit.bin_width, _BIN_WIDTH))
        peak = self.config.peak.at(self.mass).probabilities(edges)
        return expected_significance(counts, edges, peak, n_signal, self.mass, orders=fit.orders)


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
    values : medians over the repetitions by name, see `Injection.__call__`, shape (n,) each.
    failed : cross section and reason of each training that gave no result.
    limit : by the intersection, None if there is none.
    reach : smallest cross section with an expected significance of 3 and 5; infinite beyond the scan.
    reach_inclusive : the same without selection.
    """

    cross_sections: FloatArray
    values: dict[str, FloatArray]
    failed: tuple[tuple[float, str], ...]
    limit: injection.InjectionLimit | None
    reach: dict[float, float]
    reach_inclusive: dict[float, float]


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
    found = None
    try:
        found = injection.limit(
            sigma, values["efficiency"], values["n95"], luminosity=what.luminosity, acceptance=what.acceptance
        )
    except FitError as error:
        failed = (*failed, (float("nan"), str(error)))
    reaches = [{z: injection.reach(sigma, values[name], level=z) for z in (3.0, 5.0)} for name in ("z", "z_inclusive")]
    return Scan(sigma, values, failed, found, *reaches)


def write(found: Scan, folder: str | Path) -> tuple[Path, ...]:
    """``limits.json`` and ``hepdata/injection.yaml``; returns their paths."""
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
        "reach_fb": {f"{z:g} sigma": number(s) for z, s in found.reach.items()},
        "reach_inclusive_fb": {f"{z:g} sigma": number(s) for z, s in found.reach_inclusive.items()},
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
            {"header": {"name": text}, "values": [{"value": float(v)} for v in found.values[key]]}
            for key, text in names.items()
        ],
    }
    write_text(base / "hepdata" / "injection.yaml", yaml.safe_dump(table_, sort_keys=False))
    return base / "limits.json", base / "hepdata" / "injection.yaml"


def table(found: Scan) -> str:
    """The scan for a terminal, with the limit and the reaches below."""
    lines = ["sigma [fb]  injected  efficiency  N95      Z      Z inclusive"]
    for i, s in enumerate(found.cross_sections):
        v = {k: x[i] for k, x in found.values.items()}
        lines.append(
            f"{s:10.4g}  {v['injected']:8.0f}  {v['efficiency']:10.4f}  {v['n95']:7.2f}  {v['z']:5.2f}  "
            f"{v['z_inclusive']:11.2f}"
        )
    lines += [f"failed at {s:g} fb: {reason}" for s, reason in found.failed]
    if found.limit is not None:
        note = "" if found.limit.bracketed else " (the scan does not bracket it)"
        lines.append(f"limit: {found.limit.limit:.4g} fb{note}")
    for z in found.reach:
        lines.append(f"{z:g} sigma at {found.reach[z]:.4g} fb, without selection at {found.reach_inclusive[z]:.4g} fb")
    return "\n".join(lines)


def variations(signal: Dijets, *, scale: float = 0.01, smearing: float = 0.1, seed: int = 0) -> dict[str, Dijets]:
    """Signal with jet masses scaled by +-`scale`, and smeared by `smearing`: for `retrained`."""
    column = signal.names.index("m")
    out = {}
    rng = np.random.default_rng(seed)
    factors = {
        "mass scale up": np.full((len(signal), 2), 1.0 + scale),
        "mass scale down": np.full((len(signal), 2), 1.0 - scale),
        "mass resolution": np.maximum(1.0 + smearing * rng.normal(size=(len(signal), 2)), 0.0),
    }
    for name, factor in factors.items():
        jets = signal.jets.copy()
        jets[:, :, column] *= factor
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
