"""Extreme inputs and proofs that there are none, against every input of networks small enough to try them all."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from l1ad import Trigger
from l1ad.events.layout import get_layout
from l1ad.scores import SCORES
from l1ad.trigger.build import NodeOps, ProgramBuilder
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.validate.ascent import Target, ascend, exact_values, slopes, word_ends
from l1ad.validate.bounds import out_of_reach, tighten
from l1ad.validate.equivalence import Prover
from l1ad.validate.mutants import Mutation

#: Inputs that the networks look at: the others have weight 0.
SEEN = (4, 28, 31)
TYPES = {
    "input": "ap_fixed<5,4,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    # Narrow: rectifiers and results saturate, and the proofs must know.
    "relu": "ap_ufixed<6,4,RND_CONV,SAT>",
    "result": "ap_fixed<8,5,RND_CONV,SAT>",
}


def tiny(seed: int) -> Program:
    rng = np.random.default_rng(seed)
    sizes = (57, 4, 3, 3)
    weights = [rng.integers(-8, 8, pair) for pair in itertools.pairwise(sizes)]
    unseen = [i for i in range(57) if i not in SEEN]
    weights[0][unseen] = 0
    biases = [rng.integers(-30, 30, n) for n in sizes[1:]]
    scaling = {"offset": np.zeros(57), "shift": np.full(57, 3)}
    return Trigger.from_layers(weights, biases, TYPES, scaling).program


def every_input(program: Program) -> np.ndarray:
    """One word for each combination of scaled values of the inputs that count."""
    first, scale = program.nodes[0], program.nodes[1]
    words = np.minimum(first.low + np.arange(2048)[:, None], first.high)
    scaled = scale.evaluate(words, fractions=(0,))
    columns = [words[np.unique(scaled[:, j], return_index=True)[1], j] for j in SEEN]
    grid = np.stack([axis.reshape(-1) for axis in np.meshgrid(*columns, indexing="ij")], axis=1)
    inputs = np.zeros((len(grid), first.size), dtype=np.int64)
    inputs[:, SEEN] = grid
    return inputs


@pytest.fixture(scope="module", params=[1, 2, 5])
def case(request: pytest.FixtureRequest) -> tuple[Program, dict[str, np.ndarray]]:
    program = tiny(request.param)
    inputs = every_input(program)
    assert len(inputs) > 10_000
    return program, program.evaluate(inputs)


def test_ascent_finds_the_extremes_of_a_network(case) -> None:
    program, values = case
    targets = [Target(node.name, i, up) for node in program.nodes[2:] for i in range(node.size) for up in (True, False)]
    events = ascend(program, targets, np.random.default_rng(1))
    found = program.evaluate(events)
    first = program.nodes[0]
    assert ((events >= first.low) & (events <= first.high)).all()
    for k, target in enumerate(targets):
        node = program.node(target.node)
        exact = exact_values(program, node, values)[0][:, target.element]
        got = int(exact_values(program, node, found)[0][k, target.element])
        assert exact.min() <= got <= exact.max()
        # A search and no proof, of the ends of the words alone: near every extreme.
        end = exact.max() if target.upward else exact.min()
        assert abs(got - end) <= 0.1 * (exact.max() - exact.min()), target


@pytest.mark.parametrize("integer", [False, True])
def test_bounds_hold_every_input(case, integer: bool) -> None:
    program, values = case
    bounds = tighten(program, integer=integer)
    plain = program.intervals
    for node in program.nodes[2:]:
        exact, fraction = exact_values(program, node, values)
        interval = bounds.exact[node.name]
        assert interval.fraction == fraction
        assert (exact.min(axis=0) >= interval.low).all()
        assert (exact.max(axis=0) <= interval.high).all()
        own = node.exact_interval(*(plain[name] for name in node.inputs))
        assert (interval.high <= own.high).all()
        assert (interval.low >= own.low).all()


def test_nothing_that_is_reached_is_out_of_reach(case) -> None:
    program, values = case
    bounds = tighten(program, integer=True)
    for name in ("dense_2", "dense_3", "sum"):
        node = program.node(name)
        exact = exact_values(program, node, values)[0]
        for i in range(node.size):
            ends = int(exact[:, i].min()), int(exact[:, i].max())
            assert not out_of_reach(program, bounds, name, i, ends[1], upward=True)
            assert not out_of_reach(program, bounds, name, i, ends[0], upward=False)
            # Beyond what rounding and chords can hide, it is proven.
            far = (ends[1] - ends[0]) // 3
            assert out_of_reach(program, bounds, name, i, ends[1] + far, upward=True)
            if name != "sum":
                assert out_of_reach(program, bounds, name, i, ends[0] - far, upward=False)


def test_no_time_is_no_proof(case) -> None:
    program, _ = case
    assert not out_of_reach(program, tighten(program), "sum", 0, 1 << 40, upward=True, seconds=0.0)
    late = tighten(program, integer=True, seconds=0.0)
    for node in program.nodes[2:]:
        assert (late.exact[node.name].high >= tighten(program).exact[node.name].high).all()


def test_a_width_that_nothing_reaches_is_proven_and_one_that_something_reaches_is_not(case) -> None:
    program, values = case
    node = program.node("sum")
    most = int(values["sum"].max())
    proven = 0
    for width in range(most.bit_length() - 1, node.type.width):
        narrow = replace(node, type=replace(node.type, width=width, integer=width - node.type.fraction))
        nodes = tuple(narrow if other.name == "sum" else other for other in program.nodes)
        change = Mutation("width", "narrower", "sum", -1, replace(program, nodes=nodes))
        reason = Prover(program).reason(change, levels=("integer programming",))
        if most > narrow.type.max_code:
            assert reason == ""
        proven += bool(reason)
    assert proven or most.bit_length() == node.type.width


def test_word_ends_are_the_words_that_scale_to_the_ends(case) -> None:
    program, _ = case
    first, scale = program.nodes[0], program.nodes[1]
    low, high = word_ends(program)
    ends = scale.evaluate(np.stack([low, high]), fractions=(0,))
    some = np.random.default_rng(3).integers(first.low, first.high + 1, (4000, first.size))
    scaled = scale.evaluate(some, fractions=(0,))
    assert (ends[0] <= scaled.min(axis=0)).all()
    assert (ends[1] >= scaled.max(axis=0)).all()


def test_slopes_are_differences_of_a_network_without_roundings() -> None:
    """Every operation, on types that neither round nor saturate: a step of one input changes the score by its slope."""
    rng = np.random.default_rng(5)
    builder = ProgramBuilder(get_layout("cms_ugt"))
    kinds = {"weight_type": FixedType(6, 6), "bias_type": FixedType(20, 20)}
    taken = builder.take(builder.input, [4, 28, 31, 7])
    dense = builder.dense(taken, rng.integers(-5, 6, (4, 6)), rng.integers(-50, 50, 6), **kinds)
    relu = builder.relu(dense, FixedType(40, 40, False))
    top = builder.maximum(relu, [[0, 1, 2], [3, 4, 5]])
    table = np.arange(-8000, 8000) * 3 + 7
    line = builder.lut(builder.take(dense, [0, 1]), table[None, :], first=-8000, type=FixedType(20, 20))
    both = builder.concat(builder.subtract(top, line), top)
    fine = ProgramBuilder.dense(builder, both, rng.integers(-3, 4, (4, 2)), **kinds)
    ops = NodeOps(builder, term=FixedType(60, 56), result=FixedType(18, 14, False, "TRN", "SAT"))
    program = builder.program(score=SCORES["mu2"].function(fine, ops=ops))
    base = rng.integers(0, 40, (300, 57))
    values = program.evaluate(base)
    node = program.node("sum")
    slope = slopes(program, values, "sum", np.ones((300, 1)))
    assert (slope != 0).any(axis=0).sum() == 4
    checked = 0
    for j in (4, 28, 31, 7):
        for step in (1, -1):
            moved = base.copy()
            moved[:, j] += step
            difference = (program.evaluate(moved)["sum"] - values["sum"])[:, 0] * node.type.lsb
            opposite = base.copy()
            opposite[:, j] -= step
            back = (values["sum"] - program.evaluate(opposite)["sum"])[:, 0] * node.type.lsb
            # A quadratic function: its slope is the mean of the two differences, away from the corners.
            smooth = np.isclose(step * (difference + back) / 2, slope[:, j])
            checked += int(smooth.sum())
            assert smooth.mean() > 0.8
    assert checked > 2000
