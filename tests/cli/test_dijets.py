"""`l1ad search simulate`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from l1ad.cli import app
from l1ad.errors import InputError
from l1ad.search.jets import read
from l1ad.search.simulate import SIGNALS


def run(*arguments: str) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(app, ["search", "simulate", *arguments])
    return result.output, result.exception


def test_list_names_every_signal_and_its_masses() -> None:
    output, error = run("--process", "list")
    assert error is None
    for name, entry in SIGNALS.items():
        assert name in output
        assert all(f"{key}=" in output for key, _ in entry.daughters)


def test_example_runs(tmp_path: Path) -> None:
    for module, extra in (("pythia8mc", "simulate"), ("numba", "simulate"), ("fastjet", "jets"), ("vector", "jets")):
        pytest.importorskip(module, reason=f"{module} is not installed (extra: {extra})")
    out = tmp_path / "x.h5"
    masses = ("--mass", "3000", "--daughter", "y=170", "--daughter", "y2=400")
    output, error = run("--process", "x_yy_4q", *masses, "--n", "20", "--out", str(out))
    assert error is None, output
    assert "20 dijets of x_yy_4q_3000_170_400" in output
    events = read(out)
    assert len(events) == 20
    assert (events.label == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--out"),
        (("--out", "x.h5", "--process", "zz"), "x_yy_4q"),
        (("--out", "x.h5", "--mass", "3000"), "only with a signal"),
        (("--out", "x.h5", "--process", "x_yy_4q", "--daughter", "y:170"), "NAME=GEV"),
        (("--out", "x.h5", "--process", "x_yy_4q", "--daughter", "w=170"), "daughter"),
        (("--out", "x.h5", "--m-jj-min", "3000", "--m-jj-max", "2000"), "rising"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], message: str) -> None:
    _, error = run(*arguments)
    assert isinstance(error, InputError)
    assert message in str(error)
