"""The check itself: what it must catch, what it says, and that it can fail."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l1ad import Trigger
from l1ad.backends.native import BuildError
from l1ad.errors import InputError
from l1ad.trigger.nodes import Dense, Relu, Scale
from l1ad.validate import adversarial_inputs, compare, mutations, run_mutations, validate
from l1ad.validate.adversarial import cast_events, corners, perturbed, scale_edges
from l1ad.validate.ascent import exact_values
from l1ad.validate.bounds import tighten
from l1ad.validate.equivalence import Prover
from l1ad.validate.mutants import Mutation
from l1ad.validate.realisations import REALISATIONS, FastKernel

TYPES = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}


def make(seed: int = 3, sizes: tuple[int, ...] = (57, 5, 3), density: float = 0.5) -> Trigger:
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-8, 8, pair) * (rng.random(pair) < density) for pair in itertools.pairwise(sizes)]
    biases = [rng.integers(-20, 20, n) for n in sizes[1:]]
    scaling = {"offset": rng.integers(0, 20, 57).astype(float), "shift": rng.integers(1, 5, 57)}
    return Trigger.from_layers(weights, biases, TYPES, scaling, name="small")


@pytest.fixture(scope="module")
def trigger() -> Trigger:
    return make()


class Broken:
    """A realisation of a program with one thing changed: it claims to be of the trigger."""

    name = "broken"

    def __init__(self, trigger: Trigger, program, *, shows: bool = True) -> None:
        self.trigger_hash, self.program, self.shows = trigger.hash, program, shows

    def score(self, inputs):
        return self.program.evaluate(inputs)[self.program.score][:, 0]

    def trace(self, inputs):
        return self.program.evaluate(inputs) if self.shows else {}


def with_node(program, node):
    return replace(program, nodes=tuple(node if other.name == node.name else other for other in program.nodes))


# ------------------------------------------------------------------ adversarial events


def test_adversarial_events_are_words_and_hit_what_they_should(trigger: Trigger) -> None:
    program = trigger.program
    first = program.nodes[0]
    found = adversarial_inputs(program, np.random.default_rng(1), random_events=1000, rounds=3)
    assert (found.inputs >= first.low).all()
    assert (found.inputs <= first.high).all()
    assert len(np.unique(found.inputs, axis=0)) == len(found.inputs)
    rows = {tuple(row) for row in found.inputs}
    zero = np.zeros(57, dtype=int)
    hot = zero.copy()
    hot[30] = first.high[30]
    for wanted in (zero, first.low, first.high, hot):
        assert tuple(int(x) for x in wanted) in rows
    # Recount the coverage from the events themselves.
    values = program.evaluate(found.inputs)
    for row in found.coverage:
        node = program.node(row.node)
        hits = cast_events(node.type, *exact_values(program, node, values))[row.kind]
        assert int(hits.any(axis=0).sum()) >= row.reached
    reached = {(row.node, row.kind): (row.reached, row.possible) for row in found.coverage}
    assert reached["scale", "above"][0] == reached["scale", "above"][1] > 0
    assert reached["relu_1", "tie to even"][0] == reached["relu_1", "tie to odd"][0] == 5
    assert reached["result", "tie to even"][0] == 3


def test_same_generator_same_events(trigger: Trigger) -> None:
    made = [adversarial_inputs(trigger.program, np.random.default_rng(7), random_events=50, rounds=1) for _ in range(2)]
    np.testing.assert_array_equal(made[0].inputs, made[1].inputs)


def test_ties_of_the_scaling_are_back_solved(trigger: Trigger) -> None:
    """Brute force over every word says which features have ties; each of them is in the events."""
    program = trigger.program
    scale = program.node("scale")
    assert isinstance(scale, Scale)
    first = program.nodes[0]
    edges = scale_edges(program, np.random.default_rng(0))
    exact, _ = scale.exact(edges, fractions=(0,))
    drop = scale.word.fraction - scale.type.fraction
    for j in range(57):
        words = np.tile(np.arange(first.low[j], first.high[j] + 1)[:, None], (1, 57))
        every = scale.exact(words, fractions=(0,))[0][:, j]
        has = bool(((every & ((1 << drop) - 1)) == 1 << (drop - 1)).any())
        assert bool(((exact[:, j] & ((1 << drop) - 1)) == 1 << (drop - 1)).any()) == has, j


def test_corners_hold_one_hot_of_each_feature() -> None:
    rows = corners(np.array([0, -3]), np.array([7, 3]))
    assert {(7, 0), (0, 3), (0, -3), (0, 0), (7, 3), (0, -3)} <= {tuple(map(int, row)) for row in rows}


# ------------------------------------------------------------------ comparison


def test_first_divergence_names_the_node_that_was_broken(trigger: Trigger) -> None:
    program = trigger.program
    node = program.node("relu_1")
    assert isinstance(node, Relu)
    broken = with_node(program, replace(node, type=node.type.with_modes("TRN", "SAT")))
    inputs = adversarial_inputs(program, np.random.default_rng(1), random_events=500, rounds=1).inputs
    golden = trigger.score(inputs, golden=True)
    row = compare(trigger, Broken(trigger, broken), inputs, golden)
    assert row.mismatches == int((Broken(trigger, broken).score(inputs) != golden).sum()) > 0
    first = row.first
    assert first is not None
    assert (first.node, first.op) == ("relu_1", "relu")
    assert abs(first.golden - first.found) == 1
    assert first.golden_value == first.golden / 16
    assert first.type == str(node.type)
    assert first.source_types == {"dense_1": str(program.node("dense_1").type)}
    # The event is real: its words give the two scores.
    words = np.array([first.inputs])
    assert int(trigger.score(words, golden=True)[0]) == first.score_golden != first.score_found
    np.testing.assert_array_equal(inputs[first.event], words[0])
    assert "relu_1[" in str(first)
    json.dumps(row.to_json())


def test_a_realisation_that_shows_nothing_diverges_at_the_score(trigger: Trigger) -> None:
    dense = trigger.program.node("dense_1")
    assert isinstance(dense, Dense)
    broken = Broken(trigger, with_node(trigger.program, replace(dense, bias=dense.bias + 9)), shows=False)
    inputs = np.zeros((3, 57), dtype=int)
    row = compare(trigger, broken, inputs, trigger.score(inputs, golden=True))
    assert row.first is not None
    assert (row.first.node, row.first.shown) == ("score", 0)


def test_equal_realisation_has_no_divergence(trigger: Trigger) -> None:
    inputs = np.zeros((3, 57), dtype=int)
    row = compare(trigger, FastKernel(trigger), inputs, trigger.score(inputs, golden=True))
    assert (row.mismatches, row.first, row.events) == (0, None, 3)


# ------------------------------------------------------------------ validate


def test_validate_says_yes_and_writes_it_down(trigger: Trigger, tmp_path: Path) -> None:
    trigger.save(tmp_path / "trigger.json")
    events = np.random.default_rng(2).integers(0, 100, (500, 19, 3))
    events[:, 0, 1] = 0
    result = validate(tmp_path, events, n=12_000, realisations=["fast", "keras"])
    assert result.passed
    assert result.events == max(12_000, result.adversarial)
    assert result.given == 500
    few = validate(trigger, events, n=600, realisations=["fast"], write=False)
    assert (few.given, few.random) == (300, 0)
    # What is missing is half made of the given events and half random.
    assert result.given + result.adversarial + result.perturbed + result.random == result.events
    assert 0 <= result.random - result.perturbed <= 1
    value = json.loads((tmp_path / "validation.json").read_text())
    assert (value["format"], value["format_version"], value["passed"]) == ("l1ad-validation", 1, True)
    assert value["hash"] == trigger.hash
    fast, keras = value["realisations"]
    assert (fast["mismatches"], fast["events"]) == (0, result.events)
    assert keras["mismatches"] is None
    assert "not a run folder" in keras["reason"]


def test_perturbed_events_are_words_near_the_given_ones(trigger: Trigger) -> None:
    first = trigger.program.nodes[0]
    rng = np.random.default_rng(4)
    given = np.clip(rng.integers(0, 60, (300, 57)), first.low, first.high)
    made = perturbed(given, first.low, first.high, rng, 2000)
    assert made.shape == (2000, 57)
    assert ((made >= first.low) & (made <= first.high)).all()
    # Most words are one of a given event in the same place, and few events are one of them as a whole.
    known = np.array([np.isin(made[:, j], given[:, j]).mean() for j in range(57) if first.high[j] > 0])
    assert known.mean() > 0.8
    assert not len(perturbed(given, first.low, first.high, rng, 0))
    whole = {row.tobytes() for row in given}
    assert np.mean([row.tobytes() in whole for row in made]) < 0.5


def test_validate_says_no(trigger: Trigger, tmp_path: Path) -> None:
    trigger.save(tmp_path / "trigger.json")
    scale = trigger.program.node("scale")
    assert isinstance(scale, Scale)
    # The two roundings of the input scaling made one: only ties and shifted-out bits tell.
    broken = with_node(trigger.program, replace(scale, type=scale.type.with_modes("RND", "SAT")))
    result = validate(tmp_path, n=9000, realisations=[Broken(trigger, broken), "fast"])
    assert not result.passed
    assert result.comparisons[0].first is not None
    assert result.comparisons[0].first.node == "scale"
    assert "broken DIFFERENT" in result.summary


def test_nothing_run_is_not_a_pass(trigger: Trigger) -> None:
    assert not validate(trigger, n=100, realisations=["keras"]).passed


def test_the_log_of_a_failed_compile_stays(trigger: Trigger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a run folder projects are made in a scratch folder: the log that the message names must outlive it."""
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo broken $i; done\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BuildError, match="broken 11") as caught:
        validate(trigger, n=10, realisations=["hls4ml"])
    log = Path(str(caught.value).splitlines()[0].partition("log: ")[2])
    assert "broken 1\n" in log.read_text()
    assert tmp_path in log.parents
    assert len(list(tmp_path.glob("l1ad-validate-*"))) == 1
    validate(trigger, n=10, realisations=["fast"])
    assert len(list(tmp_path.glob("l1ad-validate-*"))) == 1


