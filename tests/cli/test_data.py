"""`l1ad data convert` and `l1ad data inspect`, as a user runs them."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from l1ad.cli import main
from l1ad.events import Events

WRITERS = Path(__file__).parent.parent / "events" / "readers" / "writers.py"


@pytest.fixture(scope="module")
def writers() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(WRITERS)))


class Run:
    """`l1ad ARGUMENTS` in this process: exit status and what it wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["l1ad", *(str(argument) for argument in arguments)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        written = self._capsys.readouterr()
        return status, written.out, written.err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


@pytest.mark.parametrize("name", ["l1ad", "adc2021", "cms_opendata", "l1ntuple", "nano"])
def test_convert_each_format(writers: SimpleNamespace, run: Run, tmp_path: Path, name: str) -> None:
    toy = writers.toy_objects(300)
    source = tmp_path / "source"
    if name == "l1ad":
        Events.from_arrays(writers.dense(toy)).write(source)
    elif name == "adc2021":
        writers.write_adc(source, writers.adc_floats(300))
    else:
        write = {"cms_opendata": "write_opendata", "l1ntuple": "write_l1ntuple", "nano": "write_nano"}[name]
        getattr(writers, write)(source, toy)
    status, out, err = run("data", "convert", source, "--out", tmp_path / "zb.h5")
    assert (status, err) == (0, "")
    assert f"{source}: {name}" in out
    assert "300 events" in out
    events = Events.read(tmp_path / "zb.h5")
    if name == "adc2021":
        assert events.layout.name == "adc2021"
    else:
        assert np.array_equal(events.hw, writers.dense(toy))
    if name in ("cms_opendata", "l1ntuple"):
        assert f"surplus objects {events.meta['counts']['surplus_objects']}" in out
        assert "note: muon pt codes are muonIEt - 1" in out
    # What was converted reads back the same, and inspecting it works.
    assert np.array_equal(Events.read(source).hw, events.hw)
    status, out, _ = run("data", "inspect", tmp_path / "zb.h5")
    assert status == 0
    assert "300 events" in out


def test_the_official_nanoaod_says_what_it_lacks(run: Run, oracles: Path, tmp_path: Path) -> None:
    status, out, _ = run("data", "convert", oracles / "nano_tt_v15.root", "--out", tmp_path / "tt.h5")
    assert status == 0
    assert "this file has no L1 objects" in out
    status, out, _ = run("data", "inspect", tmp_path / "tt.h5", "--json")
    table = json.loads(out)
    assert table["n_events"] == 200
    assert len(table["seeds"]) == 412
    assert "this file has no L1 objects" in " ".join(table["notes"])
    assert {column["name"] for column in table["columns"]} >= {"n_pv", "npvs", "run"}


def test_options_reach_the_reader(writers: SimpleNamespace, run: Run, tmp_path: Path) -> None:
    toy = writers.toy_objects(300)
    toy.sums["met"][:7] = 4095
    labels = ["train", "test"] * 150
    source = writers.write_opendata(tmp_path / "zb.parquet", toy, split=labels)
    out = tmp_path / "zb.h5"
    arguments = ["--split", "train", "--saturation", "drop", "--compression", "gzip", "--muon-pt", "word"]
    assert run("data", "convert", source, "-o", out, *arguments, "--layout", "adc2021")[0] == 0
    events = Events.read(out)
    assert len(events) == 150 - 4
    assert events.layout.name == "adc2021"
    assert events.saturation == "drop"
    assert events.meta["muon_pt"] == "word"
    assert run("data", "convert", source, "-o", out, "--max-events", 100)[0] == 0
    assert np.array_equal(Events.read(out).hw, writers.dense(toy)[:100])
    ntuple = writers.write_l1ntuple(tmp_path / "n.root", toy, kinds=("unpacked", "emulated"))
    names = tmp_path / "names.json"
    names.write_text(json.dumps(writers.seed_bits(toy)))
    assert run("data", "convert", ntuple, "-o", out, "--tree", "emulated", "--seed-names", names)[0] == 0
    assert set(Events.read(out).menu_bits) == set(toy.seeds)
    assert Events.read(out).meta["tree"] == "emulated"


def test_several_files_become_one(writers: SimpleNamespace, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    toys = [writers.toy_objects(50, seed=i) for i in range(3)]
    for i, toy in enumerate(toys):
        writers.write_opendata(folder / f"{i}.parquet", toy)
    assert run("data", "convert", folder, "-o", tmp_path / "all.h5")[0] == 0
    expected = np.concatenate([writers.dense(toy) for toy in toys])
    assert np.array_equal(Events.read(tmp_path / "all.h5").hw, expected)
    status, out, _ = run("data", "inspect", folder / "0.parquet", folder / "1.parquet")
    assert status == 0
    assert "100 events" in out


def test_inspect_prints_rates_and_draws(writers: SimpleNamespace, run: Run, tmp_path: Path) -> None:
    toy = writers.toy_objects(400)
    source = writers.write_opendata(tmp_path / "zb.parquet", toy)
    status, out, _ = run("data", "inspect", source, "--plot", tmp_path / "zb.png", "--bunches", 1000)
    assert status == 0
    fired = int(toy.seeds["L1_SingleMu22"].sum())
    line = next(line for line in out.splitlines() if line.startswith("L1_SingleMu22"))
    khz = 1000 * 11245.6 / 1e3 * fired / 400
    assert line.split()[1] == f"{khz:.3f}"
    assert line.split()[-2] == str(fired)
    assert "menu rates at 1000 bunches" in out
    assert (tmp_path / "zb.png").read_bytes().startswith(b"\x89PNG")
    assert f"picture: {tmp_path / 'zb.png'}" in out


def test_inspect_evaluates_a_menu(writers: SimpleNamespace, run: Run, tmp_path: Path) -> None:
    toy = writers.toy_objects(400)
    source = writers.write_opendata(tmp_path / "zb.parquet", toy)
    menu = tmp_path / "menu.yaml"
    menu.write_text(
        "name: mine\nseeds:\n  - {name: L1_SingleMu22}\n  - {name: L1_SingleJet60, legs: [{object: jet, pt: 60}]}\n"
    )
    status, out, err = run("data", "inspect", source, "--menu", menu, "--json")
    assert status == 0, err
    rates = {seed["name"]: seed for seed in json.loads(out)["seeds"]}
    assert rates["L1_SingleMu22"]["events"] == int(toy.seeds["L1_SingleMu22"].sum())
    jets = writers.dense(toy)[:, 9:, 0]
    assert rates["L1_SingleJet60"]["events"] == int((jets.max(axis=1) >= 120).sum())
    assert json.loads(out)["menu_origin"] == f"the menu {menu}"


def test_decisions_of_a_menu_are_written_and_the_file_says_whose(
    writers: SimpleNamespace, run: Run, tmp_path: Path
) -> None:
    toy = writers.toy_objects(200)
    source = tmp_path / "zb.h5"
    # The data's own decision is no: it must stay, whatever the cuts say.
    bits = {"SingleJet60": np.zeros(200, bool), "L1_Other": np.ones(200, bool)}
    Events.from_arrays(writers.dense(toy), menu_bits=bits).write(source)
    menu = tmp_path / "menu.yaml"
    menu.write_text(
        "name: mine\nseeds:\n  - {name: L1_SingleJet60, legs: [{object: jet, pt: 60}]}\n"
        "  - {name: L1_SingleEG20, prescale: 7, legs: [{object: eg, pt: 20, isolation: tight}]}\n"
    )
    out = tmp_path / "out.h5"
    status, text, err = run("data", "convert", source, "--menu", menu, "--out", out)
    assert status == 0, err
    assert "isolation is not in the data" in text
    events = Events.read(out)
    assert set(events.menu_bits) == {"SingleJet60", "L1_Other", "L1_SingleEG20"}
    assert not events.menu_bits["SingleJet60"].any()
    assert np.array_equal(events.menu_bits["L1_SingleEG20"], events.hw[:, 1:5, 0].max(axis=1) >= 40)
    origin = "the data (2 seeds) and the menu mine (1 seeds evaluated: L1_SingleEG20)"
    assert events.meta["menu_origin"] == origin
    assert origin in run("data", "inspect", out)[1]


def test_no_decision_is_made_up_where_there_are_no_objects(writers: SimpleNamespace, run: Run, tmp_path: Path) -> None:
    toy = writers.toy_objects(100)
    nano = writers.write_nano(tmp_path / "nano.root", toy, objects=False, sums=False)
    out = tmp_path / "out.h5"
    status, text, err = run("data", "convert", nano, "--menu", "run3_lite", "--out", out)
    assert status == 0, err
    assert "the data has no L1 objects, so that cuts are never met and this says nothing of L1_DoubleMu_15_7" in text
    assert "not written: L1_DoubleMu_15_7" in text
    events = Events.read(out)
    assert set(events.menu_bits) == set(toy.seeds)
    assert events.meta["menu_origin"] == "the data (5 seeds)"


def test_simulate_says_what_is_wrong_before_the_work(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        pytest.fail("the simulation was started")

    monkeypatch.setattr("l1ad.events.simulate.produce.simulate", work)
    for arguments, part in (
        (("--out", tmp_path), "write: found a folder"),
        (("--out", tmp_path / "z.h5", "--compression", "zip"), "compression: found zip, expected none or gzip"),
    ):
        status, _, err = run("data", "simulate", *arguments)
        assert status == 2
        assert part in err
        assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_line_and_status_2(writers: SimpleNamespace, run: Run, tmp_path: Path) -> None:
    toy = writers.toy_objects(50)
    good = writers.write_opendata(tmp_path / "good.parquet", toy)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(good.read_bytes()[:-100])
    (tmp_path / "empty.h5").write_bytes(b"")
    out = tmp_path / "out.h5"
    for arguments, part in (
        ((broken,), "broken.parquet: file: found a truncated file"),
        ((tmp_path / "empty.h5",), "empty.h5: file: found 0 bytes"),
        ((tmp_path / "none",), "none: file: found no such file"),
        ((good, broken), "broken.parquet: file: found a truncated file"),
        ((good, "--format", "nano"), "good.parquet: format: found cms_opendata, expected nano"),
        ((good, "--tree", "emulated"), "option: tree: found a cms_opendata file"),
        ((good, "--saturation", "clip"), "found clip, expected keep, mask or drop"),
        ((good, "--layout", "atlas_l1topo"), "layout: found cms_ugt, expected atlas_l1topo"),
        ((good, "--compression", "zip"), "compression: found zip"),
        ((good, "--muon-pt", "raw"), "muon_pt: found raw, expected physical or word"),
    ):
        status, _, err = run("data", "convert", *arguments, "--out", out)
        assert status == 2, arguments
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("l1ad: error: ")
        assert part in lines[0]
        assert not out.exists()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.endswith(".part")]


def test_a_source_is_not_overwritten(writers: SimpleNamespace, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "zb.h5"
    Events.from_arrays(writers.dense(writers.toy_objects(20))).write(path)
    before = path.read_bytes()
    status, _, err = run("data", "convert", path, "--out", path)
    assert status == 2
    assert "one of the sources" in err
    assert path.read_bytes() == before


def test_a_full_disk_is_one_line_and_leaves_nothing(writers: SimpleNamespace, tmp_path: Path) -> None:
    source = tmp_path / "in" / "zb.h5"
    source.parent.mkdir()
    Events.from_arrays(writers.dense(writers.toy_objects(3000))).write(source)
    folder = tmp_path / "out"
    folder.mkdir()
    code = """
        import resource, sys
        from l1ad.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        sys.argv = ["l1ad", "data", "convert", sys.argv[1], "--out", sys.argv[2]]
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(source), str(folder / "zb.h5")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "zb.h5: write: found" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("verb", ["convert", "inspect"])
def test_help_has_an_example(run: Run, verb: str) -> None:
    status, out, _ = run("data", verb, "--help")
    assert status == 0
    assert f"Example: l1ad data {verb}" in " ".join(out.split())
