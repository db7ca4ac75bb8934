"""Sums of terms that hang on the same numbers."""

from __future__ import annotations

import itertools

import numpy as np

from l1ad.events.layout import get_layout
from l1ad.scores import SCORES
from l1ad.trigger.build import NodeOps, ProgramBuilder
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Dense
from l1ad.validate.bounds import tighten
from l1ad.validate.separable import separable


def two_heads(score: str) -> Program:
    """A score of two latent dimensions that hang on four words, all values of which can be tried."""
    builder = ProgramBuilder(get_layout("cms_ugt"))
    narrow = builder.quantize(builder.take(builder.input, [27, 30, 33, 36]), FixedType(4, 4, True, "TRN", "SAT"))
    kinds = {"weight_type": FixedType(6, 3), "bias_type": FixedType(10, 7)}
    head = FixedType.parse("ap_fixed<8,5,RND_CONV,SAT>")
    mu, log_var = (
        builder.quantize(builder.dense(narrow, weights, [3, -2], **kinds, name=f"{name}_dense"), head, name=name)
        for name, weights in (
            ("mu", [[5, 0], [0, -7], [1, 0], [0, 3]]),
            ("log_var", [[-9, 0], [4, 0], [0, 6], [0, -8]]),
        )
    )
    value = SCORES[score].function(mu, log_var, ops=NodeOps(builder))
    return builder.program(score=value, latents=mu)


def every_score(program: Program) -> np.ndarray:
    """Sums before the cast for all words that can differ."""
    words = np.array(list(itertools.product(range(8), repeat=4)))
    inputs = np.zeros((len(words), 57), dtype=int)
    inputs[:, [27, 30, 33, 36]] = words
    node = program.node("sum")
    values = program.evaluate(inputs)
    fractions = tuple(program.node(name).type.fraction for name in node.inputs)
    return node.exact(*(values[name] for name in node.inputs), fractions=fractions)[0][:, 0]


def test_a_divergence_is_never_negative() -> None:
    program = two_heads("kl")
    node = program.node("sum")
    assert isinstance(node, Dense)
    plain = node.exact_interval(*(program.intervals[name] for name in node.inputs))
    found = separable(program, node, program.intervals)
    assert found is not None
    assert plain.low[0] < 0 <= found.low[0]
    assert found.high[0] <= plain.high[0]
    assert found.fraction == plain.fraction
    seen = every_score(program)
    assert found.low[0] <= seen.min() <= seen.max() <= found.high[0]
    # The ends by hand, element by element: a square cut to 1/16, and a divergence in log sigma^2 with a rounded table.
    expected = 0.0
    for name, term in (
        ("mu", lambda x: np.floor(x * x * 16) / 32),
        ("log_var", lambda x: (np.round(np.exp(x) * 256) / 256 - x - 1) / 2),
    ):
        interval = program.intervals[name]
        for low, high in zip(interval.low.tolist(), interval.high.tolist(), strict=True):
            expected += term(np.arange(low, high + 1) / 8).min()
    assert found.low[0] * 2.0**-found.fraction == expected
    assert tighten(program).exact["sum"].low[0] == found.low[0]


def test_a_product_of_two_elements_stays_one_term() -> None:
    """R_z is a sum of mu^2 times a function of another number: nothing to group, and what is said holds."""
    program = two_heads("rz")
    node = program.node("sum")
    assert isinstance(node, Dense)
    assert separable(program, node, program.intervals) is None
    bounds = tighten(program)
    seen = every_score(program)
    assert bounds.exact["sum"].low[0] <= seen.min()
    assert seen.max() <= bounds.exact["sum"].high[0]
