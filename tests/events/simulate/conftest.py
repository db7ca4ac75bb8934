"""Libraries made by hand, so that most of the simulation is tested without a generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l1ad.events.simulate.library import EM, HADRON, Library, write_library
from l1ad.events.simulate.processes import PTHAT_EDGES

#: Cross sections in mb, soft and the hard slices, of the right order.
SIGMAS = {
    "soft": 77.8,
    **dict(zip((f"qcd_{e:g}" for e in PTHAT_EDGES), (0.6, 0.15, 0.02, 3e-3, 5e-4, 1e-4, 1e-5, 3e-7))),
}


def toy_library(process: str, n: int, sigma_mb: float, seed: int, scale: float = 1.0) -> Library:
    """``n`` collisions of about 40 particles with an exponential spectrum, and a muon in every tenth."""
    rng = np.random.default_rng([seed, *process.encode()])
    counts = rng.poisson(40, n)
    k = int(counts.sum())
    muons = rng.random(n) < 0.1
    m = int(muons.sum())
    jets = np.arange(n + 1)
    return Library(
        process=process,
        settings=("toy",),
        tune="toy",
        seed=seed,
        n_tried=n,
        sigma_mb=sigma_mb,
        offset=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        eta=rng.uniform(-5, 5, k).astype(np.float16),
        phi=rng.uniform(-np.pi, np.pi, k).astype(np.float16),
        et=(0.05 + scale * rng.exponential(0.6, k)).astype(np.float16),
        kind=rng.choice(np.array([EM, HADRON], np.uint8), k),
        mu_offset=np.concatenate([[0], np.cumsum(muons)]).astype(np.int64),
        mu_pt=(2.0 + rng.exponential(3.0, m)).astype(np.float32),
        mu_eta=rng.uniform(-2.4, 2.4, m).astype(np.float32),
        mu_phi=rng.uniform(-np.pi, np.pi, m).astype(np.float32),
        mu_charge=rng.choice(np.array([-1, 1], np.int8), m),
        jet_offset=jets.astype(np.int64),
        jet_pt=rng.uniform(10, 50, n).astype(np.float32),
        jet_eta=rng.uniform(-3, 3, n).astype(np.float32),
        jet_phi=rng.uniform(-np.pi, np.pi, n).astype(np.float32),
        pthat=(rng.exponential(5.0, n) if process == "soft" else np.full(n, 25.0)).astype(np.float32),
        gen_met=np.zeros(n, np.float32),
    )


@pytest.fixture(scope="session")
def toy_libraries() -> list[Library]:
    """A soft library and three hard slices."""
    names = ("soft", "qcd_20", "qcd_30", "qcd_50")
    return [toy_library(name, 1500, SIGMAS[name], 3, 1.0 + 2.0 * i) for i, name in enumerate(names)]


@pytest.fixture
def toy_folder(tmp_path: Path, toy_libraries: list[Library]) -> Path:
    """The same as files, with a signal."""
    signal: Any = toy_library("haa4b_ma15", 60, 1e-9, 4, 5.0)
    for library in [*toy_libraries, signal]:
        write_library(tmp_path / f"{library.process}.h5", library)
    return tmp_path


@pytest.fixture(scope="session")
def same() -> Callable[[Library, Library], None]:
    """Assert that two libraries are equal in every field."""

    def check(a: Library, b: Library) -> None:
        for f in fields(a):
            np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)

    return check
