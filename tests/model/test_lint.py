"""Each rule of the linter: a model that breaks it, and that --fix changes no result."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The initializer .* is unseeded:UserWarning"),
    pytest.mark.filterwarnings("ignore:The `keras.constraints.serialize:UserWarning"),
]


@pytest.fixture(scope="module")
def lib(stack):
    from l1ad.model import lint

    return lint


def build(stack, *layers):
    x = inputs = stack.keras.Input((6,), name="inputs")
    for layer in layers:
        x = layer(x)
    return stack.keras.Model(inputs, x)


def bits(stack, width=8, integer=3, **options):
    return stack.qkeras.quantized_bits(width, integer, **{"alpha": 1, **options})


def act(stack, quantizer, name="act"):
    return stack.qkeras.QActivation(quantizer, name=name)


def dense(stack, kernel=None, bias=None, name="d"):
    q = bits(stack)
    return stack.qkeras.QDense(4, kernel_quantizer=kernel or q, bias_quantizer=bias or q, name=name)


def see(stack):
    return act(stack, bits(stack), "see")


def test_a_model_of_ours_is_clean(stack, lib):
    from l1ad.config import RunConfig
    from l1ad.events import get_layout
    from l1ad.model import build_network

    config = {"name": "x", "data": {"sample": "bundled"}, "model": {"family": "vae"}}
    assert lib.lint(build_network(RunConfig.of(config), get_layout("cms_ugt")).encoder) == ()


CASES = {
    "no input quantiser": (lambda s: [dense(s), act(s, bits(s))], "d", "unquantised", False),
    "alpha auto": (
        lambda s: [see(s), dense(s, bits(s, alpha="auto", symmetric=1)), act(s, bits(s))],
        "d",
        "auto",
        False,
    ),
    "alpha none": (lambda s: [see(s), dense(s, bits(s, alpha=None)), act(s, bits(s))], "d", "auto_po2", False),
    "alpha of 2": (lambda s: [see(s), dense(s, bits(s, alpha=2)), act(s, bits(s))], "d", "alpha=2", False),
    "activation alpha": (lambda s: [see(s), dense(s), act(s, bits(s, alpha=None))], "act", "without alpha", True),
    "symmetric": (lambda s: [see(s), dense(s), act(s, bits(s, symmetric=1))], "act", "symmetric", False),
    "keep_negative": (lambda s: [see(s), dense(s), act(s, bits(s, keep_negative=0))], "act", "keep_negative", True),
    "sigmoid": (
        lambda s: [see(s), dense(s), act(s, s.qkeras.quantized_relu(8, 3, use_sigmoid=1))],
        "act",
        "use_sigmoid",
        False,
    ),
    "slope": (
        lambda s: [see(s), dense(s), act(s, s.qkeras.quantized_relu(8, 3, negative_slope=0.25))],
        "act",
        "negative slope",
        False,
    ),
    "power of two": (lambda s: [see(s), dense(s), act(s, s.qkeras.quantized_relu_po2(4))], "act", "relu_po2", False),
    "stochastic": (
        lambda s: [see(s), dense(s), act(s, s.qkeras.quantized_relu(8, 3, use_stochastic_rounding=True))],
        "act",
        "stochastic",
        True,
    ),
    "integer grid": (lambda s: [see(s), dense(s), act(s, bits(s, 10, 9))], "act", "no fraction bits", False),
    "no quantiser between": (
        lambda s: [see(s), dense(s), dense(s, name="e"), act(s, bits(s))],
        "e",
        "unrounded",
        False,
    ),
    "open output": (lambda s: [see(s), dense(s)], "d", "output of unrounded", False),
    "float layer": (lambda s: [see(s), s.keras.layers.Dense(3, name="f"), act(s, bits(s))], "f", "Dense", False),
    "float kernel": (
        lambda s: [see(s), s.qkeras.QDense(3, bias_quantizer=bits(s), name="d"), act(s, bits(s))],
        "d",
        "float kernel",
        False,
    ),
    "nothing": (lambda s: [see(s)], "model", "nothing to freeze", False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule(stack, lib, name):
    make, layer, words, fixable = CASES[name]
    model = build(stack, *make(stack))
    findings = lib.lint(model)
    found = [f for f in findings if words in str(f)]
    assert found, [str(f) for f in findings]
    assert found[0].layer.startswith(layer)
    assert found[0].fixable is fixable
    assert "\n" not in str(found[0])
    fixed, rewritten = lib.fix(model)
    assert bool(rewritten) is fixable
    if fixable:
        assert lib.lint(fixed) == ()
        rng = np.random.default_rng(1)
        x = np.concatenate([rng.normal(0, 4, (400, 6)), np.rint(rng.normal(0, 30, (400, 6))) / 16]).astype(np.float32)
        assert np.array_equal(np.asarray(fixed(x)), np.asarray(model(x)))
        assert len(np.unique(np.asarray(model(x)))) > 5


def test_a_pruning_wrapper_is_stripped(stack, lib):
    import tensorflow_model_optimization as tfmot

    plan = tfmot.sparsity.keras.ConstantSparsity(0.5, 0)
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(dense(stack), pruning_schedule=plan)
    model = build(stack, see(stack), wrapped, act(stack, bits(stack)))
    findings = lib.lint(model)
    assert "wrapped for pruning" in str(findings[0])
    fixed, rewritten = lib.fix(model)
    assert len(rewritten) == 1
    assert lib.lint(fixed) == ()
    x = np.random.default_rng(2).normal(0, 4, (50, 6)).astype(np.float32)
    assert np.array_equal(np.asarray(fixed(x)), np.asarray(model(x)))


def test_freezing_refuses_what_the_linter_finds(stack, lib):
    from l1ad.errors import ConfigError

    model = build(stack, see(stack), dense(stack), act(stack, bits(stack, symmetric=1)))
    with pytest.raises(ConfigError, match="act: symmetric activation quantiser"):
        lib.require_clean(model)
    lib.require_clean(build(stack, see(stack), dense(stack), act(stack, bits(stack, 10, 9))))
