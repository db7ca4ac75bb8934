"""Hardware words to integer scores: the kernel at every instruction-set level against what people have today.

The work is the network deployed as AXOL1TL v4 (57-28-15-8, scaling and score included), from int16 words (N, 19, 3) in
memory. Each way's scores are compared with the golden program's before it is timed. The weights come from the oracle
beside the checkout; without it from a network of the same shape and the same number of zeros.

    python bench/emulator.py [--quick] [--repeats N] [--without-hls4ml] [--threads N]

Slower ways do less work in a turn: the table gives rates. `hls4ml csim` times the network alone, from inputs that are
scaled already to latent means, which is all that hls4ml has.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import BENCH, Case, Result, arguments, measure, report

from l1ad import Trigger
from l1ad.errors import L1adError
from l1ad.events import EventsWriter
from l1ad.events.store import Events
from l1ad.scoring import score_files
from l1ad.trigger import emulate
from l1ad.trigger.emulate.build import find_compiler
from l1ad.trigger.emulate.writer import LEVELS
from l1ad.trigger.nodes import Dense, Scale

ORACLE = BENCH.parent.parent / "shared" / "oracles" / "axol1tl_v4.npz"
TYPES = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}
#: Of the deployed network: products that are not zero, layer by layer.
NONZERO = (830, 361, 50)
LHC = 2544 * 11245.6

Array = np.ndarray[Any, Any]


def network() -> tuple[Trigger, Array, str]:
    """The trigger, words (N, 19, 3) to draw from, and where they come from."""
    if ORACLE.is_file():
        data = np.load(ORACLE)
        weights, biases = [data[f"w{i}"] for i in range(3)], [data[f"b{i}"] for i in range(3)]
        scaling = {"offset": data["offset"], "shift": data["shift"]}
        return (
            Trigger.from_layers(weights, biases, TYPES, scaling),
            data["hw"],
            "the deployed weights and 20,008 events",
        )
    rng = np.random.default_rng(4)
    sizes = (57, 28, 15, 8)
    weights = []
    for n, a, b in zip(NONZERO, sizes, sizes[1:], strict=False):
        flat = np.zeros(a * b, dtype=np.int64)
        flat[rng.permutation(a * b)[:n]] = rng.choice([-9, -5, -3, -2, -1, 1, 2, 3, 5, 9], n)
        weights.append(flat.reshape(a, b))
    biases = [rng.integers(-40, 40, n) for n in sizes[1:]]
    scaling = {"offset": rng.integers(0, 30, 57), "shift": rng.integers(3, 8, 57)}
    trigger = Trigger.from_layers(weights, biases, TYPES, scaling)
    low = [[w.word_min for w in slot] for slot in trigger.layout.words]
    high = [[w.word_max // 4 for w in slot] for slot in trigger.layout.words]
    hw = rng.integers(low, np.array(high) + 1, (20_000, 19, 3)).astype(np.int16)
    return trigger, hw, "random weights of the deployed shape and sparsity (the oracle is not there)"


# ------------------------------------------------------------------------------------------------------------ the peers


def float32_numpy(trigger: Trigger) -> Callable[[Array], Array]:
    """What one writes in numpy: scaling by hand, three float32 products (exact: every sum stays below 2^24)."""
    scale = next(n for n in trigger.program.nodes if isinstance(n, Scale))
    layers = [n for n in trigger.program.nodes if isinstance(n, Dense)][:3]
    weights = [n.weights.astype(np.float32) / 8 for n in layers]
    biases = [n.bias.astype(np.float32) / 8 for n in layers]
    multiplier, offset = (v.astype(np.int32) for v in (scale.multiplier, scale.offset))
    right, left = (np.maximum(sign * scale.shift, 0).astype(np.int32) for sign in (1, -1))

    def run(hw: Array) -> Array:
        scores = np.empty(len(hw), dtype=np.int64)
        for start in range(0, len(hw), 16384):
            words = hw[start : start + 16384].reshape(-1, 57).astype(np.int32)
            shifted = ((words * multiplier - offset) >> right) << left
            x = np.clip(np.rint(shifted.astype(np.float32) / 8), -128, 127) / 4
            for weight, bias in zip(weights[:2], biases[:2], strict=True):
                x = np.clip(np.rint((x @ weight + bias) * 16), 0, 1023) / 16
            mu = np.clip(np.rint((x @ weights[2] + biases[2]) * 8), -512, 511).astype(np.int64)
            scores[start : start + 16384] = ((mu * mu) >> 2).sum(axis=1) & 0x3FFFF
        return scores

    return run


def plain_c(trigger: Trigger, folder: Path) -> Callable[[Array], Array] | None:
    """What one generates first: one event after another, weights in constant arrays, loops over them."""
    compiler = find_compiler()
    if compiler is None:
        return None
    scale = next(n for n in trigger.program.nodes if isinstance(n, Scale))
    layers = [n for n in trigger.program.nodes if isinstance(n, Dense)][:3]

    def constants(name: str, values: Array) -> str:
        return f"static const int {name}[] = {{{', '.join(map(str, values.reshape(-1).tolist()))}}};\n"

    text = "#include <stdint.h>\n"
    text += "static int even(int v, int n) { return (v + (1 << (n - 1)) - 1 + ((v >> n) & 1)) >> n; }\n"
    text += "static int clip(int v, int a, int b) { return v < a ? a : v > b ? b : v; }\n"
    text += constants("mul", scale.multiplier) + constants("off", scale.offset) + constants("sh", scale.shift)
    for i, layer in enumerate(layers):
        text += constants(f"w{i}", layer.weights) + constants(f"b{i}", layer.bias)
    text += "void score(const int16_t *hw, int64_t n, int64_t *out) {\n  for (int64_t e = 0; e < n; e++, hw += 57) {\n"
    text += "    int x0[57], sum = 0;\n    for (int i = 0; i < 57; i++) {\n      int d = hw[i] * mul[i] - off[i];\n"
    text += "      x0[i] = clip(even(sh[i] >= 0 ? d >> sh[i] : d << -sh[i], 3), -128, 127);\n    }\n"
    for i, (layer, bias_shift, bits) in enumerate(zip(layers, (2, 4, 4), (1, 3, 4), strict=True)):
        n, m = layer.weights.shape
        text += f"    int x{i + 1}[{m}];\n    for (int j = 0; j < {m}; j++) {{\n"
        text += f"      int a = b{i}[j] * {1 << bias_shift};\n"
        text += f"      for (int i = 0; i < {n}; i++) a += w{i}[i * {m} + j] * x{i}[i];\n"
        limits = "0, 1023" if i < 2 else "-512, 511"
        text += f"      x{i + 1}[j] = clip(even(a, {bits}), {limits});\n    }}\n"
    text += "    for (int j = 0; j < 8; j++) sum += (x3[j] * x3[j]) >> 2;\n    *out++ = sum & 0x3ffff;\n  }\n}\n"
    (folder / "plain.c").write_text(text)
    command = [
        compiler,
        "-O3",
        "-march=native",
        "-shared",
        "-fPIC",
        "-o",
        str(folder / "plain.so"),
        str(folder / "plain.c"),
    ]
    subprocess.run(command, check=True)
    function = ctypes.CDLL(str(folder / "plain.so")).score

    def run(hw: Array) -> Array:
        scores = np.empty(len(hw), dtype=np.int64)
        function(ctypes.c_void_p(hw.ctypes.data), ctypes.c_int64(len(hw)), ctypes.c_void_p(scores.ctypes.data))
        return scores

    return run


def alkaid(trigger: Trigger) -> Callable[[Array], Array] | None:
    """alkaid's interpreter of the same program, traced once."""
    try:
        from l1ad.backends.rtl import trace_program

        comb = trace_program(trigger.program)
    except (L1adError, ImportError) as error:
        sys.stderr.write(f"without the alkaid interpreter: {error}\n")
        return None

    def run(hw: Array) -> Array:
        values = comb.predict(np.ascontiguousarray(hw.reshape(len(hw), 57), dtype=np.float64), n_threads=1)
        return np.asarray(np.rint(values[:, 0] * 16), dtype=np.int64)

    return run


