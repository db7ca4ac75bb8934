"""`l1ad score` and `l1ad.scoring`: any format, threads and processes, what is written, and what goes wrong."""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

import l1ad.scoring as scoring
from l1ad import Events, Trigger
from l1ad.cli import app
from l1ad.errors import InputError, TriggerError
from l1ad.events import EventsWriter
from l1ad.rates.histogram import ScoreHistogram
from l1ad.scoring import ScoresFile, score_files
from l1ad.trigger.emulate import supported_levels
from l1ad.trigger.emulate.build import find_compiler

TYPES = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L1AD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def trigger() -> Trigger:
    rng = np.random.default_rng(12)
    weights = [rng.integers(-32, 32, (57, 6)), rng.integers(-32, 32, (6, 3))]
    biases = [rng.integers(-99, 99, 6), rng.integers(-99, 99, 3)]
    scaling = {"offset": rng.integers(0, 40, 57), "shift": rng.integers(3, 8, 57)}
    return Trigger.from_layers(weights, biases, TYPES, scaling, "mu2", name="small")


def events(seed: int, n: int, *, weighted: bool = False) -> Events:
    rng = np.random.default_rng(seed)
    hw = np.zeros((n, 19, 3), dtype=np.int16)
    hw[:, :, 0] = np.minimum(rng.exponential(40, (n, 19)), 500).astype(np.int16)
    hw[:, 1:, 1] = rng.integers(-100, 100, (n, 18))
    hw[:, :, 2] = rng.integers(0, 144, (n, 19))
    hw[rng.random((n, 19)) < 0.4] = 0
    weight = rng.exponential(1, n) if weighted else None
    return Events.from_arrays(hw, weight=weight)


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> tuple[Path, Events]:
    """A file of several chunks, the last one not full, with weights."""
    path = tmp_path_factory.mktemp("sample") / "zb.h5"
    everything = events(1, 50_001, weighted=True)
    everything.write(path)
    return path, everything


