"""Every published dense trigger through the kernel: none of them falls back to numpy.

    python bench/published.py [--quick] [--repeats N] [--threads N]

The networks are those of ``configs/`` with random weights, pruned to the sparsity of the configuration, frozen as a
trained one is: the time depends on the shape, the types and the zeros, not on what was learned. The joint tail score is
fitted to a part of the bundled sample. Words are random and legal; a score is compared with the golden program's before
anything is timed.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
from common import Case, arguments, cpu_seconds, human, measure, report

from l1ad import Events, Trigger
from l1ad.events import get_layout
from l1ad.events.bundled import bundled
from l1ad.trigger import emulate
from l1ad.trigger.nodes import Dense
from l1ad.trigger.tail import JointTail

CONFIGURATIONS = (
    "axol1tl_v1",
    "axol1tl_v3",
    "axol1tl_v4",
    "axol1tl_v5",
    "atlas_l1topo_vae",
    "adc2021_dnn_vae",
    "cicada_v1",
    "quickstart",
)
#: The configuration that is also frozen with the other scores of a variational network.
ALL_SCORES, SCORES = "quickstart", ("mu2", "kl", "rz")
LHC = 2544 * 11245.6


def frozen(name: str) -> dict[str, Trigger]:
    """The triggers of a configuration by name, with random weights."""
    from l1ad.config import RunConfig
    from l1ad.configs import find_config
    from l1ad.model import build_network
    from l1ad.trigger.freeze import freeze_model
    from l1ad.trigger.layers import Scaling

    config = RunConfig.read(find_config(name))
    layout = get_layout(config.data.layout)
    encoder = build_network(config, layout).encoder
    rng = np.random.default_rng(7)
    weights = []
    for array in encoder.get_weights():
        values = rng.normal(0.0, 0.4, array.shape)
        if array.ndim > 1:
            values[rng.random(array.shape) < config.pruning.sparsity] = 0.0
        weights.append(values)
    encoder.set_weights(weights)
    bits = np.array([word.bits for word in layout.input_words])
    given = config.scaling
    scaling = Scaling.of(
        {
            "offset": rng.integers(0, 30, len(bits)).astype(float),
            "shift": np.maximum(bits - 4, 0),
            "offset_type": given.offset_type,
            "word": given.word,
        }
    )
    scores = SCORES if name == ALL_SCORES else (config.score,)
    return {
        name if len(scores) == 1 else f"{name} {score}": freeze_model(
            encoder, scaling, layout, score, name=name, options=config.freeze
        )
        for score in scores
    }


def shape_of(trigger: Trigger) -> str:
    """Sizes of the layers, and how many of their weights are not zero."""
    layers = [node for node in trigger.program.nodes if isinstance(node, Dense)]
    # what has one weight up to its sign only adds up a score
    layers = [node for node in layers if len(np.unique(np.abs(node.weights[node.weights != 0]))) > 1]
    if not layers:
        return "tables and adders"
    zeros = 1 - sum(np.count_nonzero(n.weights) for n in layers) / sum(n.weights.size for n in layers)
    sizes = "-".join(str(size) for size in (trigger.layout.n_inputs, *(n.size for n in layers)))
    return f"{sizes}, {100 * zeros:.0f} % zeros"


def random_words(trigger: Trigger, n: int) -> np.ndarray[Any, Any]:
    """Legal words (n, slots, features), int16."""
    rng = np.random.default_rng(3)
    low, high = trigger.layout.code_min, trigger.layout.code_max
    return rng.integers(low, high.astype(np.int64) + 1, (n, *trigger.layout.shape), dtype=np.int16, endpoint=False)


def main() -> None:
    """Run the benchmark."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--threads", type=int, default=2)

    options = arguments("published", "Published triggers, words to scores", more)
    triggers: dict[str, Trigger] = {}
    for name in CONFIGURATIONS:
        triggers.update(frozen(name))
    triggers["joint tail"] = JointTail.fit(Events.read(bundled("zero_bias"))[:20_000]).trigger()

    cases = []
    with warnings.catch_warnings():
        # Falling back to numpy warns: here that is a failure.
        warnings.simplefilter("error", emulate.SlowEmulationWarning)
        for name, trigger in triggers.items():
            words = random_words(trigger, 40_000 if options.quick else 1_000_000)
            few = words[:5000]
            if not np.array_equal(
                trigger.score(few, isa=emulate.supported_levels()[-1]), trigger.score(few, golden=True)
            ):
                raise RuntimeError(f"{name}: the kernel and the golden program differ")
            cases.append(
                Case(
                    name,
                    lambda trigger=trigger, words=words: trigger.score(words, threads=options.threads),
                    len(words),
                    ours=True,
                    note=shape_of(trigger),
                )
            )
        results = measure(cases, repeats=options.repeats)
        per_cpu = {case.name: case.work / min(cpu_seconds(case.run) for _ in range(5)) for case in cases}
    slowest, least = min(per_cpu.items(), key=lambda item: item[1])
    level = emulate.supported_levels()[-1]
    notes = [
        f"All through the compiled kernel ({level}, {options.threads} threads); each agrees with its golden program.",
        f"The slowest, {slowest}, makes {human(least)} events a second of CPU time: {2 * least / LHC:.2f} LHC "
        "on two cores.",
    ]
    shares = ", ".join(f"{name} {human(rate)}" for name, rate in per_cpu.items())
    notes.append(f"Events for each second of CPU time (of one core), which other work disturbs less: {shares}.")
    extra = {"events_a_cpu_second": per_cpu}
    report("published", "Published triggers, words to scores", results, options, extra=extra, notes=notes)


if __name__ == "__main__":
    main()
