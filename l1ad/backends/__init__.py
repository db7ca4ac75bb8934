"""Realisations of a frozen trigger: everything that must give the same integer as the golden program.

What to use when: `hls` for an hls4ml project and its csim, `rtl` for Verilog and VHDL and their simulation, `cmssw` for
the emulator library, `vendor` and `synthesis` for figures; `l1ad.validate` compares them all.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Realisation(Protocol):
    """Something that scores crossings."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def trigger_hash(self) -> str:
        """Hash of the program it was made from."""
        ...

    def score(self, inputs: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Integer scores (N,), LSB 1/16, of the network inputs in hardware codes (N, inputs)."""
        ...

    def trace(self, inputs: npt.NDArray[np.integer[Any]]) -> dict[str, npt.NDArray[np.int64]]:
        """Codes of those nodes of the program that the realisation can show, by node name; empty if none."""
        ...
