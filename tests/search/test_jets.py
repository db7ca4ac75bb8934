"""Dijets: every format gives the same events, ratios and windows are guarded, clustering against a brute force."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l1ad.errors import InputError
from l1ad.search import clustering, jets, readers

NAMES = ("px", "py", "pz", "m", "tau1", "tau2", "tau3")


def _columns(n: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    out = {}
    for j in (1, 2):
        for c in NAMES:
            out[f"{c}j{j}"] = rng.normal(0, 900, n) if c in ("px", "py", "pz") else rng.uniform(0.1, 200, n)
    out["tau1j1"][3] = 0.0
    out["label"] = (np.arange(n) % 7 == 0).astype(float)
    return out


def _pandas_fixed(path: Path, columns: list[str] | list[int], blocks: list[tuple[list, np.ndarray]]) -> None:
    """A frame as pandas' fixed format lays it out: axis0, axis1, and blocks of columns of one type."""
    encoded = [c.encode() if isinstance(c, str) else c for c in columns]
    with h5py.File(path, "w") as f:
        g = f.create_group("df")
        g["axis0"] = encoded
        g["axis1"] = np.arange(len(blocks[0][1]))
        for i, (items, values) in enumerate(blocks):
            g[f"block{i}_items"] = [c.encode() if isinstance(c, str) else c for c in items]
            g[f"block{i}_values"] = values


def test_features_of_the_olympics_file_and_of_parquet_agree(tmp_path: Path) -> None:
    columns = _columns()
    floats = [c for c in columns if c != "label"]
    _pandas_fixed(
        tmp_path / "f.h5",
        list(columns),
        [
            (floats, np.stack([columns[c] for c in floats], axis=1)),
            (["label"], columns["label"].astype(np.int64)[:, None]),
        ],
    )
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    a, b = readers.read(tmp_path / "f.h5"), readers.read(tmp_path / "f.parquet")
    np.testing.assert_array_equal(a.jets, b.jets)
    np.testing.assert_array_equal(a.label, columns["label"])
    assert a.names == ("pt", "eta", "phi", "m", "tau1", "tau2", "tau3")
    # The invariant mass straight from the four-vectors.
    vectors = [np.stack([columns[f"{c}j{j}"] for c in ("px", "py", "pz")]) for j in (1, 2)]
    energy = sum(np.sqrt((v**2).sum(axis=0) + columns[f"mj{j}"] ** 2) for j, v in zip((1, 2), vectors))
    np.testing.assert_allclose(a.m_jj, np.sqrt(energy**2 - (sum(vectors) ** 2).sum(axis=0)), rtol=1e-9)
    assert len(readers.read(tmp_path / "f.h5", start=5, stop=9)) == 4
    np.testing.assert_array_equal(readers.read(tmp_path / "f.parquet", start=5, stop=9).m_jj, b.m_jj[5:9])


def test_ratios_are_guarded_and_jets_reordered() -> None:
    events = readers._from_columns(_columns(), "test")
    tau21 = events.feature("tau21")
    assert tau21[3, 0] == 0.0
    np.testing.assert_allclose(tau21[4], events.feature("tau2")[4] / events.feature("tau1")[4])
    assert events.features(("m", "tau32")).shape == (40, 2, 2)
    with pytest.raises(InputError, match=r"found tau43, expected one of pt, eta, .*, tau3, tau21, tau32$"):
        events.feature("tau43")
    sorted_events = events.heavier_first()
    mass = sorted_events.feature("m")
    assert np.all(mass[:, 0] >= mass[:, 1])
    np.testing.assert_array_equal(np.sort(mass, axis=1), np.sort(events.feature("m"), axis=1))