def test_bad_input(trigger: Trigger) -> None:
    with pytest.raises(InputError, match=f"found vivado, expected {', '.join(REALISATIONS)}"):
        validate(trigger, n=10, realisations=["vivado"])
    with pytest.raises(InputError, match="1 or more"):
        validate(trigger, n=0)
    with pytest.raises(InputError, match=r"input 2 of event 1: found 300, expected 0 to 255"):
        events = np.zeros((2, 57), dtype=int)
        events[1, 2] = 300
        validate(trigger, events, n=100_000, realisations=["fast"])
    with pytest.raises(InputError, match="of another trigger"):
        validate(trigger, n=10, realisations=[FastKernel(make(9))])


# ------------------------------------------------------------------ mutations


def test_every_mutation_is_caught_or_proven(trigger: Trigger) -> None:
    program = trigger.program
    rng = np.random.default_rng(5)
    inputs = adversarial_inputs(program, rng).inputs
    changes = list(mutations(program, rng))
    outcomes = run_mutations(program, inputs, trigger.score(inputs, golden=True), changes)
    assert [row for row in outcomes if not row.caught and not row.equivalent] == []
    assert not any(row.missed or row.undecided for row in outcomes)
    caught = {row.kind for row in outcomes if row.caught}
    assert caught >= {"weight", "bias", "shift", "offset", "rounding", "overflow", "width"}
    assert all(row.reason for row in outcomes if row.equivalent)
    # The proofs are sound: they never hold for a mutation that an event has caught.
    prover = Prover(program)
    for row, change in zip(outcomes, changes, strict=True):
        if row.caught and row.what == change.what:
            assert prover.reason(change) == "", row.what
    # A mutation that is called equivalent is so on every event that there is here.
    more = np.random.default_rng(6).integers(program.nodes[0].low, program.nodes[0].high + 1, (20_000, 57))
    for row, change in zip(outcomes, changes, strict=True):
        if row.equivalent:
            mutant = change.program.evaluate(more)[program.score]
            np.testing.assert_array_equal(mutant[:, 0], trigger.score(more, golden=True), err_msg=row.what)


