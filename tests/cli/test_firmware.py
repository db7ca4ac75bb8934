"""`l1ad convert` and `l1ad validate` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'l1ad[rtl]'")

from l1ad import Trigger
from l1ad.backends.cmssw import read_menu_fragment
from l1ad.cli import app
from l1ad.errors import CheckFailed, InputError, MissingToolError, TriggerError
from l1ad.rates import load_thresholds
from tests.rates.conftest import make_events

TYPES = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}


def make(seed: int) -> Trigger:
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-8, 8, shape) * (rng.random(shape) < 0.4) for shape in ((57, 4), (4, 2))]
    scaling = {"offset": np.zeros(57), "shift": rng.integers(1, 5, 57)}
    return Trigger.from_layers(weights, [np.ones(4, int), np.ones(2, int)], TYPES, scaling, name="tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(1).save(tmp_path / "trigger.json")
    return tmp_path


def call(*arguments: object) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output, result.exception


def test_convert_all_writes_three_projects(folder: Path) -> None:
    status, output, error = call("convert", folder, "--latency-clocks", 2, "--clock-ns", 25)
    assert status == 0, error
    for name in ("hls4ml", "alkaid", "cmssw"):
        note = json.loads((folder / "firmware" / name / "project.json").read_text())
        assert note["hash"] == make(1).hash
    assert "budget 50 ns: fits (estimate)" in output
    assert "calibrated on xcvu13p" in output


def test_convert_of_a_file_with_options(folder: Path) -> None:
    out = folder / "elsewhere"
    status, _, error = call(
        "convert",
        folder / "trigger.json",
        "-b",
        "alkaid",
        "-o",
        out,
        "--flavor",
        "vhdl",
        "--part",
        "xcvu9p-flga2104-2-e",
    )
    assert status == 0, error
    assert (out / "alkaid" / "src" / "tiny.vhd").is_file()
    assert "xcvu9p-flga2104-2-e" in (out / "alkaid" / "build.tcl").read_text()


def test_thresholds_reach_the_bits_of_the_firmware_and_the_menu(folder: Path) -> None:
    make_events(1, 4000).write(folder / "zb.h5")
    arguments = ["--zero-bias", folder / "zb.h5", "--rate", "Tight=200,Loose=900", "--kind", "total"]
    assert call("calibrate", folder, *arguments)[0] == 0
    given = load_thresholds(folder, trigger_hash=make(1).hash).values
    for backend in ("alkaid", "cmssw"):
        status, _, error = call("convert", folder, "-b", backend, "--thresholds", folder)
        assert status == 0, error
    decisions = json.loads((folder / "firmware" / "alkaid" / "ports.json").read_text())["decisions"]
    assert {entry["name"]: entry["threshold"] for entry in decisions} == given
    assert read_menu_fragment(folder / "firmware" / "cmssw" / "menu.yaml", make(1)) == given
    # The program is the same: what was proven before still holds, and its file has no thresholds of its own.
    assert call("validate", folder, "--n", 2000, "--realisations", "alkaid,fast")[0] == 0
    assert Trigger.load(folder).thresholds == {}


def test_thresholds_of_another_trigger_reach_nothing(folder: Path) -> None:
    make_events(1, 4000).write(folder / "zb.h5")
    assert call("calibrate", folder, "--zero-bias", folder / "zb.h5", "--rate", "900", "--kind", "total")[0] == 0
    make(2).save(folder / "trigger.json")
    status, _, error = call("convert", folder, "-b", "cmssw", "--thresholds", folder)
    assert status != 0
    assert isinstance(error, TriggerError)
    assert "thresholds.json: trigger hash" in str(error)
    assert not (folder / "firmware" / "cmssw").exists()


def test_convert_refuses_the_folder_of_another_trigger(folder: Path) -> None:
    assert call("convert", folder, "-b", "alkaid")[0] == 0
    make(2).save(folder / "trigger.json")
    status, _, error = call("convert", folder, "-b", "alkaid")
    assert status != 0
    assert isinstance(error, InputError)
    assert "remove the folder" in str(error)


def test_convert_says_what_is_wrong(folder: Path) -> None:
    for arguments, message in (
        (("--backend", "quartus"), "all, hls4ml, alkaid, cmssw"),
        (("-b", "alkaid", "--clock-ns", "0.5"), "clocks of 0.5 ns would hold it"),
        (("-b", "alkaid", "--part", "ice40"), "unknown family"),
    ):
        status, _, error = call("convert", folder, *arguments)
        assert status != 0
        assert isinstance(error, InputError)
        assert message in str(error)
    assert not (folder / "firmware" / "alkaid").exists()


def test_vendor_tools_that_are_not_there_are_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l1ad.backends.vendor.hls_command", lambda: None)
    status, output, error = call("convert", folder, "-b", "hls4ml", "--vendor", "csynth")
    assert status != 0
    assert isinstance(error, MissingToolError)
    assert "checked without it: csim with g++, PASSED: 200 events, 0 differ" in str(error)
    assert (folder / "firmware" / "hls4ml" / "project.json").is_file()
    assert "hls4ml: " in output
    status, _, error = call("convert", folder, "-b", "cmssw", "--vendor", "csynth")
    assert isinstance(error, InputError)
    assert "--vendor: found --backend cmssw, expected hls4ml or all" in str(error)


def test_validate_prints_the_table_and_the_mutations(folder: Path) -> None:
    status, output, error = call("validate", folder, "--n", 8000, "--realisations", "alkaid,fast", "--mutate")
    assert status == 0, error
    assert output.count("equal") >= 2
    assert "caught" in output
    assert "MISSED" not in output
    value = json.loads((folder / "validation.json").read_text())
    assert value["passed"] is True
    assert value["mutations"]["missed"] == 0


def test_validate_fails_with_status_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: object, inputs: np.ndarray) -> np.ndarray:
        return make(1).score(inputs, golden=True) + (inputs[:, 0] == 4095)

    monkeypatch.setattr("l1ad.validate.realisations.FastKernel.score", wrong)
    status, output, error = call("validate", folder, "--n", 8000, "--realisations", "fast")
    assert status != 0
    assert isinstance(error, CheckFailed)
    assert error.exit_status == 1
    assert "DIFFERENT" in output
    assert "first divergence: event" in output
    assert json.loads((folder / "validation.json").read_text())["passed"] is False


def test_help_ends_with_an_example() -> None:
    for verb in ("convert", "validate"):
        assert "Example: l1ad" in call(verb, "--help")[1]


def test_assemble_makes_a_folder_that_convert_and_validate_take(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    weights = [rng.integers(-8, 8, shape) * (rng.random(shape) < 0.4) for shape in ((57, 4), (4, 2))]
    biases = [np.ones(4, int), np.ones(2, int)]
    scaling = {"offset": np.zeros(57), "shift": rng.integers(1, 5, 57)}
    trigger = Trigger.from_layers(weights, biases, TYPES, scaling)
    events = make_events(3, 200)
    layers = {f"{letter}{i}": a for letter, arrays in (("w", weights), ("b", biases)) for i, a in enumerate(arrays)}
    recorded = {"hw": events.hw, "score": trigger.score(events), "mu": trigger.latents(events)}
    np.savez(tmp_path / "net.npz", **layers, **scaling, **recorded)
    out = tmp_path / "run"
    status, output, error = call("assemble", tmp_path / "net.npz", "--out", out)
    assert status == 0, error
    assert "200 of 200 recorded scores equal" in output
    assert Trigger.load(out).hash == trigger.hash
    assert call("convert", out, "-b", "alkaid")[0] == 0
    arguments = ["--events", out / "events.h5", "--n", 12_000, "--realisations", "alkaid,fast"]
    assert call("validate", out, *arguments)[0] == 0
    assert json.loads((out / "validation.json").read_text())["events"]["given"] == 200
    recorded["score"] = recorded["score"] + 1
    np.savez(tmp_path / "net.npz", **layers, **scaling, **recorded)
    status, _, error = call("assemble", tmp_path / "net.npz", "--out", tmp_path / "other")
    assert status != 0
    assert isinstance(error, CheckFailed)
    assert "200 of 200 recorded scores differ" in str(error)
    assert not (tmp_path / "other").exists()
    status, _, error = call("assemble", tmp_path / "net.npz", "--out", tmp_path / "other", "--type", "relu")
    assert isinstance(error, InputError)
    assert "--type: found relu, expected NAME=TYPE" in str(error)
