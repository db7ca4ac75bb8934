"""What a search costs before it starts: heavy packages come when they are used."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_searches_imports_nothing_heavy() -> None:
    code = (
        "import sys, pkgutil, importlib, l1ad.search as s\n"
        "names = [m.name for m in pkgutil.walk_packages(s.__path__, 'l1ad.search.')]\n"
        # Simulation and sample stand apart: nothing of a search imports them; softdrop exists to hold numba.
        "for n in names: n.endswith(('.simulate', '.softdrop', '.bundled')) or importlib.import_module(n)\n"
        "heavy = {'tensorflow', 'tf_keras', 'sklearn', 'scipy', 'pyarrow', 'h5py', 'matplotlib', 'iminuit', 'fastjet',"
        " 'awkward', 'pyhf'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