def expected_histogram(scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.bincount(scores, weight, 1 << 18)[::-1].cumsum()[::-1]


def test_scores_histogram_and_provenance_are_those_of_the_events(trigger, sample, tmp_path):
    path, everything = sample
    golden = trigger.score(everything, golden=True)
    run = score_files(trigger, path, out=tmp_path / "s.h5", threads=2)
    written = ScoresFile.read(tmp_path / "s.h5", trigger=trigger)
    assert written.scores.dtype == np.int32
    assert np.array_equal(written.scores, golden)
    assert written.sources == run.sources == (("zb.h5", 50_001),)
    assert written.trigger_hash == trigger.hash
    for histogram in (run.histogram, written.histogram):
        tails = histogram.tails()
        assert np.array_equal(tails.counts[:-1], expected_histogram(golden, np.ones(len(golden))).astype(int))
        assert tails.sum_w[0] == pytest.approx(everything.weight.sum(), rel=1e-12)
        assert np.allclose(tails.sum_w[:-1], expected_histogram(golden, everything.weight), rtol=1e-9, atol=1e-9)


def test_own_files_are_read_in_place_and_compressed_ones_by_hdf5(trigger, sample, tmp_path, monkeypatch):
    path, everything = sample
    golden = trigger.score(everything, golden=True)
    everything.write(tmp_path / "gzip.h5", compression="gzip")
    mapped = []
    original = scoring._Job.score_mapped
    monkeypatch.setattr(scoring._Job, "score_mapped", lambda self, *a: mapped.append(a[0].path) or original(self, *a))
    for file, in_place in ((path, True), (tmp_path / "gzip.h5", False)):
        mapped.clear()
        score_files(trigger, file, out=tmp_path / "s.h5")
        assert bool(mapped) == in_place
        assert np.array_equal(ScoresFile.read(tmp_path / "s.h5").scores, golden)


def test_contiguous_and_oddly_chunked_files_of_the_format(trigger, tmp_path):
    data = events(3, 5000)
    golden = trigger.score(data, golden=True)
    data.write(tmp_path / "a.h5")
    for options in ({}, {"chunks": (700, 19, 3)}, {"chunks": (700, 5, 3)}, {"chunks": (5000, 19, 3), "shuffle": True}):
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["hw"]
            file.create_dataset("hw", data=data.hw, **options)
        score_files(trigger, tmp_path / "a.h5", out=tmp_path / "s.h5")
        assert np.array_equal(ScoresFile.read(tmp_path / "s.h5").scores, golden), options


@pytest.mark.parametrize(
    "options", [{"threads": 1}, {"threads": 3}, {"workers": 2, "task_events": 20_000}, {"saturation": "mask"}]
)
def test_the_result_does_not_depend_on_who_does_it(trigger, sample, tmp_path, options, monkeypatch):
    path, _ = sample
    monkeypatch.setattr(scoring, "PIECE_EVENTS", 7000)
    events(2, 900).write(tmp_path / "b.h5")
    seen: list[int] = []
    run = score_files(trigger, [path, tmp_path / "b.h5"], out=tmp_path / "s.h5", progress=seen.append, **options)
    masked = options.get("saturation", "keep")
    parts = [Events.read(p, saturation=masked) for p in (path, tmp_path / "b.h5")]
    golden = np.concatenate([trigger.score(part, golden=True) for part in parts])
    assert np.array_equal(ScoresFile.read(tmp_path / "s.h5").scores, golden)
    assert run.n_events == len(golden) == seen[-1]
    assert seen == sorted(seen)
    whole = ScoreHistogram()
    for part, scores in zip(parts, np.split(golden, [len(parts[0])]), strict=True):
        whole.fill(scores, part.columns.get("weight"))
    assert np.array_equal(run.histogram.tails().sum_w, whole.tails().sum_w)
    assert np.array_equal(run.histogram.tails().sum_w2, whole.tails().sum_w2)


@pytest.mark.slow
def test_dask_workers_give_the_same_scores(trigger, sample, tmp_path):
    pytest.importorskip("distributed", reason="the dask extra is not installed")
    path, everything = sample
    for workers in (1, 2):
        score_files(trigger, path, out=tmp_path / "s.h5", dask="local", workers=workers, task_events=20_000)
        assert np.array_equal(ScoresFile.read(tmp_path / "s.h5").scores, trigger.score(everything, golden=True))


def test_command_line(trigger, sample, tmp_path):
    path, everything = sample
    golden = trigger.score(everything, golden=True)
    threshold = int(np.sort(golden)[-40])
    trigger.with_thresholds({"tight": threshold}).save(tmp_path / "trigger.json")
    result = CliRunner().invoke(
        app, ["score", str(path), "--trigger", str(tmp_path), "--out", str(tmp_path / "s.h5")], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert f"tight: {int((golden >= threshold).sum())} events at or above {threshold}" in result.output
    assert f"{everything.weight.sum():.6g} in all" in result.output
    assert "50001 events of 1 files" in result.output
    assert np.array_equal(ScoresFile.read(tmp_path / "s.h5").scores, golden)
    # The quantiles: half of the weight lies at or above the first of them, less than half above it.
    median = int(next(line for line in result.output.splitlines() if line.strip().startswith("0.5 ")).split()[1])
    share = [everything.weight[golden >= value].sum() / everything.weight.sum() for value in (median, median + 1)]
    assert share[0] >= 0.5 > share[1]


def test_help_has_an_example():
    assert "Example: l1ad score" in CliRunner().invoke(app, ["score", "--help"]).output


def test_every_level_can_be_asked_for(trigger, tmp_path):
    if find_compiler() is None:
        pytest.skip("no C compiler (cc, gcc or clang) on PATH")
    data = events(5, 3000)
    data.write(tmp_path / "a.h5")
    for level in supported_levels():
        score_files(trigger, tmp_path / "a.h5", out=tmp_path / "s.h5", isa=level)
        assert np.array_equal(ScoresFile.read(tmp_path / "s.h5").scores, trigger.score(data, golden=True))
    with pytest.raises(TriggerError, match="isa: found mmx"):
        score_files(trigger, tmp_path / "a.h5", isa="mmx")


def test_an_impossible_word_names_file_and_input_and_leaves_nothing(trigger, tmp_path):
    data = events(6, 40_000)
    data.write(tmp_path / "bad.h5")
    with h5py.File(tmp_path / "bad.h5", "a") as file:
        file["hw"][39_000, 10, 0] = 9999
    for options in ({}, {"workers": 2}, {"saturation": "drop"}):
        with pytest.raises(InputError, match=r"bad\.h5.*: found 9999, expected 0 to 2047"):
            score_files(trigger, tmp_path / "bad.h5", out=tmp_path / "s.h5", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.h5"]


def test_truncated_missing_and_foreign_files(trigger, tmp_path):
    events(7, 40_000).write(tmp_path / "whole.h5")
    content = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="truncated"):
        score_files(trigger, tmp_path / "half.h5", out=tmp_path / "s.h5")
    with pytest.raises(InputError, match="no such file"):
        score_files(trigger, tmp_path / "none.h5")
    regions = Events.from_arrays(np.zeros((3, 252, 1), np.int16), layout="cms_calo_regions")
    regions.write(tmp_path / "regions.h5")
    with pytest.raises(InputError, match="found cms_calo_regions, expected cms_ugt"):
        score_files(trigger, [tmp_path / "whole.h5", tmp_path / "regions.h5"], out=tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()
    with pytest.raises(InputError, match="threads: found 0"):
        score_files(trigger, tmp_path / "whole.h5", threads=0)


def test_scores_belong_to_one_trigger(trigger, tmp_path):
    events(8, 100).write(tmp_path / "a.h5")
    score_files(trigger, tmp_path / "a.h5", out=tmp_path / "s.h5")
    other = Trigger.from_layers(
        [np.zeros((57, 2), int)], [np.array([8, 16])], TYPES, {"offset": np.zeros(57), "shift": np.zeros(57, int)}
    )
    with pytest.raises(TriggerError, match=f"{trigger.hash[:12]}, expected {other.hash[:12]}"):
        ScoresFile.read(tmp_path / "s.h5", trigger=other)
    with pytest.raises(InputError, match="format: found l1ad-events"):
        ScoresFile.read(tmp_path / "a.h5")


def test_a_file_without_events(trigger, tmp_path):
    events(9, 0).write(tmp_path / "empty.h5")
    run = score_files(trigger, tmp_path / "empty.h5", out=tmp_path / "s.h5")
    assert run.n_events == 0
    assert ScoresFile.read(tmp_path / "s.h5").scores.shape == (0,)
    trigger.save(tmp_path / "trigger.json")
    result = CliRunner().invoke(app, ["score", str(tmp_path / "empty.h5"), "-t", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0


_LARGE = """
import resource, sys
from l1ad import Trigger
from l1ad.scoring import score_files
run = score_files(Trigger.load(sys.argv[1]), sys.argv[2], out=sys.argv[3], threads=2)
print(run.n_events, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(trigger, tmp_path):
    """Four times the events, 60 MB of words more: less than 25 MB of memory more."""
    trigger.save(tmp_path / "trigger.json")
    data = events(10, 1 << 16)
    resident = []
    for repeats in (4, 16):
        path = tmp_path / f"{repeats}.h5"
        with EventsWriter(path) as writer:
            for _ in itertools.repeat(None, repeats):
                writer.append(data)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", _LARGE, str(tmp_path), str(path), str(tmp_path / "s.h5")]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        n_events, kilobytes = map(int, output.split())
        assert n_events == repeats << 16
        resident.append(kilobytes * (1 if sys.platform != "darwin" else 1 / 1024))
    assert os.path.getsize(tmp_path / "16.h5") - os.path.getsize(tmp_path / "4.h5") > 80e6
    assert resident[1] - resident[0] < 25_000, resident
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


def test_the_output_is_plain_hdf5(trigger, tmp_path):
    events(11, 64).write(tmp_path / "a.h5")
    score_files(trigger, tmp_path / "a.h5", out=tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["scores"].dtype == np.dtype("<i4")
        assert file.attrs["format"] == "l1ad-scores"
        assert file.attrs["trigger_hash"] == trigger.hash
        assert json.loads(file.attrs["sources"]) == [["a.h5", 64]]
