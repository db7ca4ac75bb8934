"""The back ends by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l1ad.errors import InputError
from l1ad.trigger.program import Trigger


@dataclass(frozen=True)
class Backend:
    """A back end: the module that holds its ``convert`` and ``load``, and the options that it takes from `convert`."""

    module: str
    about: str
    options: frozenset[str]


_DEVICE = frozenset({"part", "clock_ns", "latency_clocks", "ignore_estimate"})
BACKENDS = {
    "hls4ml": Backend("l1ad.backends.hls", "HLS project and its csim", _DEVICE | {"wrapper", "reuse_factor"}),
    "alkaid": Backend("l1ad.backends.rtl", "Verilog or VHDL, its interpreter and its simulation", _DEVICE | {"flavor"}),
    "cmssw": Backend("l1ad.backends.cmssw", "emulator library for CMSSW", frozenset()),
}

#: Whose network an HLS project has.
NETWORKS = ("auto", "hls4ml", "printed")


def backend_function(name: str, function: str) -> Callable[..., Any]:
    """``convert`` or ``load`` of a back end, imported when it is asked for.

    Raises
    ------
    InputError
        If there is no back end of that name.
    """
    from importlib import import_module

    if name not in BACKENDS:
        raise InputError("back end", "name", name, ", ".join(BACKENDS))
    result: Callable[..., Any] = getattr(import_module(BACKENDS[name].module), function)
    return result


def convert(
    name: str,
    trigger: Trigger,
    out_dir: str | os.PathLike[str],
    *,
    run_dir: str | os.PathLike[str] | None = None,
    network: str = "auto",
    **options: Any,
) -> Any:
    """Write the project of one back end.

    Parameters
    ----------
    run_dir : folder of the trained model, from which the back end that wants the Keras encoder takes it.
    network : whose network an HLS project has: ``hls4ml`` (from the trained model), ``printed`` (from the program, like
        the rest of the trigger), or ``auto``: hls4ml's if there is a trained model.
    options : part, clock_ns, latency_clocks and the others of `Backend.options`; those that this back end does not take
        are left out.

    Raises
    ------
    L1adError
        What the back end raises; `InputError` if hls4ml's network is asked for and there is no trained model, or if no
        back end takes an option.
    """
    known = frozenset().union(*(backend.options for backend in BACKENDS.values()))
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputError("convert", "options", ", ".join(unknown), ", ".join(sorted(known)))
    if network not in NETWORKS:
        raise InputError("convert", "network", network, ", ".join(NETWORKS))
    encoder = None
    if name == "hls4ml" and network != "printed":
        if run_dir is not None and (Path(run_dir) / "model.h5").is_file():
            from l1ad.model import load_encoder

            encoder = load_encoder(run_dir)
        elif network == "hls4ml":
            found = "no trained model" if run_dir is None else f"no {Path(run_dir) / 'model.h5'}"
            raise InputError("convert", "network", f"hls4ml, and {found}", "a run folder, or network printed")
    make = backend_function(name, "convert")
    return make(trigger, encoder, out_dir, **{k: v for k, v in options.items() if k in BACKENDS[name].options})
