"""The compiled histogram against numpy's: every type, division and size, and what happens without a compiler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.rates import counting
from l1ad.rates.histogram import ScoreHistogram
from l1ad.trigger.emulate.build import find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler (cc, gcc or clang) on PATH")
SAMPLES = {
    "falling": lambda rng, n: np.minimum(rng.exponential(300.0, n), 262_143).astype(np.int64),
    "all bits": lambda rng, n: rng.integers(0, 1 << 18, n),
    "one score": lambda rng, n: np.full(n, 7),
    "zero": lambda rng, n: np.zeros(n, dtype=np.int64),
    "ends": lambda rng, n: rng.choice([0, (1 << 18) - 1], n),
}


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("L1AD_CACHE", str(tmp_path / "cache"))
    counting._load.cache_clear()
    yield
    counting._load.cache_clear()


@needs_compiler
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_counts_are_those_of_numpy(name: str, dtype: type) -> None:
    counting.prepare()
    rng = np.random.default_rng(1)
    for n in (1 << 14, 100_003):
        scores = SAMPLES[name](rng, n).astype(dtype)
        for threads in (1, 3):
            found = counting.count(scores, threads=threads)
            assert found is not None
            expected = np.bincount(scores, minlength=len(found))
            assert found.dtype == np.int64
            assert np.array_equal(found, expected)
            assert len(found) == 1 << int(scores.max()).bit_length()


@needs_compiler
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("floor", [1, 5, 900, 200_000, (1 << 18) - 1])
def test_a_tail_is_that_of_numpy(name: str, dtype: type, floor: int) -> None:
    counting.prepare()
    rng = np.random.default_rng(3)
    for n in (1 << 14, 100_003):
        scores = SAMPLES[name](rng, n).astype(dtype)
        expected = np.bincount(np.where(scores < floor, 0, scores), minlength=1 << 18)
        for threads in (1, 3):
            found = counting.count_from(scores, floor, threads=threads)
            assert found is not None
            assert np.array_equal(np.pad(found, (0, (1 << 18) - len(found))), expected)


@needs_compiler
@pytest.mark.parametrize("bad", [-1, 1 << 18, -(1 << 31), (1 << 31) - 1])
def test_scores_that_are_no_words_are_named(bad: int) -> None:
    counting.prepare()
    for dtype in (np.int32, np.int64):
        for place in (0, 50_000, 99_999):
            scores = np.arange(100_000, dtype=dtype)
            scores[place] = bad
            assert counting.count(scores) is None
            assert counting.count_from(scores, 90_000) is None
            with pytest.raises(InputError, match=f"scores: found {bad}, expected 0 to 262143"):
                ScoreHistogram().fill(scores)


def test_what_is_left_to_numpy() -> None:
    plain = np.arange(100_000)
    assert counting.count(plain[:100]) is None
    assert counting.count(plain[::2]) is None
    assert counting.count(plain.astype(np.uint16)) is None
    assert counting.count(plain.astype(">i8")) is None
    # Nothing is compiled for so few.
    assert counting.count(plain) is None


def test_without_a_compiler_the_histogram_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = SAMPLES["falling"](np.random.default_rng(2), 200_000)
    counting.prepare()
    with_compiler = ScoreHistogram()
    with_compiler.fill(scores, threads=2)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    counting.prepare()
    assert counting.count(scores) is None
    without = ScoreHistogram()
    without.fill(scores)
    assert np.array_equal(with_compiler.tails().counts, without.tails().counts)
    assert np.array_equal(with_compiler.tails().sum_w2, without.tails().sum_w2)
    assert with_compiler.n_events == without.n_events == len(scores)


@needs_compiler
def test_a_damaged_library_is_made_anew(tmp_path: Path) -> None:
    counting.prepare()
    (library,) = (tmp_path / "cache" / "kernels").glob("count-*.so")
    # Under another name: the one that is loaded stays mapped.
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(content[: len(content) // 2])
    counting._load.cache_clear()
    scores = np.arange(1 << 15)
    found = counting.count(scores)
    assert found is not None
    assert (found == 1).all()
    assert library.read_bytes() == content


@needs_compiler
def test_a_compiler_that_fails_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert counting.count(np.arange(counting.COMPILE_SCORES) % 1000) is None
