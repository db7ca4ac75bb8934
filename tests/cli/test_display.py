"""`l1ad display` and `l1ad catalogue` on a bare file with the trigger of the latest run."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from l1ad import Events, Trigger
from l1ad.cli import app
from l1ad.errors import InputError

TYPES = {
    "input": "ap_fixed<14,11,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "result": "ap_fixed<18,14,RND_CONV,SAT>",
}


def summing(slots: slice, name: str) -> Trigger:
    """Score: the squared sum of the momenta of some inputs (GeV)."""
    weights = np.zeros((57, 1), int)
    weights[slots] = 8
    scaling = {"offset": np.zeros(57), "shift": np.zeros(57, int)}
    return Trigger.from_layers([weights], [np.zeros(1, int)], TYPES, scaling, name=name)


@pytest.fixture
def place(tmp_path, monkeypatch, make_crossings):
    """A folder with zb.h5 and two runs, of which `second` was frozen last."""
    monkeypatch.chdir(tmp_path)
    make_crossings(300, 1).write("zb.h5")
    for time, (name, slots) in enumerate((("first", slice(27, 57, 3)), ("second", slice(0, 1)))):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        summing(slots, name).save(folder / "trigger.json")
        (folder / "thresholds.json").write_text(json.dumps({"thresholds": [{"threshold": 90000}, {"threshold": 8000}]}))
        os.utime(folder / "trigger.json", (1000 + time, 1000 + time))
    return tmp_path


def test_a_bare_file_is_drawn_with_the_latest_run(place):
    result = CliRunner().invoke(app, ["display", "zb.h5", "--top", "3", "--format", "pdf"])
    assert result.exit_code == 0, result.output
    assert "second" in result.output.splitlines()[0]
    met = Events.read("zb.h5").hw[:, 0, 0]
    order = np.argsort(-met.astype(int), kind="stable")[:3]
    for rank, (line, index) in enumerate(zip(result.output.splitlines()[1:], order, strict=True), start=1):
        assert f"crossing {index}: score {(met[index] / 2) ** 2:g}" in line
        # One input makes the score: taking it away takes all of it.
        assert f"met ({met[index] / 2:g} GeV) carries {(met[index] / 2) ** 2:g}" in line
        assert (place / "displays" / f"event_{rank:03d}.pdf").read_bytes().startswith(b"%PDF")


def test_a_named_trigger_is_taken(place):
    result = CliRunner().invoke(app, ["display", "zb.h5", "--top", "1", "--trigger", "runs/first"])
    assert result.exit_code == 0
    assert "first" in result.output.splitlines()[0]


def test_without_a_run_it_is_said(tmp_path, monkeypatch, make_crossings):
    monkeypatch.chdir(tmp_path)
    make_crossings(10, 1).write("zb.h5")
    result = CliRunner().invoke(app, ["display", "zb.h5"])
    assert isinstance(result.exception, InputError)
    assert "--trigger FILE" in str(result.exception)


@pytest.mark.parametrize("name", ["kinds.parquet", "kinds.h5"])
def test_the_catalogue_takes_the_lowest_threshold_of_the_run(place, name):
    pytest.importorskip("sklearn", reason="scikit-learn is missing: pip install 'l1ad[search]'")
    result = CliRunner().invoke(app, ["catalogue", "zb.h5", "--out", name, "--min-cluster-size", "5"])
    assert result.exit_code == 0, result.output
    scores = Trigger.load("runs/second").score(Events.read("zb.h5"))
    expected = np.flatnonzero(scores >= 8000)
    if name.endswith("parquet"):
        table = pq.read_table(name)
        index, score, cluster = (table[c].to_numpy() for c in ("index", "score", "cluster"))
    else:
        columns = Events.read(name).columns
        index, score, cluster = (columns[c] for c in ("index", "score", "cluster"))
    assert index.tolist() == expected.tolist()
    assert score.tolist() == scores[expected].tolist()
    assert cluster.min() >= -1
    assert f"{len(expected)} crossings at or above 8000" in result.output


def test_a_catalogue_of_another_kind_of_file_is_refused(place):
    result = CliRunner().invoke(app, ["catalogue", "zb.h5", "--out", "kinds.csv"])
    assert "found kinds.csv" in str(result.exception)
