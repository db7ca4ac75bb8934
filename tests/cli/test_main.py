"""What the command line says to words it cannot take."""

from __future__ import annotations

import subprocess
import sys

import pytest

L1AD = [sys.executable, "-c", "from l1ad.cli import main; main()"]


def l1ad(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*L1AD, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("nosuch",), "nosuch"),
        (("data", "inspect", "x.h5", "--max-events", "0"), "--max-events"),
        (("data", "convert"), "SOURCE"),
        (("data", "inspect", "x.h5", "--nosuch"), "--nosuch"),
        (("run", "quickstart", "--until", "nowhere", "--run-dir", "never-made"), "nowhere"),
    ],
)
def test_wrong_words_are_one_line_and_status_2(words, named, tmp_path):
    result = l1ad(*words)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr
    assert not result.stdout


def test_help_and_version_are_status_0():
    assert l1ad("--version").stdout.startswith("l1ad ")
    result = l1ad("data", "inspect", "--help")
    assert result.returncode == 0
    assert "Example: l1ad data inspect" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    "verb",
    ["run", "train", "freeze", "tune", "assemble", "convert", "validate", "calibrate", "report", "score", "display",
     "catalogue", "doctor", "data convert", "data inspect", "data simulate", "data realism", "search dijet",
     "search limits", "search peak", "search simulate", "search cluster"],
)  # fmt: skip
def test_every_verb_has_an_example(verb):
    result = l1ad(*verb.split(), "--help")
    assert result.returncode == 0, result.stderr
    assert f"Example: l1ad {verb}" in " ".join(result.stdout.split())


def test_doctor_says_what_a_missing_thing_would_give():
    result = l1ad("doctor")
    assert result.returncode == 0
    assert "tensorflow" in result.stdout
    assert all("would give" in line for line in result.stdout.splitlines() if "  missing  " in line)
