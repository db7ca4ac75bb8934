"""The HLS project: every wrapper through its ports against the golden evaluation, and hls4ml's network in it."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from l1ad import Trigger
from l1ad.backends import hls, native, project, timing
from l1ad.backends.hls_options import HlsOptions, thresholds
from l1ad.errors import InputError, MissingToolError, TriggerError
from l1ad.events.layout import get_layout
from l1ad.trigger.build import NodeOps, ProgramBuilder
from l1ad.trigger.fixed import FixedType

SEEDS = {"L1_AXO_Tight": 15_000, "L1_AXO_Loose": 1000, "L1_AXO_Never": 262_143}


def check(made: hls.HlsProject, n: int = 2000) -> None:
    """Scores, threshold bits, trace and golden vectors of a project."""
    trigger = made.trigger
    events = project.golden_vectors(trigger.program, n, seed=8)
    expected = trigger.program.evaluate(events)
    scores = expected[trigger.program.score][:, 0]
    assert (made.score(events) == scores).all()
    decisions = made.decisions(events)
    wanted = thresholds(trigger, made.options)
    assert list(decisions) == [name for name, _ in wanted]
    for name, value in wanted:
        assert (decisions[name] == (scores >= value)).all()
    trace = made.trace(events[:200])
    assert set(trace) == set(made.printed)
    for name, codes in trace.items():
        assert (codes == expected[name][:200]).all(), name
    assert made.check_golden() == "PASSED: 200 events, 0 differ"


@pytest.fixture(scope="module")
def made(small, tmp_path_factory):
    """A compiled project with threshold bits."""
    trigger = small(4).with_thresholds(SEEDS)
    return hls.convert(trigger, None, tmp_path_factory.mktemp("hls") / "p", wrapper="words", compile=True)


def test_words_and_threshold_bits(made) -> None:
    check(made)
    events = project.golden_vectors(made.trigger.program, 2000, seed=8)
    fired = [bits.mean() for bits in made.decisions(events).values()]
    assert 0 == fired[2] < fired[1] < fired[0] < 1


def test_object_words_of_the_board(small, tmp_path) -> None:
    # The test bench fills every bit that is no input with noise, such as the muon's direction at the vertex.
    check(hls.convert(small(4).with_thresholds(SEEDS), None, tmp_path / "p", wrapper="ugt"))


def test_features_of_a_score_without_network_or_latents(tail, tmp_path) -> None:
    check(hls.convert(tail, None, tmp_path / "p", wrapper="ap_none"))


def test_signed_score_with_fewer_bits_and_another_layout(tmp_path) -> None:
    builder = ProgramBuilder(get_layout("atlas_l1topo"))
    few = builder.take(builder.input, [0, 1, 2, 19, 42, 43])
    dense = builder.dense(few, [[1], [-2], [1], [-1], [1], [2]], weight_type=FixedType(6, 2))
    score = builder.quantize(dense, FixedType(14, 10, True, "RND", "SAT"), name="score")
    trigger = Trigger(builder.program(score=score), "atlas", "student")
    made = hls.convert(trigger, None, tmp_path / "p", wrapper="ap_none", latency_clocks=0, part="xcvu9p-flga2104-2L-e")
    assert made.estimate.budget_ns == 25
    check(made)
    events = project.golden_vectors(trigger.program, 500)
    assert made.score(events).min() < 0
    top = (made.folder / "firmware" / "top.h").read_text()
    assert re.search(r"ap_uint<13> jet_pt\[6\],\s+ap_int<9> jet_eta\[6\],\s+ap_uint<7> jet_phi\[6\]", top)
    assert "ap_uint<15> met_pt," in top
    with pytest.raises(TriggerError, match="wrapper ugt: found layout atlas_l1topo"):
        hls.convert(trigger, None, tmp_path / "q", wrapper="ugt")


def test_the_port_list_of_the_board(small, tmp_path) -> None:
    folder = hls.convert(small(4), None, tmp_path / "p").folder
    top = (folder / "firmware" / "top.h").read_text()
    ports = re.findall(r"ap_uint<(\d+)> &?(\w+)(?:\[(\d+)\])?", top)
    assert ports == [
        ("64", "muons", "8"),
        ("32", "jets", "12"),
        ("32", "egammas", "12"),
        ("32", "taus", "12"),
        *(("32", name, "") for name in ("et", "ht", "etmiss", "htmiss", "ethfmiss", "hthfmiss")),
        ("18", "anomaly_score", ""),
    ]
    text = (folder / "firmware" / "top.cpp").read_text()
    # From l1-facts, section 4, by hand: ETmiss phi, e/gamma phi, the extrapolated muon, jets.
    for line in (
        "input[0] = ap_uint<12>(etmiss.range(11, 0));",
        "input[1] = 0;",
        "input[2] = ap_uint<8>(etmiss.range(19, 12));",
        "input[14] = ap_uint<8>(egammas[3].range(24, 17));",
        "input[15] = ap_uint<9>(muons[0].range(18, 10));",
        "input[16] = ap_int<9>(muons[0].range(31, 23));",
        "input[17] = ap_uint<10>(muons[0].range(9, 0));",
        "input[54] = ap_uint<11>(jets[9].range(10, 0));",
        "input[55] = ap_int<8>(jets[9].range(18, 11));",
        "input[56] = ap_uint<8>(jets[9].range(26, 19));",
    ):
        assert line in text
    for pragma in ("ap_vld port=anomaly_score", "ap_ctrl_hs port=return", "ap_none port=muons"):
        assert f"#pragma HLS INTERFACE {pragma}" in text
    assert "#pragma HLS LATENCY max=2" in text


def test_a_wrong_golden_event_fails_the_test_bench(made) -> None:
    golden = made.folder / "tb" / "golden.dat"
    text = golden.read_text()
    lines = text.splitlines()
    fields = lines[7].split()
    fields[-2] = str(int(fields[-2]) + 1)
    golden.write_text("\n".join([*lines[:7], " ".join(fields), *lines[8:]]) + "\n")
    try:
        with pytest.raises(native.BuildError, match="event 7: score"):
            made.check_golden()
        golden.write_text("\n".join([*lines[:3], "1 2 3"]) + "\n")
        with pytest.raises(native.BuildError, match="FAILED: 4 events, 1 differ"):
            made.check_golden()
    finally:
        golden.write_text(text)


def test_workers_do_not_change_the_answer(made) -> None:
    events = project.golden_vectors(made.trigger.program, native.CHUNK_EVENTS + 100)
    one, three = (hls.load(made.folder, workers=n).score(events) for n in (1, 3))
    assert (one == three).all()


def test_a_folder_of_another_trigger_is_refused(small, tmp_path) -> None:
    hls.convert(small(1), None, tmp_path / "p", wrapper="words")
    again = hls.convert(small(1), None, tmp_path / "p", wrapper="ap_none")
    assert again.options.wrapper == "ap_none"
    assert hls.load(tmp_path / "p").trigger_hash == small(1).hash
    with pytest.raises(InputError, match="hash: found a project of trigger"):
        hls.convert(small(2), None, tmp_path / "p")


def test_a_failed_compile_and_a_missing_compiler(small, tmp_path, monkeypatch) -> None:
    made = hls.convert(small(1), None, tmp_path / "p", wrapper="words")
    top = made.folder / "firmware" / "top.cpp"
    top.write_text("this is no C++\n")
    with pytest.raises(native.BuildError, match=r"csim compile of tb/test_bench\.cpp failed") as error:
        made.compile()
    log = made.folder / "csim" / "test_bench.0.log"
    assert str(error.value).splitlines()[1:] == log.read_text().splitlines()[-10:]
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingToolError, match="no-such-compiler"):
        made.compile()


# ---------------------------------------------------------------------------- options and latency


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "Quartus"}, "backend: found Quartus, expected Vitis, Vivado"),
        ({"wrapper": "axi"}, "wrapper: found axi"),
        ({"top": "my top"}, "top: found my top, expected a C\\+\\+ name, such as my_top"),
        ({"top": "int"}, "top: found int"),
        ({"reuse_factor": 0}, "reuse_factor"),
        ({"strategy": "fast"}, "strategy"),
        ({"clock_uncertainty": "some"}, "clock_uncertainty"),
        ({"threshold_bits": True}, "threshold_bits: found wrapper ugt"),
        ({"clock": 25}, "options: found clock, expected backend, clock_ns"),
        ({"clock_ns": 0}, "period: found 0 ns"),
        ({"latency_clocks": -1}, "clocks: found -1"),
        ({"part": "ep4ce6"}, "part: ep4ce6"),
        ({"clock_ns": 2.0}, r"latency: found about \d+ ns of logic in \d+ levels \(estimate\), expected at most 4 ns"),
    ],
)
def test_bad_options_are_said_before_anything_is_written(options, message, small, tmp_path) -> None:
    with pytest.raises(InputError, match=message):
        hls.convert(small(1), None, tmp_path / "p", **options)
    assert not (tmp_path / "p").exists()


def test_the_estimate_can_be_overruled(small, tmp_path) -> None:
    made = hls.convert(small(1), None, tmp_path / "p", clock_ns=2.0, ignore_estimate=True)
    assert made.estimate.verdict == "out of reach"
    assert made.estimate.provenance == "estimate"


def test_estimates_order_parts_and_grades(v4) -> None:
    parts = [
        "xc7vx690tffg1927-1",
        "xc7vx690tffg1927-2",
        "xcku115-flvb2104-2-i",
        "xcvu9p-flga2104-2L-e",
        "xcvp1202-vsva2785-2MP-e-S",
    ]
    found = [timing.estimate(v4.program, part, clock_ns=25, clocks=2) for part in parts]
    assert [e.family for e in found] == ["7 series", "7 series", "UltraScale", "UltraScale+", "Versal"]
    delays = [e.logic_ns for e in found]
    assert delays == sorted(delays, reverse=True)
    # Deployed at 50 ns on the second of these parts (l1-facts, section 4): an estimate that refused it would be wrong.
    assert found[1].verdict == "fits"
    assert 10 < delays[1] < 50
    assert timing.estimate(v4.program, parts[1], clock_ns=3, clocks=2).verdict == "out of reach"


def test_signed_digits_against_a_search() -> None:
    # The fewest powers of two, each added or subtracted, that make a number: found by trying.
    powers = [sign << bit for bit in range(6) for sign in (1, -1)]
    reach = {0: 0}
    for count in range(1, 4):
        for value in [v for v, c in reach.items() if c == count - 1]:
            for power in powers:
                reach.setdefault(value + power, count)
    numbers = np.arange(-31, 32)
    assert timing._digits(numbers).tolist() == [reach[int(n)] for n in numbers]


# ---------------------------------------------------------------------------- hls4ml

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `keras.constraints.serialize:UserWarning"),
]


def v4_encoder(data, heads=("mu",)):
    """A QKeras encoder with the weights of the oracle; a further head has the same ones, reversed."""
    from l1ad.model.keras import import_tf

    modules = import_tf()
    keras, q = modules.keras, modules.qkeras
    bits, relu = q.quantized_bits, q.quantized_relu

    def dense(n, name):
        kernel, bias = bits(6, 2, alpha=1), bits(10, 6, alpha=1)
        return q.QDense(n, kernel_quantizer=kernel, bias_quantizer=bias, name=name)

    inputs = keras.Input((57,), name="inputs")
    x = q.QActivation(bits(8, 5, alpha=1), name="input_quantizer")(inputs)
    for i, n in enumerate((28, 15)):
        x = q.QActivation(relu(10, 6), name=f"relu_{i}")(dense(n, f"dense_{i}")(x))
    outputs = [q.QActivation(bits(10, 6, alpha=1), name=head)(dense(8, f"{head}_dense")(x)) for head in heads]
    model = keras.Model(inputs, outputs)
    for i in range(2):
        model.get_layer(f"dense_{i}").set_weights([data[f"w{i}"] / 8.0, data[f"b{i}"] / 8.0])
    for k, head in enumerate(heads):
        turn = slice(None, None, -1 if k else 1)
        model.get_layer(f"{head}_dense").set_weights([data["w2"][:, turn] / 8.0, data["b2"][turn] / 8.0])
    return model


@pytest.fixture(scope="module")
def data(oracles):
    return np.load(oracles / "axol1tl_v4.npz")


@pytest.fixture(scope="module")
def encoder(data):
    return v4_encoder(data)


def test_keras_is_restored(encoder) -> None:
    assert encoder is not None
    import tf_keras

    from l1ad.backends.hls_network import keras_is_tf_keras

    for before in (sys.modules.get("keras"), None):
        saved = sys.modules.pop("keras", None)
        try:
            if before is not None:
                sys.modules["keras"] = before
            with pytest.raises(RuntimeError), keras_is_tf_keras():
                import keras

                assert keras is tf_keras
                raise RuntimeError
            assert sys.modules.get("keras") is before
        finally:
            if saved is not None:
                sys.modules["keras"] = saved


def test_v4_through_hls4ml(encoder, data, v4, tmp_path) -> None:
    made = hls.convert(v4.with_thresholds(SEEDS), encoder, tmp_path / "p", wrapper="words", reuse_factor=1)
    assert made.name == "hls4ml csim"
    assert made.printed == ("input", "scale", "result", "multiply_1", "sum", "score")
    inputs = v4.inputs(data["hw"])
    assert (made.score(inputs) == data["score"]).sum() == 20_008
    assert (made.trace(inputs[:1000])["result"] == data["mu"][:1000]).all()
    assert made.check_golden().startswith("PASSED")
    network = (made.folder / "firmware" / "network" / "network.cpp").read_text()
    assert "#pragma HLS PIPELINE II=1\n" in (made.folder / "firmware" / "top.cpp").read_text()
    # Part of a larger design: no ports and no pipeline of its own.
    assert "HLS INTERFACE" not in network
    assert "HLS PIPELINE" not in network
    assert "#pragma HLS INLINE" in network
    assert not list((made.folder / "firmware").rglob("ap_types"))
    assert "network/network.cpp" in (made.folder / "tcl" / "options.tcl").read_text()


def test_a_reuse_factor_slows_the_design_and_keeps_its_integers(encoder, data, v4, tmp_path) -> None:
    made = hls.convert(v4, encoder, tmp_path / "p", reuse_factor=4)
    assert "#pragma HLS PIPELINE II=4\n" in (made.folder / "firmware" / "top.cpp").read_text()
    text = "".join(path.read_text() for path in (made.folder / "firmware" / "network").rglob("*.h"))
    assert "reuse_factor = 4;" in text
    inputs = v4.inputs(data["hw"][:2000])
    assert (made.score(inputs) == data["score"][:2000]).all()
    # A network printed from the program shares nothing.
    plain = hls.convert(v4, None, tmp_path / "q", reuse_factor=4)
    assert "#pragma HLS PIPELINE II=1\n" in (plain.folder / "firmware" / "top.cpp").read_text()


@pytest.mark.slow
def test_v4_printed_from_the_program(data, v4, tmp_path) -> None:
    made = hls.convert(v4, None, tmp_path / "p")
    assert made.name == "hls csim"
    assert (made.score(v4.inputs(data["hw"])) == data["score"]).sum() == 20_008


def two_heads(data) -> Trigger:
    """R_z on two heads, as `l1ad.trigger.freeze` names its nodes."""
    from l1ad.scores import SCORES
    from l1ad.trigger.layers import Scaling, add_scaling

    builder = ProgramBuilder(get_layout("cms_ugt"))
    scaling = Scaling.of({"offset": data["offset"], "shift": data["shift"]})
    value = add_scaling(builder, scaling, FixedType.parse("ap_fixed<8,6,RND_CONV,SAT>"))
    kinds = {"weight_type": FixedType(6, 3), "bias_type": FixedType(10, 7)}
    for i in range(2):
        dense = builder.dense(value, data[f"w{i}"], data[f"b{i}"], **kinds, name=f"hidden_{i}")
        value = builder.relu(dense, FixedType.parse("ap_ufixed<10,6,RND_CONV,SAT>"), name=f"relu_{i}")
    head = FixedType.parse("ap_fixed<10,7,RND_CONV,SAT>")
    mu, log_var = (
        builder.quantize(builder.dense(value, data["w2"][:, turn], data["b2"][turn], **kinds), head, name=name)
        for name, turn in (("mu", slice(None)), ("log_var", slice(None, None, -1)))
    )
    score = SCORES["rz"].function(mu, log_var, ops=NodeOps(builder))
    return Trigger(builder.program(score=score, latents=mu), "two_heads", "rz")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["Vitis", "Vivado"])
def test_two_heads_and_an_exponential(backend, data, tmp_path) -> None:
    trigger = two_heads(data)
    made = hls.convert(trigger, v4_encoder(data, ("mu", "log_var")), tmp_path / "p", wrapper="words", backend=backend)
    assert made.printed[2:4] == ("mu", "log_var")
    check(made)


def test_the_outputs_of_an_encoder_are_found(encoder, data, v4) -> None:
    from l1ad.backends.hls_network import match

    # By value: the node is called `result`, the layer `mu`.
    assert match(v4, encoder)[1].outputs == ("result",)
    assert match(v4, encoder, ["result"])[1].outputs == ("result",)
    with pytest.raises(
        TriggerError, match="output mu: found other values than trigger axol1tl_v4, expected those of dense_3"
    ):
        match(v4, encoder, ["dense_3"])
    with pytest.raises(TriggerError, match="no node latent"):
        match(v4, encoder, ["latent"])
    # By name, and a head that the score does not use is left out.
    both = v4_encoder(data, ("mu", "log_var"))
    part, cut = match(two_heads(data), both)
    assert cut.outputs == ("mu", "log_var")
    assert part is both
    # Another network.
    other = v4_encoder(data)
    other.get_layer("dense_0").set_weights([data["w0"] / 4.0, data["b0"] / 8.0])
    with pytest.raises(TriggerError, match="other values"):
        match(v4, other)


def test_a_model_with_findings_is_refused(small, tmp_path) -> None:
    from l1ad.model.keras import import_tf

    modules = import_tf()
    inputs = modules.keras.Input((57,), name="inputs")
    model = modules.keras.Model(inputs, modules.keras.layers.Dense(3, name="plain")(inputs))
    with pytest.raises(InputError, match=r"encoder: layer plain: found .*--network printed"):
        hls.convert(small(1), model, tmp_path / "p")
    # One that freezes, and that hls4ml would make an integer type of without a word.
    x = modules.qkeras.QActivation(modules.qkeras.quantized_bits(8, 5, alpha=1), name="first")(inputs)
    bits = {f"{what}_quantizer": modules.qkeras.quantized_bits(6, 2, alpha=1) for what in ("kernel", "bias")}
    x = modules.qkeras.QDense(3, **bits, name="one")(x)
    coarse = modules.qkeras.QActivation(modules.qkeras.quantized_bits(10, 9, alpha=1), name="coarse")(x)
    with pytest.raises(InputError, match=r"encoder: layer coarse: found .* has no fraction bits"):
        hls.convert(small(1), modules.keras.Model(inputs, coarse), tmp_path / "p")


def test_the_wrapper_follows_the_layout(small, tmp_path) -> None:
    assert hls.convert(small(1), None, tmp_path / "ugt").options.wrapper == "ugt"
    trigger = Trigger.from_layers(
        [np.ones((252, 1), int)], [np.zeros(1, int)],
        {"input": "ap_fixed<8,6,RND_CONV,SAT>", "weight": "ap_fixed<6,3>", "bias": "ap_fixed<10,7>",
         "result": "ap_ufixed<16,8,RND_CONV,SAT>"},
        {"offset": np.zeros(252), "shift": np.full(252, 3)}, "student", layout="cms_calo_regions",
    )  # fmt: skip
    made = hls.convert(trigger, None, tmp_path / "regions")
    assert made.options.wrapper == "ap_none"
    assert "ap_uint<10> region_et[252]" in (made.folder / "firmware" / "top.h").read_text()
    with pytest.raises(TriggerError, match="layout cms_calo_regions, expected the objects of the uGT"):
        hls.convert(trigger, None, tmp_path / "wrong", wrapper="ugt")


@pytest.fixture(scope="module")
def pooled():
    """A convolution, an average pooling and a dense layer on an image of 6 x 5, and its inputs on their grid."""
    from l1ad.model.keras import import_tf

    modules = import_tf()
    q, layers = modules.qkeras, modules.keras.layers
    bits = {f"{what}_quantizer": q.quantized_bits(6, 2, alpha=1) for what in ("kernel", "bias")}
    inputs = modules.keras.Input((30,), name="inputs")
    x = q.QActivation(q.quantized_bits(8, 5, alpha=1), name="input_quantizer")(inputs)
    x = layers.Reshape((6, 5, 1), name="image")(x)
    start = modules.keras.initializers.RandomNormal(stddev=0.6, seed=4)
    x = q.QConv2D(3, (2, 2), **bits, kernel_initializer=start, name="conv")(x)
    x = q.QActivation(q.quantized_relu(8, 4), name="conv_relu")(x)
    x = q.QAveragePooling2D((2, 2), average_quantizer=q.quantized_bits(10, 0, alpha=1), name="pool")(x)
    x = q.QActivation(q.quantized_relu(9, 4), name="pool_relu")(x)
    x = layers.Flatten(name="flat")(x)
    x = q.QDense(2, **bits, kernel_initializer=start, name="output_dense")(x)
    model = modules.keras.Model(inputs, q.QActivation(q.quantized_bits(12, 6, alpha=1), name="output")(x))
    return model, np.random.default_rng(2).integers(-128, 128, (3000, 30)) / 4.0


def test_a_pooling_is_a_convolution(pooled) -> None:
    from l1ad.backends.hls_network import pools_as_convolutions
    from l1ad.model.replay import replay

    model, values = pooled
    rewritten = pools_as_convolutions(model)
    assert [type(layer).__name__ for layer in rewritten.layers][5] == "QConv2D"
    before, after = replay(model, values), replay(rewritten, values)
    assert np.unique(before["pool"]).size > 100
    for name in ("conv_relu", "pool", "pool_relu", "output"):
        np.testing.assert_array_equal(before[name], after[name])
    assert pools_as_convolutions(rewritten) is rewritten


@pytest.mark.slow
def test_a_pooling_through_hls4ml(pooled, tmp_path) -> None:
    from l1ad.backends import hls_network

    rewritten = hls_network.pools_as_convolutions(pooled[0])
    files = hls_network._run_hls4ml(rewritten, tmp_path / "p", HlsOptions(), "net")
    assert "conv_2d" in files["network.cpp"]
