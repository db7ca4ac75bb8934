"""The main job from files in each real schema: the same crossings give the same trigger and the same thresholds.

The bundled sample is written as ADC2021 HDF5, as open-data parquet in two arrangements, as an L1Ntuple and as NanoAOD,
and every step of `l1ad run` is done on the files themselves, without converting them first.
"""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest

from l1ad import Events, Trigger
from l1ad.config import RunConfig
from l1ad.configs import find_config, read_yaml
from l1ad.events.bundled import bundled, bundled_signals
from l1ad.workflow import run

WRITERS = Path(__file__).resolve().parent / "events" / "readers" / "writers.py"
N_ZERO_BIAS, N_SIGNAL = 6000, 600
FORMATS = ("adc2021", "cms_opendata", "cms_opendata_record", "l1ntuple", "nano")


class Quiet:
    """A reporter that keeps what the steps said."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def started(self, name: str, about: str) -> None:
        """Nothing to say."""

    def note(self, text: str) -> None:
        """Nothing to say."""

    def finished(self, done) -> None:
        self.said[done.name] = f"{done.state} {done.summary}"


@pytest.fixture(scope="module")
def writers() -> SimpleNamespace:
    # Not imported: the module is not a test and lies in another folder.
    return SimpleNamespace(**runpy.run_path(str(WRITERS), run_name="writers"))


def sample(path: Path, n: int) -> Events:
    """The first crossings of a bundled file without the one muon code that the open data's word cannot tell apart."""
    events = Events.read(path)
    # The word of a muon counts from one: 510 would be written as 511, which is the saturation code.
    events = events[(events.hw[:, 5:9, 0] != 510).all(axis=1)][:n]
    assert len(events) == n
    return Events.from_arrays(events.hw, n_pv=np.full(n, 50.0))


def objects_of(events: Events, writers: SimpleNamespace):
    """The same crossings as the lists that the writers take, without sums other than ETmiss and without decisions."""
    n, hw = len(events), events.hw.astype(np.int64)
    toy = writers.toy_objects(n, seed=1)
    lists = {}
    for name, slots in (("eg", slice(1, 5)), ("muon", slice(5, 9)), ("jet", slice(9, 19))):
        there = hw[:, slots, 0] > 0
        columns = {
            key: ak.unflatten(hw[:, slots, k][there], there.sum(axis=1)) for k, key in enumerate(("et", "eta", "phi"))
        }
        if name == "muon":
            columns["et"] = ak.where(columns["et"] < 511, columns["et"] + 1, columns["et"])
        lists[name] = columns
    sums = {name: np.zeros(n, np.int64) for name in toy.sums} | {"met": hw[:, 0, 0], "met_phi": hw[:, 0, 2]}
    return replace(toy, lists=lists, sums=sums, seeds={}, event={**toy.event, "n_pv": np.full(n, 50.0, np.float32)})


def floats_of(events: Events) -> np.ndarray:
    """`Particles` of ADC2021, (N, 19, 4): GeV, pseudorapidity, radians in (-pi, pi], class."""
    physical = events.hw * events.layout.lsb
    kind = np.array([1] + 4 * [2] + 4 * [3] + 10 * [4])
    there = events.hw[:, :, 0] > 0
    floats = np.zeros((len(events), 19, 4), np.float32)
    floats[..., :3] = physical
    floats[..., 2] = (physical[..., 2] + np.pi) % (2 * np.pi) - np.pi
    floats[..., 3] = kind
    return floats * there[..., None]


def write(format: str, folder: Path, name: str, events: Events, writers: SimpleNamespace) -> Path:
    """`events` in one of the formats; the file or folder."""
    if format == "adc2021":
        return writers.write_adc(folder / f"{name}.h5", floats_of(events))
    toy = objects_of(events, writers)
    if format == "cms_opendata":
        return writers.write_opendata(folder / f"{name}.parquet", toy, seeds=False)
    if format == "cms_opendata_record":
        (folder / name).mkdir()
        # Seeds are a part of this arrangement; one that never fires changes nothing.
        toy = replace(toy, seeds={"L1_Never": np.zeros(len(toy), bool)})
        return writers.write_opendata_record(folder / name, toy)
    if format == "l1ntuple":
        return writers.write_l1ntuple(folder / f"{name}.root", toy, decisions=False)
    return writers.write_nano(folder / f"{name}.root", toy)


def run_on(zero_bias: Path, signal: Path, folder: Path, **data: str) -> dict[str, str]:
    """Every step in small; what each said."""
    value = read_yaml(find_config("quickstart"))
    value["data"] = {"paths": [str(zero_bias)], **data}
    value["model"] |= {"hidden": [8], "latent": 3, "decoder": {"hidden": [8]}}
    value["training"] |= {"epochs": 2, "batch": 512}
    value["pruning"] |= {"begin_epoch": 1, "end_epoch": 2}
    value["firmware"] = {"backends": ["cmssw"]}
    value["validation"] = {"n": 2000, "n_rtl": 100, "mutate": False}
    value["calibration"] = {
        "zero_bias": [str(zero_bias)], "signals": {"tt": str(signal)}, "rates_khz": [200, 1000],
    }  # fmt: skip
    value["report"] = {"displays": 0}
    reporter = Quiet()
    run(RunConfig.of(value), folder, reporter)
    return reporter.said


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The run on our own files, with the crossings in memory."""
    folder = tmp_path_factory.mktemp("own")
    zero_bias = sample(bundled("zero_bias"), N_ZERO_BIAS)
    signal = sample(bundled_signals()["tt_hadronic"], N_SIGNAL)
    zero_bias.write(folder / "zb.h5")
    signal.write(folder / "tt.h5")
    run_on(folder / "zb.h5", folder / "tt.h5", folder / "run")
    return SimpleNamespace(zero_bias=zero_bias, signal=signal, folder=folder / "run")


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_crossings_give_the_same_thresholds(reference, writers, tmp_path, format):
    zero_bias = write(format, tmp_path, "zb", reference.zero_bias, writers)
    signal = write(format, tmp_path, "tt", reference.signal, writers)
    data = {"layout": "adc2021"} if format == "adc2021" else {}
    said = run_on(zero_bias, signal, tmp_path / "run", **data)
    assert all(text.startswith("ran ") for text in said.values())
    assert len(said) == 7

    read = Events.read(zero_bias)
    assert np.array_equal(read.hw, reference.zero_bias.hw)
    ours, theirs = Trigger.load(reference.folder), Trigger.load(tmp_path / "run")
    hw = reference.zero_bias.hw
    assert np.array_equal(theirs.score(hw), ours.score(hw))
    expected, found = (json.loads((f / "thresholds.json").read_text()) for f in (reference.folder, tmp_path / "run"))
    assert len(found["thresholds"]) == 2
    for one, other in zip(expected["thresholds"], found["thresholds"], strict=True):
        assert other["threshold"] == one["threshold"]
        assert other["rates"]["total"] == one["rates"]["total"]
        a, b = (content["signals"]["tt"]["thresholds"][one["name"]]["total"] for content in (expected, found))
        assert a == b
    validation = json.loads((tmp_path / "run" / "validation.json").read_text())
    assert {row["mismatches"] for row in validation["realisations"] if row["mismatches"] is not None} == {0}
    assert (tmp_path / "run" / "report.html").stat().st_size > 1e6

    again = run_on(zero_bias, signal, tmp_path / "run", **data)
    assert all(text.startswith("unchanged ") for text in again.values())
