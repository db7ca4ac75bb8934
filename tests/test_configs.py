"""Finding configurations and turning mistakes in them into one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from l1ad.configs import check_config, config_folders, find_config, read_yaml
from l1ad.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: tuple[Inner, ...] = ()
    name: str


def test_a_name_finds_the_shipped_file_and_a_path_finds_itself(tmp_path: Path) -> None:
    shipped = find_config("run3_lite", "menus")
    assert shipped.parent.name == "menus"
    assert find_config("run3_lite.yaml", "menus") == shipped
    own = tmp_path / "own.yaml"
    own.write_text("name: own\n")
    assert find_config(own, "menus") == own
    assert config_folders()


def test_an_unknown_name_lists_those_that_exist() -> None:
    with pytest.raises(
        ConfigError, match=r"run4: file: found no such file or name, expected a file or one of .*run3_lite"
    ):
        find_config("run4", "menus")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", r"line \d"),
        ("a: 1\na: 2\n", r"line 2: found key 'a' twice"),
        ("a: !!python/object:os.system {}\n", r"line 1"),
    ],
)
def test_yaml_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="readable file"):
        read_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "a", "extra": 1}, "extra: found an unknown key, expected one of inner, name"),
        ({"name": "a", "inner": [{"deep": 1}]}, "inner.0.deep: found an unknown key, expected one of depth"),
        ({}, "name: found nothing, expected a value"),
        ({"name": 3}, "name: found 3, expected a valid string"),
        ([1], "content: found list, expected a mapping"),
    ],
)
def test_values_that_do_not_fit(value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(Outer, value, where="file.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("file.yaml")
