"""Every family: builds, freezes exactly, and trains in the stages it says."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad.config import RunConfig
from l1ad.errors import ConfigError, InputError
from l1ad.events import get_layout
from l1ad.trigger.layers import Scaling

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The initializer .* is unseeded:UserWarning"),
]

CONV = [
    {"filters": 3, "pool": [3, 1]},
    {"filters": 4, "kernel": [3, 1], "padding": "same", "pool": [3, 1], "pooling": "max"},
]
FAMILIES = {
    "vae": ({"family": "vae", "hidden": [9, 6], "latent": 4}, "rz"),
    "contrast": ({"family": "contrast", "hidden": [7], "latent": 3}, "mu2"),
    "autoencoder": ({"family": "autoencoder", "hidden": [8, 5], "latent": 3}, "mse"),
    "cnn_vae": ({"family": "cnn_vae", "conv": CONV, "latent": 3}, "kl"),
    "cnn_autoencoder": ({"family": "cnn_autoencoder", "conv": CONV[:1], "hidden": [6], "latent": 3}, "mse"),
    "embedding": (
        {
            "family": "embedding",
            "backbone": [8, 5],
            "autoencoder": [4, 2, 4],
            "linear": [1],
            "input": "quantized_bits(14,5)",
            "kernel": [f"quantized_bits({bits},1)" for bits in (4, 5, 4, 5, 4, 5)],
        },
        "embedding_mse",
    ),
    "cicada_v1": ({"family": "cicada", "hidden": [6]}, "student"),
    "cicada_v2": (
        {"family": "cicada", "conv": [{"filters": 2, "kernel": [2, 2], "strides": [2, 2]}], "hidden": [6]},
        "student",
    ),
}


def configuration(name, **changes):
    model, score = FAMILIES[name]
    layout = "cms_calo_regions" if name.startswith("cicada") else "cms_ugt"
    base = {"name": name, "data": {"sample": "bundled", "layout": layout}, "model": model, "score": score}
    return RunConfig.of({**base, **changes})


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_freezes_exactly(stack, name, make_crossings):
    """Every layer of the frozen program against QKeras in float64, untrained but with weights of any size."""
    from l1ad.model import build_network, select_outputs
    from l1ad.model.replay import replay
    from l1ad.scores import SCORES
    from l1ad.trigger.freeze import freeze_model

    config = configuration(name)
    layout = get_layout(config.data.layout)
    network = build_network(config, layout)
    rng = np.random.default_rng(4)
    network.encoder.set_weights([rng.normal(0, 0.7, w.shape) for w in network.encoder.get_weights()])
    bits = np.array([word.bits for word in layout.input_words])
    scaling = Scaling(rng.integers(0, 30, len(bits)).astype(float), np.maximum(bits - 4, 0))
    trigger = freeze_model(network.encoder, scaling, layout, config.score, options=config.freeze)
    codes = make_crossings(400, 2, layout.name).inputs
    found = trigger.trace(codes)
    scale = trigger.program.node("scale").type
    needed = tuple(need for need in SCORES[config.score].needs if need != "target")
    values = replay(select_outputs(network.encoder, needed), scale.to_float(found["scale"]))
    compared = [layer for layer in values if layer in found]
    assert {"input_quantizer", *compared} | {"image", "flat"} >= set(values)
    for layer in compared:
        assert np.array_equal(trigger.program.node(layer).type.to_float(found[layer]), values[layer]), layer
    assert len(np.unique(trigger.score(codes))) > 10


@pytest.mark.parametrize("name", ["embedding", "cicada_v2"])
def test_two_stages_train_one_after_the_other(name, tmp_path, make_crossings):
    """What the first stage trained is not changed by the second, and both losses fall."""
    from l1ad.train import train

    config = configuration(name)
    make_crossings(700, 8, config.data.layout).write(tmp_path / "events.h5")
    model = config.model.model_dump(mode="json")
    if name.startswith("cicada"):
        model["teacher"] = {"filters": [2, 2], "latent": 4}
    value = {
        **config.model_dump(mode="json"),
        "model": model,
        "data": {"paths": [str(tmp_path / "events.h5")], "layout": config.data.layout},
        "pruning": {"schedule": "constant", "sparsity": 0.4, "end_epoch": 2},
        "training": {"epochs": 4, "batch": 128, "rate": {"value": 0.003}},
    }
    result = train(value, tmp_path / "run")
    stages = list(dict.fromkeys(row["stage"] for row in result.history))
    assert stages == (["vicreg", "autoencoder"] if name == "embedding" else ["teacher", "student"])
    for stage in stages:
        losses = [row["loss"] for row in result.history if row["stage"] == stage]
        assert losses[-1] < losses[0], stage
    assert result.sparsity == pytest.approx(0.4, abs=0.03)


def test_students_share_a_teacher(tmp_path, make_crossings):
    """A student of another run's teacher trains alone, learns its error, and leaves it as it was."""
    from l1ad.model.keras import load_model
    from l1ad.train import train

    first = configuration("cicada_v1")
    make_crossings(700, 8, first.data.layout).write(tmp_path / "events.h5")
    make_crossings(700, 9, first.data.layout).write(tmp_path / "others.h5")

    def value(name: str, events: str, **teacher: object) -> dict[str, object]:
        config = configuration(name)
        model = config.model.model_dump(mode="json")
        model["teacher"] = {"filters": [2, 2], "latent": 4, "epochs": 2, **teacher}
        data = {"paths": [str(tmp_path / events)], "layout": config.data.layout}
        training = {"epochs": 3, "batch": 128, "rate": {"value": 0.003}}
        return {**config.model_dump(mode="json"), "model": model, "data": data, "training": training}

    train(value("cicada_v1", "events.h5"), tmp_path / "first")
    run = str(tmp_path / "first")
    second = train(value("cicada_v2", "events.h5", run=run), tmp_path / "second")
    assert {row["stage"] for row in second.history} == {"student"}
    kept, used = (load_model(tmp_path / name / "parts" / "teacher.h5").get_weights() for name in ("first", "second"))
    for a, b in zip(kept, used, strict=True):
        assert np.array_equal(a, b)
    losses = [row["val_loss"] for row in second.history]
    assert losses[-1] < losses[0]
    with pytest.raises(InputError, match=r"scaling.json: scaling: found other offsets"):
        train(value("cicada_v2", "others.h5", run=run), tmp_path / "third")
    with pytest.raises(InputError, match=r"teacher.h5: model.teacher: found \d+ weights"):
        train(value("cicada_v2", "events.h5", run=run, latent=5), tmp_path / "third")
    with pytest.raises(InputError, match=r"teacher.h5: model.teacher.run: found no such file"):
        train(value("cicada_v2", "events.h5", run=str(tmp_path)), tmp_path / "third")


