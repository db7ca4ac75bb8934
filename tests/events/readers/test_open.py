"""Finding files and formats, joining, and everything that is not a data file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import uproot

from l1ad.errors import InputError
from l1ad.events import Events, open_events
from l1ad.events.readers._files import expand, sniff


@pytest.fixture(scope="module")
def contents(writers: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small file of each format."""
    folder = tmp_path_factory.mktemp("formats")
    toy = writers.toy_objects(20)
    Events.from_arrays(writers.dense(toy)).write(folder / "l1ad")
    paths = {
        "l1ad": folder / "l1ad",
        "adc2021": writers.write_adc(folder / "adc", writers.adc_floats(20)),
        "cms_opendata": writers.write_opendata(folder / "open", toy),
        "l1ntuple": writers.write_l1ntuple(folder / "ntuple", toy),
        "nano": writers.write_nano(folder / "nano", toy),
    }
    return {name: path.read_bytes() for name, path in paths.items()}


@pytest.fixture
def files(contents: dict[str, bytes], tmp_path: Path) -> dict[str, Path]:
    """The same, under names that say nothing."""
    paths = {name: tmp_path / f"file{i}" for i, name in enumerate(contents)}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths


def test_the_content_tells_the_format_whatever_the_name(files: dict[str, Path]) -> None:
    for name, path in files.items():
        assert sniff(path) == name
        with open_events(path) as source:
            assert source.format_name == name
            assert sum(len(events) for events in source.chunks(7)) == source.n_events == 20
            assert max(len(events) for events in source.chunks(7)) == 7


def test_a_wrong_format_is_said(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="format: found nano, expected l1ntuple"):
        open_events(files["nano"], format="l1ntuple")
    with pytest.raises(InputError, match="found csv, expected auto or one of l1ad"):
        open_events(files["nano"], format="csv")


def test_an_option_of_another_format_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="option: tree: found a cms_opendata file, expected a format that has this"):
        open_events(files["cms_opendata"], tree="emulated")
    with open_events(files["cms_opendata"], tree=None):
        pass


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.5, 0.97])
@pytest.mark.parametrize("name", ["l1ad", "adc2021", "cms_opendata", "l1ntuple", "nano"])
def test_a_truncated_file_is_one_line(files: dict[str, Path], name: str, fraction: float) -> None:
    path = files[name]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(InputError) as caught:
        Events.read(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "expected" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["cms_opendata", "l1ntuple", "nano"])
def test_damaged_data_is_one_line(files: dict[str, Path], name: str) -> None:
    path = files[name]
    content = bytearray(path.read_bytes())
    # Everything but the two ends, where headers and directories are.
    middle = slice(len(content) // 10, len(content) // 2)
    content[middle] = b"\xff" * (middle.stop - middle.start)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError) as caught:
        Events.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused_with_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("pt,eta,phi\n")
    with pytest.raises(InputError, match=r"a\.h5: first bytes: found 70 74 2c 65, expected HDF5"):
        open_events(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["jets"] = np.zeros(3)
    with pytest.raises(InputError, match="HDF5 contents: found jets, expected the attribute format"):
        open_events(tmp_path / "b.h5")
    with uproot.recreate(tmp_path / "c.root") as file:
        file.mktree("tree", {"x": np.float32}).extend({"x": np.zeros(3, dtype=np.float32)})
    with pytest.raises(InputError, match="ROOT contents: found tree, expected l1UpgradeTree"):
        open_events(tmp_path / "c.root")
    with pytest.raises(InputError, match=r"nowhere\.h5: file: found no such file"):
        open_events(tmp_path / "nowhere.h5")


def test_folders_patterns_and_lists_are_expanded_in_order(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    for name in ("b.h5", "a.h5", ".hidden.h5", "notes.txt"):
        (folder / name).write_bytes(files["l1ad"].read_bytes())
    found = [folder / "a.h5", folder / "b.h5"]
    assert expand(tmp_path / "deep") == found
    assert expand(str(folder / "?.h5")) == found
    assert expand([folder / "b.h5", folder / "a.h5"]) == found[::-1]
    with open_events(folder) as source:
        assert source.n_events == 40
        assert source.path.endswith("a.h5 and 1 more")
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", str(tmp_path / "*.nothing"), []):
        with pytest.raises(InputError):
            expand(nothing)  # type: ignore[arg-type]


def test_files_that_do_not_go_together_are_named(writers: SimpleNamespace, tmp_path: Path) -> None:
    toy = writers.toy_objects(20)
    writers.write_opendata(tmp_path / "a.parquet", toy)
    writers.write_opendata(tmp_path / "b.parquet", writers.toy_objects(20, n_seeds=4))
    with pytest.raises(InputError, match=r"b\.parquet: menu bits: found 5 seeds, expected the same 6"):
        Events.read(tmp_path)
    writers.write_l1ntuple(tmp_path / "b.parquet", toy, event=False, decisions=False)
    with pytest.raises(InputError, match=r"b\.parquet: column bx: found nothing, expected the same columns"):
        Events.read([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def test_the_provenance_of_joined_files_is_kept(writers: SimpleNamespace, tmp_path: Path) -> None:
    for i in range(3):
        writers.write_opendata(tmp_path / f"{i}.parquet", writers.toy_objects(30, seed=i))
    events = Events.read(tmp_path)
    assert events.meta["sources"] == ["0.parquet", "1.parquet", "2.parquet"]
    single = [Events.read(tmp_path / f"{i}.parquet") for i in range(3)]
    assert np.array_equal(events.hw, np.concatenate([part.hw for part in single]))
    for name, total in events.meta["counts"].items():
        assert total == sum(part.meta["counts"][name] for part in single)


@pytest.mark.parametrize("policy", ["mask", "drop"])
def test_the_saturation_policy_is_applied_and_stored(
    writers: SimpleNamespace, files: dict[str, Path], tmp_path: Path, policy: str
) -> None:
    toy = writers.toy_objects(200)
    toy.sums["met"][:10] = 4095
    path = writers.write_opendata(tmp_path / "s.parquet", toy)
    kept, changed = Events.read(path), Events.read(path, saturation=policy)
    assert len(kept) == 200
    assert len(changed) == 190
    assert changed.saturation == policy
    assert changed.meta["counts"]["dropped_events"] == 10
    changed.write(tmp_path / "s.h5")
    assert Events.read(tmp_path / "s.h5").saturation == policy
