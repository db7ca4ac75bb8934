"""Every shipped configuration can be read, builds its network and says nothing that is not meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from l1ad.config import RunConfig
from l1ad.configs import read_yaml
from l1ad.errors import ConfigError
from l1ad.events import get_layout

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The initializer .* is unseeded:UserWarning"),
]

FOLDER = Path(__file__).resolve().parent.parent / "configs"
TRAINABLE = sorted(path for path in FOLDER.glob("*.yaml") if "model" in (read_yaml(path) or {}))
#: Weights of the score's part of the network: l1-facts section 3, and the papers' sizes.
WEIGHTS = {
    "axol1tl_v1": 57 * 32 + 32 * 16 + 16 * 13,
    "axol1tl_v3": 57 * 32 + 32 * 16 + 16 * 8,
    "axol1tl_v4": 57 * 28 + 28 * 15 + 15 * 8,
    "axol1tl_v5": 57 * 29 + 29 * 10 + 10 * 9 + 9 * 6 + 6 * 4 + 4 * 6 + 6 * 9 + 9 * 10,
    "atlas_l1topo_vae": 44 * 32 + 32 * 16 + 16 * 3,
    "cicada_v1": 252 * 16 + 16,
    "cicada_v2": 2 * 2 * 4 + 9 * 7 * 4 * 16 + 16,
}


def test_all_published_triggers_are_there():
    names = {path.stem for path in TRAINABLE}
    expected = {"quickstart", *WEIGHTS, "adc2021_dnn_vae", "adc2021_dnn_ae", "adc2021_cnn_vae", "adc2021_cnn_ae"}
    assert expected <= names


@pytest.mark.parametrize("path", TRAINABLE, ids=lambda p: p.stem)
def test_a_shipped_configuration_builds(path):
    from l1ad.model import build_network, select_outputs
    from l1ad.scores import SCORES

    config = RunConfig.read(path)
    assert config.name == path.stem
    network = build_network(config, get_layout(config.data.layout))
    needed = tuple(need for need in SCORES[config.score].needs if need != "target")
    part = select_outputs(network.encoder, needed)
    kernels = [layer.kernel for layer in part.layers if hasattr(layer, "kernel")]
    if path.stem in WEIGHTS:
        assert sum(int(np.prod(kernel.shape)) for kernel in kernels) == WEIGHTS[path.stem]


@pytest.mark.parametrize("path", TRAINABLE, ids=lambda p: p.stem)
def test_a_configuration_survives_writing(path, tmp_path):
    config = RunConfig.read(path)
    config.write(tmp_path / "config.yaml")
    assert RunConfig.read(tmp_path / "config.yaml") == config


def base(**changes):
    return {"name": "x", "data": {"sample": "bundled"}, "model": {"family": "vae"}, **changes}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "a/b"}, "name"),
        ({"sedd": 1}, "sedd: found an unknown key"),
        ({"model": {"family": "vae", "hiden": [3]}}, "hiden"),
        ({"model": {"family": "vae", "hidden": [0]}}, "hidden.0"),
        ({"model": {"family": "vae", "input": "ap_fixed<8,6>"}}, "model.input"),
        ({"model": {"family": "vae", "head": "quantized_relu(8,3)"}}, "model.head"),
        ({"model": {"family": "vae", "kernel": "quantized_bits(40,2)"}}, "2 to 24"),
        ({"freeze": {"term": "ap_float<3>"}}, "freeze.term"),
        ({"data": {"paths": ["a"], "sample": "bundled"}}, "either sample"),
        ({"data": {"paths": ["a"], "layout": "lhcb"}}, "data.layout: found lhcb"),
        ({"scaling": {"offset": [1.0]}}, "offset and shift together"),
        ({"scaling": {"percentiles": [95, 5]}}, "two rising percentiles"),
        ({"score": "student"}, "student"),
        ({"loss": {"beta": {"value": 2.0}}}, "loss.beta.value"),
        ({"training": {"batch": 1}}, "training.batch"),
    ],
)
def test_one_line_names_the_key(change, words):
    with pytest.raises(ConfigError) as caught:
        RunConfig.of(base(**change), where="some.yaml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("some.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        RunConfig.read(tmp_path / "absent.yaml")


def test_r_z_gets_a_log_variance_that_ends():
    from l1ad.config import RZ_LOG_VAR

    start = {"name": "x", "data": {"sample": "bundled"}, "model": {"family": "vae"}}
    assert RunConfig.of(start).model.log_var is None
    assert RunConfig.of({**start, "score": "kl"}).model.log_var is None
    assert RunConfig.of({**start, "score": "rz"}).model.log_var == RZ_LOG_VAR
    by_hand = {
        **start,
        "score": "rz",
        "model": {"family": "cnn_vae", "conv": [{"filters": 2}], "log_var": "quantized_bits(6,2)"},
    }
    assert RunConfig.of(by_hand).model.log_var == "quantized_bits(6,2)"
    with pytest.raises(ConfigError, match=r"model\.log_var"):
        RunConfig.of({**start, "model": {"family": "vae", "log_var": "quantized_relu(8,4)"}})
    with pytest.raises(ConfigError, match="score"):
        RunConfig.of({**start, "model": {"family": "autoencoder"}, "score": "rz"})
