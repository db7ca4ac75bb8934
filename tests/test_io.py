"""Files appear whole or not at all, and what stands in the way is named."""

from __future__ import annotations

import hashlib
import os

import h5py
import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.io import atomic_hdf5, atomic_path, make_folder, remove_parts, sha256_path, write_text


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as raised:
        write_text(tmp_path / "file" / "deep" / "a.txt", "x")
    assert str(raised.value) == f"{tmp_path / 'file'}: folder: found a file of that name, expected a folder or nothing"
    with pytest.raises(InputError, match="a file of that name"):
        make_folder(tmp_path / "file")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"a\.txt: write: found No space left on device"):
        write_text(tmp_path / "a.txt", "x")
    assert not list(tmp_path.iterdir())


def test_parts_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    kept = [tmp_path / "a.part", tmp_path / ".hidden", tmp_path / "sub" / "b.txt"]
    left = [tmp_path / ".a.txt.1-ff.part", tmp_path / "sub" / ".b.txt.2-00.part"]
    (tmp_path / "sub").mkdir()
    for path in (*kept, *left):
        path.write_text("")
    assert remove_parts(tmp_path) == 2
    assert [p.exists() for p in kept] == [True] * 3
    assert [p.exists() for p in left] == [False] * 2


def test_hash_of_a_folder_changes_with_contents_and_names_only(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert sha256_path(path) == hashlib.sha256(b"abc").hexdigest()
    folder = tmp_path / "folder"
    (folder / "jets").mkdir(parents=True)
    (folder / "jets" / "0").write_text("x")
    first = sha256_path(folder)
    os.utime(folder / "jets" / "0", (1, 1))
    assert sha256_path(folder) == first
    (folder / "jets" / "0").write_text("y")
    second = sha256_path(folder)
    (folder / "jets" / "0").rename(folder / "jets" / "1")
    assert len({first, second, sha256_path(folder)}) == 3
    with pytest.raises(InputError, match="No such file"):
        sha256_path(tmp_path / "nothing")


def test_hdf5_comes_back_and_is_as_h5py_writes_it(tmp_path):
    """Groups, attributes, resized and compressed data sets: what h5py writes to a plain file, value by value."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 1000, (5000, 7)).astype("i2")

    def fill(file):
        grown = file.create_dataset("a/grown", shape=(0, 7), maxshape=(None, 7), chunks=(512, 7), dtype="i2")
        for start in range(0, 5000, 700):
            stop = min(start + 700, 5000)
            grown.resize(stop, axis=0)
            grown[start:stop] = values[start:stop]
        file.create_dataset("packed", data=values, compression="gzip", shuffle=True)
        file["text"] = "µ"
        file.attrs["n"] = 3
        del file["packed"]
        file.create_dataset("packed", data=values[::2], compression="gzip")

    with atomic_hdf5(tmp_path / "ours.h5") as file:
        fill(file)
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        fill(file)
    with h5py.File(tmp_path / "ours.h5") as ours, h5py.File(tmp_path / "plain.h5") as plain:
        assert sorted(ours) == sorted(plain)
        assert ours.attrs["n"] == 3
        assert ours["text"][()] == plain["text"][()]
        for name in ("a/grown", "packed"):
            assert np.array_equal(ours[name][:], plain[name][:])


@pytest.mark.parametrize("room", [0, 100, 2048, 5000, 40_000, 90_000])
def test_hdf5_on_a_full_disk_is_one_error_and_nothing_is_left(tmp_path, monkeypatch, room):
    """After `room` bytes nothing can be written any more, wherever HDF5 is by then."""
    real, written = os.pwrite, [0]

    def pwrite(descriptor, data, at):
        if written[0] + len(data) > room:
            raise OSError(28, "No space left on device")
        written[0] += len(data)
        return real(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    values = np.arange(40_000, dtype="i4")
    path = tmp_path / "a.h5"
    path.write_text("old")
    with pytest.raises(InputError, match="write: found No space left on device"), atomic_hdf5(path) as file:
        grown = file.create_dataset("grown", shape=(0,), maxshape=(None,), chunks=(1000,), dtype="i4")
        for stop in range(1000, 40_001, 1000):
            grown.resize(stop, axis=0)
            grown[stop - 1000 : stop] = values[stop - 1000 : stop]
        file.flush()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
