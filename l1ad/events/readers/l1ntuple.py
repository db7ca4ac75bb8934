"""L1Ntuple: the ROOT trees that the CMS Level-1 trigger group writes, in hardware integers.

`l1UpgradeTree/L1UpgradeTree` holds what the detector sent (unpacked), `l1UpgradeEmuTree/L1UpgradeTree` what the
emulator makes of it; both carry five crossings, of which crossing 0 is kept. Energy sums share one list and are told
apart by `sumType`, a number of the enumeration `l1t::EtSum::EtSumType` (cmssw DataFormats/L1Trigger/interface/EtSum.h).
Muons have two pairs of coordinates: `muonIEtaAtVtx`, extrapolated to the vertex, is the field eta_extrap that the
Global Trigger gives to an anomaly trigger; `muonIEta` is that at the muon stations (taking it was cmssw#47564).
Decisions are `m_algoDecisionFinal` of the uGT tree, whose aliases say which bit belongs to which seed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import ConfigError, InputError
from l1ad.events.readers._files import open_root, root_errors
from l1ad.events.readers._jagged import SumLists, fill_group, fill_met, select
from l1ad.events.readers._muons import check_muon_pt, muon_codes, muon_note
from l1ad.events.readers._source import Block, FileSource, narrow_column
from l1ad.events.readers._trees import Tree, Window, unpackers
from l1ad.events.store import MenuBits

#: `l1t::EtSum::EtSumType` in its order; the numbers are those in `sumType` and in NanoAOD's `L1EtSum_etSumType`.
SUM_TYPES = (
    "kTotalEt",
    "kTotalHt",
    "kMissingEt",
    "kMissingHt",
    "kTotalEtx",
    "kTotalEty",
    "kTotalHtx",
    "kTotalHty",
    "kMissingEtHF",
    "kTotalEtxHF",
    "kTotalEtyHF",
    "kMinBiasHFP0",
    "kMinBiasHFM0",
    "kMinBiasHFP1",
    "kMinBiasHFM1",
    "kTotalEtHF",
    "kTotalEtEm",
    "kTotalHtHF",
    "kTotalHtxHF",
    "kTotalHtyHF",
    "kMissingHtHF",
    "kTowerCount",
)
#: Columns made of sums: our name, the sum, and whether it has an angle.
SUM_COLUMNS = {
    "et": ("kTotalEt", False),
    "et_em": ("kTotalEtEm", False),
    "ht": ("kTotalHt", False),
    "tower_count": ("kTowerCount", False),
    "mht": ("kMissingHt", True),
    "met_hf": ("kMissingEtHF", True),
    "mht_hf": ("kMissingHtHF", True),
}
EVENT_COLUMNS = {"run": "run", "lumi": "lumi", "bx": "bx", "orbit": "orbit", "event": "event", "n_pv": "nPV_True"}
TREES = {
    "unpacked": ("l1UpgradeTree/L1UpgradeTree", "l1uGTTree/L1uGTTree"),
    "emulated": ("l1UpgradeEmuTree/L1UpgradeTree", "l1uGTEmuTree/L1uGTTree"),
}
EVENT_TREE = "l1EventTree/L1EventTree"
DECISIONS = "m_algoDecisionFinal"


class L1NtupleFile(FileSource):
    """An L1Ntuple file.

    Parameters
    ----------
    path : the ROOT file.
    saturation : ``keep``, ``mask`` or ``drop``.
    tree : ``unpacked``, ``emulated``, or ``auto`` (unpacked if it is there).
    seed_names : seed names of the uGT bits, instead of the tree's aliases: a mapping of name to bit, or a YAML or JSON
        file with one.
    muon_pt : ``physical`` (code x 0.5 GeV is the momentum) or ``word`` (the code is `muonIEt` itself).

    Raises
    ------
    InputError
        If the file is absent, truncated or lacks a tree or branch.
    """

    format_name = "l1ntuple"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        saturation: str = "keep",
        tree: str = "auto",
        seed_names: str | os.PathLike[str] | Mapping[str, int] | None = None,
        muon_pt: str = "physical",
    ) -> None:
        super().__init__(os.fspath(path), "cms_ugt", saturation)
        self._muon_pt = check_muon_pt(muon_pt)
        if tree not in ("auto", *TREES):
            raise InputError("option", "tree", tree, "auto, unpacked or emulated")
        self._file = self._stack.enter_context(open_root(path))
        self._workers = unpackers(self._stack)
        try:
            with root_errors(self.path, "directory"):
                self._names = {name.split(";")[0] for name in self._file.keys(recursive=True)}
            self._kind = self._choose(tree)
            self._objects = self._tree(TREES[self._kind][0])
            at_vertex = "muonIEtaAtVtx" in self._objects
            suffix = "AtVtx" if at_vertex else ""
            self._branches = {
                "eg": ("egIEt", "egIEta", "egIPhi", "egBx"),
                "mu": ("muonIEt", f"muonIEta{suffix}", f"muonIPhi{suffix}", "muonBx"),
                "jet": ("jetIEt", "jetIEta", "jetIPhi", "jetBx"),
            }
            self._sums = ("sumType", "sumIEt", "sumIPhi", "sumBx")
            self._objects.require([name for names in self._branches.values() for name in names])
            self._objects.require(self._sums)
            self._event = self._tree(EVENT_TREE) if EVENT_TREE in self._names else None
            self._ugt = self._decision_tree()
            self._seeds = self._seed_bits(seed_names)
        except BaseException:
            self.close()
            raise
        if tree == "auto" and self._kind == "emulated":
            self._notes.append("objects of the emulated tree: the file has no unpacked one")
        elif tree == "auto" and TREES["emulated"][0] in self._names:
            self._notes.append("objects of the unpacked tree; the emulated one is there too (--tree emulated)")
        else:
            self._notes.append(f"objects of the {self._kind} tree")
        coordinates = (
            "eta and phi are muonIEtaAtVtx and muonIPhiAtVtx, extrapolated to the vertex"
            if at_vertex
            else "eta and phi are muonIEta and muonIPhi at the muon stations: there are none extrapolated to the vertex"
        )
        self._notes.append(f"{muon_note('muonIEt', self._muon_pt)}; {coordinates}")
        if self._event is None:
            self._notes.append(f"no tree {EVENT_TREE}: no run, crossing or pile-up")
        self._meta = {
            "tree": self._kind,
            "muon_pt": self._muon_pt,
            "muon_coordinates": "vertex" if at_vertex else "station",
        }

    # ------------------------------------------------------------------ opening

    def _choose(self, tree: str) -> str:
        there = [kind for kind, (name, _) in TREES.items() if name in self._names]
        if not there:
            found = ", ".join(sorted(self._names)[:4]) or "nothing"
            raise InputError(self.path, "trees", found, " or ".join(name for name, _ in TREES.values()))
        if tree == "auto":
            return there[0]
        if tree not in there:
            raise InputError(self.path, f"{tree} tree {TREES[tree][0]}", "nothing", f"it, or --tree {there[0]}")
        return tree

    def _tree(self, name: str) -> Tree:
        with root_errors(self.path, name):
            found = self._file[name]
        if not hasattr(found, "num_entries"):
            raise InputError(self.path, name, type(found).__name__, "a tree")
        tree = Tree(found, self.path, name, self._workers)
        objects = getattr(self, "_objects", tree)
        if tree.n_events != objects.n_events:
            raise InputError(self.path, f"{name} entries", tree.n_events, f"{objects.n_events}, as in the object tree")
        return tree

    def _decision_tree(self) -> Tree | None:
        others = [TREES[self._kind][1], *(name for _, name in TREES.values())]
        for name in others:
            if name in self._names:
                tree = self._tree(name)
                if DECISIONS in tree:
                    if name != others[0]:
                        self._notes.append(f"decisions of {name}: the file has no {others[0]}")
                    return tree
        self._notes.append(f"no menu bits: no {DECISIONS} in {others[0]}")
        return None

    def _seed_bits(self, given: str | os.PathLike[str] | Mapping[str, int] | None) -> dict[str, int]:
        """Bit of each seed, in the order of the bits."""
        if self._ugt is None:
            return {}
        if given is not None:
            named = dict(given) if isinstance(given, Mapping) else read_seed_names(given)
        else:
            named = bits_of_aliases(self._ugt.aliases())
        if not named:
            width = self._n_bits()
            self._notes.append("the uGT tree has no aliases: seeds are called by their bit (--seed-names names them)")
            return {f"bit_{bit:03d}": bit for bit in range(width)}
        return dict(sorted(named.items(), key=lambda item: item[1]))

    def _n_bits(self) -> int:
        assert self._ugt is not None
        if not self._ugt.n_events:
            return 0
        return int(self._ugt.jagged(DECISIONS, 0, 1).counts[0])

    # ------------------------------------------------------------------ reading

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self._objects.n_events

    def _blocks(self, size: int) -> Iterator[Block]:
        branches = [name for names in (*self._branches.values(), self._sums) for name in names]
        window = Window(self._objects.edges(branches), size)
        for start in range(0, max(self.n_events, 1), size):
            yield self._block(window, start, min(start + size, self.n_events))

    def _block(self, window: Window, start: int, stop: int) -> Block:
        n = stop - start
        hw = np.zeros((n, *self.layout.shape), dtype=np.int16)
        counts = {"surplus_objects": 0, "clipped_objects": 0}
        unsorted = np.zeros(n, dtype=bool)
        where = self._objects.where
        for group, names in self._branches.items():
            *lists, crossing = window.lists(self._objects, names, start, stop)
            lists = select(lists, crossing.values == 0)
            if group == "mu":
                lists = muon_codes(lists, self.layout, self._muon_pt, where=where, field=names[0])
            values = [part.values for part in lists]
            filled = fill_group(hw, self.layout, group, lists[0].offsets, values, where=where, fields=names)
            counts["surplus_objects"] += filled.surplus
            counts["clipped_objects"] += filled.clipped
            unsorted |= filled.unsorted
        counts["unsorted_events"] = int(unsorted.sum())
        kinds, et, phi, crossing = window.lists(self._objects, self._sums, start, stop)
        sums = SumLists(kinds, crossing, SUM_TYPES, where=where)
        met, present = sums.pick("kMissingEt", et, phi)
        counts["clipped_objects"] += fill_met(hw, self.layout, met, where=where, fields=("sumIEt", "sumIPhi"))
        if not present.all():
            counts["missing_met"] = int((~present).sum())
        columns: dict[str, npt.NDArray[Any]] = {}
        for ours, (kind, angle) in SUM_COLUMNS.items():
            (codes, angles), present = sums.pick(kind, et, phi)
            columns[ours] = codes
            if angle:
                columns[f"{ours}_phi"] = angles
            if not present.all():
                counts[f"missing_{ours}"] = int((~present).sum())
        if self._event is not None:
            for ours, theirs in EVENT_COLUMNS.items():
                if theirs in self._event:
                    values_event = window.flat(self._event, theirs, start, stop)
                    columns[ours] = narrow_column(ours, values_event, where=self._event.where, field=theirs)
        return Block(hw, columns, self._bits(window, start, stop), counts)

    def _bits(self, window: Window, start: int, stop: int) -> MenuBits:
        n = stop - start
        if self._ugt is None or not self._seeds:
            return MenuBits.empty(n)
        decisions = window.jagged(self._ugt, DECISIONS, start, stop)
        widths = decisions.counts
        needed = max(self._seeds.values()) + 1
        if n and (widths.min() != widths.max() or int(widths[0]) < needed):
            found = f"{int(widths.min())} bits in one event"
            raise InputError(self._ugt.where, DECISIONS, found, f"{needed} or more, the same number in each")
        table = decisions.values.reshape(n, -1) if n else np.zeros((0, needed), dtype=bool)
        packed = np.packbits(table.astype(bool, copy=False), axis=1, bitorder="little")
        return MenuBits(tuple(self._seeds), _pick_bits(packed, list(self._seeds.values())))


def _pick_bits(packed: npt.NDArray[np.uint8], bits: list[int]) -> npt.NDArray[np.uint8]:
    """Bits of packed decisions (N, bytes), in the order asked for, packed again."""
    n_bytes = (len(bits) + 7) // 8
    if bits == list(range(8 * packed.shape[1])):
        return packed
    # By byte of the result over contiguous memory: many times faster than picking columns of a table of booleans.
    columns = np.ascontiguousarray(packed.T)
    result = np.zeros((n_bytes, len(packed)), dtype=np.uint8)
    for i, bit in enumerate(bits):
        result[i // 8] |= ((columns[bit // 8] >> np.uint8(bit % 8)) & np.uint8(1)) << np.uint8(i % 8)
    return np.ascontiguousarray(result.T)


def bits_of_aliases(aliases: Mapping[str, str]) -> dict[str, int]:
    """Bit of each seed from aliases such as ``L1_SingleMu22`` = ``L1uGT.m_algoDecisionInitial[14]``."""
    bits = {}
    for name, expression in aliases.items():
        found = re.search(r"m_algoDecision\w+\[(\d+)\]", expression)
        if found:
            bits[name] = int(found.group(1))
    return bits


def read_seed_names(path: str | os.PathLike[str]) -> dict[str, int]:
    """Bit of each seed from a YAML or JSON file with one ``name: bit`` a line.

    Raises
    ------
    ConfigError
        If the file is absent or not such a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), "file", error.strerror or error, "a readable file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "contents", str(error).splitlines()[0], "YAML or JSON") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(str(path), "contents", type(content).__name__, "a mapping of seed name to bit")
    for name, bit in content.items():
        if not isinstance(name, str) or not isinstance(bit, int) or isinstance(bit, bool) or bit < 0:
            raise ConfigError(str(path), str(name), bit, "a bit number, 0 or more")
    return content
