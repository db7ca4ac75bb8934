"""A trigger of a NumPy archive with the integers of a network: how a deployed one comes in without its training.

`read_arrays(path)` reads ``w0 b0 w1 b1 ...``, ``offset`` and ``shift``, and, if they are there, crossings ``hw`` with
the ``score`` and the latent codes ``mu`` that somebody recorded for them; `check_recorded` compares those with the
program. `l1ad assemble` is the command.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import CheckFailed, InputError
from l1ad.events.store import Events
from l1ad.trigger.layers import LayerTypes, Scaling
from l1ad.trigger.program import Trigger

#: Types of AXOL1TL v3 and v4 (l1-facts, section 3).
DEPLOYED_TYPES: dict[str, str] = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}
_OF_SCALING = ("offset_type", "word")
#: What `read_types` knows.
TYPE_NAMES = (*(field.name for field in fields(LayerTypes)), *_OF_SCALING)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Arrays:
    """What `read_arrays` found.

    Attributes
    ----------
    trigger : of the arrays.
    events : the crossings ``hw`` of the file, or None.
    score, latents : recorded for them, (N,) and (N, latents), or None.
    """

    trigger: Trigger
    events: Events | None
    score: Array | None
    latents: Array | None


def read_types(given: Mapping[str, str]) -> dict[str, Any]:
    """Types of the layers and of the scaling: those of AXOL1TL v4, with `given` in their place.

    A text with semicolons gives one type a layer.

    >>> read_types({"weight": "ap_fixed<4,1>; ap_fixed<5,2>"})["weight"][1]
    'ap_fixed<5,2>'

    Raises
    ------
    InputError
        If a name is unknown.
    """
    result: dict[str, Any] = dict(DEPLOYED_TYPES)
    for name, text in given.items():
        if name not in TYPE_NAMES:
            raise InputError("types", "name", name, ", ".join(TYPE_NAMES))
        parts = [part.strip() for part in text.split(";")]
        result[name] = parts if len(parts) > 1 else parts[0]
    return result


def read_arrays(
    path: str | os.PathLike[str],
    *,
    types: Mapping[str, str] | None = None,
    score: str = "mu2",
    layout: str = "cms_ugt",
    name: str | None = None,
    embedding: int | None = None,
) -> Arrays:
    """A trigger of an ``.npz`` file.

    Parameters
    ----------
    types : those that are not AXOL1TL v4's, by name (see `read_types`).
    score, layout, embedding : see `l1ad.trigger.layers.dense_program`.
    name : of the trigger; by default the file's.

    Raises
    ------
    InputError
        If the file cannot be read, an array is missing or not of integers, or they do not fit together.
    """
    arrays = _load(path)
    where = os.fspath(path)
    count = sum(f"w{i}" in arrays for i in range(len(arrays)))
    wanted = [f"{letter}{i}" for i in range(max(count, 1)) for letter in "wb"] + ["offset", "shift"]
    missing = [key for key in wanted if key not in arrays]
    if missing:
        raise InputError(where, "arrays", ", ".join(sorted(arrays)) or "none", f"also {', '.join(missing)}")
    for key in wanted:
        if key != "offset" and not np.issubdtype(arrays[key].dtype, np.integer):
            raise InputError(where, f"type of {key}", arrays[key].dtype, "integers: codes of the layer's type")
    kinds = read_types(types or {})
    scaling = {"offset": arrays["offset"], "shift": arrays["shift"]}
    scaling |= {key: kinds.pop(key) for key in _OF_SCALING if key in kinds}
    trigger = Trigger.from_layers(
        [arrays[f"w{i}"].astype(np.int64) for i in range(count)],
        [arrays[f"b{i}"].astype(np.int64) for i in range(count)],
        kinds,
        Scaling.of(scaling),
        score,
        layout=layout,
        name=name or Path(path).stem,
        embedding=embedding,
    )
    events = Events.from_arrays(arrays["hw"], layout, where=f"{where}: hw") if "hw" in arrays else None
    for key in ("score", "mu"):
        if key in arrays and events is not None and len(arrays[key]) != len(events):
            raise InputError(where, key, f"{len(arrays[key])} rows", f"{len(events)}, as hw has")
    return Arrays(trigger, events, arrays.get("score"), arrays.get("mu"))


def _load(path: str | os.PathLike[str]) -> dict[str, Array]:
    where, expected = os.fspath(path), "a NumPy archive (.npz)"
    try:
        if not zipfile.is_zipfile(path):
            Path(path).open("rb").close()
            raise InputError(where, "file", "no archive", expected)
        # Without pickle: a file of somebody else's runs nothing here.
        with np.load(path, allow_pickle=False) as found:
            return {key: found[key] for key in found.files}
    except OSError as error:
        raise InputError(where, "file", error.strerror, expected) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(where, "file", str(error).splitlines()[0], expected) from error


def check_recorded(arrays: Arrays) -> dict[str, int]:
    """How many recorded numbers of each kind were compared with the program, all equal; empty without any.

    Raises
    ------
    CheckFailed
        If one differs: the message has the first event.
    """
    if arrays.events is None:
        return {}
    trigger, compared = arrays.trigger, {}
    for kind, recorded, compute in (
        ("scores", arrays.score, trigger.score),
        ("latent vectors", arrays.latents, trigger.latents),
    ):
        if recorded is None:
            continue
        found = compute(arrays.events)
        if found.shape != recorded.shape:
            raise InputError(trigger.name, f"recorded {kind}", f"shape {recorded.shape}", found.shape)
        differ = np.flatnonzero((found != recorded).reshape(len(found), -1).any(axis=1))
        if len(differ):
            first = int(differ[0])
            raise CheckFailed(
                f"{trigger.name}: {len(differ)} of {len(found)} recorded {kind} differ; event {first}: recorded "
                f"{np.asarray(recorded)[first].tolist()}, program {np.asarray(found)[first].tolist()}"
            )
        compared[kind] = len(found)
    return compared
