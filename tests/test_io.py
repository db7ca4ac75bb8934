"""Files appear whole or not at all, and what stands in the way is named."""

from __future__ import annotations

import hashlib
import os

import pytest

from l1ad.errors import InputError
from l1ad.io import atomic_path, make_folder, remove_parts, sha256_path, write_text


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
