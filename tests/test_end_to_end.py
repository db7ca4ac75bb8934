"""The main job in small: every step on the bundled sample, then again, then after kills and edits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from l1ad import Events, Trigger
from l1ad.events.bundled import bundled

ROOT = Path(__file__).resolve().parent.parent
L1AD = [sys.executable, "-W", "ignore", "-c", "from l1ad.cli import main; main()"]
#: A network and a sample small enough for a minute.
SMALL = [
    "data.max_events=12000", "model.hidden=[8]", "model.latent=3", "model.decoder={hidden: [8]}", "training.epochs=4",
    "training.batch=512", "pruning.begin_epoch=1", "pruning.end_epoch=3", "validation.n=3000", "validation.n_rtl=300",
    "validation.mutate=false", "calibration.rates_khz=[5, 50]", "report.displays=1", "firmware.backends=[cmssw]",
]  # fmt: skip


def command(folder: Path, *options: str, settings: list[str] = SMALL) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    return [*L1AD, "run", "quickstart", "--run-dir", str(folder), *sets, *options]


def run(folder: Path, *options: str, settings: list[str] = SMALL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *options, settings=settings), capture_output=True, text=True, cwd=ROOT, check=False, timeout=600
    )


def states(output: str) -> dict[str, str]:
    """What each step said when it ended."""
    pattern = r"^(data|train|freeze|convert|validate|calibrate|report): (.*)$"
    return {m[1]: m[2] for m in re.finditer(pattern, output, re.MULTILINE)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "small"
    result = run(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, result.stdout


def test_every_step_leaves_what_it_promises(finished):
    folder, output = finished
    assert list(states(output)) == ["data", "train", "freeze", "convert", "validate", "calibrate", "report"]
    for name in ("config.yaml", "model.h5", "trigger.json", "validation.json", "thresholds.json", "report.html"):
        assert (folder / name).stat().st_size > 0, name
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["steps"]) == set(states(output))


def test_thresholds_are_those_of_a_direct_count(finished):
    """Score the bundled sample with the frozen trigger and count by hand."""
    folder, _ = finished
    trigger = Trigger.load(folder)
    events = Events.read(bundled("zero_bias_weighted"))
    scores, weight = trigger.score(events, golden=True), events.weight
    thresholds = json.loads((folder / "thresholds.json").read_text())
    assert thresholds["trigger"]["hash"] == trigger.hash
    crossing_hz = 2544 * 11245.6
    for entry, target in zip(thresholds["thresholds"], (5e3, 50e3), strict=True):
        rates = {
            cut: weight[scores >= cut].sum() / weight.sum() * crossing_hz
            for cut in (entry["threshold"] - 1, entry["threshold"])
        }
        assert rates[entry["threshold"]] <= target < rates[entry["threshold"] - 1]
        assert entry["rates"]["total"]["hz"] == pytest.approx(rates[entry["threshold"]], rel=1e-9)


def test_no_realisation_differs(finished):
    folder, _ = finished
    value = json.loads((folder / "validation.json").read_text())
    compared = [row for row in value["realisations"] if row["mismatches"] is not None]
    assert any("cmssw" in row["name"] for row in compared)
    assert all(row["mismatches"] == 0 for row in compared)


def test_second_run_does_nothing(finished):
    folder, _ = finished
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.name not in (".lock", "config.yaml")}
    result = run(folder)
    assert result.returncode == 0
    assert all("unchanged" in text for text in states(result.stdout).values()), result.stdout
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.name not in (".lock", "config.yaml")} == before


def test_only_what_depends_on_a_change_is_done_again(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "changed")
    changed = [s if "rates_khz" not in s else "calibration.rates_khz=[5, 20]" for s in SMALL]
    result = run(folder, "--until", "calibrate", settings=changed)
    assert result.returncode == 0, result.stderr
    said = states(result.stdout)
    assert "unchanged" not in said.pop("calibrate")
    assert all("unchanged" in text for text in said.values())


def test_an_edited_artefact_is_named_and_refused(finished, tmp_path):
    folder, _ = finished
    path = folder / "trigger.json"
    text = path.read_text()
    path.write_text(text.replace('"quickstart"', '"forged"', 1))
    try:
        result = run(folder)
    finally:
        path.write_text(text)
    assert result.returncode == 2
    assert "trigger.json" in result.stderr
    assert "edited" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("step", ["train", "calibrate", "report"])
def test_a_killed_run_goes_on(finished, tmp_path, step):
    """kill -9 as soon as a step has begun; the next run ends with the files of one that was never killed."""
    done, _ = finished
    folder = tmp_path / "killed"
    if step != "train":
        # What comes before is copied from the finished run: its manifest says that it is good.
        shutil.copytree(done, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        names = list(manifest["steps"])
        for later in ("calibrate", "report"):
            if later == step or step == "calibrate":
                for output in manifest["steps"].pop(later, {"outputs": {}})["outputs"]:
                    (folder / output).unlink(missing_ok=True)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert names
    options = ("--until", "freeze") if step == "train" else ()
    with subprocess.Popen(command(folder, *options), stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"{step}:"):
                break
        if step == "train":
            deadline = time.monotonic() + 120
            while not (folder / "checkpoint.h5").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    result = run(folder, *options)
    assert result.returncode == 0, result.stderr
    wanted = {"train": "trigger.json", "calibrate": "thresholds.json", "report": "report.html"}[step]
    if wanted == "report.html":
        assert (folder / wanted).stat().st_size == (done / wanted).stat().st_size
    else:
        assert (folder / wanted).read_bytes() == (done / wanted).read_bytes()


def test_two_runs_in_one_folder(finished):
    from l1ad.runfolder import RunFolder

    folder, _ = finished
    with RunFolder(folder).locked():
        result = run(folder)
    assert result.returncode == 2
    assert f"process {os.getpid()}" in result.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epoch=3", "unknown key"),
        ("model.latent=0", "model"),
        ("data.paths=[nowhere.h5]", "data"),
        ("calibration.menu=nobody", "nobody"),
    ],
)
def test_bad_settings_are_one_line(tmp_path, setting, message):
    result = run(tmp_path / "bad", "--until", "data", settings=[setting]) if "menu" not in setting else run(
        tmp_path / "bad", settings=[*SMALL, setting, "data.sample=null", "data.paths=[]"]
    )  # fmt: skip
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert message in result.stderr or "data" in result.stderr


def test_config_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: caf\xe9\n".encode("latin-1"))
    result = subprocess.run([*L1AD, "run", str(path)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "UTF-8" in result.stderr


def test_frozen_trigger_scores_without_tensorflow(finished):
    folder, _ = finished
    code = (
        "import sys, numpy; from l1ad import Trigger; t = Trigger.load(sys.argv[1]);"
        "print(int(t.score(numpy.zeros((1, 19, 3), int))[0])); sys.exit('tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    golden = Trigger.load(folder).score(np.zeros((1, 19, 3), int), golden=True)
    assert int(result.stdout) == int(golden[0])
