"""`l1ad search simulate`."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from l1ad.cli import app
from l1ad.errors import InputError, MissingToolError
from l1ad.search import clustering
from l1ad.search.readers import read
from l1ad.search.simulate import SIGNALS, Piece, qcd


def run(*arguments: str, verb: str = "simulate") -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(app, ["search", verb, *arguments])
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "x.h5", "--work", "file"), "file: folder: found a file of that name, expected a folder or nothing"),
        (("--out", "x.h5", "--work", "file/below"), "file: folder: found a file of that name"),
        (("--out", "file/x.h5"), "file: folder: found a file of that name"),
        (("--out", "."), ".: --out: found a folder, expected the name of a file"),
    ],
)
def test_paths_that_cannot_be_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    _, error = run(*arguments)
    assert isinstance(error, InputError)
    assert str(error).startswith(message)
    assert Path("file").read_text() == "mine"


def test_a_piece_that_is_no_piece(tmp_path: Path) -> None:
    piece = Piece(qcd(), 5, 1, 0, tmp_path / "piece_00000.h5")
    for content in (b"no", b""):
        piece.path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"piece_00000\.h5: piece: found .*, expected a piece of a simulated sample"
        ):
            piece.done()
    with h5py.File(piece.path, "w") as file:
        file.attrs["piece"] = piece.key
    with pytest.raises(InputError, match=r"piece_00000\.h5: piece: found .*, expected a piece of a simulated sample"):
        piece.done()


def _particles(path: Path, n: int, labelled: bool = True) -> np.ndarray:
    """Events of two jets of 30 particles each; every third has none. Returns the true dijet masses of the others."""
    rng = np.random.default_rng(4)
    rows = np.zeros((n, 2101 if labelled else 2100))
    view = rows[:, :2100].reshape(n, 700, 3)
    for event in range(n):
        if event % 3:
            view[event, :60, 0] = rng.uniform(5, 40, 60)
            view[event, :60, 1] = rng.normal(np.repeat([0.3, -0.6], 30), 0.1)
            view[event, :60, 2] = rng.normal(np.repeat([0.5, 0.5 - np.pi], 30), 0.1)
    rows[:, :2100] = view.reshape(n, -1)
    if labelled:
        rows[:, 2100] = np.arange(n) % 2
    with h5py.File(path, "w") as file:
        file["df/axis0"], file["df/block0_items"] = np.arange(rows.shape[1]), np.arange(rows.shape[1])
        file["df/block0_values"] = rows
    pt, eta, phi = np.moveaxis(view[np.arange(n) % 3 > 0], 2, 0)
    total = [(pt * v).sum(axis=1) for v in (np.cosh(eta), np.cos(phi), np.sin(phi), np.sinh(eta))]
    return np.sqrt(total[0] ** 2 - sum(v**2 for v in total[1:]))


@pytest.mark.parametrize("labelled", [True, False])
def test_particles_are_clustered_chunk_by_chunk(tmp_path: Path, labelled: bool) -> None:
    pytest.importorskip("fastjet", reason="fastjet (extra: jets) is not installed")
    mass = _particles(tmp_path / "p.h5", 20, labelled)
    out = tmp_path / "new" / "d.h5"
    output, error = run(str(tmp_path / "p.h5"), "--out", str(out), "--radius", "0.9", verb="cluster")
    assert error is None, output
    assert f"{out}: 13 dijets of 20 events" in output
    found = read(out)
    np.testing.assert_allclose(found.m_jj, mass, rtol=1e-5)
    kept = np.flatnonzero(np.arange(20) % 3 > 0)
    assert found.label.tolist() == ((kept % 2).tolist() if labelled else [-1] * 13)
    assert found.constituents is not None
    # In chunks of which one has no dijet at all, and fewer events.
    assert clustering.cluster_file(tmp_path / "p.h5", out, radius=0.9, chunk=1, max_events=8) == (8, 5)
    again = read(out)
    np.testing.assert_array_equal(again.jets, found.jets[:5])
    np.testing.assert_array_equal(again.constituents, found.constituents[:5])


def test_particles_that_cannot_be_clustered(tmp_path: Path) -> None:
    pytest.importorskip("fastjet", reason="fastjet (extra: jets) is not installed")
    path, out = tmp_path / "p.h5", tmp_path / "d.h5"
    _particles(path, 4)
    before = path.read_bytes()
    for arguments, message in (
        ((str(tmp_path / "absent.h5"), "--out", str(out)), "absent.h5: file: found No such file or directory"),
        ((str(path), "--out", str(path)), "p.h5: out: found the file of particles itself"),
        ((str(path), "--out", str(tmp_path)), "--out: found a folder"),
        ((str(path), "--out", str(out), "--radius", "0"), "radius, pt_min: found 0, 100 GeV"),
        ((str(path), "--out", str(out), "--pt-min", "9000"), "p.h5: jets: found no event with two jets above 9000 GeV"),
        ((str(path), "--out", str(out), "--max-events", "1"), "p.h5: jets: found no event with two jets"),
    ):
        _, error = run(*arguments, verb="cluster")
        assert isinstance(error, InputError)
        assert message in str(error)
    for column, value, message in (
        (7, np.nan, "event 2: found a particle that is"),
        (2100, 5, "event 2, label: found 5"),
    ):
        with h5py.File(path, "a") as file:
            kept = file["df/block0_values"][2, column]
            file["df/block0_values"][2, column] = value
        _, error = run(str(path), "--out", str(out), verb="cluster")
        assert isinstance(error, InputError)
        assert message in str(error)
        with h5py.File(path, "a") as file:
            file["df/block0_values"][2, column] = kept
    assert [p.name for p in tmp_path.iterdir()] == ["p.h5"]
    assert path.read_bytes() == before


def test_clustering_without_fastjet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _particles(tmp_path / "p.h5", 4)
    monkeypatch.setitem(sys.modules, "fastjet", None)
    _, error = run(str(tmp_path / "p.h5"), "--out", str(tmp_path / "d.h5"), verb="cluster")
    assert isinstance(error, MissingToolError)
    assert "l1ad[jets]" in str(error)
