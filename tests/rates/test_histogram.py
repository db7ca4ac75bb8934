"""The score histogram against plain numpy, its independence of chunks, and its limits."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import InputError
from l1ad.rates.histogram import KINDS, N_SCORES, ScoreHistogram


def random_sample(seed: int, n: int, *, weighted: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    fired = rng.integers(0, 3, n) * (rng.random(n) < 0.4)
    return {
        "scores": np.minimum(rng.exponential(300.0, n), N_SCORES - 1).astype(np.int64),
        "weight": rng.gamma(1.0, 2.0, n) * 10.0 ** rng.integers(-4, 2, n) if weighted else np.ones(n),
        "chance_none": np.where(fired > 0, rng.choice([0.0, 0.5], n) / (1.0 + fired), 1.0),
        "mean_share": 1.0 / (1.0 + fired),
    }


def filled(sample: dict[str, np.ndarray], cuts: list[int]) -> ScoreHistogram:
    total = ScoreHistogram(has_menu=True)
    edges = [0, *sorted(cuts), len(sample["scores"])]
    parts = []
    for start, stop in itertools.pairwise(edges):
        part = ScoreHistogram(has_menu=True)
        part.fill(
            sample["scores"][start:stop],
            sample["weight"][start:stop],
            chance_none=sample["chance_none"][start:stop],
            mean_share=sample["mean_share"][start:stop],
        )
        parts.append(part)
    for part in reversed(parts):
        total.merge(part)
    return total


@pytest.mark.parametrize("weighted", [False, True])
def test_tails_agree_with_numpy(weighted: bool) -> None:
    sample = random_sample(1, 5000, weighted=weighted)
    histogram = filled(sample, [])
    factors = {"total": np.ones(5000), "pure": sample["chance_none"], "proportional": sample["mean_share"]}
    for kind in KINDS:
        tails = histogram.tails(kind)
        weight = sample["weight"] * factors[kind]
        for threshold in (0, 1, 17, 300, 1500, int(sample["scores"].max()), N_SCORES):
            above = sample["scores"] >= threshold
            assert tails.counts[threshold] == (above & (weight > 0)).sum()
            assert tails.sum_w[threshold] == pytest.approx(weight[above].sum(), rel=1e-12)
            assert tails.sum_w2[threshold] == pytest.approx((weight[above] ** 2).sum(), rel=1e-12)
    assert histogram.n_events == 5000
    assert histogram.is_weighted == weighted


@given(st.integers(0, 100), st.lists(st.integers(0, 400), max_size=5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_chunks_and_order_change_no_bit(seed: int, cuts: list[int], weighted: bool) -> None:
    sample = random_sample(seed, 400, weighted=weighted)
    whole, divided = filled(sample, []), filled(sample, cuts)
    for kind in KINDS:
        one, other = whole.tails(kind), divided.tails(kind)
        for name in ("counts", "sum_w", "sum_w2"):
            assert np.array_equal(getattr(one, name), getattr(other, name))


@given(st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_rates_fall_with_the_threshold_and_pure_is_least(seed: int) -> None:
    histogram = filled(random_sample(seed, 300), [])
    total, proportional, pure = (histogram.tails(kind).sum_w for kind in ("total", "proportional", "pure"))
    for tail in (total, proportional, pure):
        assert (np.diff(tail) <= 0).all()
    assert (pure <= proportional * (1 + 1e-14)).all()
    assert (proportional <= total * (1 + 1e-14)).all()


def test_a_file_brings_it_back(tmp_path: Path) -> None:
    histogram = filled(random_sample(3, 1000), [300])
    with h5py.File(tmp_path / "h.h5", "w") as file:
        histogram.write(file)
    with h5py.File(tmp_path / "h.h5") as file:
        again = ScoreHistogram.read(file)
    again.merge(filled(random_sample(4, 100), []))
    histogram.merge(filled(random_sample(4, 100), []))
    for kind in KINDS:
        assert np.array_equal(again.tails(kind).sum_w, histogram.tails(kind).sum_w)
        assert np.array_equal(again.tails(kind).counts, histogram.tails(kind).counts)
    assert again.n_events == histogram.n_events


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
def test_any_integer_type(dtype: type) -> None:
    histogram = ScoreHistogram()
    histogram.fill(np.array([0, 5, N_SCORES - 1], dtype=dtype))
    assert histogram.tails().counts[[0, 1, 5, 6, N_SCORES - 1, N_SCORES]].tolist() == [3, 2, 2, 1, 1, 0]


def test_events_of_weight_zero_count_nothing() -> None:
    histogram = ScoreHistogram()
    histogram.fill(np.array([1, 2, 3]), np.array([0.0, 0.5, 0.0]))
    assert histogram.n_events == 3
    assert histogram.tails().counts[0] == 1


@pytest.mark.parametrize(
    ("scores", "weight", "message"),
    [
        (np.array([1.0]), None, "scores: found float64, expected integers"),
        (np.array([-1, 3]), None, "scores: found -1, expected 0 to 262143"),
        (np.array([1 << 18]), None, "scores: found 262144, expected 0 to 262143"),
        (np.array([1 << 40]), None, "expected 0 to 262143"),
        (np.array([1, 2, 3]), np.array([1.0, -1.0, -2.0]), "weight: found 2 of 3 negative, expected 0 or more"),
        (np.array([1, 2]), np.array([1.0, np.nan]), "weight: found 1 NaN or infinite"),
    ],
)
def test_what_cannot_be_filled(scores: np.ndarray, weight: np.ndarray | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ScoreHistogram().fill(scores, weight, where="zb.h5")
    assert message in str(caught.value)
    assert str(caught.value).startswith("zb.h5: ")


def test_menu_or_not_must_be_decided_once() -> None:
    histogram = ScoreHistogram()
    with pytest.raises(InputError, match="menu decisions"):
        histogram.fill(np.array([1]), chance_none=np.ones(1), mean_share=np.ones(1))
    with pytest.raises(InputError, match="pure rate: found no menu decisions"):
        histogram.tails("pure")
    with pytest.raises(InputError, match="kind: found purest"):
        histogram.tails("purest")
    with pytest.raises(InputError, match="menu decisions"):
        histogram.merge(ScoreHistogram(has_menu=True))


def test_memory_does_not_grow_with_the_events() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, N_SCORES, 1 << 22).astype(np.int32)
    weight = rng.random(1 << 19)
    peaks = {}
    for name in ("counts", "counts again", "weights"):
        tracemalloc.start()
        histogram = ScoreHistogram()
        for _ in range(3 if name == "counts again" else 1):
            if name == "weights":
                histogram.fill(scores[: len(weight)], weight)
            else:
                histogram.fill(scores)
        histogram.tails()
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(peaks.values()) < 64e6, peaks
    assert peaks["counts again"] < 1.05 * peaks["counts"]
