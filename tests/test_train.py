"""Training: reproducible, resumable, honest about what it cannot do; and what it freezes is what it trained."""

from __future__ import annotations

import copy
import csv
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from l1ad import Trigger
from l1ad.errors import InputError, MissingToolError
from l1ad.train import TrainingFailed, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def zero_bias(tmp_path_factory, make_crossings):
    path = tmp_path_factory.mktemp("data") / "zero_bias.h5"
    make_crossings(3000, 1).write(path)
    return path


@pytest.fixture(scope="module")
def small(zero_bias):
    """A configuration that trains in a second once it is traced."""
    return {
        "name": "small",
        "seed": 3,
        "data": {"paths": [str(zero_bias)]},
        "model": {"family": "vae", "hidden": [6], "latent": 3, "decoder": {"hidden": [6]}},
        "loss": {"beta": {"value": 0.05, "schedule": "warmup", "epochs": 1}},
        "pruning": {"schedule": "polynomial", "sparsity": 0.5, "begin_epoch": 0, "end_epoch": 2, "every_steps": 2},
        "training": {"epochs": 4, "batch": 256, "checkpoint_epochs": 1},
    }


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "small"
    return train(small, folder)


def test_a_run_folder_is_complete(finished):
    for name in ("config.yaml", "scaling.json", "model.h5", "parts/decoder.h5", "history.csv", "training.json"):
        assert (finished.run_dir / name).is_file(), name
    assert (finished.run_dir / "learning_curves.png").read_bytes()[:4] == b"\x89PNG"
    assert not (finished.run_dir / "checkpoint.h5").exists()
    with open(finished.run_dir / "history.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])
    assert finished.n_train + finished.n_validation + finished.n_test == 3000


def test_sparsity_is_reached_and_kept(finished):
    reached = [row["sparsity"] for row in finished.history]
    assert reached[1] == pytest.approx(0.5, abs=0.01)
    assert reached[3] == pytest.approx(0.5, abs=0.01)
    assert finished.sparsity == pytest.approx(0.5, abs=0.01)


def test_frozen_trigger_equals_the_trained_model(finished, make_crossings):
    """The float32 result of QKeras is exact here: every sum of this small network has less than 24 bits."""
    from l1ad.model import load_encoder
    from l1ad.model.keras import import_tf
    from l1ad.model.stage import Geometry
    from l1ad.trigger.freeze import freeze
    from l1ad.trigger.quantizer import Quantizer

    trigger = freeze(finished.run_dir)
    assert Trigger.load(finished.run_dir).hash == trigger.hash
    events = make_crossings(2000, 7)
    encoder = load_encoder(finished.run_dir)
    assert encoder.output_names == ["mu"]
    x = Geometry.of(events.layout, finished.scaling, Quantizer("bits", 8, 5)).scale(
        import_tf().tf.constant(events.inputs)
    )
    mu = np.asarray(encoder(x), dtype=np.float64)
    latent = trigger.program.node(trigger.program.latents)
    assert np.array_equal(trigger.latents(events), latent.type.quantize(mu))
    assert np.array_equal(latent.type.to_float(latent.type.quantize(mu)), mu)
    assert np.array_equal(trigger.score(events), np.floor(mu**2 * 16).sum(axis=1))
    assert len(np.unique(trigger.score(events))) > 5


def test_same_seed_same_weights(small, finished, tmp_path):
    again = train(small, tmp_path / "again")
    for a, b in zip(finished.network.models.values(), again.network.models.values(), strict=True):
        for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
            assert np.array_equal(x, y)


def test_a_finished_folder_is_not_overwritten(small, finished):
    with pytest.raises(InputError, match="a finished run"):
        train(small, finished.run_dir)


def test_one_line_for_every_bad_configuration(small):
    cases = {
        "training.epoch": {"training": {"epoch": 3}},
        "model.family": {"model": {"family": "gan"}},
        "score": {"score": "mse"},
        "model.kernel": {"model": {"family": "vae", "kernel": "quantized_bits(6,2,alpha='auto')"}},
        "data.split": {"data": {"paths": ["x"], "split": {"train": 0.5}}},
    }
    from l1ad.config import RunConfig

    for field, change in cases.items():
        with pytest.raises(InputError) as caught:
            RunConfig.of({**copy.deepcopy(small), **change}, where="small.yaml")
        assert "\n" not in str(caught.value)
        assert "small.yaml" in str(caught.value)
        assert field.split(".")[-1] in str(caught.value)


KILLED = """
import json, os, signal, sys
from l1ad.train import TrainingFailed, train

def kill(progress):
    if progress.epoch == 3 and progress.step >= 1:
        os.kill(os.getpid(), signal.SIGKILL)

train(json.load(open(sys.argv[1])), sys.argv[2], progress=kill)
"""


def test_a_killed_run_goes_on_to_the_same_weights(small, finished, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(small))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "config.json"), str(tmp_path / "run")]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-500:]
    assert (tmp_path / "run" / "checkpoint.h5").is_file()
    assert not (tmp_path / "run" / "model.h5").exists()
    with pytest.raises(InputError, match="another configuration"):
        train({**small, "seed": 4}, tmp_path / "run")
    resumed = train(small, tmp_path / "run")
    assert resumed.resumed
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3, 4]
    for a, b in zip(finished.network.models.values(), resumed.network.models.values(), strict=True):
        for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
            assert np.array_equal(x, y)


