"""`Events` and its file: what goes in comes out, in any pieces, with bounded memory, or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import InputError, LayoutError
from l1ad.events import Events, EventsFile, EventsWriter, MenuBits, get_layout, open_events
from l1ad.events import store as store_module


def make(n: int, seed: int = 0, *, seeds: int = 11, layout: str = "cms_ugt") -> Events:
    """Random events with every kind of column."""
    rng = np.random.default_rng(seed)
    words = get_layout(layout)
    hw = rng.integers(words.code_min, words.code_max.astype(int) + 1, size=(n, *words.shape)).astype(np.int16)
    for group in words.groups:
        rows = words.slices[group.name]
        hw[:, rows, 0] = -np.sort(-hw[:, rows, 0], axis=1)
    columns = {
        "run": rng.integers(0, 1 << 32, n, dtype=np.uint64),
        "event": rng.integers(0, 1 << 63, n, dtype=np.uint64),
        "bx": rng.integers(0, 3564, n),
        "ht": rng.integers(0, 4095, n, dtype=np.int16),
    }
    bits = {f"L1_Seed{i}": rng.random(n) < 0.3 for i in range(seeds)}
    return Events.from_arrays(
        hw, layout, weight=rng.random(n), n_pv=rng.normal(50, 5, n), columns=columns, menu_bits=bits,
        meta={"sources": ["made"]},
    )  # fmt: skip


def same(a: Events, b: Events, *, meta: bool = True) -> None:
    assert a.layout.name == b.layout.name
    assert np.array_equal(a.hw, b.hw)
    assert set(a.columns) == set(b.columns)
    for name, values in a.columns.items():
        assert values.dtype == b.columns[name].dtype, name
        assert np.array_equal(values, b.columns[name]), name
    assert a.menu_bits.names == b.menu_bits.names
    assert np.array_equal(a.menu_bits.packed, b.menu_bits.packed)
    if meta:
        assert json.dumps(dict(a.meta), sort_keys=True) == json.dumps(dict(b.meta), sort_keys=True)


# ---------------------------------------------------------------------- in memory


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 17), st.integers(0, 20))
def test_joining_the_pieces_gives_the_whole(n: int, size: int, seeds: int) -> None:
    events = make(n, seeds=seeds)
    pieces = list(events.chunks(size))
    assert all(len(piece) <= size for piece in pieces)
    if pieces:
        same(Events.concatenate(pieces), events)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 30))
def test_masks_slices_and_indices_select_the_same_rows_everywhere(data: st.DataObject, n: int) -> None:
    events = make(n, seed=n)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    start, stop = data.draw(st.integers(-n, n)), data.draw(st.integers(-n, n))
    rows = np.arange(n)
    for index in (mask, slice(start, stop), np.flatnonzero(mask), int(start) if -n <= start < n else 0):
        picked = np.atleast_1d(rows[index])
        part = events[index]
        assert np.array_equal(part.hw, events.hw[picked])
        assert np.array_equal(part.weight, events.weight[picked])
        for name in events.menu_bits:
            assert np.array_equal(part.menu_bits[name], events.menu_bits[name][picked])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(0, 26), st.integers(0, 1000))
def test_packed_bits_give_back_the_booleans(n: int, seeds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random((n, seeds)) < 0.5
    names = [f"s{i}" for i in range(seeds)]
    bits = MenuBits.from_bools({name: table[:, i] for i, name in enumerate(names)}, n)
    assert bits.packed.shape == (n, (seeds + 7) // 8)
    assert np.array_equal(bits.packed, np.packbits(table, axis=1, bitorder="little"))
    for i, name in enumerate(names):
        assert np.array_equal(bits[name], table[:, i])
    assert np.array_equal(bits.any_of(), table.any(axis=1))


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"mask: shape: found \(4,\), expected \(5,\)"):
        make(5)[np.ones(4, dtype=bool)]


def test_a_loop_over_events_ends() -> None:
    events = make(5)
    assert [len(event) for event in events] == [1] * 5
    for beyond in (5, -6):
        with pytest.raises(IndexError):
            events[beyond]


def test_odd_indices() -> None:
    events = make(5)
    assert len(events[[]]) == len(events[5:]) == 0
    same(events[[4, 0]], events[::-4])
    for index in (1.5, [[0, 1]], ..., (slice(None), 0)):
        with pytest.raises(LayoutError, match=r"events: index: found .*, expected a number, a slice, a mask or a list"):
            events[index]
    with pytest.raises(LayoutError, match="mask: shape"):
        events[True]


@pytest.mark.parametrize("size", [0, -3])
def test_a_piece_holds_an_event_at_least(tmp_path: Path, size: int) -> None:
    path = tmp_path / "e.h5"
    make(5).write(path)
    with open_events(path) as one, open_events([path, path]) as two:
        for source in (make(5), one, two):
            with pytest.raises(InputError, match=f"chunks: size: found {size}, expected 1 event or more"):
                list(source.chunks(size))
    assert [len(piece) for piece in make(0).chunks(3)] == [0]


def test_ranges_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    make(5).write(path)
    with EventsFile(path) as file:
        same(file[-2:], make(5)[-2:], meta=False)
        same(file[-1], make(5)[-1], meta=False)
        assert len(list(file)) == 5  # type: ignore[call-overload]
        with pytest.raises(InputError, match="slice: found step 2"):
            file[::2]
        with pytest.raises(InputError, match="index: found ndarray, expected a range"):
            file[np.ones(5, bool)]  # type: ignore[index]


def test_an_unknown_seed_is_named() -> None:
    with pytest.raises(LayoutError, match="found L1_None, expected one of the 11 seeds"):
        make(5).menu_bits["L1_None"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: make(3, layout="adc2021"), "layout: found adc2021, expected cms_ugt"),
        (lambda e: e.with_columns(other=np.ones(3)), "columns: found"),
        (lambda e: make(3, seeds=2), "menu bits: found 2 seeds, expected the same 11"),
        (
            lambda e: Events.from_arrays(e.hw, columns=e.columns, menu_bits=e.menu_bits, saturation="drop"),
            "policy: found drop",
        ),
    ],
)
def test_what_does_not_go_together_is_not_joined(change, message: str) -> None:  # type: ignore[no-untyped-def]
    first = make(3)
    with pytest.raises(LayoutError, match=message):
        Events.concatenate([first, change(first)])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("bx", [1, 70000], "column bx: found 70000, expected 0 to 65535"),
        ("run", [-1, 1], "column run: found -1, expected 0 to 4294967295"),
        ("lumi", [1.0, 1.5], "column lumi: found 1.5, expected whole numbers"),
    ],
)
def test_a_number_that_would_change_is_refused(name: str, values: list[float], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        Events.from_arrays(np.zeros((2, 19, 3), dtype=int), columns={name: np.array(values)})


def test_columns_must_be_finite_numbers_one_an_event() -> None:
    hw = np.zeros((2, 19, 3), dtype=np.int16)
    with pytest.raises(LayoutError, match="column weight: found NaN or infinity"):
        Events.from_arrays(hw, weight=[1.0, np.nan])
    with pytest.raises(LayoutError, match=r"column n_pv: found shape \(3,\), expected \(2,\)"):
        Events.from_arrays(hw, n_pv=[1, 2, 3])
    with pytest.raises(LayoutError, match="column tag: found <U1, expected numbers"):
        Events.from_arrays(hw, columns={"tag": ["a", "b"]})


# ---------------------------------------------------------------------- on disk


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_file_to_events_to_file_is_identical_to_the_byte(tmp_path: Path, compression: str | None) -> None:
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    events = make(1000)
    events.write(first, compression=compression)
    again = Events.read(first)
    same(again, events)
    time.sleep(1.1)  # times in the file would have a resolution of a second
    again.write(second, compression=compression)
    assert first.read_bytes() == second.read_bytes()


def test_the_bytes_do_not_depend_on_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK_EVENTS", 64)
    monkeypatch.setattr(store_module, "BLOCK_EVENTS", 128)
    events = make(1000)
    whole = tmp_path / "whole.h5"
    events.write(whole)
    for size in (1, 7, 128, 300, 999):
        pieces = tmp_path / f"{size}.h5"
        with EventsWriter(pieces) as writer:
            for piece in events.chunks(size):
                writer.append(piece)
        assert pieces.read_bytes() == whole.read_bytes(), size
    with EventsFile(whole) as file:
        same(Events.concatenate(list(file.chunks(77))), events)
        same(file[10:20], events[10:20])


def test_the_file_needs_h5py_alone(tmp_path: Path) -> None:
    events = make(50)
    events.write(tmp_path / "e.h5")
    with h5py.File(tmp_path / "e.h5") as file:
        assert file.attrs["format"] == "l1ad-events"
        assert file.attrs["format_version"] == 1
        assert file.attrs["layout"] == "cms_ugt"
        assert json.loads(file.attrs["meta"])["saturation"] == "keep"
        assert np.array_equal(file["hw"][:], events.hw)
        names = list(file["menu/names"].asstr()[:])
        byte, bit = divmod(names.index("L1_Seed9"), 8)
        assert np.array_equal(file["menu/bits"][:, byte] >> bit & 1, events.menu_bits["L1_Seed9"])
        assert file["columns/weight"].dtype == np.float64


def test_no_events_are_events_too(tmp_path: Path) -> None:
    make(0).write(tmp_path / "none.h5")
    again = Events.read(tmp_path / "none.h5")
    assert len(again) == 0
    same(again, make(0))


def test_a_policy_can_be_applied_on_reading_and_only_once(tmp_path: Path) -> None:
    hw = np.zeros((4, 19, 3), dtype=np.int16)
    hw[1, 9, 0], hw[2, 0, 0] = 2047, 4095
    Events.from_arrays(hw).write(tmp_path / "kept.h5")
    assert Events.read(tmp_path / "kept.h5").meta["counts"]["saturated_objects"] == 2
    dropped = Events.read(tmp_path / "kept.h5", saturation="drop")
    assert len(dropped) == 2
    assert dropped.meta["counts"] == {"saturated_objects": 2, "dropped_events": 2, "unsorted_events": 0}
    dropped.write(tmp_path / "dropped.h5")
    with pytest.raises(InputError, match="saturation policy: found drop, expected keep, to apply mask"):
        Events.read(tmp_path / "dropped.h5", saturation="mask")


def test_a_piece_that_does_not_fit_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="layout"), EventsWriter(tmp_path / "e.h5") as writer:
        writer.append(make(5))
        writer.append(make(5, layout="adc2021"))
    with pytest.raises(InputError, match="events: found none, expected at least one piece"):
        EventsWriter(tmp_path / "e.h5").__enter__().__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_survives_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    make(5).write(path)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), EventsWriter(path) as writer:
        writer.append(make(7))
        raise ZeroDivisionError
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["e.h5"]


def _spoil_format(file: h5py.File) -> None:
    file.attrs["format"] = "other"


def _spoil_version(file: h5py.File) -> None:
    file.attrs["format_version"] = 99


def _spoil_layout(file: h5py.File) -> None:
    file.attrs["layout"] = "nowhere"


def _spoil_meta(file: h5py.File) -> None:
    file.attrs["meta"] = "{"


def _spoil_hw(file: h5py.File) -> None:
    del file["hw"]


def _spoil_hw_type(file: h5py.File) -> None:
    del file["hw"]
    file["hw"] = np.zeros((50, 19, 3), dtype=np.float32)


def _spoil_hw_group(file: h5py.File) -> None:
    del file["hw"]
    file.create_group("hw")


def _spoil_column(file: h5py.File) -> None:
    del file["columns/ht"]
    file["columns/ht"] = np.zeros(49)


def _spoil_bits(file: h5py.File) -> None:
    del file["menu/bits"]
    file["menu/bits"] = np.zeros((50, 9), dtype=np.uint8)


def _put(name: str, values: object):  # type: ignore[no-untyped-def]
    def spoil(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = values

    return spoil


def _attribute(name: str, value: object):  # type: ignore[no-untyped-def]
    def spoil(file: h5py.File) -> None:
        file.attrs[name] = value

    return spoil


def _spoil_code(file: h5py.File) -> None:
    file["hw"][7, 3, 0] = 600


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_spoil_version, "attribute format_version: found 99, expected 1"),
        (_spoil_layout, "attribute layout: found nowhere, expected one of cms_ugt"),
        (_spoil_meta, "attribute meta: found .*, expected JSON"),
        (_spoil_hw, "/hw: found nothing, expected a data set"),
        (_spoil_hw_type, r"/hw: found float32 \(50, 19, 3\), expected int16 \(N, 19, 3\)"),
        (_spoil_hw_group, "/hw: found a group, expected a data set"),
        (_spoil_column, r"/columns/ht: found shape \(49,\), expected \(50,\)"),
        (_spoil_bits, r"/menu/bits: found uint8 \(50, 9\), expected uint8 \(50, 2\)"),
        (_spoil_code, "eg3_pt: found 600, expected 0 to 511"),
        (_put("columns/n_pv", np.full(50, np.nan)), "column n_pv: found NaN or infinity, expected finite numbers"),
        (_put("columns/bx", np.full(50, 70000)), "column bx: found 70000, expected 0 to 65535"),
        (_put("columns/tag", [b"x"] * 50), "/columns/tag: found values of type .*, expected numbers"),
        (_put("columns/tag", np.zeros(50, dtype=[("a", "i4")])), "/columns/tag: found values of type .*, expected num"),
        (_put("columns", np.zeros(50)), "/columns: found a data set, expected a group"),
        (_put("menu", np.zeros(50)), "/menu/names: found nothing, expected a data set"),
        (_put("menu/names", np.arange(11)), r"/menu/names: found int64 \(11,\), expected strings"),
        (_put("menu/names", "L1_Seed0"), r"/menu/names: found object \(\), expected strings"),
        (_put("menu/names", ["L1_Twice"] * 11), "/menu/names: found L1_Twice twice, expected each seed once"),
        (_attribute("meta", "[1]"), "attribute meta: found a JSON list, expected a JSON object"),
        (_attribute("meta", 3), "attribute meta: found a JSON int, expected a JSON object"),
        (_attribute("meta", '{"counts": 3}'), "attribute meta, counts: found 3, expected whole numbers by name"),
        (_attribute("meta", '{"counts": {"a": "x"}}'), "attribute meta, counts: found .*, expected whole numbers"),
        (_attribute("meta", '{"sources": 3}'), "attribute meta, sources: found 3, expected a list of texts"),
        (_attribute("meta", '{"saturation": "clip"}'), 'saturation: found "clip", expected keep, mask or drop'),
        (_attribute("format_version", [1, 1]), r"attribute format_version: found \[1 1\], expected 1"),
        (_attribute("format", ["a", "b"]), "HDF5 contents: found columns, hw, menu, expected the attribute format"),
    ],
)
def test_a_spoiled_file_is_named_with_its_field(tmp_path: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "e.h5"
    make(50).write(path)
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(InputError, match=message) as caught:
        Events.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_attribute_that_c_wrote_is_a_text_too(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    make(5).write(path)
    with h5py.File(path, "r+") as file:
        for name in ("format", "layout", "meta"):
            file.attrs[name] = np.bytes_(file.attrs[name])
    same(Events.read(path), make(5))


def test_a_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="write: found a folder, expected the name of a file"),
        EventsWriter(tmp_path),
    ):
        pytest.fail("the writer was opened")


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "e.h5"
    make(500).write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(InputError, match="0 bytes" if not fraction else "truncated"):
        Events.read(path)


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compression: found zip, expected none or gzip"):
        make(3).write(tmp_path / "e.h5", compression="zip")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder: found a file of that name"):
        make(3).write(tmp_path / "file" / "e.h5")


# ---------------------------------------------------------------------- processes of their own


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.parametrize("limit", [20_000, 200_000, 400_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    # The limit on the size of a file fails in the same calls as a full disk does; it falls into the middle of the
    # data or into what is written on closing.
    done = run(
        """
        import resource, sys
        import numpy as np
        from l1ad.errors import InputError
        from l1ad.events import Events
        events = Events.from_arrays(np.ones((4000, 19, 3), dtype=np.int16) * [1, 0, 1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
        try:
            events.write(sys.argv[1])
        except InputError as error:
            print(error)
            sys.exit(error.exit_status)
        """,
        str(tmp_path / "full.h5"),
        str(limit),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path / 'full.h5'}: write: found ")
    assert lines[0].endswith("expected a writable folder with room on the disk")
    assert list(tmp_path.iterdir()) == []
    assert os.strerror(errno.EFBIG) in lines[0] or "unable" in lines[0].lower() or "can't" in lines[0].lower()


def test_importing_is_light() -> None:
    done = run("import sys; before = len(sys.modules); import l1ad; print(len(sys.modules) - before, *sys.modules)")
    count, *names = done.stdout.split()
    heavy = {
        "tensorflow",
        "keras",
        "tf_keras",
        "sklearn",
        "pyarrow",
        "uproot",
        "awkward",
        "numba",
        "matplotlib",
        "scipy",
    }
    assert not heavy & set(names)
    assert int(count) < 30


def test_reading_is_bounded_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.h5"
    piece = make(50_000, seeds=3)
    with EventsWriter(path) as writer:
        for _ in range(16):
            writer.append(piece)
    size = path.stat().st_size
    assert size > 100e6
    done = run(
        """
        import resource, sys
        from l1ad.events import open_events
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        total = 0
        with open_events(sys.argv[1]) as source:
            for events in source.chunks(16384):
                total += len(events)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(total, (after - before) * 1024)
        """,
        str(path),
    )
    total, grown = (int(text) for text in done.stdout.split())
    assert total == 800_000
    # A quarter of the file, where reading it whole would take all of it and more.
    assert grown < size / 4, f"{grown / 1e6:.0f} MB for a file of {size / 1e6:.0f} MB"


def test_own_files_are_joined_and_mixed_layouts_are_not(tmp_path: Path) -> None:
    make(10, 1).write(tmp_path / "a.h5")
    make(20, 2).write(tmp_path / "b.h5")
    same(Events.read(tmp_path), Events.concatenate([make(10, 1), make(20, 2)]))
    make(5, layout="adc2021").write(tmp_path / "c.h5")
    with pytest.raises(LayoutError, match=r"c\.h5: layout: found adc2021, expected cms_ugt"):
        open_events(tmp_path)
    relabelled = Events.read(tmp_path / "c.h5", layout="cms_ugt")
    assert relabelled.layout.name == "cms_ugt"
    with pytest.raises(LayoutError, match="found adc2021, expected atlas_l1topo, or one with the same words"):
        open_events(tmp_path / "c.h5", layout="atlas_l1topo")
