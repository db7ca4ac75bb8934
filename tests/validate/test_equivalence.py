"""Proofs that a change does nothing, and events for changes that do: every word of a small trigger is tried."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Lut, Node
from l1ad.validate.equivalence import Prover
from l1ad.validate.hunt import hunt
from l1ad.validate.mutants import Mutation
from l1ad.validate.mutate import run
from tests.validate.test_separable import two_heads


@pytest.fixture(scope="module")
def program() -> Program:
    return two_heads("kl")


@pytest.fixture(scope="module")
def every_word() -> np.ndarray:
    inputs = np.zeros((8**4, 57), dtype=int)
    inputs[:, [27, 30, 33, 36]] = list(itertools.product(range(8), repeat=4))
    return inputs


def changed(program: Program, kind: str, node: Node, element: int = -1) -> Mutation:
    nodes = tuple(node if other.name == node.name else other for other in program.nodes)
    return Mutation(kind, f"{node.name} changed", node.name, element, replace(program, nodes=nodes))


def scores(program: Program, inputs: np.ndarray) -> np.ndarray:
    return program.evaluate(inputs)[program.score][:, 0]


def test_what_the_next_cast_does_not_tell_apart_is_proven(program: Program, every_word: np.ndarray) -> None:
    """The score is cut to 1/16: a sum with fewer bits of fraction, cut too, is the same; a rounded one is not."""
    node = program.node("sum")
    kind = node.type
    assert kind.fraction > 5
    less = changed(program, "width", replace(node, type=FixedType(kind.width - 4, kind.integer, kind.signed)))
    assert "is cast alike, as score reads it" in Prover(program).reason(less)
    np.testing.assert_array_equal(scores(less.program, every_word), scores(program, every_word))
    rounded = replace(node, type=FixedType(kind.integer + 5, kind.integer, kind.signed, "RND", kind.overflow))
    more = changed(program, "rounding", rounded)
    assert (scores(more.program, every_word) != scores(program, every_word)).any()
    assert Prover(program).reason(more) == ""


def test_entries_of_a_table_are_hunted_and_none_is_proven_that_counts(program: Program, every_word: np.ndarray) -> None:
    """The truth is known here, for all words can be tried: an event is found or a proof given, never the wrong one."""
    node = program.node("lut_1")
    assert isinstance(node, Lut)
    golden = scores(program, every_word)
    prover, rng, known = Prover(program), np.random.default_rng(3), every_word[::401]
    made = 0
    for entry in range(0, node.tables.shape[1], 9):
        tables = node.tables.copy()
        tables[0, entry] ^= 32
        change = changed(program, "table", replace(node, tables=tables))
        differs = bool((scores(change.program, every_word) != golden).any())
        reason = prover.reason(change, levels=("", "linear programming", "reach"))
        found = hunt(program, change, known, rng)
        assert not (differs and reason), reason
        assert (found is not None) == differs
        if found is not None:
            assert scores(change.program, found[None]) != scores(program, found[None])
            made += int((scores(change.program, known) == scores(program, known)).all())
    assert made >= 3


def test_run_says_how_each_was_settled(program: Program, every_word: np.ndarray) -> None:
    node = program.node("lut_1")
    assert isinstance(node, Lut)
    known = every_word[1::401]
    codes = [np.unique(program.evaluate(inputs)["log_var"]) for inputs in (every_word, known)]
    unseen = int(np.setdiff1d(*codes)[0])
    tables = node.tables.copy()
    tables[0, unseen - node.first] ^= 64
    seen = changed(program, "table", replace(node, tables=tables))
    kind = program.node("score").type
    wrap = changed(program, "overflow", replace(program.node("score"), type=kind.with_modes("TRN", "WRAP")))
    caught, proven = run(program, known, scores(program, known), [seen, wrap])
    assert caught.caught
    assert caught.reason == "caught by an event made for it"
    assert proven.equivalent
    assert not proven.missed
    assert not proven.undecided
