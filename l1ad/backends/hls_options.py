"""How an HLS project is built: the options, checked where they are given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from l1ad.backends import cpp
from l1ad.errors import InputError
from l1ad.trigger.program import Trigger

Wrapper = Literal["auto", "ugt", "words", "ap_none"]
HlsBackend = Literal["Vitis", "Vivado"]


@dataclass(frozen=True)
class HlsOptions:
    """How the project is built.

    Attributes
    ----------
    backend : of hls4ml, ``Vitis`` or ``Vivado``.
    wrapper : ``ugt`` (the port list of the uGT board), ``words`` (one word an input: pt in GeV, angles in hardware
        codes), ``ap_none`` (one port a feature, no handshake, as in an L1Topo board), or ``auto``: ``ugt`` for the
        objects of that board, ``ap_none`` for others.
    top : name of the top function.
    part : FPGA.
    clock_ns : clock period.
    clock_uncertainty : as the tools take it, such as ``12.5%`` or ``2``; empty for the tool's own.
    latency_clocks : clocks from the inputs to the score; 0 for logic without registers.
    reuse_factor : multiplications on one multiplier, 1 for none shared.
    strategy : of hls4ml.
    threshold_bits : a further port with one bit a threshold; None: yes, except on the uGT board, whose ports are fixed.
    dsp : whether multiplications may use DSPs.
    """

    backend: HlsBackend = "Vitis"
    wrapper: Wrapper = "auto"
    top: str = "anomaly_trigger"
    part: str = "xc7vx690tffg1927-2"
    clock_ns: float = 25.0
    clock_uncertainty: str = ""
    latency_clocks: int = 2
    reuse_factor: int = 1
    strategy: str = "latency"
    threshold_bits: bool | None = None
    dsp: bool = False

    def __post_init__(self) -> None:
        for field, kind in (("backend", HlsBackend), ("wrapper", Wrapper)):
            if getattr(self, field) not in get_args(kind):
                raise InputError("hls", field, getattr(self, field), ", ".join(get_args(kind)))
        if cpp.identifier(self.top) != self.top:
            raise InputError("hls", "top", self.top, f"a C++ name, such as {cpp.identifier(self.top)}")
        if self.reuse_factor < 1:
            raise InputError("hls", "reuse_factor", self.reuse_factor, "1 or more")
        if self.strategy.lower() not in ("latency", "resource"):
            raise InputError("hls", "strategy", self.strategy, "latency or resource")
        if not re.fullmatch(r"|\d+(\.\d+)?%?", self.clock_uncertainty):
            raise InputError("hls", "clock_uncertainty", self.clock_uncertainty, "nanoseconds or a percentage")
        if self.threshold_bits and self.wrapper == "ugt":
            raise InputError("hls", "threshold_bits", "wrapper ugt", "a wrapper without a fixed port list")


def read_options(given: Mapping[str, Any]) -> HlsOptions:
    """Options by name.

    Raises
    ------
    InputError
        If one is unknown or wrong.
    """
    known = set(HlsOptions.__dataclass_fields__)
    unknown = sorted(set(given) - known)
    if unknown:
        raise InputError("hls", "options", ", ".join(unknown), ", ".join(sorted(known)))
    return HlsOptions(**given)


def thresholds(trigger: Trigger, options: HlsOptions) -> tuple[tuple[str, int], ...]:
    """Seeds and thresholds in the order of their bits, the lowest first; none without the port."""
    wanted = options.threshold_bits if options.threshold_bits is not None else options.wrapper != "ugt"
    if not wanted:
        return ()
    return tuple(sorted(trigger.thresholds.items(), key=lambda item: (item[1], item[0])))
