"""L1Ntuple: crossing 0, sums by their codes, muons at the vertex, decisions by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest
import uproot

from l1ad.errors import ConfigError, InputError
from l1ad.events import Events, open_events
from l1ad.events.readers._trees import Tree
from l1ad.events.readers.l1ntuple import SUM_TYPES, bits_of_aliases


@pytest.fixture(scope="module")
def toy(writers: SimpleNamespace) -> SimpleNamespace:
    return writers.toy_objects(1200)


def check(events: Events, toy: SimpleNamespace, writers: SimpleNamespace) -> None:
    assert np.array_equal(events.hw, writers.dense(toy))
    for ours in ("run", "lumi", "bx", "orbit", "event", "n_pv"):
        assert np.array_equal(events.columns[ours], toy.event[ours]), ours
    for ours in ("et", "et_em", "ht", "tower_count", "mht", "mht_phi", "met_hf", "met_hf_phi", "mht_hf", "mht_hf_phi"):
        assert np.array_equal(events.columns[ours], toy.sums[ours]), ours


@pytest.mark.parametrize("prefix", ["", "L1Upgrade/"])
@pytest.mark.parametrize("size", [350, 65536])
def test_crossing_zero_is_read_in_any_pieces(
    writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path, prefix: str, size: int
) -> None:
    path = writers.write_l1ntuple(tmp_path / "n.root", toy, prefix=prefix)
    with open_events(path, seed_names=writers.seed_bits(toy)) as source:
        events = Events.concatenate(list(source.chunks(size)))
    check(events, toy, writers)
    assert events.menu_bits.names == tuple(toy.seeds)
    for name, bits in toy.seeds.items():
        assert np.array_equal(events.menu_bits[name], bits)
    assert events.meta["muon_coordinates"] == "vertex"


def test_many_small_baskets(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    # Pieces that end inside baskets, and baskets that end inside pieces.
    write = writers.write_l1ntuple
    write.__globals__["BASKET"] = 97
    try:
        path = write(tmp_path / "n.root", toy)
    finally:
        write.__globals__["BASKET"] = 20000
    for size in (50, 200, 1000):
        with open_events(path) as source:
            check(Events.concatenate(list(source.chunks(size))), toy, writers)


def test_an_rntuple_reads_like_a_tree(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    branches = writers.ntuple_arrays(toy)
    with uproot.recreate(tmp_path / "n.root") as file:
        file["l1UpgradeTree/L1UpgradeTree"] = branches
    with uproot.open(tmp_path / "n.root") as file:
        assert file.classnames()["l1UpgradeTree/L1UpgradeTree;1"] == "ROOT::RNTuple"
    assert np.array_equal(Events.read(tmp_path / "n.root").hw, writers.dense(toy))


def test_the_sum_types_are_those_of_the_enumeration() -> None:
    # Numbers as the converter of the CMS open data documents them.
    wanted = {"kTotalEt": 0, "kTotalHt": 1, "kMissingEt": 2, "kMissingHt": 3, "kMissingEtHF": 8, "kTotalEtEm": 16}
    wanted |= {"kMissingHtHF": 20, "kTowerCount": 21}
    assert {name: SUM_TYPES.index(name) for name in wanted} == wanted


def test_sums_in_another_order_in_each_event(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    arrays = writers.ntuple_arrays(toy)
    rng = np.random.default_rng(5)
    n, width = len(toy), len(arrays["sumType"][0])
    order = np.argsort(rng.random((n, width)), axis=1)
    for name in ("sumType", "sumIEt", "sumIPhi", "sumBx"):
        table = ak.to_numpy(arrays[name])
        arrays[name] = ak.from_regular(np.take_along_axis(table, order, axis=1))
    path = writers.write_l1ntuple(tmp_path / "n.root", toy, arrays=arrays)
    check(Events.read(path), toy, writers)


def test_unpacked_and_emulated_trees(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    both = writers.write_l1ntuple(tmp_path / "both.root", toy, kinds=("unpacked", "emulated"))
    reference = writers.dense(toy)
    unpacked, emulated = Events.read(both), Events.read(both, tree="emulated")
    assert np.array_equal(unpacked.hw, reference)
    assert "--tree emulated" in " ".join(unpacked.meta["notes"])
    jets = emulated.objects("jet")
    assert (jets[jets[:, :, 0] > 0][:, 1] == 7).all()
    assert (unpacked.meta["tree"], emulated.meta["tree"]) == ("unpacked", "emulated")
    only = writers.write_l1ntuple(tmp_path / "emu.root", toy, kinds=("emulated",))
    assert "the file has no unpacked one" in " ".join(Events.read(only).meta["notes"])
    with pytest.raises(InputError, match="unpacked tree l1UpgradeTree/L1UpgradeTree: found nothing"):
        open_events(only, tree="unpacked")
    with pytest.raises(InputError, match="found both, expected auto, unpacked or emulated"):
        open_events(only, tree="both")


def test_muons_at_the_stations_are_taken_only_where_there_are_no_others(
    writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path
) -> None:
    arrays = writers.ntuple_arrays(toy)
    del arrays["muonIEtaAtVtx"], arrays["muonIPhiAtVtx"]
    events = Events.read(writers.write_l1ntuple(tmp_path / "n.root", toy, arrays=arrays))
    muons = events.objects("mu")
    assert (muons[muons[:, :, 0] > 0][:, 1:] == 99).all()
    assert events.meta["muon_coordinates"] == "station"
    assert "muon stations" in " ".join(events.meta["notes"])


def test_decisions_without_names_are_called_by_bit(
    writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path
) -> None:
    path = writers.write_l1ntuple(tmp_path / "n.root", toy, n_bits=64)
    events = Events.read(path)
    assert events.menu_bits.names == tuple(f"bit_{i:03d}" for i in range(64))
    for name, bit in writers.seed_bits(toy).items():
        assert np.array_equal(events.menu_bits[f"bit_{bit:03d}"], toy.seeds[name])
    assert "seeds are called by their bit" in " ".join(events.meta["notes"])


def test_seed_names_from_a_file(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    path = writers.write_l1ntuple(tmp_path / "n.root", toy)
    names = tmp_path / "names.yaml"
    names.write_text("L1_B: 3\nL1_A: 1\n")
    events = Events.read(path, seed_names=names)
    assert events.menu_bits.names == ("L1_A", "L1_B")
    first, second = list(toy.seeds.values())[:2]
    assert np.array_equal(events.menu_bits["L1_A"], first)
    assert np.array_equal(events.menu_bits["L1_B"], second)
    for text, message in (
        ("- 1\n", "contents: found list, expected a mapping"),
        ("L1_A: x\n", "L1_A: found x, expected a bit number"),
        ("L1_A: [\n", "expected YAML or JSON"),
    ):
        names.write_text(text)
        with pytest.raises(ConfigError, match=message):
            open_events(path, seed_names=names)
    names.write_text("L1_A: 600\n")
    with pytest.raises(InputError, match="found 512 bits in one event, expected 601 or more"):
        Events.read(path, seed_names=names)


class _Alias:
    """What uproot gives for one TNamed of a tree's list of aliases, which it can read but not write."""

    def __init__(self, name: str, title: str) -> None:
        self._members = {"fName": name, "fTitle": title}

    def member(self, name: str) -> str:
        return self._members[name]