def hls4ml_csim(trigger: Trigger, folder: Path) -> Callable[[Array], Array] | None:
    """hls4ml's compiled network: scaled inputs in, latent means out, compared with the golden ones by the caller."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import hls4ml
        import tf_keras
        from qkeras import QActivation, QDense, quantized_bits

        from l1ad.backends.hls_network import keras_is_tf_keras
    except ImportError as error:
        sys.stderr.write(f"without hls4ml: {error}\n")
        return None
    layers = [n for n in trigger.program.nodes if isinstance(n, Dense)][:3]
    kernel, bias = "quantized_bits(6,2,alpha=1)", "quantized_bits(10,6,alpha=1)"
    x = inputs = tf_keras.layers.Input((57,))
    x = QActivation(quantized_bits(8, 5, alpha=1))(x)
    for i, layer in enumerate(layers):
        x = QDense(layer.size, kernel_quantizer=kernel, bias_quantizer=bias, name=f"d{i}")(x)
        x = QActivation("quantized_relu(10,6)" if i < 2 else "quantized_bits(10,6,alpha=1)", name=f"a{i}")(x)
    model = tf_keras.Model(inputs, x)
    for i, layer in enumerate(layers):
        model.get_layer(f"d{i}").set_weights([layer.weights / 8.0, layer.bias / 8.0])
    with keras_is_tf_keras():
        config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend="Vitis")
        compiled = hls4ml.converters.convert_from_keras_model(
            model, hls_config=config, output_dir=str(folder / "hls4ml"), backend="Vitis", bit_exact=True
        )
        compiled.compile()

    def run(scaled: Array) -> Array:
        return np.asarray(compiled.predict(scaled))

    return run


# -------------------------------------------------------------------------------------------------------------- the run


def agree(name: str, found: Array, expected: Array) -> None:
    """Stop if a way does not give the golden answer."""
    wrong = int((np.asarray(found) != expected).reshape(len(expected), -1).any(axis=1).sum())
    if wrong:
        raise SystemExit(f"{name}: {wrong} of {len(expected)} events differ from the golden program")


def cases(options: argparse.Namespace, folder: Path) -> tuple[list[Case], str]:
    """Every way, checked."""
    trigger, events, origin = network()
    rng = np.random.default_rng(1)
    n = 200_000 if options.quick else 4_000_000
    hw = np.ascontiguousarray(events[rng.integers(0, len(events), n)])
    few, expected = hw[:20_000], trigger.score(hw[:20_000], golden=True)
    result = [Case("golden program (int64 numpy)", lambda: trigger.score(few, golden=True), len(few))]
    peers: list[tuple[str, Callable[[Array], Array] | None, int]] = [
        ("exact float32 numpy", float32_numpy(trigger), n // 20),
        ("plain generated C", plain_c(trigger, folder), n // 10),
        ("alkaid interpreter", alkaid(trigger), n // 40),
    ]
    for name, run, size in peers:
        if run is not None:
            agree(name, run(few), expected)
            result.append(Case(name, lambda run=run, size=size: run(hw[:size]), size, note="1 thread"))
    csim = None if options.without_hls4ml else hls4ml_csim(trigger, folder)
    if csim is not None:
        trace = trigger.trace(few[: 2000 if options.quick else 20_000])
        scaled = np.ascontiguousarray(trace["scale"] / 4.0)
        agree("hls4ml csim", csim(scaled) * 8, trace["result"])
        result.append(Case("hls4ml csim", lambda: csim(scaled), len(scaled), note="the network alone"))
    exact = emulate.ExactProgram(trigger.program)
    rows = hw.reshape(n, 57)
    agree("our numpy", exact.codes(rows[:20_000])[:, 0], expected)
    part = rows[: n // 20]

    def without_compiler() -> None:
        for start in range(0, len(part), 16384):
            exact.codes(part[start : start + 16384])

    result.append(Case("l1ad without a compiler (numpy)", without_compiler, len(part), ours=True))
    out = np.empty(n, dtype=np.int32)
    for level in LEVELS:
        if level not in emulate.supported_levels():
            sys.stderr.write(f"without {level}: this machine does not run it\n")
            continue
        agree(level, trigger.score(few, isa=level), expected)
        for threads in sorted({1, options.threads}):
            result.append(
                Case(
                    f"l1ad {level}",
                    lambda level=level, threads=threads: emulate.score(
                        trigger.program, rows, isa=level, threads=threads, out=out
                    ),
                    n,
                    ours=True,
                    note=f"{threads} thread{'s' * (threads > 1)}",
                )
            )
    file = folder / "events.h5"
    with EventsWriter(file) as writer:
        writer.append(Events.from_arrays(hw))
    result.append(
        Case(
            "l1ad score, file to scores and histogram",
            lambda: score_files(trigger, file, out=folder / "scores.h5", threads=options.threads),
            n,
            ours=True,
            note=f"{options.threads} threads, file in the disk cache",
        )
    )
    return result, origin


def notes(results: list[Result], origin: str) -> list[str]:
    """The promises of the kernel beside what was measured."""
    lines = [f"Network: {origin}.", f"The LHC makes {LHC / 1e6:.1f} M crossings a second at 2544 bunches."]
    most = max(int(r.note.split()[0]) for r in results if r.name.removeprefix("l1ad ") in LEVELS)
    for level, least in (("avx512vnni", 28.6e6), ("avx2", 10e6), ("portable", 3e6)):
        for r in results:
            if r.name == f"l1ad {level}" and r.note.startswith(f"{most} "):
                word = "kept" if r.rate >= least else "MISSED"
                lines.append(
                    f"{level}, {r.note}: {r.rate / 1e6:.1f} M/s ({r.rate / LHC:.2f} LHC); wanted at least "
                    f"{least / 1e6:.1f} M/s: {word}."
                )
    return lines


def main() -> None:
    """Run the benchmark."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--without-hls4ml", action="store_true", help="leave out the peer that takes a minute to compile")
    own.add_argument("--threads", type=int, default=2)
    extra, rest = own.parse_known_args()
    sys.argv[1:] = rest
    options = arguments("emulator", "Hardware words to scores")
    vars(options).update(vars(extra))
    with tempfile.TemporaryDirectory() as folder:
        chosen, origin = cases(options, Path(folder))
        results = measure(chosen, repeats=options.repeats)
    report("emulator", "Hardware words to scores", results, options, notes=notes(results, origin))


if __name__ == "__main__":
    main()
