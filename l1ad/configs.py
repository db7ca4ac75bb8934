"""Configuration files: where they are found and how a mistake in one becomes one line.

`find_config` for a name or a path, `read_yaml` for its content, `check_config` to turn it into a pydantic model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from l1ad.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def config_folders() -> tuple[Path, ...]:
    """Folders with the shipped configurations: of the checkout, or of the installed wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    folders = [checkout / "configs"] if (checkout / "pyproject.toml").is_file() else []
    folders.append(package / "_share" / "configs")
    return tuple(folder for folder in folders if folder.is_dir())


def find_config(name_or_path: str | os.PathLike[str], kind: str = "") -> Path:
    """The file of a configuration.

    Parameters
    ----------
    name_or_path : a path to a file, or the name of a shipped configuration with or without ``.yaml``.
    kind : folder below ``configs/`` for this sort of file, such as ``menus``; empty for the top.

    Raises
    ------
    ConfigError
        If there is neither such a file nor such a name; the message lists the names that exist.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    name = os.fspath(name_or_path)
    known: set[str] = set()
    if not any(separator in name for separator in ("/", os.sep)):
        for folder in config_folders():
            for suffix in ("", ".yaml", ".yml"):
                candidate = folder / kind / f"{name}{suffix}"
                if candidate.is_file():
                    return candidate
            known.update(file.stem for file in (folder / kind).glob("*.y*ml"))
    listed = f"a file or one of {', '.join(sorted(known))}" if known else "a file"
    raise ConfigError(name, "file", "no such file or name", listed)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Content of a YAML file (plain types only).

    Raises
    ------
    ConfigError
        If it cannot be read, is not UTF-8, is not YAML or repeats a key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), "file", error.strerror or error, "a readable file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), "encoding", f"byte {error.start} that is not UTF-8", "UTF-8 text") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _no_repeated_key(node)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else "file"
        raise ConfigError(str(path), line, error.problem or "a syntax error", "YAML") from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), "file", str(error).splitlines()[0], "YAML") from error


def check_config(model: type[Model], value: Any, *, where: str) -> Model:
    """`value` as a `model`.

    Raises
    ------
    ConfigError
        For the first thing that does not fit: an unknown key, a missing one, or a value that cannot work.
    """
    if not isinstance(value, dict):
        raise ConfigError(where, "content", type(value).__name__, "a mapping of keys to values")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        if first["type"] == "extra_forbidden":
            keys = ", ".join(_known_keys(model, first["loc"][:-1]))
            raise ConfigError(where, field, "an unknown key", f"one of {keys}" if keys else "a known key") from error
        if first["type"] == "missing":
            raise ConfigError(where, field, "nothing", "a value") from error
        shown = _shown(first["input"])
        message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        raise ConfigError(where, field, shown, message) from error


def _shown(value: Any) -> str:
    """A value for a message: itself if it is short, else what it is.

    >>> _shown({"train": 0.0, "test": 1.0})
    'train: 0.0, test: 1.0'
    """
    if isinstance(value, dict):
        text = ", ".join(f"{key}: {entry!r}" for key, entry in value.items())
    else:
        text = repr(value)
    return text if isinstance(value, (str, int, float, type(None))) or 0 < len(text) <= 80 else type(value).__name__


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys of the sub-model at `location`, as far as plain annotations tell."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
        while not hasattr(current, "model_fields"):
            inner = [a for a in getattr(current, "__args__", ()) if a is not Ellipsis and a is not type(None)]
            if not inner:
                return []
            current = inner[0]
    return sorted(getattr(current, "model_fields", {}))


def _no_repeated_key(node: yaml.Node) -> None:
    """Refuse a key that is written twice in one mapping: plain YAML would lose the first silently."""
    waiting, visited = [node], set()
    while waiting:
        current = waiting.pop()
        if id(current) in visited:
            continue
        visited.add(id(current))
        if isinstance(current, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in current.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"key '{key.value}' twice", problem_mark=key.start_mark)
                seen.add(str(key.value))
                waiting.append(value)
        elif isinstance(current, yaml.SequenceNode):
            waiting += current.value


def apply_settings(value: Any, settings: list[str], *, where: str) -> dict[str, Any]:
    """A configuration with single keys set from ``section.key=value`` texts; values are YAML.

    Raises
    ------
    ConfigError
        If the configuration is no mapping, or a text has no key or goes through something that is none.

    >>> apply_settings({"training": {"epochs": 30}}, ["training.epochs=5"], where="x")
    {'training': {'epochs': 5}}
    """
    if not isinstance(value, dict):
        raise ConfigError(where, "content", type(value).__name__, "a mapping of keys to values")
    result: dict[str, Any] = dict(value)
    for text in settings:
        key, found, raw = text.partition("=")
        if not found or not key:
            raise ConfigError("--set", "setting", text, "KEY=VALUE")
        place = result
        *sections, last = key.split(".")
        for section in sections:
            inner = place.get(section, {})
            if not isinstance(inner, dict):
                raise ConfigError("--set", key, f"{section}, which is no section", "a key of the configuration")
            place[section] = dict(inner)
            place = place[section]
        try:
            place[last] = yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise ConfigError("--set", key, raw, "a YAML value") from error
    return result
