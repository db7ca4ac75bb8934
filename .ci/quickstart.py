"""The quickstart at a reduced size in a new folder, and a look at what it left."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALLER = ["training.epochs=8", "pruning.begin_epoch=2", "pruning.end_epoch=6", "validation.n=20000",
           "validation.n_rtl=2000", "validation.mutate=false", "firmware.open_synthesis=false"]  # fmt: skip


def main() -> None:
    """Run, check, and say in one line how it went."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "quickstart"
        command = [str(Path(sys.executable).parent / "l1ad"), "run", "quickstart", "--run-dir", str(folder)]
        for setting in SMALLER:
            command += ["--set", setting]
        subprocess.run(command, check=True)
        start = time.monotonic()
        second = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = time.monotonic() - start
        validation = json.loads((folder / "validation.json").read_text())
        thresholds = json.loads((folder / "thresholds.json").read_text())
        problems = []
        ran = {row["name"]: row["mismatches"] for row in validation["realisations"]}
        if any(ran.values()) or sum(m is not None for m in ran.values()) < 5:
            problems.append(f"realisations: {ran}")
        one = next(t for t in thresholds["thresholds"] if t["name"] == "1kHz")
        low, high = one["rates"]["total"]["interval_68_hz"]
        if not 0 < one["rates"]["total"]["hz"] <= 1000 or (high - low) / 2 > 150:
            problems.append(f"1 kHz: {one['rates']['total']}")
        if not 1e6 < (folder / "report.html").stat().st_size < 8e6:
            problems.append("report.html: size")
        figures = {path.name for path in (folder / "figures").iterdir()}
        wanted = {f"{name}.{suffix}" for name in ("rate", "roc", "score", "inputs") for suffix in ("png", "pdf")}
        if not wanted <= figures:
            problems.append(f"figures: {sorted(figures)}")
        if second.count("unchanged, skipped") != 7 or seconds > 15:
            problems.append(f"second run: {seconds:.0f} s, {second.count('unchanged, skipped')} of 7 steps skipped")
        checks = 5
        for text in problems:
            sys.stderr.write(f"quickstart: {text}\n")
        sys.stdout.write(f"{checks - len(problems)} passed, {len(problems)} failed\n")
        sys.exit(bool(problems))


if __name__ == "__main__":
    main()
