"""Triggers that the back ends are tested with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from l1ad import Trigger
from l1ad.trigger.build import DEPLOYED_SCORE_TYPE, NodeOps, ProgramBuilder
from l1ad.trigger.fixed import FixedType

V4_TYPES = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}


def _small(seed: int, name: str = "small_v1", **options: object) -> Trigger:
    rng = np.random.default_rng(seed)
    sizes = (57, 4, 3)
    weights = [rng.integers(-8, 8, pair) * (rng.random(pair) < 0.4) for pair in itertools.pairwise(sizes)]
    biases = [rng.integers(-20, 20, n) for n in sizes[1:]]
    offset = rng.integers(0, 20, 57).astype(float)
    scaling = {"offset": offset, "shift": rng.integers(1, 5, 57)}
    return Trigger.from_layers(weights, biases, V4_TYPES, scaling, name=name, **options)


@pytest.fixture(scope="session")
def small() -> Callable[..., Trigger]:
    """Makes small triggers of the v4 kind: small(seed)."""
    return _small


@pytest.fixture(scope="session")
def v4(oracles: Path) -> Trigger:
    """The deployed AXOL1TL v4."""
    data = np.load(oracles / "axol1tl_v4.npz")
    weights, biases = [data[f"w{i}"] for i in range(3)], [data[f"b{i}"] for i in range(3)]
    scaling = {"offset": data["offset"], "shift": data["shift"]}
    return Trigger.from_layers(weights, biases, V4_TYPES, scaling, name="axol1tl_v4")


@pytest.fixture(scope="session")
def tail() -> Trigger:
    """A score without a network: tables of three inputs, squared and summed; no latents, no `Scale`."""
    from l1ad.events.layout import get_layout

    builder = ProgramBuilder(get_layout("cms_ugt"))
    chosen = builder.take(builder.input, [27, 30, 3])
    table = np.sqrt(np.arange(2048))
    kind = FixedType(10, 6, False, "RND_CONV", "SAT")
    values = builder.lut(chosen, kind.quantize(table)[None, :], first=0, type=kind)
    ops = NodeOps(builder, term=DEPLOYED_SCORE_TYPE)
    return Trigger(builder.program(score=ops.total([(1.0, ops.product(values, values))])), "joint tail", "tail")
