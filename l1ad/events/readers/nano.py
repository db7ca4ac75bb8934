"""NanoAOD: physical values in the tree `Events`, put back onto the grid of the Global Trigger.

Level-1 objects are there from version 12 on where the production kept them: `L1EG`, `L1Mu`, `L1Jet` and `L1EtSum`,
each with `_bx` (crossing 0 is kept). Central productions keep only L1EG of 10 GeV, L1Jet of 30 GeV, L1Mu of 3 GeV with
quality 8 and four of the sums (cmssw PhysicsTools/NanoAOD/python/l1trig_cff.py), so that an anomaly score of them is
not what the firmware gave: the reader says so. Productions of the trigger group add hardware integers (`L1Jet_hwPt`
and so on), which are then taken as they are. Seeds are the boolean branches `L1_*`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.readers._files import open_root, root_errors
from l1ad.events.readers._jagged import SumLists, fill_group, fill_met, physical_codes, select
from l1ad.events.readers._muons import check_muon_pt, muon_codes, muon_note
from l1ad.events.readers._source import Block, FileSource, narrow_column
from l1ad.events.readers._trees import Tree, Window, unpackers
from l1ad.events.readers.l1ntuple import SUM_TYPES
from l1ad.events.store import MenuBits

COLLECTIONS = {"eg": "L1EG", "mu": "L1Mu", "jet": "L1Jet"}
SUMS = "L1EtSum"
COLUMNS = {
    "run": "run",
    "lumi": "luminosityBlock",
    "bx": "bunchCrossing",
    "orbit": "orbitNumber",
    "event": "event",
    "npvs": "PV_npvs",
    "gen_weight": "genWeight",
}
#: Average pile-up in simulation, reconstructed vertices in data.
PILE_UP = ("Pileup_nTrueInt", "PV_npvs")
#: Sums that become columns, in codes of 0.5 GeV.
SUM_COLUMNS = {"ht": "kTotalHt", "mht": "kMissingHt", "met_hf": "kMissingEtHF"}
TREE = "Events"


class NanoFile(FileSource):
    """A NanoAOD file.

    Parameters
    ----------
    path : the ROOT file.
    saturation : ``keep``, ``mask`` or ``drop``.
    muon_pt : ``physical`` (code x 0.5 GeV is the momentum) or ``word`` (one more, the word of the Global Trigger).

    Raises
    ------
    InputError
        If the file is absent, truncated or lacks the tree.
    """

    format_name = "nano"

    def __init__(self, path: str | os.PathLike[str], *, saturation: str = "keep", muon_pt: str = "physical") -> None:
        super().__init__(os.fspath(path), "cms_ugt", saturation)
        self._muon_pt = check_muon_pt(muon_pt)
        self._file = self._stack.enter_context(open_root(path))
        self._workers = unpackers(self._stack)
        try:
            with root_errors(self.path, "directory"):
                names = {name.split(";")[0] for name in self._file.keys(recursive=True)}
            if TREE not in names:
                raise InputError(self.path, "trees", ", ".join(sorted(names)[:4]) or "nothing", f"a tree {TREE}")
            with root_errors(self.path, TREE):
                found = self._file[TREE]
            if not hasattr(found, "num_entries"):
                raise InputError(self.path, TREE, type(found).__name__, "a tree")
            self._tree = Tree(found, self.path, TREE, self._workers)
            self._find()
        except BaseException:
            self.close()
            raise

    def _find(self) -> None:
        tree = self._tree
        self._seeds = tuple(name for name in tree.names if name.startswith("L1_") and tree.typename(name) == "bool")
        flags = [name for name in tree.names if re.fullmatch(r"L1[a-zA-Z]+_step", name)]
        self._columns = {ours: theirs for ours, theirs in COLUMNS.items() if theirs in tree}
        self._pile_up = next((name for name in PILE_UP if name in tree), None)
        if self._pile_up:
            self._columns["n_pv"] = self._pile_up
        self._groups = {group: name for group, name in COLLECTIONS.items() if f"{name}_pt" in tree}
        self._has_sums = f"{SUMS}_pt" in tree
        if not (self._groups or self._has_sums or self._seeds):
            raise InputError(tree.where, "branches", "no L1Jet_*, L1EG_*, L1Mu_*, L1EtSum_* or L1_*", "some of them")
        exact = [name for name in self._groups.values() if f"{name}_hwPt" in tree]
        vertex = "L1Mu_etaAtVtx" in tree or "L1Mu_hwEtaAtVtx" in tree
        said = f"menu bits ({len(self._seeds)} seeds)" if self._seeds else "no menu bits"
        said += f" and pile-up ({self._pile_up})" if self._pile_up else " and no pile-up"
        aside = f"; {' and '.join(flags)} are steps of the production, not seeds, and are left out" if flags else ""
        if not self._groups and not self._has_sums:
            self._notes.append(
                "this file has no L1 objects (no L1EG, L1Mu, L1Jet or L1EtSum): every object is empty; "
                f"{said} are read{aside}"
            )
        else:
            lacking = [name for group, name in COLLECTIONS.items() if group not in self._groups]
            lacking += [] if self._has_sums else [SUMS]
            if lacking:
                self._notes.append(f"this file has no {', '.join(lacking)}: those slots are empty")
            if len(exact) < len(self._groups):
                self._notes.append(
                    "physical values were put back onto the grid; central NanoAOD keeps only L1EG of 10 GeV, L1Jet of "
                    "30 GeV and L1Mu of 3 GeV with quality 8, so scores differ from those of the firmware"
                )
            if "mu" in self._groups:
                which = "extrapolated to the vertex" if vertex else "at the muon stations (none at the vertex)"
                self._notes.append(f"{muon_note('hwPt', self._muon_pt)}; muon eta and phi are those {which}")
            self._notes.append(said + aside)
        self._suffix = "AtVtx" if vertex else ""
        self._meta = {
            "muon_pt": self._muon_pt,
            "muon_coordinates": "vertex" if vertex else "station",
            "l1_objects": sorted([*self._groups.values(), *([SUMS] if self._has_sums else [])]),
        }
        if self._pile_up:
            self._meta["n_pv_from"] = self._pile_up

    # ------------------------------------------------------------------ reading

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self._tree.n_events

    def _blocks(self, size: int) -> Iterator[Block]:
        names = [name for name in (*self._seeds, *self._columns.values()) if name in self._tree]
        names += [field for group, name in self._groups.items() for field in self._fields(group, name)[0]]
        window = Window(self._tree.edges(names), size)
        for start in range(0, max(self.n_events, 1), size):
            yield self._block(window, start, min(start + size, self.n_events))

    def _block(self, window: Window, start: int, stop: int) -> Block:
        tree, where = self._tree, self._tree.where
        n = stop - start
        hw = np.zeros((n, *self.layout.shape), dtype=np.int16)
        counts = {"surplus_objects": 0, "clipped_objects": 0}
        unsorted = np.zeros(n, dtype=bool)
        for group, name in self._groups.items():
            fields, exact = self._fields(group, name)
            lists = window.lists(tree, fields, start, stop)
            if f"{name}_bx" in tree:
                crossing = window.lists(tree, [fields[0], f"{name}_bx"], start, stop)[1]
                lists = select(lists, crossing.values == 0)
            if exact and group == "mu":
                lists = muon_codes(lists, self.layout, self._muon_pt, where=where, field=fields[0])
            codes = [part.values for part in lists]
            if not exact:
                codes, clipped = self._onto_grid(group, codes, fields)
                counts["clipped_objects"] += clipped
            filled = fill_group(hw, self.layout, group, lists[0].offsets, codes, where=where, fields=fields)
            counts["surplus_objects"] += filled.surplus
            counts["clipped_objects"] += filled.clipped
            unsorted |= filled.unsorted
        counts["unsorted_events"] = int(unsorted.sum())
        columns: dict[str, npt.NDArray[Any]] = {}
        if self._has_sums:
            self._fill_sums(window, hw, columns, counts, start, stop)
        for ours, theirs in self._columns.items():
            columns[ours] = narrow_column(ours, window.flat(tree, theirs, start, stop), where=where, field=theirs)
        bits = MenuBits.from_bools({name: window.flat(tree, name, start, stop) for name in self._seeds}, n)
        return Block(hw, columns, bits, counts)

    def _fields(self, group: str, name: str) -> tuple[list[str], bool]:
        """Branches of pt, eta and phi, and whether they are hardware integers."""
        suffix = self._suffix if group == "mu" else ""
        hardware = [f"{name}_hwPt", f"{name}_hwEta{suffix}", f"{name}_hwPhi{suffix}"]
        if all(field in self._tree for field in hardware):
            return hardware, True
        return [f"{name}_pt", f"{name}_eta{suffix}", f"{name}_phi{suffix}"], False

    def _onto_grid(
        self, group: str, values: Sequence[npt.NDArray[Any]], fields: Sequence[str]
    ) -> tuple[list[npt.NDArray[Any]], int]:
        """Codes of physical values and how many saturated."""
        words = self.layout.group(group).words
        found = [
            physical_codes(part, word, where=self._tree.where, field=field)
            for part, word, field in zip(values, words, fields)
        ]
        codes = [part for part, _ in found]
        if group == "mu" and self._muon_pt == "word":
            codes[0] = np.minimum(codes[0] + 1, words[0].word_max)
        return codes, sum(clipped for _, clipped in found)

    def _fill_sums(
        self,
        window: Window,
        hw: npt.NDArray[np.int16],
        columns: dict[str, npt.NDArray[Any]],
        counts: dict[str, int],
        start: int,
        stop: int,
    ) -> None:
        """Write ETmiss into its slot and the other sums into columns."""
        where = self._tree.where
        fields = [f"{SUMS}_etSumType", f"{SUMS}_pt", f"{SUMS}_phi"]
        kinds, pt, phi = window.lists(self._tree, fields, start, stop)
        crossing = None
        if f"{SUMS}_bx" in self._tree:
            crossing = window.lists(self._tree, [fields[0], f"{SUMS}_bx"], start, stop)[1]
        sums = SumLists(kinds, crossing, SUM_TYPES, where=where)
        words = self.layout.group("met").words
        physical, present = sums.pick("kMissingEt", pt, phi)
        met = []
        for values, word, field in zip(physical, (words[0], words[2]), fields[1:]):
            codes, clipped = physical_codes(values, word, where=where, field=field)
            met.append(codes)
            counts["clipped_objects"] += clipped
        fill_met(hw, self.layout, met, where=where, fields=fields[1:])
        if not present.all():
            counts["missing_met"] = int((~present).sum())
        for ours, kind in SUM_COLUMNS.items():
            (values,), present = sums.pick(kind, pt)
            columns[ours] = physical_codes(values, words[0], where=where, field=fields[1])[0]
            if not present.all():
                counts[f"missing_{ours}"] = int((~present).sum())