def test_a_weight_on_an_input_that_is_always_zero_changes_nothing(trigger: Trigger) -> None:
    dense = trigger.program.node("dense_1")
    assert isinstance(dense, Dense)
    # MET has no pseudorapidity: input 1 is 0 in every crossing, and its offset here makes it 0 after scaling too.
    scale = trigger.program.node("scale")
    offset = scale.offset.copy()
    offset[1] = 0
    program = with_node(trigger.program, replace(scale, offset=offset))
    weights = dense.weights.copy()
    weights[1, 0] ^= 1
    change = Mutation("weight", "MET eta", "dense_1", 0, with_node(program, replace(dense, weights=weights)))
    assert Prover(program).reason(change) == "its input is always 0"
    weights = dense.weights.copy()
    weights[0, 0] ^= 1
    live = Mutation("weight", "MET", "dense_1", 0, with_node(program, replace(dense, weights=weights)))
    assert Prover(program).reason(live, levels=("", "linear programming")) == ""


def test_without_adversarial_events_mutations_are_missed(trigger: Trigger) -> None:
    """Empty crossings alone see next to nothing: the events are what makes the check a check."""
    program = trigger.program
    inputs = np.zeros((10, 57), dtype=int)
    changes = list(mutations(program, np.random.default_rng(5)))
    golden = trigger.score(inputs, golden=True)
    seen = [(c.program.evaluate(inputs)[program.score][:, 0] != golden).any() for c in changes]
    assert sum(seen) < len(changes) / 2


