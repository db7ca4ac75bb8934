"""NanoAOD: back onto the grid, and an official file without L1 objects."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import uproot

from l1ad.errors import InputError
from l1ad.events import Events, open_events


@pytest.fixture(scope="module")
def toy(writers: SimpleNamespace) -> SimpleNamespace:
    return writers.toy_objects(800)


@pytest.mark.parametrize("hardware", [False, True])
@pytest.mark.parametrize("choice", ["physical", "word"])
def test_values_come_back_to_their_codes(
    writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path, hardware: bool, choice: str
) -> None:
    path = writers.write_nano(tmp_path / "n.root", toy, hardware=hardware)
    with open_events(path, muon_pt=choice) as source:
        events = Events.concatenate(list(source.chunks(300)))
    assert np.array_equal(events.hw, writers.dense(toy, muon_offset=1 if choice == "physical" else 0))
    assert np.array_equal(events.n_pv, toy.event["n_pv"])
    assert np.array_equal(events.columns["ht"], toy.sums["ht"])
    assert np.array_equal(events.columns["met_hf"], toy.sums["met_hf"])
    for name, bits in toy.seeds.items():
        assert np.array_equal(events.menu_bits[name], bits)
    assert ("central NanoAOD keeps only" in " ".join(events.meta["notes"])) != hardware


def test_the_official_file_has_bits_and_pile_up_and_no_objects(oracles: Path) -> None:
    path = oracles / "nano_tt_v15.root"
    events = Events.read(path)
    notes = " ".join(events.meta["notes"])
    assert "this file has no L1 objects" in notes
    assert "412 seeds" in notes
    assert "Pileup_nTrueInt" in notes
    assert not events.hw.any()
    with uproot.open(path) as file:
        tree = file["Events"]
        names = tree.keys()
        flags = [name for name in names if name.startswith("L1")]
        # Of the 414, two are steps of the production: L1Reco_step and L1simulation_step.
        assert len(flags) == 414
        seeds = [name for name in flags if name.startswith("L1_")]
        assert set(events.menu_bits) == set(seeds)
        assert len(flags) - len(seeds) == 2
        for name in seeds[::7]:
            assert np.array_equal(events.menu_bits[name], tree[name].array(library="np"))
        assert np.array_equal(events.n_pv, tree["Pileup_nTrueInt"].array(library="np"))
        assert np.array_equal(events.columns["npvs"], tree["PV_npvs"].array(library="np"))
    assert len(events) == 200


def test_what_is_missing_is_said(writers: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path) -> None:
    events = Events.read(writers.write_nano(tmp_path / "n.root", toy, sums=False))
    assert "this file has no L1EtSum: those slots are empty" in " ".join(events.meta["notes"])
    assert not events.objects("met").any()
    assert events.objects("jet").any()


def spoiled(writers: SimpleNamespace, path: Path, name: str, value: float) -> Path:
    """A file whose branch holds `value` throughout."""
    toy = writers.toy_objects(30, means=(3, 3, 3))
    source = writers.write_nano(path / "source.root", toy)
    with uproot.open(source) as file:
        tree = file["Events"]
        names = tree.keys()
        branches = {key: tree[key].array() for key in names if not key.startswith("n")}
    branches[name] = branches[name] * 0 + np.float32(value)
    with uproot.recreate(path / "spoiled.root") as file:
        file["Events"] = branches
    return path / "spoiled.root"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("L1Jet_pt", np.nan, "L1Jet_pt: found NaN or infinity, expected finite numbers"),
        ("L1EG_pt", -1, "L1EG_pt: found -1, expected 0 or more"),
        ("L1Jet_eta", 6, "L1Jet_eta: found 6, expected -5.568 to 5.5245"),
        ("L1Mu_etaAtVtx", 3, "L1Mu_etaAtVtx: found 3, expected -2.784 to 2.7731"),
        ("L1EtSum_phi", np.inf, "L1EtSum_phi: found NaN or infinity"),
    ],
)
def test_values_that_cannot_be_are_named(
    writers: SimpleNamespace, tmp_path: Path, name: str, value: float, message: str
) -> None:
    path = spoiled(writers, tmp_path, name, value)
    with pytest.raises(InputError) as caught:
        Events.read(path)
    assert str(caught.value).startswith(f"{path}: Events: {message}")


def test_momenta_above_the_word_saturate_and_are_counted(writers: SimpleNamespace, tmp_path: Path) -> None:
    events = Events.read(spoiled(writers, tmp_path, "L1Jet_pt", 4000))
    jets = events.objects("jet")
    assert set(np.unique(jets[:, :, 0])) == {0, 2047}
    assert events.meta["counts"]["clipped_objects"] == events.meta["counts"]["saturated_objects"] > 0


def test_another_tree_is_refused(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "n.root") as file:
        file.mktree("Events", {"x": np.float32}).extend({"x": np.zeros(3, dtype=np.float32)})
    with pytest.raises(InputError, match="branches: found no L1Jet"):
        open_events(tmp_path / "n.root")
