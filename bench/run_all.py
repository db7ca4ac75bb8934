"""`make bench`: every script of this folder, one after the other, at the size that fits in a quarter of an hour."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKIP = {"common.py", "run_all.py"}


def main() -> None:
    """Run each script with --quick and keep its JSON in bench/results."""
    failed = []
    for script in sorted(HERE.glob("*.py")):
        if script.name in SKIP:
            continue
        start = time.monotonic()
        sys.stdout.write(f"== {script.name}\n")
        sys.stdout.flush()
        out = HERE / "results"
        result = subprocess.run([sys.executable, str(script), "--quick", "--out", str(out)], check=False)
        sys.stdout.write(f"== {script.name}: {time.monotonic() - start:.0f} s\n")
        if result.returncode:
            failed.append(script.name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
