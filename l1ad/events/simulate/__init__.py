"""Simulation of what the Level-1 trigger sees: generator, pile-up, detector and trigger, ending in hardware integers.

What to use when: ``simulate("zero_bias", n, seed=...)`` for training data; ``simulate(..., stratified=True)`` for
thresholds and rates, where a weighted event in the tail is worth thousands of natural ones; ``simulate("haa4b_ma15",
...)`` for a signal on top of pile-up; ``layout=`` for calorimeter regions or another experiment's objects instead of
the global trigger's. ``realism_tables`` says how far to believe them.

The chain, one module a step: :mod:`.processes` (verified PYTHIA settings), :mod:`.generate` (collisions at the
calorimeter face, :mod:`.propagate` and :mod:`.suep` on the way), :mod:`.library` (their files), :mod:`.mixing`
(crossings and weights), :mod:`.towers` and :mod:`.kernel` (trigger towers and what is found on them), :mod:`.level1`
(integers), :mod:`.produce` (many crossings in parallel). Every knob is in
:class:`~l1ad.events.simulate.detector.Detector`.

Left out: isolation and quality bits, energy sums other than HT and missing energy, the return field of the yoke.
Needs the extra ``simulate`` (pythia8mc, fastjet, numba); reading what was simulated does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l1ad.events.simulate.detector import Detector
    from l1ad.events.simulate.produce import simulate
    from l1ad.events.simulate.realism import realism_tables

__all__ = ["Detector", "realism_tables", "simulate"]

_HOME = {"Detector": "detector", "realism_tables": "realism", "simulate": "produce"}


def __getattr__(name: str) -> Any:
    # imported on first use: importing the package costs nothing
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
