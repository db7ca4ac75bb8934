"""Fixtures that several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def oracles() -> Path:
    """Folder of data that this project did not make; lies beside the checkout."""
    folder = ROOT.parent / "shared" / "oracles"
    if not folder.is_dir():
        pytest.skip("the oracle data beside the checkout (../shared/oracles) is missing")
    return folder


@pytest.fixture(scope="session")
def make_crossings():
    """A function (n, seed, layout) that makes crossings which look like zero bias: soft, falling, padded with zeros."""
    import numpy as np

    from l1ad import Events
    from l1ad.events import get_layout

    def make(n: int, seed: int, layout: str = "cms_ugt"):
        shape = get_layout(layout)
        rng = np.random.default_rng(seed)
        hw = np.zeros((n, *shape.shape), dtype=np.int64)
        slot = 0
        for group in shape.groups:
            filled = rng.random((n, group.count)) < (1.0 if group.count in (1, 252) else 0.7)
            pt = np.rint(rng.exponential(30.0, (n, group.count)) + 3) * filled
            order = np.argsort(-pt, axis=1) if group.count != 252 else np.tile(np.arange(252), (n, 1))
            for feature, word in enumerate(group.words):
                if feature == 0:
                    values = np.clip(pt, 0, word.code_max)
                elif word.bits == 0:
                    values = np.zeros_like(pt)
                else:
                    values = rng.integers(word.code_min, word.code_max + 1, pt.shape) * (pt > 0)
                hw[:, slot : slot + group.count, feature] = np.take_along_axis(values, order, axis=1)
            slot += group.count
        return Events.from_arrays(hw.astype(np.int16), layout)

    return make
