"""What the benchmarks share: no result that says nothing, and a page whose numbers follow from the results."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(scope="module")
def load() -> Iterator[object]:
    """A function that imports a module of bench/."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCH))

    def run(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield run
    sys.path.remove(str(BENCH))
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or ".").parent == BENCH:
            del sys.modules[name]


def options(folder: Path, *, quick: bool) -> argparse.Namespace:
    return argparse.Namespace(machine={}, quick=quick, out=folder)


def test_too_few_repeats_are_an_error_of_the_command_line(load, monkeypatch, capsys) -> None:
    common = load("common")
    for wrong in ("2", "x"):
        monkeypatch.setattr(sys, "argv", ["x.py", "--repeats", wrong])
        with pytest.raises(SystemExit) as caught:
            common.arguments("x", "x")
        assert caught.value.code == 2
        assert f"{wrong}: at least 5 for a median" in capsys.readouterr().err


def test_a_quick_run_never_replaces_a_full_one(load, tmp_path, capsys) -> None:
    common = load("common")
    result = common.Result("a", "events", True, "", 10.0, [1.0] * 5)

    def stored() -> bool:
        return json.loads((tmp_path / "s.json").read_text())["quick"]

    common.report("s", "S", [result], options(tmp_path, quick=True))
    assert stored() is True
    common.report("s", "S", [result], options(tmp_path, quick=False))
    assert stored() is False
    common.report("s", "S", [result], options(tmp_path, quick=True))
    assert stored() is False
    assert "keeps the result of the full one" in capsys.readouterr().out


def test_every_script_is_run_or_named_as_no_benchmark(load) -> None:
    run_all = load("run_all")
    names = {path.name for path in run_all.scripts(heavy=True)}
    assert names | run_all.HELPERS == {path.name for path in BENCH.glob("*.py")}
    assert {path.name for path in run_all.scripts()} == names - run_all.HEAVY
    assert [path.stem for path in run_all.scripts(only=["rtl"])] == ["rtl"]


def small_result() -> dict[str, object]:
    """Figures that make a day easy to do by hand: 10 M events/s, tasks of 10 M events, 100 bytes an event."""
    names = {"score, this process, 2 threads": 10e6, "score, this process, 1 thread": 5e6}
    names |= {"calibrate, this process": 1e6, "SHA-256 of the file": 20e6}
    return {
        "results": [{"name": n, "rate": r, "rate_min": r, "rate_max": r} for n, r in names.items()],
        "extra": {
            "overhead_seconds": {"score": [0.1, 0.1, 0.1], "calibrate": [0.02, 0.02, 0.02]},
            "task_events": {"score": 10_000_000, "calibrate": 1_000_000},
            "bytes_per_event": 100,
        },
        "machine": {"cores": 2, "cpu": "c", "instruction_sets": ["avx2"], "load_average_before": 0.1},
        "when": "2026-01-01",
        "quick": False,
    }


def test_a_day_by_hand(load) -> None:
    text = load("scaling_page").page(small_result())
    # 100 tasks. One node: 100 x (1 s + 0.1 s); a disk of 0.5 GB/s gives 10 M x 100 bytes in 2 s.
    assert "| 1 | 100 | 110 s | 210 s | 110 s |" in text
    # Twenty nodes: five rounds.
    assert "| 20 | 5 | 5.5 s | 10.5 s | 5.5 s |" in text
    # Thresholds, two cores a node: 1000 tasks of 1 s and 20 ms on 40 cores.
    assert "| 20 | 25 | 25.5 s |" in text
    assert "costs 5.0 % of that" in text
    assert "takes\n1.00 s: 2.0 %" in text
    assert "50 s for the day at the measured 2 GB/s" in text


def test_what_was_not_measured_is_not_derived(load) -> None:
    value = small_result()
    value["results"] = [entry for entry in value["results"] if entry["name"].startswith("score")]
    del value["extra"]["overhead_seconds"]["calibrate"]
    text = load("scaling_page").page(value)
    assert "## Derived: thresholds" not in text
    assert "has no figure for it" in text
    assert "| 1 | 100 | 110 s |" in text


def test_the_page_on_a_day_of_zero_bias_follows_from_the_result(load) -> None:
    module = load("scaling_page")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(json.loads(module.RESULT.read_text(encoding="utf-8")))