def test_own_format_round_trip(tmp_path: Path) -> None:
    events = readers._from_columns(_columns(), "test")
    constituents = np.random.default_rng(0).normal(size=(40, 2, 5, 3)).astype(np.float32)
    full = jets.Dijets(events.jets, events.names, events.m_jj, events.label, events.weight, constituents)
    full.write(tmp_path / "d.h5", attributes={"process": "test"})
    again = readers.read(tmp_path / "d.h5")
    for name in ("jets", "m_jj", "label", "weight", "constituents"):
        np.testing.assert_array_equal(getattr(again, name), getattr(full, name))
    part = again[again.label == 1]
    assert len(part) == 6
    assert part.constituents is not None
    assert len(part.constituents) == 6


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    # The limit on the size of a file fails in the same calls as a full disk does.
    code = """
        import resource, sys
        import numpy as np
        from l1ad.errors import InputError
        from l1ad.search.bundled import write_compact
        from l1ad.search.jets import Dijets
        rng = np.random.default_rng(0)
        events = Dijets(rng.uniform(1, 9, (20000, 2, 4)).astype(np.float32), ("pt", "eta", "phi", "m"),
                        np.full(20000, 2e3), np.zeros(20000, np.int8), np.ones(20000))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for write in (events.write, lambda path: write_compact(events, path)):
            try:
                write(sys.argv[1])
            except InputError as error:
                print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "full.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{tmp_path / 'full.h5'}: write: found ") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_bad_events_are_named_with_their_file(tmp_path: Path) -> None:
    events = readers._from_columns(_columns(), "test")
    for name, key, place, message in (
        ("nan.h5", "jets", (5, 0, 3), r"nan\.h5: event 5: found a feature that is not finite"),
        ("negative.h5", "mjj", (7,), r"negative\.h5: event 7, m_jj: found -5 GeV"),
    ):
        events.write(tmp_path / name)
        with h5py.File(tmp_path / name, "a") as file:
            file[key][place] = np.nan if key == "jets" else -5.0
        with pytest.raises(InputError, match=message):
            readers.read(tmp_path / name)
    with pytest.raises(InputError, match=r"absent\.h5: file: found No such file or directory"):
        readers.read(tmp_path / "absent.h5")


def _one_line(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        readers.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("mjj", np.ones(39), "mjj: found 39 events, expected 40, as many as jets"),
        ("mjj", np.ones((40, 2)), "mjj: found (40, 2), expected one number an event"),
        ("label", np.ones(41), "label: found 41 events, expected 40, as many as jets"),
        ("label", np.r_[np.zeros(6), np.nan, np.zeros(33)], "event 6, label: found nan, expected 1 for signal, 0 for"),
        ("label", np.r_[np.zeros(6), 256, np.zeros(33)], "event 6, label: found 256, expected 1 for signal, 0 for"),
        ("label", np.full(40, b"qcd"), "label: found text or objects, expected numbers"),
        ("weight", np.ones(7), "weight: found 7 events, expected 40, as many as jets"),
        ("weight", np.r_[1.0, np.inf, np.ones(38)], "event 1, weight: found inf, expected a finite number"),
        ("weight", 1.0, "weight: found a single value, expected an array"),
        ("constituents", np.zeros((39, 2, 5, 3)), "constituents: found 39 events, expected 40, as many as jets"),
        ("constituents", np.zeros((40, 2, 5)), "constituents: found (40, 2, 5), expected (40, 2, particles, 3)"),
        ("constituents", np.full((40, 2, 5, 3), np.nan), "event 0: found a constituent that is not finite, expected"),
        ("jets", np.full((40, 2, 7), b"x"), "jets: found text or objects, expected numbers"),
        ("l1_hw", np.zeros((39, 3, 3), int), "l1_hw: found 39 events, expected 40, as many as jets"),
        ("l1_hw", np.full((40, 2), b"x"), "l1_hw: found text or objects, expected numbers"),
    ],
)
def test_bad_datasets_of_our_own_file(tmp_path: Path, key: str, values: np.ndarray, message: str) -> None:
    path = tmp_path / "d.h5"
    readers._from_columns(_columns(), "test").write(path)
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        file[key] = values
    assert _one_line(path).startswith(message)
    if key != "jets" and np.shape(values)[:1] not in ((), (40,)):
        # Also where the events that are asked for are there in both.
        with pytest.raises(InputError, match=f"{key}: found .* events, expected 40"):
            readers.read(path, stop=3)


def test_jets_have_no_negative_mass_but_for_rounding() -> None:
    events = readers._from_columns(_columns(), "test")
    table = events.jets.copy()
    table[8, 1, 3] = -9e-4
    assert len(replace(events, jets=table)) == 40
    table[8, 1, 3] = -0.5
    with pytest.raises(InputError, match=r"^dijets: event 8, mass of jet 2: found -0.5 GeV, expected a mass of at"):
        replace(events, jets=table)


def _filtered(path: Path, node: str) -> None:
    """Put a dataset in place of `node` that is compressed with blosc, which h5py cannot read without a plugin."""
    with h5py.File(path, "a") as file:
        old = file[node]
        shape, kind = old.shape, old.id.get_type()
        del file[node]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(shape)
        # Optional for the writer, but the chunk says that the filter was applied.
        properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 64))
        made = h5py.h5d.create(file.id, node.encode(), kind, h5py.h5s.create_simple(shape), properties)
        made.write_direct_chunk((0,) * len(shape), b"blosc", 0)


@pytest.mark.parametrize("node", ["df/block0_items", "df/block0_values", "jets", "l1_hw"])
def test_filters_that_are_not_there_are_named(tmp_path: Path, node: str) -> None:
    path = tmp_path / "f.h5"
    columns = _columns()
    if node.startswith("df"):
        _pandas_fixed(path, list(columns), [(list(columns), np.stack(list(columns.values()), axis=1))])
    else:
        words = np.zeros((40, 3, 3), np.int16)
        replace(readers._from_columns(columns, "test"), l1_hw=words).write(path)
    _filtered(path, node)
    message = _one_line(path)
    assert message.startswith(f"{node}: found the compression blosc (filter 32001), expected none or gzip")
    assert "complib='zlib'" in message


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("label", ["a"] * 40, "string"),
        ("tau2j1", ["a"] * 40, "string"),
        ("tau2j2", [[1.0, 2.0]] * 40, "list<item: double>"),
        ("mj1", [[1.0]] * 40, "list<item: double>"),
        ("weight", [{"a": 1}] * 40, "struct<a: int64>"),
    ],
)
def test_columns_that_are_no_numbers(tmp_path: Path, column: str, values: list, kind: str) -> None:
    columns = _columns()
    floats = [c for c in columns if c != column]
    pq.write_table(pa.table({**columns, column: values}), tmp_path / "f.parquet")
    # Versions of pyarrow call what a list holds item or element.
    message = _one_line(tmp_path / "f.parquet").replace("element:", "item:")
    assert message == f"column {column}: found {kind}, expected one number an event"
    if kind == "string":
        # As pandas writes text: pickled, in a dataset of one object.
        blocks = [(floats, np.stack([columns[c] for c in floats], axis=1))]
        _pandas_fixed(tmp_path / "f.h5", list(columns), blocks)
        with h5py.File(tmp_path / "f.h5", "a") as file:
            file["df/block1_items"] = [column.encode()]
            made = file.create_dataset("df/block1_values", (1,), h5py.vlen_dtype(np.uint8))
            made[0] = np.frombuffer(b"pickled", np.uint8)
        expected = f"column {column}: found text or objects, expected one number an event"
        assert _one_line(tmp_path / "f.h5") == expected


def test_columns_of_other_names_are_let_be(tmp_path: Path) -> None:
    columns = _columns()
    table = pa.table({**columns, "comment": ["a"] * 40, "particles": [[1.0, 2.0]] * 40})
    pq.write_table(table, tmp_path / "f.parquet")
    np.testing.assert_array_equal(
        readers.read(tmp_path / "f.parquet").jets, readers._from_columns(columns, "test").jets
    )


def test_labels_of_a_table_are_whole(tmp_path: Path) -> None:
    columns = _columns()
    columns["label"][4] = np.nan
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    assert _one_line(tmp_path / "f.parquet").startswith("event 4, label: found nan, expected 1 for signal")
    columns = _columns()
    pq.write_table(pa.table({**columns, "label": pa.array([None, *columns["label"][1:]])}), tmp_path / "f.parquet")
    assert _one_line(tmp_path / "f.parquet").startswith("event 0, label: found nan")
    pq.write_table(pa.table({**columns, "label": columns["label"] == 1}), tmp_path / "f.parquet")
    np.testing.assert_array_equal(readers.read(tmp_path / "f.parquet").label, columns["label"])


def test_windows_are_the_published_ones() -> None:
    assert len(jets.WINDOWS) == 12
    a1, b6 = jets.WINDOWS["A1"], jets.WINDOWS["B6"]
    assert (a1.below, a1.low, a1.high, a1.above) == (1350, 1650, 2017, 2465)
    assert (b6.below, b6.low, b6.high, b6.above) == (4071, 4975, 6081, 8000)
    m = np.array([1349.0, 1350, 1649, 1650, 2016, 2017, 2464, 2465])
    assert a1.labels(m).tolist() == [-1, 0, 0, 1, 1, 0, 0, -1]
    for missing, part in ((m[3:5], "window"), (m[1:3], "lower sideband"), (m[5:7], "upper sideband")):
        with pytest.raises(InputError, match=part):
            a1.labels(np.setdiff1d(m, missing))


def test_delta_eta_regions() -> None:
    events = readers._from_columns(_columns(), "test")
    eta = events.feature("eta")
    delta = np.abs(eta[:, 0] - eta[:, 1])
    np.testing.assert_array_equal(events.in_signal_region(), delta < 1.3)
    np.testing.assert_array_equal(events.in_sideband(), (delta > 2.0) & (delta < 2.5))


def test_particles_are_clustered() -> None:
    pytest.importorskip("fastjet", reason="fastjet (extra: jets) is not installed")
    rng = np.random.default_rng(3)
    particles = np.zeros((6, 700, 3))
    axes = [(0.3, 0.5), (-0.6, 0.5 + np.pi)]
    truth = np.zeros((6, 2, 4))
    for e in range(5):
        k = 0
        for j, (eta0, phi0) in enumerate(axes):
            n = 20 + 5 * j
            pt = rng.uniform(5, 40, n) * (2 - j)
            eta, phi = rng.normal(eta0, 0.1, n), rng.normal(phi0, 0.1, n)
            particles[e, k : k + n] = np.stack([pt, eta, phi], axis=1)
            k += n
            truth[e, j] = [(pt * v).sum() for v in (np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta))]
    # The last event is empty and must be dropped, with its label.
    found = clustering.cluster(particles, [1, 0, 1, 0, 1, 0], max_constituents=30)
    assert len(found) == 5
    assert found.label.tolist() == [1, 0, 1, 0, 1]
    px, py, _, energy = np.moveaxis(truth[:5], 2, 0)
    np.testing.assert_allclose(found.feature("pt"), np.hypot(px, py), rtol=1e-5)
    total = truth[:5].sum(axis=1)
    np.testing.assert_allclose(found.m_jj, np.sqrt(total[:, 3] ** 2 - (total[:, :3] ** 2).sum(axis=1)), rtol=1e-5)
    np.testing.assert_array_equal(found.feature("n_const"), np.broadcast_to([20, 25], (5, 2)))
    assert found.constituents is not None
    np.testing.assert_allclose(found.constituents[:, :, :, 0].sum(axis=2), px, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.constituents.astype(float), axis=3).sum(axis=2), energy, rtol=1e-5)
    tau = found.features(("tau1", "tau2", "tau3", "tau4"))
    assert np.all(tau > 0)
    assert np.all(np.diff(tau, axis=2) < 1e-6)


def test_particle_files_are_read_in_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = rng.uniform(size=(25, 2101))
    rows[:, 2100] = np.arange(25) % 2
    _pandas_fixed(tmp_path / "p.h5", list(range(2101)), [(list(range(2101)), rows)])
    parts = list(readers.read_particles(tmp_path / "p.h5", start=3, stop=20, chunk=8))
    assert [len(p) for p, _ in parts] == [8, 8, 1]
    np.testing.assert_array_equal(np.concatenate([p for p, _ in parts]), rows[3:20, :2100].reshape(-1, 700, 3))
    np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), rows[3:20, 2100])
    with pytest.raises(InputError, match=r"l1ad search cluster .*p\.h5 --out"):
        readers.read(tmp_path / "p.h5")


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no")
    (tmp_path / "text.parquet").write_text("no")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["something"] = [1, 2]
    columns = _columns()
    del columns["mj2"]
    pq.write_table(pa.table(columns), tmp_path / "missing.parquet")
    for name, message in [
        ("text.h5", "readable HDF5"),
        ("absent.h5", "file"),
        ("text.parquet", "readable parquet"),
        ("other.h5", "content"),
        ("missing.parquet", "mj2"),
    ]:
        with pytest.raises(InputError, match=message):
            readers.read(tmp_path / name)
    assert _one_line(tmp_path / "absent.parquet").startswith("file: found No such file or directory, expected a")
    columns = _columns()
    values = np.stack(list(columns.values()), axis=1)
    for name, items, part, message in (
        ("twice.h5", [*list(columns)[:-1], "mj1"], values, "columns: found mj1 twice, expected each name once"),
        ("wide.h5", list(columns), values[:, :5], "df/block0_values: found (40, 5), expected (n, 15)"),
        ("flat.h5", list(columns), values[0], "df/block0_values: found (15,), expected (n, 15)"),
    ):
        _pandas_fixed(tmp_path / name, items, [(items, part)])
        assert _one_line(tmp_path / name).startswith(message)
    halves = [(list(columns)[:7], values[:, :7]), (list(columns)[7:], values[:30, 7:])]
    _pandas_fixed(tmp_path / "short.h5", list(columns), halves)
    assert _one_line(tmp_path / "short.h5") == "columns: found lengths 30, 40, expected one length"
    with pytest.raises(InputError, match="2101 columns"):
        list(readers.read_particles(tmp_path / "other.h5"))
    events = readers._from_columns(_columns(), "test")
    broken = events.jets.copy()
    broken[7, 1, 2] = np.nan
    with pytest.raises(InputError, match="event 7"):
        jets.Dijets(broken, events.names, events.m_jj, events.label, events.weight)
