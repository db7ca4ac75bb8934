"""The catalogue finds kinds of crossing that were put in."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from l1ad import Events, Trigger
from l1ad.errors import InputError
from l1ad.report.catalogue import catalogue, write_catalogue

pytest.importorskip("sklearn", reason="scikit-learn is missing: pip install 'l1ad[search]'")

TYPES = {
    "input": "ap_fixed<14,11,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "result": "ap_fixed<18,14,RND_CONV,SAT>",
}


@pytest.fixture(scope="module")
def two_kinds():
    """400 quiet crossings, 60 with four muons, 40 with high MET; the latents are the sums of muon pt and MET."""
    rng = np.random.default_rng(1)
    hw = np.zeros((500, 19, 3), int)
    hw[:, 0, 0] = rng.integers(0, 20, 500)
    hw[400:460, 5:9, 0] = np.sort(rng.integers(40, 55, (60, 4)), axis=1)[:, ::-1]
    hw[460:, 0, 0] = rng.integers(200, 240, 40)
    events = Events.from_arrays(hw)
    weights = np.zeros((57, 2), int)
    weights[15:27:3, 0] = 8
    weights[0, 1] = 8
    scaling = {"offset": np.zeros(57), "shift": np.zeros(57, int)}
    return Trigger.from_layers([weights], [np.zeros(2, int)], TYPES, scaling), events


@pytest.mark.parametrize("space", ["latent", "inputs"])
def test_planted_kinds_come_back(two_kinds, space):
    trigger, events = two_kinds
    result = catalogue(trigger, events, 16 * 50**2, space=space, min_cluster_size=10)
    assert result.index.tolist() == list(range(400, 500))
    muons, met = result.labels[:60], result.labels[60:]
    for labels, others in ((muons, met), (met, muons)):
        values, counts = np.unique(labels[labels >= 0], return_counts=True)
        main = values[np.argmax(counts)]
        assert counts.max() > 0.6 * len(labels)
        assert (others != main).all()


def test_description_names_what_differs(two_kinds):
    trigger, events = two_kinds
    result = catalogue(trigger, events, 16 * 50**2, min_cluster_size=10)
    named = {c.distinguishing[0][0] for c in result.clusters if c.number >= 0 and c.size > 20}
    assert any("mu" in name for name in named)
    assert "met" in named
    assert sum(c.size for c in result.clusters) == 100


def test_means_shares_and_seeds_are_weighted(two_kinds):
    """Half of the muon crossings count ten times: all shares follow by hand."""
    trigger, events = two_kinds
    weight = np.ones(500)
    weight[400:430] = 10
    fired = np.zeros(500, bool)
    fired[400:430] = True
    weighted = Events.from_arrays(events.hw, weight=weight, menu_bits={"A": fired, "B": np.zeros(500, bool)})
    result = catalogue(trigger, weighted, 16 * 50**2, min_cluster_size=10)
    assert sum(c.share for c in result.clusters) == pytest.approx((300 + 70) / (300 + 470))
    for cluster in result.clusters:
        members = result.index[result.labels == cluster.number]
        own = weight[members]
        assert cluster.mean_score == pytest.approx((trigger.score(events)[members] * own).sum() / own.sum())
        share = own[members < 430].sum() / own.sum()
        assert dict(cluster.seeds) == ({"A": pytest.approx(share)} if share else {})
        name, here, there, _ = cluster.distinguishing[0]
        if name == "met":
            met = events.hw[:, 0, 0] * 0.5
            assert there == pytest.approx((met * weight).sum() / weight.sum())
            assert here == pytest.approx((met[members] * own).sum() / own.sum())


@pytest.mark.parametrize("name", ["c.parquet", "c.h5"])
def test_written_table_comes_back(two_kinds, tmp_path, name):
    trigger, events = two_kinds
    result = catalogue(trigger, events, 16 * 50**2, min_cluster_size=10)
    write_catalogue(tmp_path / name, result, events)
    if name.endswith("parquet"):
        table = pq.read_table(tmp_path / name)
        assert table["cluster"].to_numpy().tolist() == result.labels.tolist()
        assert table["jet1_pt"].to_numpy().tolist() == events.hw[result.index, 9, 0].tolist()
    else:
        again = Events.read(tmp_path / name)
        assert again.columns["cluster"].tolist() == result.labels.tolist()
        assert np.array_equal(again.hw, events.hw[result.index])


def test_too_few_events(two_kinds):
    with pytest.raises(InputError, match="crossings"):
        catalogue(*two_kinds, 2**18 - 1)