class _TreeWithAliases:
    num_entries = 0

    def keys(self) -> list[str]:
        return ["L1uGT", "L1uGT/m_algoDecisionFinal"]

    def member(self, name: str, none_if_missing: bool = False) -> list[_Alias]:
        assert name == "fAliases"
        return [
            _Alias("L1_SingleMu22", "L1uGT.m_algoDecisionInitial[14]"),
            _Alias("L1_ZeroBias", "L1uGT.m_algoDecisionInitial[459]"),
            _Alias("other", "L1uGT.m_bx"),
        ]


def test_aliases_name_the_bits() -> None:
    tree = Tree(_TreeWithAliases(), "f", "l1uGTTree/L1uGTTree")
    assert "m_algoDecisionFinal" in tree
    assert bits_of_aliases(tree.aliases()) == {"L1_SingleMu22": 14, "L1_ZeroBias": 459}


def test_without_event_and_decision_trees(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    path = writers.write_l1ntuple(tmp_path / "n.root", toy, decisions=False, event=False)
    events = Events.read(path)
    notes = " ".join(events.meta["notes"])
    assert "no menu bits" in notes
    assert "no run, crossing or pile-up" in notes
    assert not events.menu_bits
    assert "run" not in events.columns


def test_missing_sums_are_counted(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    arrays = writers.ntuple_arrays(toy)
    arrays["sumType"] = ak.where(arrays["sumType"] == 2, np.int16(4), arrays["sumType"])
    events = Events.read(writers.write_l1ntuple(tmp_path / "n.root", toy, arrays=arrays))
    assert events.meta["counts"]["missing_met"] == len(toy)
    assert not events.objects("met").any()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("jetIEt", -1, "jetIEt: found -1, expected 0 to 2047"),
        ("egIEta", 128, "egIEta: found 128, expected -128 to 127"),
        ("muonIPhiAtVtx", 576, "muonIPhiAtVtx: found 576, expected 0 to 575"),
    ],
)
def test_codes_outside_their_words(
    writers: SimpleNamespace, tmp_path: Path, name: str, value: int, message: str
) -> None:
    toy = writers.toy_objects(50, means=(3, 3, 3))
    arrays = writers.ntuple_arrays(toy, other_crossings=False)
    arrays[name] = ak.values_astype(ak.zeros_like(arrays[name]) + value, np.int16)
    path = writers.write_l1ntuple(tmp_path / "n.root", toy, arrays=arrays)
    with pytest.raises(InputError) as caught:
        Events.read(path)
    assert str(caught.value) == f"{path}: l1UpgradeTree/L1UpgradeTree: {message}"


def test_a_missing_branch_or_a_shorter_tree_is_named(
    writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path
) -> None:
    arrays = writers.ntuple_arrays(toy)
    del arrays["egBx"]
    with pytest.raises(InputError, match=r"L1UpgradeTree: branch egBx: found .*, expected a branch of that name"):
        open_events(writers.write_l1ntuple(tmp_path / "n.root", toy, arrays=arrays))
    short = writers.toy_objects(30)
    with pytest.raises(InputError, match="entries: found 30, expected 1200, as in the object tree"):
        open_events(writers.write_l1ntuple(tmp_path / "m.root", short, arrays=writers.ntuple_arrays(toy)))
