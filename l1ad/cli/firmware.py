"""`l1ad assemble`, `l1ad convert` and `l1ad validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("assemble", help=_ASSEMBLE_HELP)(assemble)
    app.command("convert", help=_CONVERT_HELP)(convert)
    app.command("validate", help=_VALIDATE_HELP)(validate)


_ASSEMBLE_HELP = """Make trigger.json of the integers of a network, such as a deployed one, without its training.

ARRAYS is a NumPy archive with w0 b0 w1 b1 ... (codes), offset and shift; types are those of AXOL1TL v4 unless --type
says otherwise. Crossings hw in it become events.h5, and what was recorded for them (score, mu) is compared: exit status
1 if any integer differs.

Example: l1ad assemble axol1tl_v4.npz --out runs/v4 && l1ad validate runs/v4 --events runs/v4/events.h5"""

_CONVERT_HELP = """Write the firmware project of a frozen trigger: HLS, RTL, or the CMSSW emulator.

TARGET is a run folder or a trigger.json. The project goes to firmware/BACKEND in the run folder, or to --out. Whether
the latency can be met on the part is estimated before anything is written.

Example: l1ad convert runs/quickstart --backend alkaid --latency-clocks 2 --clock-ns 25"""

_VALIDATE_HELP = """Compare every realisation of a trigger with the golden integer program, event by event.

TARGET is a run folder, which gets validation.json, or a trigger.json. The events are those of --events, adversarial
ones made from the program itself, and random codes over the full words. Exit status 1 if any integer differs.

