"""A trigger of a NumPy archive, and what was recorded for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from l1ad.errors import CheckFailed, InputError, TriggerError
from l1ad.trigger.arrays import DEPLOYED_TYPES, check_recorded, read_arrays, read_types
from l1ad.trigger.fixed import FixedType


def one_jet(folder: Path, **changes: object) -> Path:
    """A network whose answer can be written down: relu(pt of the leading jet in GeV), twice; the score is 2 pt^2."""
    w0, w1 = np.zeros((57, 1), dtype=np.int16), np.full((1, 2), 8)
    w0[27] = 8
    hw = np.zeros((3, 19, 3), dtype=np.int16)
    hw[1, 9, 0], hw[2, 9, 0] = 8, 21
    # 0, 4 and 10.5 GeV; the last one is scaled by 1 and fits ap_fixed<8,6>.
    values = {
        "w0": w0, "b0": np.zeros(1, int), "w1": w1, "b1": np.zeros(2, int), "hw": hw,
        "offset": np.zeros(57, dtype=np.float32), "shift": np.zeros(57, dtype=np.int8),
        "score": 16 * np.array([0, 32, 220]) + np.array([0, 0, 8]), "mu": 8 * np.array([[0, 0], [4, 4], [10.5, 10.5]]),
    }  # fmt: skip
    values["mu"] = values["mu"].astype(np.int16)
    path = folder / "one_jet.npz"
    np.savez(path, **{key: value for key, value in {**values, **changes}.items() if value is not None})
    return path


def test_a_network_by_hand(tmp_path: Path) -> None:
    found = read_arrays(one_jet(tmp_path))
    assert found.trigger.name == "one_jet"
    assert found.events is not None
    assert found.trigger.score(found.events).tolist() == [0, 512, 3528]
    assert check_recorded(found) == {"scores": 3, "latent vectors": 3}
    bare = read_arrays(one_jet(tmp_path, hw=None, score=None, mu=None))
    assert bare.trigger.hash == found.trigger.hash
    assert bare.events is None
    assert check_recorded(bare) == {}


def test_a_recorded_number_that_differs_is_named(tmp_path: Path) -> None:
    path = one_jet(tmp_path, score=np.array([0, 512, 3529]))
    with pytest.raises(CheckFailed, match="1 of 3 recorded scores differ; event 2: recorded 3529, program 3528"):
        check_recorded(read_arrays(path))
    path = one_jet(tmp_path, mu=np.array([[0, 0], [33, 32], [84, 84]]))
    with pytest.raises(CheckFailed, match=r"latent vectors differ; event 1: recorded \[33, 32\], program \[32, 32\]"):
        check_recorded(read_arrays(path))
    with pytest.raises(InputError, match=r"recorded latent vectors: found shape \(3, 1\), expected \(3, 2\)"):
        check_recorded(read_arrays(one_jet(tmp_path, mu=np.zeros((3, 1), int))))


def test_types_reach_the_nodes(tmp_path: Path) -> None:
    given = {"relu": "ap_ufixed<12,8>", "weight": "ap_fixed<6,3>; ap_fixed<5,2>", "word": "ap_fixed<19,14>"}
    program = read_arrays(one_jet(tmp_path), types=given, name="other").trigger.program
    assert str(program.node("relu_1").type) == "ap_ufixed<12,8>"
    assert [str(program.node(f"dense_{i}").weight_type) for i in (1, 2)] == ["ap_fixed<6,3>", "ap_fixed<5,2>"]
    assert program.node("scale").word == FixedType(19, 14)
    assert str(program.node("result").type) == DEPLOYED_TYPES["result"]
    with pytest.raises(InputError, match="found wieght, expected input, weight"):
        read_types({"wieght": "ap_fixed<6,3>"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w0": None}, r"one_jet\.npz: arrays: found b0, .* expected also w0"),
        ({"b1": None, "shift": None}, "expected also b1, shift"),
        ({"w1": np.full((1, 2), 0.5)}, "type of w1: found float64, expected integers"),
        ({"w1": np.full((3, 2), 8)}, "dense_2"),
        ({"w1": np.full((1, 2), 99)}, "dense_2"),
        ({"offset": np.zeros(3)}, "scaling: offset"),
        ({"score": np.zeros(2, int)}, "score: found 2 rows, expected 3, as hw has"),
        ({"hw": np.zeros((3, 19, 2), int)}, "hw"),
    ],
)
def test_bad_arrays_are_one_line(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, TriggerError), match=message) as error:
        read_arrays(one_jet(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(InputError, match="No such file or directory, expected a NumPy archive"):
        read_arrays(path)
    path.write_text("not an archive\n")
    with pytest.raises(InputError, match="found no archive, expected a NumPy archive"):
        read_arrays(path)
    path.write_bytes(one_jet(tmp_path).read_bytes()[:-40])
    with pytest.raises(InputError, match=r"x\.npz: file: found"):
        read_arrays(path)
    # An object array would be unpickled: it is not.
    np.savez(path, w0=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="Object arrays cannot be loaded"):
        read_arrays(path)


def test_the_deployed_v4(oracles: Path) -> None:
    found = read_arrays(oracles / "axol1tl_v4.npz")
    assert check_recorded(found) == {"scores": 20_008, "latent vectors": 20_008}
