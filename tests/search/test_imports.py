"""What a search costs before it starts: heavy packages come when they are used."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_searches_imports_nothing_heavy() -> None:
    code = (
        "import sys, pathlib, importlib, l1ad.search as s\n"
        "base = pathlib.Path(s.__path__[0])\n"
        # Simulation and sample stand apart: nothing of a search imports them; softdrop exists to hold numba.
        "apart = ('simulate', 'softdrop', 'bundled')\n"
        "parts = [p.relative_to(base).with_suffix('').parts for p in base.rglob('*.py') if p.stem != '__init__']\n"
        "assert len(parts) > 20\n"
        "for n in parts: n[0] in apart or importlib.import_module('.'.join(('l1ad.search', *n)))\n"
        "heavy = {'tensorflow', 'tf_keras', 'sklearn', 'scipy', 'pyarrow', 'h5py', 'matplotlib', 'iminuit', 'fastjet',"
        " 'awkward', 'pyhf'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