Example: l1ad validate runs/quickstart --events data/zero_bias.h5 --n 1000000 --mutate"""


def assemble(
    arrays: Annotated[Path, typer.Argument(help="NumPy archive (.npz).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder of the trigger.")],
    types: Annotated[
        Optional[list[str]],
        typer.Option(
            "--type", help="NAME=TYPE, such as 'relu=ap_ufixed<10,7>'; one a layer with ; between. Repeatable."
        ),
    ] = None,
    score: Annotated[str, typer.Option(help="mu2, student or embedding_mse.")] = "mu2",
    embedding: Annotated[
        Optional[int], typer.Option(min=1, help="embedding_mse: how many layers make the backbone.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Object layout of the inputs.")] = "cms_ugt",
    name: Annotated[Optional[str], typer.Option(help="Of the trigger; the file's by default.")] = None,
) -> None:
    from l1ad.errors import InputError
    from l1ad.trigger.arrays import check_recorded, read_arrays

    given: dict[str, str] = {}
    for text in types or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError("assemble", "--type", text, "NAME=TYPE")
        given[key.strip()] = value
    made = read_arrays(arrays, types=given, score=score, layout=layout, name=name, embedding=embedding)
    trigger = made.trigger
    compared = check_recorded(made)
    trigger.save(out / "trigger.json")
    typer.echo(f"{out / 'trigger.json'}: {trigger.kind} on {trigger.layout.name}, hash {trigger.hash[:12]}")
    if made.events is not None:
        made.events.write(out / "events.h5")
        typer.echo(f"{out / 'events.h5'}: {len(made.events):,} crossings")
    for kind, n in compared.items():
        typer.echo(f"{n:,} of {n:,} recorded {kind} equal")


def convert(
    target: Annotated[Path, typer.Argument(help="Run folder or trigger.json.")],
    backend: Annotated[str, typer.Option("--backend", "-b", help="hls4ml, alkaid, cmssw or all.")] = "all",
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Folder of the projects; TARGET's firmware/ by default.")
    ] = None,
    part: Annotated[Optional[str], typer.Option(help="FPGA, such as xc7vx690tffg1927-2.")] = None,
    latency_clocks: Annotated[Optional[int], typer.Option(help="Clocks to the score; alkaid: 0 for none.")] = None,
    clock_ns: Annotated[Optional[float], typer.Option(help="Clock period in ns.")] = None,
    flavor: Annotated[Optional[str], typer.Option(help="alkaid: verilog or vhdl.")] = None,
    reuse_factor: Annotated[
        Optional[int], typer.Option(min=1, help="hls4ml: products on one multiplier, and clocks between crossings.")
    ] = None,
    wrapper: Annotated[Optional[str], typer.Option(help="hls4ml: ugt, words or ap_none; auto by the layout.")] = None,
    network: Annotated[
        str,
        typer.Option(help="hls4ml: whose network: hls4ml (of the trained model), printed (from the integers) or auto."),
    ] = "auto",
    thresholds: Annotated[
        Optional[Path],
        typer.Option(help="thresholds.json (or its folder) of this trigger: its integers become the threshold bits."),
    ] = None,
    synthesis: Annotated[
        bool, typer.Option("--synthesis", help="alkaid: count LUT, FF and DSP with Yosys (a minute or two).")
    ] = False,
    vendor: Annotated[
        Optional[str],
        typer.Option(help="hls4ml: then run the installed AMD tools: csim,csynth,cosim,export,place or some of these."),
    ] = None,
    ignore_estimate: Annotated[
        bool, typer.Option("--ignore-estimate", help="Write it even if the latency is out of reach by the estimate.")
    ] = False,
) -> None:
    from l1ad.backends.registry import BACKENDS
    from l1ad.backends.registry import convert as make
    from l1ad.errors import InputError
    from l1ad.rates.files import load_thresholds
    from l1ad.trigger.program import Trigger

    names = list(BACKENDS) if backend == "all" else [backend]
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise InputError("convert", "--backend", unknown[0], f"all, {', '.join(BACKENDS)}")
    if vendor is not None and "hls4ml" not in names:
        raise InputError("convert", "--vendor", f"--backend {backend}", "hls4ml or all")
    trigger = Trigger.load(target)
    if thresholds is not None:
        trigger = trigger.with_thresholds(load_thresholds(thresholds, trigger_hash=trigger.hash).values)
    run_dir = target if target.is_dir() else None
    root = out or (target if target.is_dir() else target.parent) / "firmware"
    given = {"part": part, "latency_clocks": latency_clocks, "clock_ns": clock_ns, "flavor": flavor}
    given |= {"wrapper": wrapper, "reuse_factor": reuse_factor, "ignore_estimate": ignore_estimate or None}
    options = {key: value for key, value in given.items() if value is not None}
    for name in names:
        made = make(name, trigger, root / name, run_dir=run_dir, network=network, **options)
        typer.echo(f"{name}: {root / name}")
        estimate = getattr(made, "timing", getattr(made, "estimate", None))
        if estimate is not None:
            typer.echo(f"  {estimate}")
        if name == "alkaid":
            from l1ad.backends import synthesis as open_synthesis

            counted = open_synthesis.synthesise(made) if synthesis else None
            for row in open_synthesis.write_table(made, counted):
                typer.echo(f"  LUT {row['lut']}, FF {row['ff']}, DSP {row['dsp']}: {row['provenance']} ({row['name']})")
        if name == "hls4ml" and vendor is not None:
            from l1ad.backends.vendor import run_steps

            for report in run_steps(made, [step.strip() for step in vendor.split(",")]):
                typer.echo(f"  {report}")


def validate(
    target: Annotated[Path, typer.Argument(help="Run folder or trigger.json.")],
    events: Annotated[Optional[list[Path]], typer.Option("--events", help="File of events; may be repeated.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Events in all.")] = 1_000_000,
    n_rtl: Annotated[int, typer.Option(min=1, help="Of them in simulations clock by clock.")] = 200_000,
    realisations: Annotated[
        Optional[str], typer.Option(help="Comma-separated: keras, hls4ml, alkaid, verilator, cmssw, fast.")
    ] = None,
    mutate: Annotated[bool, typer.Option("--mutate", help="Show that the check catches mutations.")] = False,
    proof_seconds: Annotated[
        float, typer.Option(min=0, help="With --mutate: for proofs that a change is none; more on a busy machine.")
    ] = 240.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the random events.")] = 20240501,
) -> None:
    from rich.console import Console
    from rich.table import Table

    from l1ad.errors import CheckFailed
    from l1ad.validate import validate as run

    chosen = [name.strip() for name in realisations.split(",")] if realisations else None
    result = run(
        target,
        list(events or ()),
        n=n,
        n_rtl=n_rtl,
        realisations=chosen,
        mutate=mutate,
        proof_seconds=proof_seconds,
        seed=seed,
        note=lambda text: typer.echo(f"... {text}", err=True),
    )
    console = Console(width=110, highlight=False)
    table = Table("realisation", "events", "mismatches", "s", "")
    for row in result.comparisons:
        verdict = row.reason if row.mismatches is None else "equal" if not row.mismatches else "DIFFERENT"
        shown = ("", "") if row.mismatches is None else (f"{row.events:,}", f"{row.mismatches:,}")
        table.add_row(row.name, *shown, f"{row.seconds:.1f}", verdict)
    console.print(table)
    for row in result.comparisons:
        if row.first is not None:
            typer.echo(f"{row.name}: first divergence: {row.first}")
    if result.mutations is not None:
        mutants = Table("mutation", "", "")
        for outcome in result.mutations:
            named = ("caught", outcome.caught), ("equivalent", outcome.equivalent), ("MISSED", outcome.missed)
            verdict = next((word for word, holds in named if holds), "undecided")
            verdict = "MISSED" if outcome.missed else verdict
            mutants.add_row(outcome.what, verdict, outcome.reason or f"{outcome.events} events, first {outcome.event}")
        console.print(mutants)
    typer.echo(f"{result.trigger_name} ({result.trigger_hash[:12]}): {result.summary}")
    if not result.passed:
        missed = f"{len(result.missed)} mutations missed" if result.missed else "validation failed"
        compared = any(row.mismatches is not None for row in result.comparisons)
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in result.comparisons)
        raise CheckFailed(missed if compared else f"nothing was compared: {reasons}")
