"""The jet autoencoder: distances against a plain double loop, symmetries of the jet frame, anomalies it must see."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.search import metrics, vae
from l1ad.search.tagger import Tagger

SMALL = vae.JetVae(particles=12, latent=3, epochs=8, batch_size=64, patience=8)


def _jets(rng: np.random.Generator, n: int, prongs: int, opening: float = 0.5) -> np.ndarray:
    """Constituents (n, 2, 12, 3) of jets with one or two hard prongs, anywhere in eta and phi."""
    share = rng.dirichlet(np.full(12, 0.6), (n, 2))
    deta, dphi = rng.normal(0.0, 0.04, (2, n, 2, 12))
    if prongs == 2:
        side = rng.integers(0, 2, (n, 2, 12)) - 0.5
        turn = rng.uniform(0, 2 * np.pi, (n, 2, 1))
        deta, dphi = deta + opening * side * np.cos(turn), dphi + opening * side * np.sin(turn)
    pt = share * rng.uniform(600, 1200, (n, 1, 1))
    eta = deta + rng.uniform(-1, 1, (n, 2, 1))
    phi = dphi + rng.uniform(-np.pi, np.pi, (n, 2, 1))
    points = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=3)
    order = np.argsort(-pt, axis=2)
    return np.take_along_axis(points, order[..., None], axis=2).astype(np.float32)


def test_chamfer_is_the_double_loop() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, 5, 3)), rng.normal(size=(3, 4, 3))
    slow = []
    for x, y in zip(a, b):
        forth = np.mean([min(np.sum((p - q) ** 2) for q in y) for p in x])
        back = np.mean([min(np.sum((p - q) ** 2) for p in x) for q in y])
        slow.append(forth + back)
    np.testing.assert_allclose(vae.chamfer(a, b).numpy(), slow, rtol=1e-10)
    np.testing.assert_allclose(vae.chamfer(a, a[:, ::-1]).numpy(), 0.0, atol=1e-12)


def test_the_jet_frame_forgets_where_the_jet_was() -> None:
    rng = np.random.default_rng(2)
    jets = _jets(rng, 20, 2).reshape(-1, 12, 3).astype(np.float64)
    c, s = np.cos(1.1), np.sin(1.1)
    turned = jets @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    pt = np.hypot(jets[..., 0], jets[..., 1])
    boosted = jets.copy()
    boosted[..., 2] = pt * np.sinh(np.arcsinh(jets[..., 2] / pt) + 0.4)
    frame = vae.jet_frame(jets, 12)
    np.testing.assert_allclose(vae.jet_frame(turned, 12), frame, atol=1e-5)
    # The jet's pseudorapidity is not exactly additive for a jet with a mass.
    np.testing.assert_allclose(vae.jet_frame(boosted, 12), frame, atol=0.02 * frame.max())
    # Momenta stay what they are: the transverse ones of the particles, and their angles to the axis.
    np.testing.assert_allclose(vae.jet_frame(3.0 * jets, 12), 3.0 * frame, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(np.hypot(frame[..., 0], frame[..., 1]), pt, rtol=1e-5)
    np.testing.assert_allclose(frame[..., 1].sum(axis=1), 0.0, atol=1e-3)
    one = np.zeros((1, 2, 3))
    # 100 GeV at phi 0.3 and 60 GeV at phi -0.5, both across the beam: the axis is the direction of the sum.
    one[0, :, :2] = [[100 * np.cos(0.3), 100 * np.sin(0.3)], [60 * np.cos(0.5), -60 * np.sin(0.5)]]
    axis = np.arctan2(one[0, :, 1].sum(), one[0, :, 0].sum())
    angles = np.array([0.3, -0.5]) - axis
    expected = np.stack([[100, 60] * np.cos(angles), [100, 60] * np.sin(angles), np.zeros(2)], axis=1)
    np.testing.assert_allclose(vae.jet_frame(one, 2)[0], expected, atol=1e-4)
    assert vae.jet_frame(jets, 20).shape == (40, 20, 3)
    assert np.all(vae.jet_frame(np.zeros((2, 4, 3)), 4) == 0)


def test_two_prongs_are_anomalous_to_a_network_that_saw_one() -> None:
    rng = np.random.default_rng(3)
    tagger: Tagger = SMALL.fit(_jets(rng, 1500, 1), rng=rng)
    ordinary, odd = _jets(rng, 600, 1), _jets(rng, 200, 2)
    scores = tagger.score(np.concatenate([ordinary, odd]))
    assert metrics.efficiency_at(scores, np.arange(800) >= 600, 0.05) > 0.6
    # A tagger that is trained is plain data: it goes to another process and gives the same.
    again = pickle.loads(pickle.dumps(tagger))
    np.testing.assert_array_equal(again.score(odd), tagger.score(odd))
    # Beside other events the sums of a jet may be taken in another order, in the last bit of a float32.
    np.testing.assert_allclose(again.score(odd), scores[600:], rtol=1e-5)
    # Which of the two jets comes first does not matter.
    np.testing.assert_allclose(tagger.score(odd[:, ::-1]), scores[600:], rtol=1e-5)


def test_the_combinations() -> None:
    rng = np.random.default_rng(4)
    tagger = replace(SMALL, epochs=1).fit(_jets(rng, 100, 1), rng=rng)
    x = _jets(rng, 30, 1)
    each = tagger.jet_scores(x)
    product = np.log(each).sum(1)
    for name, expected in (("min", each.min(1)), ("max", each.max(1)), ("sum", each.sum(1)), ("product", product)):
        np.testing.assert_array_equal(replace(tagger, combine=name).score(x), expected)


def test_the_score_weighs_the_divergence_by_its_own_factor() -> None:
    rng = np.random.default_rng(8)
    tagger = replace(SMALL, epochs=2).fit(_jets(rng, 100, 1), rng=rng)
    x = _jets(rng, 30, 2)
    none, half, one = (replace(tagger, score_beta=b).jet_scores(x) for b in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, 0.5 * (none + one), rtol=1e-4)
    assert np.all(one > none)
    # The factor of the training has no part in it.
    np.testing.assert_array_equal(replace(tagger, beta=9.0, score_beta=0.5).jet_scores(x), half)


def test_the_same_generator_gives_the_same_network() -> None:
    x = _jets(np.random.default_rng(5), 100, 1)
    one, two = (replace(SMALL, epochs=2).fit(x, rng=np.random.default_rng(1)).score(x) for _ in range(2))
    np.testing.assert_allclose(one, two, rtol=1e-4)


def test_jets_without_weight_are_not_seen() -> None:
    rng = np.random.default_rng(6)
    good, bad = _jets(rng, 120, 1), _jets(rng, 60, 2)
    w = np.repeat([1.0, 0.0], [120, 60])
    first = replace(SMALL, epochs=2).fit(np.concatenate([good, bad]), weights=w, rng=np.random.default_rng(1))
    other = replace(SMALL, epochs=2).fit(np.concatenate([good, 7 * bad[::-1]]), weights=w, rng=np.random.default_rng(1))
    np.testing.assert_allclose(first.score(good), other.score(good), rtol=1e-4)


def test_sideband_jets_get_the_pt_of_the_signal_region() -> None:
    rng = np.random.default_rng(7)
    side, region = rng.exponential(150, (9000, 2)) + 500, rng.exponential(250, (4000, 2)) + 600
    w = vae.sideband_weights(side, region)
    assert w.shape == side.shape
    assert np.all(w[side < 600] == 0)
    edges = np.quantile(region, np.linspace(0, 0.95, 11))
    there = np.histogram(side, edges, weights=w)[0]
    np.testing.assert_allclose(there / there.sum(), 0.1, atol=0.02)


def test_bad_input() -> None:
    rng = np.random.default_rng(0)
    x = _jets(rng, 100, 1)
    with pytest.raises(InputError, match="call fit first"):
        SMALL.score(x)
    with pytest.raises(InputError, match="constituents"):
        SMALL.fit(x[:, 0], rng=rng)
    with pytest.raises(InputError, match="weights"):
        SMALL.fit(x, weights=-np.ones(100), rng=rng)
    with pytest.raises(InputError, match="jets to train on"):
        SMALL.fit(x, weights=np.zeros(100), rng=rng)
    with pytest.raises(InputError, match="no spread"):
        SMALL.fit(np.zeros_like(x), rng=rng)
    with pytest.raises(InputError, match="sideband: found no jet"):
        vae.sideband_weights(np.empty((0, 2)), np.ones((3, 2)))
    with pytest.raises(InputError, match="overlap"):
        vae.sideband_weights(np.full((5, 2), 100.0), rng.uniform(500, 900, (50, 2)))
