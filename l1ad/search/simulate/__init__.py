"""Simulated dijets: QCD and resonances with substructure, from PYTHIA to `l1ad.search.jets.Dijets`.

`simulate` makes a sample, `qcd` and `signal` say of what, `Selection` which events are kept, `GeneratorCuts` what
PYTHIA is asked for, `closure` whether those cuts shape the spectrum. Needs the extras ``[simulate,jets]``.

A sample is made in pieces of a fixed number of selected events, each from its own child of one seed and, with a folder,
in its own file: the sample is the same for any number of workers, the first events of a longer one are those of a
shorter one, and an interrupted run goes on from the pieces that are there.

Departures from the published samples: particles are smeared one by one (`ParticleFlow`), with no detector simulation
and no pile-up; by default no underlying event; PYTHIA's leading order for everything; ``b_tag`` is a coin with CMS-like
efficiencies. docs/how-to/dijets.md says what that does to the jets.
"""

from l1ad.search.simulate.features import MAX_CONSTITUENTS
from l1ad.search.simulate.loss import Closure, closure, draw_closure
from l1ad.search.simulate.pieces import Piece, gather, make_pieces, simulate
from l1ad.search.simulate.recipe import (
    FAST,
    FEATURES,
    NO_UNDERLYING_EVENT,
    QCD,
    GeneratorCuts,
    ParticleFlow,
    Partons,
    Recipe,
    Sample,
    Selection,
    qcd,
)
from l1ad.search.simulate.signals import SIGNALS, Signal, signal

__all__ = [
    "FAST",
    "FEATURES",
    "MAX_CONSTITUENTS",
    "NO_UNDERLYING_EVENT",
    "QCD",
    "SIGNALS",
    "Closure",
    "GeneratorCuts",
    "ParticleFlow",
    "Partons",
    "Piece",
    "Recipe",
    "Sample",
    "Selection",
    "Signal",
    "closure",
    "draw_closure",
    "gather",
    "make_pieces",
    "qcd",
    "signal",
    "simulate",
]