def test_a_turned_crossing_is_the_same_physics(stack, geometry, sample):
    """Without smearing and masking an augmented crossing keeps pt, differences in phi and |eta|."""
    from l1ad.config import AugmentConfig
    from l1ad.model import embedding
    from l1ad.model.stage import Geometry
    from l1ad.trigger.quantizer import Quantizer

    # Offset 0, shift 0 and a wide input: the view can be read back.
    plain = Geometry.of(sample.layout, Scaling(np.zeros(57), np.zeros(57, dtype=np.int64)), Quantizer("bits", 24, 13))
    codes = stack.tf.constant(sample.inputs)
    config = AugmentConfig(blur=0.0, mask_objects=0.0, rotate=1.0)
    view = np.asarray(embedding.augment(codes, plain, config, stack.tf.constant([1, 2]))).reshape(-1, 19, 3)
    before = sample.hw.astype(float) * [0.5, 1.0, 1.0]
    assert np.array_equal(view[:, :, 0], before[:, :, 0])
    filled = before[:, :, 0] != 0
    largest = np.array([word[1].code_max for word in sample.layout.words])
    assert np.array_equal(np.abs(view[:, :, 1]), np.minimum(np.abs(before[:, :, 1]), largest) * filled)
    turn = np.where(filled, (view[:, :, 2] - before[:, :, 2]), np.nan)[:, 9:]
    spread = np.nanmax(np.abs(np.mod(turn - turn[:, :1] + 72, 144) - 72), axis=1)
    assert np.nanmax(spread) <= 1
    assert len(np.unique(np.mod(turn[:, 0], 144))) > 100
    masked = AugmentConfig(blur=0.2, mask_objects=1.0, rotate=0.0)
    assert not np.asarray(embedding.augment(codes, plain, masked, stack.tf.constant([1, 2]))).any()


def test_sizes_that_do_not_fit_say_so(stack):
    from l1ad.model import build_network

    cases = [
        ("vae", {"kernel": ["quantized_bits(6,2)"]}, "kernel: found 1 entries"),
        ("cnn_vae", {"conv": [{"filters": 2, "kernel": [3, 5]}]}, "conv 1 kernel"),
        ("cnn_vae", {"conv": [{"filters": 2, "pool": [30, 1]}]}, "conv 1 pool"),
        ("embedding", {"linear": [7]}, "linear: found 7"),
        ("cicada_v1", {"rows": 7}, "7 x 14"),
    ]
    for name, change, words in cases:
        model = {**FAMILIES[name][0], **change}
        if name == "vae":
            model["hidden"] = [4]
        config = configuration(name, model=model)
        with pytest.raises(ConfigError, match=words):
            build_network(config, get_layout(config.data.layout))


def test_strewing_adds_legal_sorted_objects(stack, geometry, sample):
    """Words stay legal, objects sorted, what was there stays unless it is pushed out, and something is added."""
    from l1ad import Events
    from l1ad.config import StrewConfig
    from l1ad.model import contrast

    original = sample.hw.copy()
    original[:, 5:9] = 0  # no muons: every muon that there is afterwards was strewn in
    codes = stack.tf.constant(original.reshape(len(original), -1))
    strewn = np.asarray(contrast.strew(codes, geometry, StrewConfig(), stack.tf.constant([3, 4])))
    hw = strewn.reshape(-1, 19, 3).astype(np.int64)
    events = Events.from_arrays(hw)
    assert np.array_equal(events.hw, hw)  # nothing had to be sorted or was refused
    before = original[:, :, 0].astype(int)
    jets = slice(9, 19)
    assert (hw[:, jets, 0].sum(axis=1) >= before[:, jets].sum(axis=1)).all()
    assert (hw[:, 1:, 0] >= before[:, 1:]).all()
    changed = (hw[:, :, 0] != before).any(axis=1).mean()
    assert 0.5 < changed < 1.0
    new = hw[:, 5:9, 0][hw[:, 5:9, 0] > 0] / 2.0
    assert new.min() >= 3.5
    assert new.max() > 100.0
    # log-uniform: as many between 8 and 16 GeV as between 32 and 64.
    low, high = ((new >= 8) & (new < 16)).sum(), ((new >= 32) & (new < 64)).sum()
    assert 0.7 < low / high < 1.4
    again = np.asarray(contrast.strew(codes, geometry, StrewConfig(), stack.tf.constant([3, 4])))
    assert np.array_equal(strewn, again)
    nothing = StrewConfig(sparse=1e9)
    same = np.asarray(contrast.strew(codes, geometry, nothing, stack.tf.constant([3, 4])))
    assert np.array_equal(same, original.reshape(len(original), -1))
