"""The search and the scan of widths, small but whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from l1ad import Events
from l1ad.errors import ConfigError, InputError
from l1ad.tune import pareto_front, parse_range, suggest, tune

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The initializer .* is unseeded:UserWarning"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_crossings):
    """Zero bias in a file for training, more of it for rates, and a signal with harder objects."""
    folder = tmp_path_factory.mktemp("tune")
    make_crossings(2000, 1).write(folder / "train.h5")
    signal = make_crossings(500, 3)
    hw = signal.hw.copy()
    hw[:, 9:, 0] = np.minimum(hw[:, 9:, 0].astype(int) * 6, 2047)
    config = {
        "name": "small",
        "data": {"paths": [str(folder / "train.h5")]},
        "model": {"family": "contrast", "hidden": [5], "latent": 2},
        "training": {"epochs": 3, "batch": 256, "rate": {"value": 0.01}},
    }
    return config, make_crossings(3000, 2), {"hard": Events.from_arrays(hw)}


def test_pareto_front_against_brute_force():
    rng = np.random.default_rng(1)
    points = [(float(a), float(b)) for a, b in rng.integers(0, 8, (40, 2))]
    front = pareto_front(points)
    for gain, cost in (points[i] for i in front):
        assert not any((g >= gain and c < cost) or (g > gain and c <= cost) for g, c in points)
    for gain, cost in points:
        assert any(points[i][0] >= gain and points[i][1] <= cost for i in front)


def test_ranges():
    assert parse_range("2:16") == tuple(range(2, 17))
    for text in ("16:2", "1:4", "a:b", "4", "2:30", "2:8:0"):
        with pytest.raises(ConfigError, match="--scan-bits"):
            parse_range(text)


def test_a_search(world, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'l1ad[tune]'")
    pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'l1ad[rtl]'")
    config, zero_bias, signals = world
    said = []
    done = tune(config, tmp_path, zero_bias, signals, trials=2, rate_khz=100.0, report=said.append)
    assert [trial.number for trial in done] == [0, 1]
    assert len(said) == 2
    assert done[0].parameters != done[1].parameters
    for trial in done:
        assert 0 <= trial.figures.efficiency <= 1
        assert trial.figures.luts > 100
        assert (tmp_path / trial.folder / "trigger.json").is_file()
    assert max(trial.figures.auc for trial in done) > 0.8
    written = json.loads((tmp_path / "trials.json").read_text())
    assert written["trials"][1]["figures"]["luts"] == done[1].figures.luts
    assert (tmp_path / "pareto.png").read_bytes()[:4] == b"\x89PNG"


def test_a_search_in_which_nothing_trains_says_why(world, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'l1ad[tune]'")
    pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'l1ad[rtl]'")
    config, zero_bias, signals = world
    broken = {**config, "data": {"paths": [str(tmp_path / "absent.h5")]}}
    with pytest.raises(InputError, match="none that could be trained"):
        tune(broken, tmp_path / "x", zero_bias, signals, trials=1)
    with pytest.raises(InputError, match="signals"):
        from l1ad.trigger.tail import JointTail
        from l1ad.tune import figures

        figures(JointTail.fit(zero_bias).trigger(), zero_bias, {})


def test_widths_are_compared(world, tmp_path):
    """Few bits lose, many bits are as good as float, and fewer bits cost fewer LUTs; QAT begins at float weights."""
    pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'l1ad[rtl]'")
    from l1ad.tune import scan_bits

    config, zero_bias, signals = world
    points = scan_bits(config, tmp_path, zero_bias, signals, (3, 9), rate_khz=100.0)
    assert [(p.method, p.bits) for p in points] == [("ptq", 3), ("qat", 3), ("ptq", 9), ("qat", 9)]
    found = {(p.method, p.bits): p.figures for p in points}
    assert found["ptq", 9].auc > 0.8
    assert found["ptq", 3].luts < found["ptq", 9].luts
    loss = {(p.method, p.bits): p.loss for p in points}
    assert loss["ptq", 9] < loss["ptq", 3]
    assert loss["qat", 3] < loss["ptq", 3]
    assert loss["qat", 9] == pytest.approx(loss["ptq", 9], abs=0.05)
    assert (tmp_path / "scan_bits.png").is_file()
    with pytest.raises(ConfigError, match="vae or contrast"):
        scan_bits({**config, "model": {"family": "autoencoder"}, "score": "mse"}, tmp_path, zero_bias, signals, (4,))


def test_fitting_words_hold_what_they_fit():
    from l1ad.model.ptq import fitting

    rng = np.random.default_rng(2)
    for scale in (0.01, 0.7, 3.0, 40.0):
        values = rng.normal(0, scale, 300)
        word = fitting("bits", 8, values)
        assert np.abs(word(values) - values).max() <= word.type.lsb / 2
        assert word.integer == 0 or np.abs(values).max() > 2.0 ** (word.integer - 1) * (1 - 2.0**-7)
        relu = fitting("relu", 8, np.abs(values))
        assert np.abs(relu(np.abs(values)) - np.abs(values)).max() <= relu.type.lsb / 2


def test_suggestions_keep_the_configuration_valid():
    from l1ad.config import RunConfig

    class Trial:
        def __init__(self, pick):
            self.pick = pick

        def suggest_categorical(self, name, values):
            return values[-1 if self.pick else 0]

        def suggest_int(self, name, low, high):
            return high if self.pick else low

        def suggest_float(self, name, low, high, log=False):
            return high if self.pick else low

    for family in ("vae", "contrast", "autoencoder"):
        score = "mse" if family == "autoencoder" else "mu2"
        base = {"name": "x", "data": {"sample": "bundled"}, "model": {"family": family}, "score": score}
        start = RunConfig.of(base).model_dump(mode="json")
        for pick in (True, False):
            changed = RunConfig.of(suggest(Trial(pick), start))
            assert changed.model.kernel == ("quantized_bits(8,2)" if pick else "quantized_bits(3,2)")
        assert start == RunConfig.of(base).model_dump(mode="json")
