"""Each score has one definition; these tests hold it against formulas written another way."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy import stats

import l1ad.baselines
import l1ad.scores
from l1ad.events.layout import ObjectGroup, ObjectLayout, Word
from l1ad.scores import SCORES, embedding_mse, kl, mse, mu2, rz, to_integer
from l1ad.trigger.build import EXPONENTIAL_TYPE, NodeOps, ProgramBuilder
from l1ad.trigger.fixed import FixedType


@pytest.mark.parametrize("module", [l1ad.scores, l1ad.baselines])
def test_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_kl_is_the_divergence_of_gaussians_by_integration():
    mu, log_var = np.array([0.7, -1.2]), np.array([-0.4, 0.9])
    expected = 0.0
    for m, lv in zip(mu, log_var, strict=True):
        q, p = stats.norm(m, np.exp(lv / 2)), stats.norm(0, 1)
        expected += q.expect(lambda x, q=q, p=p: q.logpdf(x) - p.logpdf(x))
    assert kl(mu, log_var) == pytest.approx(expected, rel=1e-6)


def test_rz_is_the_pull_squared():
    rng = np.random.default_rng(1)
    mu, sigma = rng.normal(size=(5, 3)), rng.uniform(0.5, 2, (5, 3))
    assert np.allclose(rz(mu, 2 * np.log(sigma)), ((mu / sigma) ** 2).sum(axis=1))


def test_sums_not_means():
    x = np.full((2, 10), 2.0)
    assert mu2(x).tolist() == [40.0, 40.0]
    assert mse(x, 0 * x).tolist() == [40.0, 40.0]
    assert embedding_mse(x, 0 * x).tolist() == [40.0, 40.0]


def test_to_integer_is_the_menu_integer():
    """982.3125 is 15717 and 734.8125 is 11757 in the 2024 menu (l1-facts, section 6)."""
    assert to_integer([982.3125, 734.8125, 610.8125]).tolist() == [15717, 11757, 9773]
    assert to_integer([-1.0, 1e9]).tolist() == [0, 2**18 - 1]


LATENTS = FixedType(8, 4, True, "RND_CONV", "SAT")


@pytest.mark.parametrize("name", ["mu2", "kl", "rz", "mse", "embedding_mse", "student"])
def test_node_version_is_the_float_version_within_its_rounding(name):
    """The same definition emitted as integer nodes: every code of two latent pairs, against float64."""
    words = tuple(Word(f, 8, signed=True, kind="linear") for f in "ab")
    builder = ProgramBuilder(ObjectLayout("latents", (ObjectGroup("z", 2, words),)))
    values = builder.quantize(builder.input, FixedType(12, 8), name="exact")
    # Codes -128 ... 127 are read on the grid 1/16 of the latents.
    scaled = builder.dense(values, np.eye(4, dtype=int), weight_type=FixedType(2, -2), name="grid")
    scaled = builder.quantize(scaled, LATENTS, name="latents")
    first, second = builder.take(scaled, [0, 2]), builder.take(scaled, [1, 3])
    score = SCORES[name]
    wide = FixedType(30, 20, False, "TRN", "SAT")
    ops = NodeOps(builder, term=FixedType(24, 20, False))
    arguments = (first, second)[: len(score.needs)]
    program = builder.program(score=score.function(*arguments, ops=ops))
    rng = np.random.default_rng(2)
    codes = rng.integers(-128, 128, (4000, 4))
    codes[:256, 1] = codes[:256, 3] = np.arange(-128, 128)
    x = codes / 16.0
    exact = score.function(*(x[:, [0, 2]], x[:, [1, 3]])[: len(score.needs)])
    got = program.evaluate(codes)[program.score][:, 0] / 16
    assert wide.width == 30
    # Two terms cut to 1/16, the sum cut once more, tables rounded to half their LSB (times mu^2 <= 64 in R_z).
    slack = 3 / 16 + 2 * 64 * EXPONENTIAL_TYPE.lsb / 2
    inside = (exact >= 0) & (exact < 2**14) & (np.exp(np.abs(x)).max(axis=1) < 2**10)
    assert inside.sum() > 1000
    assert (got[inside] <= exact[inside] + slack).all()
    assert (got[inside] >= exact[inside] - slack).all()