def test_a_loss_that_is_no_number_stops(small, tmp_path):
    training = {"epochs": 4, "batch": 256, "checkpoint_epochs": 1, "optimizer": "sgd", "rate": {"value": 1e30}}
    with pytest.raises(TrainingFailed) as caught:
        train({**small, "pruning": {}, "training": training}, tmp_path / "run")
    message = str(caught.value)
    assert "not a number" in message
    assert "epoch 1, batch" in message
    assert caught.value.exit_status == 1
    assert not (tmp_path / "run" / "model.h5").exists()


def test_a_loss_that_is_no_number_later_keeps_the_last_good_checkpoint(small, finished, tmp_path, monkeypatch):
    from l1ad import train as module

    real = module.make_steps

    def breaking(*args, **options):
        run = real(*args, **options)

        def call(data, order, first, step, n):
            values = run(data, order, first, step, n)
            # The second batch of the third epoch, of whole batches of 80 % of 3000 events.
            return np.where(np.arange(n)[:, None] + step == 2 * (finished.n_train // 256) + 1, np.nan, values)

        return call

    monkeypatch.setattr(module, "make_steps", breaking)
    with pytest.raises(TrainingFailed, match=r"epoch 3, batch 2 of \d+; the last good checkpoint is kept in .*h5"):
        train(small, tmp_path / "run")
    assert not (tmp_path / "run" / "model.h5").exists()
    monkeypatch.undo()
    resumed = train(small, tmp_path / "run")
    assert resumed.resumed
    for x, y in zip(finished.network.encoder.get_weights(), resumed.network.encoder.get_weights(), strict=True):
        assert np.array_equal(x, y)


def test_tensorboard_gets_every_number_of_an_epoch(small, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    from l1ad.model.keras import import_tf

    tf = import_tf().tf
    result = train({**small, "training": {**small["training"], "epochs": 2, "tensorboard": True}}, tmp_path / "run")
    (path,) = (tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*")
    found = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    for row in result.history:
        for name in ("loss", "val_loss", "kl", "sparsity"):
            assert found["vae/" + name, row["epoch"]] == pytest.approx(row[name], rel=1e-6), name


def test_early_stopping_keeps_the_best_epoch(small, tmp_path):
    training = {"epochs": 40, "batch": 256, "patience": 2, "rate": {"value": 0.1}}
    result = train({**small, "pruning": {}, "training": training}, tmp_path / "run")
    losses = [row["val_loss"] for row in result.history]
    assert len(losses) < 40
    # The first epoch is still in the warm-up of beta and does not count.
    best = 1 + int(np.argmin(losses[1:]))
    assert len(losses) == best + 3


def test_tensorboard_is_asked_for_before_training(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingToolError, match="pip install tensorboard"):
        train({**small, "training": {"tensorboard": True}}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_freeze_says_what_is_wrong_with_a_folder(finished, tmp_path):
    from l1ad.trigger.freeze import freeze

    with pytest.raises(InputError, match=r"config.yaml: found no such file"):
        freeze(tmp_path)
    for name in ("config.yaml", "scaling.json", "model.h5"):
        shutil.copy(finished.run_dir / name, tmp_path / name)
    scaling = json.loads((tmp_path / "scaling.json").read_text())
    (tmp_path / "scaling.json").write_text(json.dumps({**scaling, "format_version": 2}))
    with pytest.raises(InputError, match="format_version: found 2, expected 1"):
        freeze(tmp_path)
    (tmp_path / "model.h5").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"model.h5"):
        freeze(tmp_path)


def test_the_verbs(small, zero_bias, tmp_path, monkeypatch):
    import yaml
    from typer.testing import CliRunner

    from l1ad.cli import app

    monkeypatch.chdir(tmp_path)
    value = {**small, "data": {"sample": "bundled"}, "pruning": {}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(value))
    runner = CliRunner()
    result = runner.invoke(app, ["train", "small.yaml", "--data", str(zero_bias), "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "1 epochs" in result.output
    result = runner.invoke(app, ["freeze", "runs/small"])
    assert result.exit_code == 0, result.output
    assert "mu_dense" in result.output
    assert (tmp_path / "runs" / "small" / "trigger.json").is_file()
    bad = runner.invoke(app, ["train", "no_such_config"])
    assert isinstance(bad.exception, InputError)


def test_training_streams_a_sample_that_is_larger_than_a_window(small, tmp_path, monkeypatch):
    from l1ad.model import dataset

    monkeypatch.setattr(dataset, "BLOCK_EVENTS", 300)
    value = {**small, "data": {**small["data"], "window_events": 1024}, "pruning": {}}
    result = train(value, tmp_path / "run")
    assert result.n_train > 2000
    losses = [row["val_reconstruction"] for row in result.history]
    assert losses[-1] < losses[0]
    assert not (tmp_path / "run" / "cache").exists()
    again = train(value, tmp_path / "again")
    for x, y in zip(result.network.encoder.get_weights(), again.network.encoder.get_weights(), strict=True):
        assert np.array_equal(x, y)
