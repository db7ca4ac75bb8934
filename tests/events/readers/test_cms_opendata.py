"""CMS open data: three arrangements of the same columns give the same events."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l1ad.errors import InputError
from l1ad.events import Events, open_events
from l1ad.events.readers.cms_opendata import _Part, _side_by_side


@pytest.fixture(scope="module")
def toy(writers: SimpleNamespace) -> SimpleNamespace:
    return writers.toy_objects(1500)


def check(events: Events, toy: SimpleNamespace, writers: SimpleNamespace) -> None:
    """Objects against the plain loop, columns and decisions against what was written."""
    assert np.array_equal(events.hw, writers.dense(toy))
    for ours in ("run", "lumi", "bx", "orbit", "event", "n_pv"):
        assert np.array_equal(events.columns[ours], toy.event[ours]), ours
    for ours in ("et", "et_em", "ht", "tower_count", "mht", "mht_phi", "met_hf", "met_hf_phi", "mht_hf", "mht_hf_phi"):
        assert np.array_equal(events.columns[ours], toy.sums[ours]), ours
    assert set(events.menu_bits) == {*toy.seeds, "L1bit"}
    for name, bits in toy.seeds.items():
        assert np.array_equal(events.menu_bits[name], bits), name
    assert np.array_equal(events.menu_bits["L1bit"], np.any(list(toy.seeds.values()), axis=0))


@pytest.mark.parametrize("size", [1, 333, 65536])
def test_one_file_with_everything(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path, size: int) -> None:
    small = writers.toy_objects(60) if size == 1 else toy
    path = writers.write_opendata(tmp_path / "zb.parquet", small, rows=500)
    with open_events(path) as source:
        assert source.n_events == len(small)
        check(Events.concatenate(list(source.chunks(size))), small, writers)


def test_seeds_in_the_folder_beside(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    writers.write_opendata_mirror(tmp_path / "ZB", toy)
    check(Events.read(tmp_path / "ZB"), toy, writers)


class _Cut:
    """A parquet file that hands out its rows in pieces of its own, as a library may at the end of a row group."""

    def __init__(self, name: str, edges: list[int]) -> None:
        self._name, self._edges = name, edges

    def iter_batches(self, batch_size: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        assert columns == [self._name]
        for start, stop in itertools.pairwise(self._edges):
            assert stop - start <= batch_size
            yield pa.record_batch({self._name: pa.array(range(start, stop))})


def test_files_cut_in_different_places_are_read_side_by_side() -> None:
    cuts = {"a": [0, 4, 5, 9, 12], "b": [0, 1, 8, 8, 12], "c": [0, 12]}
    shard = [_Part(name, _Cut(name, edges), {name: name}, frozenset()) for name, edges in cuts.items()]
    rows = []
    for piece in _side_by_side(shard, ["a", "b", "c"], 12):
        columns = [piece[name].to_pylist() for name in "abc"]
        assert columns[0] == columns[1] == columns[2]
        rows += columns[0]
    assert rows == list(range(12))


def test_one_folder_an_object(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    writers.write_opendata_record(tmp_path / "zerobias" / "train", toy, shards=3)
    check(Events.read(tmp_path / "zerobias"), toy, writers)


def test_the_notes_say_what_was_done_to_muons(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    path = writers.write_opendata(tmp_path / "zb.parquet", toy)
    with open_events(path) as source:
        text = " ".join(source.notes)
    assert "muonIEt - 1" in text
    assert "extrapolated to the vertex" in text
    events = Events.read(path)
    assert events.meta["muon_coordinates"] == "vertex"
    assert events.meta["muon_pt"] == "physical"
    events.write(tmp_path / "zb.h5")
    with open_events(tmp_path / "zb.h5") as source:
        assert "muonIEt - 1" in " ".join(source.notes)


@pytest.mark.parametrize(("choice", "codes"), [("physical", [511, 44, 0]), ("word", [511, 45, 1])])
def test_the_muon_word_counts_from_one(writers: SimpleNamespace, tmp_path: Path, choice: str, codes: list[int]) -> None:
    # Words 0 (no muon), 511 (saturated), 45 (22 GeV) and 1 (0 GeV), not in order.
    import awkward as ak

    toy = writers.toy_objects(1, means=(0, 0, 0))
    toy.lists["muon"] = {
        "et": ak.Array([[1, 0, 511, 45]]),
        "eta": ak.Array([[5, 6, 7, 8]]),
        "phi": ak.Array([[1, 2, 3, 4]]),
    }
    path = writers.write_opendata(tmp_path / "mu.parquet", toy)
    muons = Events.read(path, muon_pt=choice).objects("mu")[0]
    assert muons[:3, 0].tolist() == codes
    assert muons[:, 1].tolist() == [7, 8, 5, 0]
    if choice == "physical":
        assert Events.read(path).physical()[0, 6, 0] == 22.0


def test_a_split_is_taken_from_the_column(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    labels = np.array(["train", "valid", "test"])[np.arange(len(toy)) % 3]
    path = writers.write_opendata(tmp_path / "all.parquet", toy, split=labels.tolist())
    events = Events.read(path, split="valid")
    assert np.array_equal(events.hw, writers.dense(toy)[labels == "valid"])
    assert events.meta["split"] == "valid"
    with open_events(path, split="train") as source:
        assert source.n_events is None


def test_a_split_is_taken_from_the_name(writers: SimpleNamespace, tmp_path: Path) -> None:
    train, test = writers.toy_objects(40, seed=1), writers.toy_objects(30, seed=2)
    (tmp_path / "ZB").mkdir()
    writers.write_opendata(tmp_path / "ZB" / "train-00000-of-00001.parquet", train)
    writers.write_opendata(tmp_path / "ZB" / "test-00000-of-00001.parquet", test)
    assert np.array_equal(Events.read(tmp_path / "ZB", split="test").hw, writers.dense(test))
    writers.write_opendata(tmp_path / "other.parquet", test)
    with pytest.raises(InputError, match="split: found no column split and none in the name"):
        open_events(tmp_path / "other.parquet", split="train")
    with pytest.raises(InputError, match="found training, expected one of train"):
        open_events(tmp_path / "ZB", split="training")


def test_no_seeds_and_no_events_are_said(writers: SimpleNamespace, tmp_path: Path) -> None:
    path = writers.write_opendata(tmp_path / "none.parquet", writers.toy_objects(0), seeds=False)
    with open_events(path) as source:
        assert "no menu bits" in source.notes[-1]
        (events,) = source.chunks()
    assert len(events) == 0
    assert set(events.columns) >= {"run", "n_pv", "ht"}


def replace(path: Path, name: str, values: pa.Array | None) -> None:
    table = pq.read_table(path)
    position = table.column_names.index(name)
    table = table.remove_column(position) if values is None else table.set_column(position, name, values)
    pq.write_table(table, path)


def jagged(path: Path, name: str, change) -> pa.Array:  # type: ignore[no-untyped-def]
    rows = pq.read_table(path)[name].to_pylist()
    change(rows)
    return pa.array(rows, type=pa.list_(pa.int32()))


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("jets_jetIEt", -3, "jets_jetIEt: found -3, expected 0 to 2047"),
        ("jets_jetIEta", 200, "jets_jetIEta: found 200, expected -128 to 127"),
        ("egammas_egIPhi", 144, "egammas_egIPhi: found 144, expected 0 to 143"),
        ("muons_muonIEtaAtVtx", -300, "muons_muonIEtaAtVtx: found -300, expected -256 to 255"),
        ("muons_muonIEt", -1, "muons_muonIEt: found -1, expected 0 to 511"),
        ("MET_phi", 150, "MET_phi of ETmiss: found 150, expected 0 to 143"),
    ],
)
def test_codes_outside_their_words(
    writers: SimpleNamespace, tmp_path: Path, name: str, code: int, message: str
) -> None:
    path = writers.write_opendata(tmp_path / "zb.parquet", writers.toy_objects(50, means=(3, 3, 3)))

    def change(rows: list[list[int]]) -> None:
        next(row for row in rows if row)[0] = code

    replace(path, name, jagged(path, name, change))
    with pytest.raises(InputError) as caught:
        Events.read(path)
    assert str(caught.value) == f"{path}: {message}"


def test_magnitudes_above_the_word_saturate(writers: SimpleNamespace, tmp_path: Path) -> None:
    path = writers.write_opendata(tmp_path / "zb.parquet", writers.toy_objects(50, means=(3, 3, 3)))

    def change(rows: list[list[int]]) -> None:
        next(row for row in rows if row)[0] = 5000

    replace(path, "jets_jetIEt", jagged(path, "jets_jetIEt", change))
    events = Events.read(path)
    assert events.meta["counts"]["clipped_objects"] == 1
    assert (events.objects("jet")[:, 0, 0] == 2047).sum() == 1


def test_wrong_schemas_are_named(writers: SimpleNamespace, tmp_path: Path) -> None:
    toy = writers.toy_objects(20, means=(3, 3, 3))

    def fresh() -> Path:
        return writers.write_opendata(tmp_path / "zb.parquet", toy)

    path = fresh()
    replace(path, "jets_jetIEta", None)
    with pytest.raises(
        InputError, match=r"column jets_jetIEta: found .*, expected the columns of the CMS L1 open data"
    ):
        open_events(path)
    floats = pa.array([[1.0, float("nan")]] * 20)
    for name, values, message in (
        ("jets_jetIEt", floats, "jets_jetIEt: found lists of double, expected lists of integers"),
        ("jets_jetIEt", pa.array([5] * 20), "jets_jetIEt: found values of type int64, expected lists"),
        ("jets_jetIEt", pa.array([[1], None] * 10), "jets_jetIEt: found missing values"),
        ("MET_Et", pa.array([[1, 2]] * 20), "MET_Et: found 2 entries in one event, expected one"),
        (
            "jets_jetIPhi",
            pa.array([[1]] * 20),
            "jets_jetIPhi: found 20 entries, expected the same lists as jets_jetIEt",
        ),
        ("run", pa.array(["a"] * 20), "run: found values of type object, expected numbers"),
        ("run", pa.array([-5] * 20), "run: found -5, expected 0 to 4294967295"),
        ("nPV_True", pa.array([float("nan")] * 20), "column n_pv: found NaN or infinity"),
    ):
        path = fresh()
        replace(path, name, values)
        with pytest.raises(InputError, match=message):
            Events.read(path)
    pq.write_table(pa.table({"x": [1, 2]}), path)
    with pytest.raises(InputError, match="column egammas_egIEt: found x, "):
        open_events(path)


def test_simulation_has_no_beam_and_says_so_with_all_ones(writers: SimpleNamespace, tmp_path: Path) -> None:
    path = writers.write_opendata(tmp_path / "mc.parquet", writers.toy_objects(20))
    replace(path, "bx", pa.array([2**32 - 1] * 20, type=pa.uint32()))
    replace(path, "orbit", pa.array([2**64 - 1] * 20, type=pa.uint64()))
    events = Events.read(path)
    assert set(events.columns["bx"]) == {2**16 - 1}
    assert set(events.columns["orbit"]) == {2**32 - 1}


def test_shards_that_do_not_match_are_named(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    folder = writers.write_opendata_record(tmp_path / "rec", toy)
    shard = folder / "muons" / "shard_1.parquet"
    pq.write_table(pq.read_table(shard).slice(1), shard)
    with pytest.raises(InputError, match=r"muons.shard_1\.parquet: rows: found 749, expected 750"):
        open_events(folder)
    shard.unlink()
    with pytest.raises(InputError, match="muons: shards: found 1, expected 2, as in jets"):
        open_events(folder)
