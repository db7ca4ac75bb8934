"""The sample that comes with the package: there for every layout, of the right words, and not too large."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad.config import RunConfig
from l1ad.configs import find_config
from l1ad.errors import InputError
from l1ad.events import Events
from l1ad.events.bundled import FOLDER, bundled, bundled_zero_bias, zero_bias_stem

#: What the package may carry, in bytes.
LIMIT = 20_000_000

pytestmark = pytest.mark.skipif(not (FOLDER / "zero_bias.h5").exists(), reason="the bundled sample is not there")


@pytest.mark.parametrize("layout", ["cms_ugt", "cms_calo_regions", "atlas_l1topo"])
def test_every_layout_has_natural_and_weighted_crossings(layout: str) -> None:
    natural = Events.read(bundled_zero_bias(layout))
    weighted = Events.read(bundled_zero_bias(layout, weighted=True))
    for events in (natural, weighted):
        assert events.layout.name == layout
        events.layout.check(events.hw, where="bundled")
        assert events.n_pv is not None
        assert 50 < events.n_pv.mean() < 54
        assert events.meta["process"] == "zero_bias"
    assert "weight" not in natural.columns
    error = weighted.weight.std() / np.sqrt(len(weighted))
    assert weighted.weight.mean() == pytest.approx(1.0, abs=4 * error)
    assert error < 0.05
    # the weighted sample has the rare crossings, and weights that take them back: both tell the same of common ones
    largest = [events.hw[:, :, 0].max(axis=1) for events in (natural, weighted)]
    cut = np.quantile(largest[0], 0.9)
    assert (largest[1] > cut).mean() > 0.3
    w = weighted.weight * (largest[1] > cut)
    expected = (largest[0] > cut).mean()
    error = np.hypot(np.sqrt(expected / len(natural)), np.sqrt((w**2).sum()) / len(weighted))
    assert w.sum() / len(weighted) == pytest.approx(expected, abs=5 * error)


@pytest.mark.parametrize("name", ["quickstart", "axol1tl_v4", "cicada_v1", "cicada_v2", "atlas_l1topo_vae"])
def test_configurations_that_train_on_it_find_their_layout(name: str) -> None:
    from l1ad.model.dataset import data_files
    from l1ad.workflow import calibration_files

    config = RunConfig.read(find_config(name))
    for path in (*data_files(config.data), *calibration_files(config)):
        assert Events.read(path).layout.name == config.data.layout


def test_names() -> None:
    assert zero_bias_stem("adc2021") == "zero_bias"
    assert zero_bias_stem("cms_calo_regions", weighted=True) == "zero_bias_regions_weighted"
    with pytest.raises(InputError, match=r"bundled sample: name: found nothing, expected .*zero_bias_l1topo"):
        bundled("nothing")


def test_the_package_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < LIMIT
