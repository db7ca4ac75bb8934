"""`make bench`: every script of this folder, one after the other, at the size that fits in a quarter of an hour.

    python bench/run_all.py [--full] [--heavy] [--only NAME ...]

By default each script does a quick run, which shows that it runs and never replaces the result of a full one.
``--full`` makes the figures that are quoted, and takes as long as that takes; studies that train or validate
everything run with ``--heavy`` only. At the end the tables of all results are put into `bench/README.md`, and the page
on a day of zero bias is made from them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: What is no benchmark.
HELPERS = {"common.py", "run_all.py", "scaling_page.py"}
#: What takes an hour or more in full, and minutes even when quick.
HEAVY = {"cicada.py", "physics.py", "validate_all.py"}
LIMIT_SECONDS = 15 * 60


def scripts(*, heavy: bool = False, only: list[str] | None = None) -> list[Path]:
    """The benchmarks to run, in the order of their names."""
    found = [path for path in sorted(HERE.glob("*.py")) if path.name not in HELPERS]
    if only:
        return [path for path in found if path.stem in only]
    return [path for path in found if heavy or path.name not in HEAVY]


def main() -> int:
    """Run the scripts; 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the size that figures are quoted for")
    parser.add_argument("--heavy", action="store_true", help=f"also {', '.join(sorted(HEAVY))}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="scripts by name, without .py")
    options = parser.parse_args()
    chosen = scripts(heavy=options.heavy, only=options.only)
    if not chosen:
        parser.error(f"--only: none of {', '.join(path.stem for path in scripts(heavy=True))}")
    spent: dict[str, float] = {}
    failed = []
    for script in chosen:
        sys.stdout.write(f"== {script.name}\n")
        sys.stdout.flush()
        start = time.monotonic()
        command = [sys.executable, str(script), *([] if options.full else ["--quick"])]
        if subprocess.run(command, check=False).returncode:
            failed.append(script.name)
        spent[script.name] = time.monotonic() - start
    for helper in ("common.py", "scaling_page.py"):
        subprocess.run([sys.executable, str(HERE / helper)], check=True)
    total = sum(spent.values())
    sys.stdout.write("".join(f"== {seconds:6.0f} s  {name}\n" for name, seconds in spent.items()))
    sys.stdout.write(f"== {total:6.0f} s  in all, {total / LIMIT_SECONDS:.0%} of a quarter of an hour\n")
    if failed:
        sys.stdout.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
