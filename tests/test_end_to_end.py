"""The main job in small: every step on the bundled sample, then again, then after kills and edits."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from l1ad import Events, Trigger
from l1ad.events.bundled import bundled

ROOT = Path(__file__).resolve().parent.parent
L1AD = [sys.executable, "-W", "ignore", "-c", "from l1ad.cli import main; main()"]
#: A network and a sample small enough for a minute.
SMALL = [
    "data.max_events=12000", "model.hidden=[8]", "model.latent=3", "model.decoder={hidden: [8]}", "training.epochs=12",
    "training.batch=512", "pruning.begin_epoch=1", "pruning.end_epoch=3", "validation.n=3000", "validation.n_rtl=300",
    "validation.mutate=false", "calibration.rates_khz=[5, 50]", "report.displays=1", "firmware.backends=[cmssw]",
]  # fmt: skip


STEPS = ("data", "train", "freeze", "convert", "validate", "calibrate", "report")


def command(folder: Path, *options: str, settings: list[str] = SMALL) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    return [*L1AD, "run", "quickstart", "--run-dir", str(folder), *sets, *options]


def run(folder: Path, *options: str, settings: list[str] = SMALL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *options, settings=settings), capture_output=True, text=True, cwd=ROOT, check=False, timeout=600
    )


def states(output: str) -> dict[str, str]:
    """What each step said when it ended."""
    pattern = rf"^({'|'.join(STEPS)}): (.*)$"
    return {m[1]: m[2] for m in re.finditer(pattern, output, re.MULTILINE)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "small"
    result = run(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, result.stdout


def test_every_step_leaves_what_it_promises(finished):
    folder, output = finished
    assert tuple(states(output)) == STEPS
    for name in ("config.yaml", "model.h5", "trigger.json", "validation.json", "thresholds.json", "report.html"):
        assert (folder / name).stat().st_size > 0, name
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["steps"]) == set(states(output))
    figures = {p.name for p in (folder / "figures").iterdir()}
    assert {f"{name}.{suffix}" for name in ("rate", "roc", "event_001") for suffix in ("png", "pdf")} <= figures


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


def without(done: Path, folder: Path, step: str) -> Path:
    """A copy of a finished run as it was before a step: the manifest says that what is there is good."""
    shutil.copytree(done, folder, dirs_exist_ok=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    names = list(STEPS)
    for later in names[names.index(step) :]:
        for output in manifest["steps"].pop(later)["outputs"]:
            (folder / output).unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def outputs(folder: Path, step: str) -> dict[str, str]:
    """Hash of each file that a step has written."""
    return json.loads((folder / "manifest.json").read_text())["steps"][step]["outputs"]


@pytest.mark.parametrize(
    ("step", "how"),
    [(step, signal.SIGKILL) for step in ("train", "calibrate", "report")]
    + [(step, signal.SIGINT) for step in ("train", "validate", "calibrate")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_run_that_is_stopped_goes_on(finished, tmp_path, step, how):
    """kill -9 or Ctrl-C once a step has begun; the next run ends with the files of one that was never stopped."""
    done, _ = finished
    folder = tmp_path / "stopped"
    if step != "train":
        without(done, folder, step)
    options = ("--until", "freeze") if step == "train" else ("--until", step)

    def heed() -> None:
        # Tests that run in the background of a shell would hand down that Ctrl-C is to be ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed}
    with subprocess.Popen(command(folder, *options), text=True, cwd=ROOT, **given) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"{step}:"):
                break
        if step == "train":
            deadline = time.monotonic() + 120
            while not (folder / "checkpoint.h5").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
        before = {p: p.read_bytes() for p in folder.glob("*.json")}
        os.kill(process.pid, how)
        stderr = process.communicate()[1]
    if how == signal.SIGINT:
        assert process.returncode == 130
        said = f"l1ad: interrupted in the step {step}; nothing is lost: the same command goes on from there\n"
        assert stderr.endswith(said)
        assert "Traceback" not in stderr
    for path, content in before.items():
        assert path.read_bytes() == content
    result = run(folder, *options)
    assert result.returncode == 0, result.stderr
    assert not list(folder.rglob(".*.part"))
    if step in ("train", "calibrate"):
        last = "freeze" if step == "train" else step
        assert outputs(folder, last) == outputs(done, last)
    elif step == "report":
        # The page holds floats that are printed alike, not the order in which plotly puts keys.
        assert (folder / "report.html").stat().st_size == (done / "report.html").stat().st_size
        assert set(outputs(folder, step)) == set(outputs(done, step))


@contextlib.contextmanager
def small_disk(where: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of its own; skips where none can be mounted."""
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here: it needs root with CAP_SYS_ADMIN")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk_loses_nothing(finished, tmp_path):
    """The scores of the calibration do not fit; with more room the same command ends as if nothing had been."""
    done, _ = finished
    ready = without(done, tmp_path / "ready", "calibrate")
    used = sum(-(-p.stat().st_size // 4096) * 4 + 4 for p in ready.rglob("*"))
    with small_disk(tmp_path / "disk", used + 300) as disk:
        folder = disk / "run"
        shutil.copytree(ready, folder)
        before = {p: p.read_bytes() for p in folder.glob("*.json")}
        result = run(folder, "--until", "calibrate")
        assert result.returncode == 2
        assert "No space left on device" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert {p: p.read_bytes() for p in folder.glob("*.json")} == before
        assert not list(folder.rglob(".*.part"))
        subprocess.run(["mount", "-o", f"remount,size={used + 8000}k", str(disk)], check=True)
        result = run(folder, "--until", "calibrate")
        assert result.returncode == 0, result.stderr
        assert outputs(folder, "calibrate") == outputs(done, "calibrate")


def test_files_that_may_not_grow_lose_nothing(finished, tmp_path):
    """A quota on the size of files, which needs no rights: the same as a full disk."""
    folder = without(finished[0], tmp_path / "run", "calibrate")
    before = {p: p.read_bytes() for p in folder.glob("*.json")}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command_line = command(folder, "--until", "calibrate")
    result = subprocess.run(command_line, capture_output=True, text=True, cwd=ROOT, check=False, preexec_fn=limit)
    assert result.returncode == 2
    assert "File too large" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert {p: p.read_bytes() for p in folder.glob("*.json")} == before
    assert not list(folder.rglob(".*.part"))


def test_a_read_only_folder_is_one_line(finished, tmp_path):
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            # Nobody may write where root may not: on a disk that is read-only.
            disk = stack.enter_context(small_disk(tmp_path / "disk", 20_000))
            folder = Path(shutil.copytree(finished[0], disk / "run"))
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            folder = Path(shutil.copytree(finished[0], tmp_path / "run"))
            folder.chmod(0o555)
            stack.callback(folder.chmod, 0o755)
        result = run(folder, "--from", "report")
    assert result.returncode == 2
    assert "expected a folder that can be written" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


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
    assert len(result.stderr.strip().splitlines()) == 1


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