@pytest.mark.parametrize("integer", [False, True])
def test_bounds_know_that_a_number_is_not_positive_and_negative_at_once(integer: bool) -> None:
    """relu(x) + relu(-x) is |x|: intervals alone allow twice as much, and every event lies within the bounds."""
    first, second = np.zeros((57, 2), dtype=int), np.full((2, 1), 8)
    first[4] = 8, -8
    scaling = {"offset": np.zeros(57), "shift": np.full(57, 3)}
    program = Trigger.from_layers([first, second], [np.zeros(2, int), np.zeros(1, int)], TYPES, scaling).program
    bounds = tighten(program, integer=integer)
    unit = 2.0 ** -bounds.exact["dense_2"].fraction
    largest = 16.0
    assert program.intervals["dense_2"].high[0] * unit == pytest.approx(2 * largest, abs=0.2)
    assert largest <= bounds.exact["dense_2"].high[0] * unit <= largest + 0.2
    inputs = adversarial_inputs(program, np.random.default_rng(8), random_events=4000).inputs
    for name, codes in program.evaluate(inputs).items():
        assert (codes >= bounds.cast[name].low).all(), name
        assert (codes <= bounds.cast[name].high).all(), name


@pytest.mark.parametrize("integer", [False, True])
def test_bounds_hold_every_event(integer: bool) -> None:
    for seed in range(3):
        program = make(seed, (57, 6, 4, 2), 0.2).program
        bounds = tighten(program, integer=integer)
        inputs = adversarial_inputs(program, np.random.default_rng(seed), random_events=4000, rounds=4).inputs
        for name, codes in program.evaluate(inputs).items():
            assert (codes >= bounds.cast[name].low).all(), name
            assert (codes <= bounds.cast[name].high).all(), name


@pytest.mark.slow
def test_deployed_v4_mutations(oracles: Path) -> None:
    data = np.load(oracles / "axol1tl_v4.npz")
    scaling = {"offset": data["offset"], "shift": data["shift"]}
    v4 = Trigger.from_layers(
        [data[f"w{i}"] for i in range(3)], [data[f"b{i}"] for i in range(3)], TYPES, scaling, name="v4"
    )
    result = validate(v4, data["hw"], n=40_000, realisations=["alkaid", "fast"], mutate=True)
    assert result.passed
    assert result.missed == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The initializer .* is unseeded:UserWarning")
def test_qkeras_model_of_a_run_folder_is_compared(tmp_path: Path) -> None:
    from l1ad.model.keras import import_tf, save_model
    from l1ad.trigger.freeze import freeze_model
    from l1ad.trigger.layers import Scaling

    stack = import_tf()
    keras, q = stack.keras, stack.qkeras

    def bits(width: int, integer: int):
        return q.quantized_bits(width, integer, alpha=1)

    x = inputs = keras.Input((57,))
    x = q.QActivation(bits(8, 5), name="input_quantizer")(x)
    x = q.QDense(5, kernel_quantizer=bits(6, 2), bias_quantizer=bits(10, 6), name="hidden")(x)
    x = q.QActivation(q.quantized_relu(10, 6), name="hidden_relu")(x)
    x = q.QDense(3, kernel_quantizer=bits(6, 2), bias_quantizer=bits(10, 6), name="mu_dense")(x)
    x = q.QActivation(bits(10, 6), name="mu")(x)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(4)
    for layer in model.layers:
        layer.set_weights([rng.normal(0, 1, w.shape) for w in layer.get_weights()])
    scaling = Scaling(np.zeros(57), rng.integers(1, 5, 57))
    freeze_model(model, scaling, "cms_ugt", "mu2", name="tiny").save(tmp_path / "trigger.json")
    save_model(model, tmp_path / "model.h5")
    result = validate(tmp_path, n=9000, realisations=["keras"])
    assert result.passed
    assert result.comparisons[0].events == result.events
    # Another model than the one that was frozen is found out, layer and all.
    layer = model.get_layer("mu_dense")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias + 0.25])
    save_model(model, tmp_path / "model.h5")
    result = validate(tmp_path, n=9000, realisations=["keras"])
    assert not result.passed
    assert result.comparisons[0].first is not None
    assert result.comparisons[0].first.node == "mu_dense"
