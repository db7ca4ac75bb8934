"""`l1ad calibrate` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from l1ad.cli import app
from l1ad.errors import L1adError
from l1ad.rates import load_thresholds
from tests.rates.conftest import make_events, make_trigger


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_trigger().save(folder / "trigger.json")
    make_events(1, 8000).write(folder / "zb.h5")
    make_events(2, 500, scale=30.0).write(folder / "signal.h5")
    return folder


def call(*arguments: object) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, ["calibrate", *(str(a) for a in arguments)])
    return result.exit_code, result.output, result.exception


def test_a_run_folder_gets_its_thresholds(run_folder: Path, tmp_path: Path) -> None:
    status, output, error = call(
        run_folder, "--zero-bias", run_folder / "zb.h5", "--rate", "Tight=100,Loose=500", "--kind", "pure",
        "--menu", "run3_lite", "--signals", f"s={run_folder / 'signal.h5'}", "--budget", "300",
        "--plots", tmp_path / "plots", "--fragment", tmp_path / "menu.yaml",
    )  # fmt: skip
    assert status == 0, error
    loaded = load_thresholds(run_folder, trigger_hash=make_trigger().hash)
    for name in ("Tight", "Loose"):
        assert str(loaded.values[name]) in output
        assert loaded.rates_hz[name] <= loaded.targets_hz[name]
    assert "evaluated from their cuts" in output
    assert "quality is not in the data" in output
    assert (tmp_path / "plots" / "rates.png").is_file()
    seeds = yaml.safe_load((tmp_path / "menu.yaml").read_text())["seeds"]
    assert [seed["threshold"] for seed in seeds] == list(loaded.values.values())
    assert seeds[0]["prescale"] == 1
    assert seeds[1]["prescale"] > 1
    assert not (run_folder / "thresholds.json.work").exists()


def test_a_ladder_of_five(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    common = [run_folder / "trigger.json", "--zero-bias", run_folder / "zb.h5", "--kind", "total", "--out", out]
    status, output, error = call(*common, "--ladder", "--rate", "100,200,400,600,900", "--budget", "500")
    assert status == 0, error
    content = load_thresholds(out, trigger_hash=None)
    assert list(content.values) == ["VLoose", "Loose", "Nominal", "Tight", "VTight"]
    assert list(content.values.values()) == sorted(content.values.values())
    assert content.targets_hz["VLoose"] == 900e3
    assert "prescale VLoose" in output
    status, _, error = call(*common, "--ladder", "--rate", "100,200")
    assert status != 0
    assert "ladder: rates: found 2 different rates, expected 5" in str(error)


def test_other_base_rates(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    common = [run_folder / "trigger.json", "--zero-bias", run_folder / "zb.h5", "--rate", "500", "--out", out]
    assert call(*common, "--kind", "total", "--filling-scheme", "25ns_2460b_2448_1737_1735_180bpi_16inj")[0] == 0
    assert load_thresholds(out, trigger_hash=None).content["base"]["bunches"] == 2448
    luminosity = ["--luminosity", "2.2", "--data-luminosity", "2"]
    assert call(*common, "--kind", "total", "--crossing-rate", "2e7", *luminosity)[0] == 0
    base = load_thresholds(out, trigger_hash=None).content["base"]
    assert (base["crossing_hz"], base["luminosity_scale"]) == (2e7, pytest.approx(1.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--luminosity", "nan", "--data-luminosity", "2"], "target luminosity: found nan"),
        (["--luminosity", "2"], "data luminosity: found nothing"),
        (["--bunches", "5000"], "bunches: found 5000"),
        (["--bunches", "10", "--crossing-rate", "1e6"], "base rate: found 2 options"),
        (["--rate", "x"], "--rate: target: found x"),
        (["--rate", "1e6"], "at most the crossing rate"),
        (["--rate", "0.001"], "more zero bias or --extrapolate"),
        (["--signals", "nothing"], "--signals: entry: found nothing, expected NAME=FILE"),
        (["--menu", "run4"], "run4: file: found no such file or name"),
        (["--pileup", "50,-3"], "sigma: found -3"),
        (["--kind", "purest"], "kind: found purest"),
        (["--interval", "wald"], "interval: method: found wald"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run_folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "t.json"
    rate = [] if "--rate" in options else ["--rate", "500"]
    status, _, error = call(
        run_folder / "trigger.json", "--zero-bias", run_folder / "zb.h5", "--out", out, *rate, *options
    )
    assert status != 0
    assert isinstance(error, L1adError)
    assert error.exit_status == 2
    assert message in str(error)
    assert "\n" not in str(error)
    assert list(tmp_path.iterdir()) == []


def test_the_help_has_an_example() -> None:
    status, output, _ = call("--help")
    assert status == 0
    assert "Example: l1ad calibrate" in output
