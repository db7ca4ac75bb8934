"""`l1ad search`: a dijet search, and its limits by injection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from l1ad.search.config import SearchConfig
    from l1ad.search.dijet_search import Result
    from l1ad.search.jets import Dijets
    from l1ad.search.stats.crystal_ball import PeakShapeFit


def dijet_command(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped search configuration.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("search"),
    events: Annotated[
        list[Path] | None,
        typer.Option("--events", help="Dijet files (HDF5, parquet), put together; the bundled sample if none."),
    ] = None,
    signal: Annotated[Path | None, typer.Option(help="Dijet file of a signal to inject.")] = None,
    n_signal: Annotated[int, typer.Option(min=0, help="How many of its events.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes for the trainings.")] = 1,
) -> None:
    """Search for a resonance in dijets: score, select, fit, p-values, limits, and a page that shows it.

    Example: l1ad search dijet dijet_quickstart --out search --workers 2
    """
    from l1ad.configs import find_config
    from l1ad.io import require_folder
    from l1ad.rates.pool import process_pool
    from l1ad.report.search_page import write_search_report
    from l1ad.search.config import SearchConfig
    from l1ad.search.dijet_search import search
    from l1ad.search.outputs import write

    settings = SearchConfig.read(find_config(config, "search"))
    require_folder(out)
    data, sample = _data(settings, events or [], signal, n_signal)
    with process_pool(workers) as pool:
        result = search(data, settings, executor=pool, progress=lambda text: typer.echo(text, err=True))
    for path in (*write(result, out), *write_search_report(result, out, sample=sample)):
        typer.echo(path)
    _say(result)


def limits_command(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped search configuration.")],
    signal: Annotated[Path, typer.Option(help="Dijet file: some of it is injected, the rest measures.")],
    cross_sections: Annotated[list[float], typer.Option("--cross-section", help="Injected, in fb, increasing.")],
    luminosity: Annotated[float, typer.Option(min=0.0, help="In 1/fb.")],
    mass: Annotated[float, typer.Option(help="Of the resonance, in GeV.")],
    acceptance: Annotated[float, typer.Option(help="Fraction of the produced signal that the file holds.")] = 1.0,
    repeats: Annotated[int, typer.Option(min=1, help="Trainings at each cross section; medians are used.")] = 1,
    events: Annotated[
        list[Path] | None, typer.Option("--events", help="Dijet files of the data; the bundled sample if none.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder; trainings that are there are not repeated.")] = Path(
        "limits"
    ),
    workers: Annotated[int, typer.Option(min=1, help="Trainings at once.")] = 1,
    dask: Annotated[str, typer.Option(help="Address of a dask scheduler, or local.")] = "",
) -> None:
    """Limits on a cross section when the selection depends on it: inject, train again, take the intersection.

    The peak is that of the signal file, unless the configuration says what it is.

    Example: l1ad search limits dijet_quickstart --signal x.h5 --cross-section 0 --cross-section 5 --luminosity 138
    --mass 3000
    """
    from l1ad.configs import find_config
    from l1ad.io import require_folder
    from l1ad.rates.pool import process_pool
    from l1ad.rates.tasks import dask_executor
    from l1ad.search import injected
    from l1ad.search.config import SearchConfig

    settings = SearchConfig.read(find_config(config, "search"))
    require_folder(out)
    odd = _signal(signal, constituents=_wants_particles(settings))
    if "peak" not in settings.model_fields_set:
        settings, shape = injected.with_peak_of(odd, settings, mass)
        typer.echo(f"peak of {signal.name}: {_shape(shape)}", err=True)
    data, _ = _data(settings.model_copy(update={"inject": None}), events or [], None, 0)
    plan = injected.Injection(data, odd, settings, mass, luminosity, acceptance)
    with dask_executor(dask, workers) if dask else process_pool(workers) as pool:
        found = injected.scan(
            plan, cross_sections, out, repeats=repeats, executor=pool, progress=lambda text: typer.echo(text, err=True)
        )
    for path in injected.write(found, out, energy=settings.collision_energy):
        typer.echo(path)
    typer.echo(injected.table(found))


def peak_command(
    signals: Annotated[list[str], typer.Argument(metavar="FILE=MASS...", help="Dijet files of a signal, GeV.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, for peak: {file: ...}.")] = Path("peaks.json"),
) -> None:
    """Fit the peak of a resonance to simulated signals: a double-sided Crystal Ball, interpolated between the masses.

    Example: l1ad search peak x_2000.h5=2000 x_3000.h5=3000 --out peaks.json
    """
    from l1ad.errors import InputError
    from l1ad.search.config import SearchConfig
    from l1ad.search.injected import with_peak_of
    from l1ad.search.stats.crystal_ball import Interpolation

    found = {}
    for text in signals:
        name, _, number = text.rpartition("=")
        try:
            mass = float(number)
        except ValueError:
            mass = 0.0
        if not name or not mass > 0 or mass in found:
            raise InputError("command line", "signal", text, "FILE=MASS in GeV, each mass once")
        settings = SearchConfig()
        _, found[mass] = with_peak_of(_signal(Path(name)), settings, mass)
        typer.echo(f"{mass:g} GeV: {_shape(found[mass])}")
    masses = tuple(sorted(found))
    Interpolation(masses, tuple(found[m].peak for m in masses)).write(out)
    typer.echo(out)


def _wants_particles(settings: SearchConfig) -> bool:
    return "vae_qr" in (settings.method, *settings.compare)


def _shape(fit: PeakShapeFit) -> str:
    p = fit.peak
    poor = "" if fit.chi2 < 2.0 * max(fit.ndof, 1) else ": not described well"
    return (
        f"mean {p.mean:.0f} GeV, sigma {p.sigma:.1f} GeV, tails from {p.alpha_low:.2f} and {p.alpha_high:.2f} sigma "
        f"with powers {p.n_low:.1f} and {p.n_high:.1f}, chi2/ndof {fit.chi2:.0f}/{fit.ndof}{poor}"
    )


def _signal(path: Path, *, constituents: bool = False) -> Dijets:
    """The signal of a file: without the events whose label says that they are none."""
    from l1ad.errors import InputError
    from l1ad.search.bundled import read_any

    events = read_any(path, constituents=constituents)
    odd = events[events.label != 0]
    if not len(odd):
        raise InputError(str(path), "label", "background only", "events of a signal")
    return odd


def _data(settings: SearchConfig, events: list[Path], signal: Path | None, n_signal: int) -> tuple[Dijets, str]:
    """The events of a search, and one sentence that says where they are from."""
    import numpy as np

    from l1ad.errors import InputError
    from l1ad.search import jets, methods
    from l1ad.search.bundled import bundled_dijets, read_any

    if (signal is None) != (n_signal == 0):
        given = "--signal without --n-signal" if signal is not None else "--n-signal without --signal"
        raise InputError("command line", "injection", given, "both or none")
    particles = _wants_particles(settings)
    injected, n, name = None, n_signal, ""
    if signal is not None:
        injected, name = _signal(signal, constituents=particles), signal.name
    if events:
        parts = [read_any(path, constituents=particles) for path in events]
        text = f"Events of {', '.join(path.name for path in events)}"
    else:
        parts = [bundled_dijets("qcd", constituents=particles)]
        text = "The bundled simulated QCD sample"
        if particles:
            text += " (events with constituents, above 1800 GeV)"
        if injected is None and settings.inject is not None:
            name, n = settings.inject.signal, settings.inject.events
            injected = bundled_dijets(name, constituents=particles)
    if injected is not None:
        if len(injected) < n:
            raise InputError(name, "events", len(injected), f"at least {n} to inject")
        rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(2,)))
        parts.append(injected[np.sort(rng.choice(len(injected), n, replace=False))])
        text += f", with {n} events of {name} injected"
    data = jets.concatenate(parts)
    twice = len(data) - len(np.unique(methods.identities(data)))
    if twice:
        expected = "each event once: is a file named twice, or a signal in the data already?"
        raise InputError("dijet files", "events", f"{twice} that are there twice", expected)
    return data, f"{text}."


def _say(result: Result) -> None:
    fit, proof = result.choice.fit, result.tagged.proof
    typer.echo(
        f"window {result.config.mass_window.name}: {result.n_selected} of {result.n_events} events selected; "
        f"background with {fit.order} parameters, chi2/ndof {fit.chi2:.1f}/{fit.ndof}"
    )
    if proof is not None:
        typer.echo(f"no leak: {proof.n_events} events, {proof.n_models} models, {proof.n_comparisons} comparisons")
    line = f"most significant: {result.mass:.0f} GeV, local p {result.p_local:.3g} ({result.z_local:.2f} sigma)"
    if result.p_window is not None and result.p_global is not None:
        low, high = result.p_window.interval
        line += (
            f"; in the window {result.p_window.p:.3g} [{low:.2g}, {high:.2g}] by toys, "
            f"{result.p_window_gross_vitells:.3g} by extrapolation; in the search {result.p_global:.3g}"
        )
    typer.echo(line)
    if result.badly_described:
        text = f"background and peak together describe the spectrum badly (chi2 p {result.described:.1g})"
        typer.echo(f"{text}: look at the fit before you use these results")
    for order, reason in result.choice.failed.items():
        typer.echo(f"no fit with {order} parameters, so it was not chosen: {reason}")
    if result.scan.failed:
        masses = ", ".join(f"{m:.0f}" for m in result.scan.failed)
        typer.echo(f"fits that did not converge, left out: {masses} GeV")


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("dijet")(dijet_command)
    app.command("limits")(limits_command)
    app.command("peak")(peak_command)
