"""A small trigger and small samples for calibrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from l1ad.events import Events
from l1ad.trigger.program import Trigger


def make_trigger(name: str = "toy", bias: int = 0) -> Trigger:
    """A linear layer of two outputs on the pt of MET and of the first jet; the score is the sum of their squares."""
    weights = np.zeros((57, 2), dtype=int)
    weights[0, 0] = weights[27, 1] = 8
    return Trigger.from_layers(
        [weights],
        [np.array([bias, 0])],
        {
            "input": "ap_fixed<10,8,RND_CONV,SAT>",
            "weight": "ap_fixed<6,3>",
            "bias": "ap_fixed<10,7>",
            "result": "ap_fixed<10,7,RND_CONV,SAT>",
        },
        {"offset": np.zeros(57), "shift": np.full(57, 2)},
        name=name,
    )


def make_events(seed: int, n: int, *, scale: float = 12.0, weighted: bool = False, columns: bool = True) -> Events:
    """Soft events with falling spectra, menu bits A (hard jets) and B (at random), and per-event columns."""
    rng = np.random.default_rng(seed)
    hw = np.zeros((n, 19, 3), dtype=np.int64)
    hw[:, 0, 0] = np.minimum(rng.exponential(scale, n) * 2, 4095)
    hw[:, 0, 2] = rng.integers(0, 144, n)
    jets = -np.sort(-rng.exponential(scale, (n, 4)), axis=1) * 2
    hw[:, 9:13, 0] = np.minimum(jets, 2047)
    hw[:, 9:13, 1] = rng.integers(-100, 100, (n, 4))
    hw[:, 9:13, 2] = rng.integers(0, 144, (n, 4))
    table: dict[str, np.ndarray] = {}
    if columns:
        table = {
            "run": np.full(n, 400_000),
            "lumi": 1 + np.arange(n) * 40 // max(n, 1),
            "bx": rng.integers(1, 3564, n),
            "n_pv": rng.poisson(52, n).astype(float),
        }
    bits = {"L1_A": hw[:, 9, 0] >= 120, "L1_B": rng.random(n) < 0.01}
    weight = rng.gamma(2.0, 0.5, n) if weighted else None
    return Events.from_arrays(hw, columns=table, weight=weight, menu_bits=bits)


@pytest.fixture(scope="session")
def trigger() -> Trigger:
    return make_trigger()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two zero-bias files, one weighted file and one signal."""
    folder = tmp_path_factory.mktemp("sample")
    make_events(1, 12_000).write(folder / "zb1.h5")
    make_events(2, 8_000).write(folder / "zb2.h5")
    make_events(3, 12_000, weighted=True).write(folder / "weighted.h5")
    make_events(4, 1_000, scale=30.0, columns=False).write(folder / "signal.h5")
    return folder
