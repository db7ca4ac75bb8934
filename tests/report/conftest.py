"""A small trigger, its thresholds and the content of its report, made once for all tests of the page."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from l1ad import Events, Trigger
from l1ad.menu import load_menu
from l1ad.rates.calibrate import calibrate
from l1ad.rates.rates import BaseRate
from l1ad.report.content import gather

TYPES = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}


def crossings(n: int, scale: float, seed: int) -> Events:
    rng = np.random.default_rng(seed)
    hw = np.zeros((n, 19, 3), int)
    for slots in (slice(0, 1), slice(1, 5), slice(5, 9), slice(9, 19)):
        width = slots.stop - slots.start
        pt = rng.exponential(scale, (n, width)) * (1 + 10 * (rng.random((n, 1)) < 0.02))
        hw[:, slots, 0] = np.minimum(np.sort(pt.astype(int), axis=1)[:, ::-1], 511)
    hw[:, 9:, 2] = rng.integers(0, 144, (n, 10))
    return Events.from_arrays(hw, n_pv=rng.uniform(30, 70, n), weight=rng.uniform(0.5, 1.5, n))


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """`content`, `thresholds` and the `folder` that they were made in."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(3)
    weights = [rng.integers(-6, 7, (57, 6)), rng.integers(-6, 7, (6, 3))]
    weights[0][rng.random(weights[0].shape) < 0.5] = 0
    scaling = {"offset": np.tile([10, 0, 72], 19), "shift": np.tile([3, 5, 6], 19)}
    biases = [np.zeros(6, int), np.zeros(3, int)]
    trigger = Trigger.from_layers(weights, biases, TYPES, scaling, name="paged <trigger>")
    zero_bias, signal = crossings(6000, 12, 1), crossings(1500, 40, 2)
    paths = {}
    for name, events in (("zb", zero_bias), ("sig", signal)):
        paths[name] = str(folder / f"{name}.h5")
        events.write(paths[name])
    menu = load_menu("run3_lite")
    targets = {"1MHz": 1e6, "4MHz": 4e6}
    result = calibrate(
        trigger, [paths["zb"]], targets, kind="total", menu=menu, base=BaseRate.from_bunches(2544),
        signals={"wide": [paths["sig"]]}, work=folder / "work",
    )  # fmt: skip
    result.write(folder / "thresholds.json")
    (folder / "history.csv").write_text("epoch,loss,val_loss,sparsity\n1,2.0,2.1,0\n2,1.0,1.2,0.5\n")
    thresholds = json.loads((folder / "thresholds.json").read_text())
    content = gather(trigger, thresholds, zero_bias, {"wide": signal}, menu=menu, run_dir=folder, displays=2)
    return SimpleNamespace(content=content, thresholds=thresholds, folder=folder)
