"""What the tests of models share: TensorFlow once, and the geometry of a small sample."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def stack():
    from l1ad.model.keras import import_tf

    return import_tf()


@pytest.fixture(scope="session")
def sample(make_crossings):
    return make_crossings(1280, 21)


@pytest.fixture(scope="session")
def geometry(sample):
    from l1ad.model.stage import Geometry
    from l1ad.trigger.quantizer import Quantizer
    from l1ad.trigger.scaling import CodeCounts, fit_scaling

    counts = CodeCounts(sample.layout)
    counts.add(sample.inputs)
    return Geometry.of(sample.layout, fit_scaling(counts).scaling, Quantizer("bits", 8, 5))
