"""Training: events and a configuration in, a run folder out.

`train(config, run_dir)` reads the events, fits the scaling, trains every stage of the family and writes

======================  ==============================================================================================
``config.yaml``         the whole configuration, defaults included
``scaling.json``        offsets and shifts, and what they cut off
``model.h5``            the quantised encoder (`l1ad.model.load_encoder`)
``parts/*.h5``          float models that only training needs
``history.csv``         losses, sparsity, learning rate and speed of each epoch
``learning_curves.png`` the same as a plot
``checkpoint.h5``       everything that is needed to go on after a kill; removed at the end
``training.json``       numbers of events, sparsity, hashes of what was read
======================  ==============================================================================================

A run that was killed goes on from its last checkpoint and ends with the same weights as one that was not: every random
number is a function of the seed and of the number of the step, never of how often the program was started.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from l1ad.config import RunConfig
from l1ad.errors import CheckFailed, InputError, MissingToolError
from l1ad.io import atomic_hdf5, atomic_path, write_json, write_text
from l1ad.model import build_network, build_stages
from l1ad.model.dataset import Part, TrainingData, read_training_data
from l1ad.model.keras import Tensor, save_model
from l1ad.model.network import Network
from l1ad.model.pruning import Pruner, make_pruner, sparsity
from l1ad.model.stage import Geometry, Stage
from l1ad.model.step import (
    STEPS_PER_CALL,
    DeviceData,
    compiles,
    make_evaluation,
    make_optimizer,
    make_steps,
    shuffled,
)
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.layers import Scaling
from l1ad.trigger.quantizer import Quantizer
from l1ad.trigger.scaling import ScalingFit, fit_scaling, scaling_report, write_scaling

CHECKPOINT_VERSION = 1
RUN_VERSION = 1
Row = dict[str, Any]


class TrainingFailed(CheckFailed):
    """Training cannot go on: the loss is not a number."""


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes
    ----------
    stage, epoch, epochs : epoch counts from 1.
    step, steps : within the epoch.
    events_per_second : of the training steps of this epoch so far.
    terms : the last values of the loss and its terms; at the end of an epoch those of the validation too, as ``val_*``.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    events_per_second: float
    terms: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a training gave.

    Attributes
    ----------
    run_dir : the run folder.
    network : the trained Keras models.
    scaling : of the inputs.
    history : one row an epoch, as in ``history.csv``.
    n_train, n_validation, n_test : events of each part.
    sparsity : fraction of weights of the encoder that are zero.
    events_per_second : median over the epochs.
    resumed : whether it went on from a checkpoint.
    notes : what a user should know, in words.
    """

    run_dir: Path
    network: Network
    scaling: Scaling
    history: tuple[Row, ...]
    n_train: int
    n_validation: int
    n_test: int
    sparsity: float
    events_per_second: float
    resumed: bool
    notes: tuple[str, ...]


def train(
    config: RunConfig | Mapping[str, Any],
    run_dir: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    overwrite: bool = False,
    start: Network | None = None,
) -> TrainResult:
    """Train what a configuration describes and write the run folder; go on if it holds a checkpoint of the same run.

    `start`, a network of the same layers in whatever words, gives the first weights in place of random ones.

    Raises
    ------
    MissingToolError
        If TensorBoard summaries are wanted and it is not installed.
    InputError
        If the data cannot be used, the folder holds a finished run (and not `overwrite`) or one of another
        configuration.
    TrainingFailed
        If the loss is not a number; the last good checkpoint stays in the folder.
    """
    config = RunConfig.of(config)
    folder = Path(run_dir)
    if config.training.tensorboard:
        _require_tensorboard()
    _claim(folder, config, overwrite)
    data = read_training_data(config.data, seed=config.seed, cache=folder / "cache")
    fit, notes = _fit(config, data)
    layout = data.layout
    geometry = Geometry.of(layout, fit.scaling, Quantizer.parse(config.model.input))
    network = build_network(config, layout)
    if start is not None:
        copy_weights(start, network)
    batch = min(config.training.batch, data.n_train)
    steps = _steps_of_epoch(data, config.data.window_events, batch)
    stages = build_stages(config, network, geometry, steps=steps)
    config.write(folder / "config.yaml")
    write_scaling(folder / "scaling.json", fit, data.counts, Quantizer.parse(config.model.input).type)
    checkpoint = _Checkpoint(folder / "checkpoint.h5", _fingerprint(config, data), network)
    state = checkpoint.read()
    resumed = state is not None
    history: list[Row] = list(state.history) if state else []
    loop = _Loop(config, data, geometry, checkpoint, batch, steps, progress, folder)
    for number, stage in enumerate(stages):
        if state is not None and state.stage > number:
            continue
        loop.run(number, stage, state if state is not None and state.stage == number else None, history)
        state = None
    _write_results(folder, config, network, history, data)
    checkpoint.path.unlink(missing_ok=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    speed = [row["events_per_second"] for row in history]
    zero = sparsity([kernel for stage in stages for kernel in stage.prunable])
    result = TrainResult(
        folder,
        network,
        fit.scaling,
        tuple(history),
        data.n_train,
        len(data.validation[0]),
        data.n_test,
        zero,
        float(np.median(speed)) if speed else 0.0,
        resumed,
        notes,
    )
    _write_summary(folder, config, data, result)
    return result


def _claim(folder: Path, config: RunConfig, overwrite: bool) -> None:
    """See that the folder is free, or holds an unfinished run of the same configuration."""
    if folder.exists() and not folder.is_dir():
        raise InputError(str(folder), "run folder", "a file", "a folder")
    if overwrite:
        for name in ("checkpoint.h5", "model.h5", "trigger.json", "config.yaml", "training.json"):
            (folder / name).unlink(missing_ok=True)
        return
    if (folder / "model.h5").is_file():
        raise InputError(str(folder), "run folder", "a finished run", "a new folder, or --overwrite")
    unfinished = (folder / "checkpoint.h5").is_file() and (folder / "config.yaml").is_file()
    if unfinished and RunConfig.read(folder / "config.yaml") != config:
        found = "an unfinished run of another configuration"
        raise InputError(str(folder), "config.yaml", found, "the same, or --overwrite")


def _fit(config: RunConfig, data: TrainingData) -> tuple[ScalingFit, tuple[str, ...]]:
    """The scaling of a configuration and what there is to say about it."""
    given = config.scaling
    offset_type, word = FixedType.parse(given.offset_type), FixedType.parse(given.word)
    if given.offset is not None and given.shift is not None:
        scaling = Scaling(np.array(given.offset, dtype=np.float64), np.array(given.shift, np.int64), offset_type, word)
        scaling.check(data.layout.n_inputs)
        fit = ScalingFit(scaling)
    else:
        fit = fit_scaling(
            data.counts,
            percentiles=given.percentiles,
            span=given.span,
            min_entries=given.min_entries,
            offset_type=offset_type,
            word=word,
        )
    report = scaling_report(fit.scaling, data.counts, Quantizer.parse(config.model.input).type)
    wrapping = [row for row in report if row.wraps]
    if wrapping:
        row = wrapping[0]
        found = f"offset {row.stored_offset:g} and shift {row.shift}, which wrap"
        raise InputError("scaling", row.name, found, f"values that stay within {word} for every code")
    notes = list(data.notes)
    truncated = [row for row in report if row.offset != row.stored_offset]
    if truncated:
        first = truncated[0]
        notes.append(
            f"{len(truncated)} offsets lose their fraction in {offset_type}, the first {first.name} "
            f"({first.offset:g} becomes {first.stored_offset:g})"
        )
    if fit.limited:
        name, middle = fit.limited[0]
        notes.append(f"{len(fit.limited)} offsets end with {offset_type}, the first {name}, which wants {middle:g}")
    if fit.borrowed:
        names = ", ".join(f"{name} from {source}" for name, source in fit.borrowed[:3])
        more = f" and {len(fit.borrowed) - 3} more" if len(fit.borrowed) > 3 else ""
        notes.append(f"too few entries or no variance, scaling taken from the slot before: {names}{more}")
    return fit, tuple(notes)


def _steps_of_epoch(data: TrainingData, window_events: int, batch: int) -> int:
    """Whole batches of an epoch; what is left over in each window waits for another shuffle."""
    if data.n_train <= window_events:
        return data.n_train // batch
    return sum(len(weight) // batch for _, weight in data.windows(window_events, seed=0, epoch=0))


def _fingerprint(config: RunConfig, data: TrainingData) -> str:
    """What must be equal for a checkpoint to be of this run."""
    text = json.dumps([config.model_dump(mode="json"), data.inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class _State:
    """Where a stage stands, beside the values of its variables."""

    stage: int
    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[Row] = field(default_factory=list)
    variables: dict[str, list[Any]] = field(default_factory=dict)
    best: list[Any] | None = None


@dataclass(frozen=True, eq=False)
class _Checkpoint:
    """The file from which a killed run goes on."""

    path: Path
    fingerprint: str
    network: Network

    def write(self, state: _State, groups: Mapping[str, Sequence[Tensor]], best: Sequence[Any] | None) -> None:
        everything = {"network": _network_variables(self.network), **groups}
        with atomic_hdf5(self.path) as file:
            file.attrs["format"] = "l1ad-checkpoint"
            file.attrs["format_version"] = CHECKPOINT_VERSION
            file.attrs["fingerprint"] = self.fingerprint
            file.attrs["stage"], file.attrs["epoch"] = state.stage, state.epoch
            file.attrs["best_loss"], file.attrs["best_epoch"] = state.best_loss, state.best_epoch
            file.attrs["history"] = json.dumps(state.history)
            for name, variables in everything.items():
                for i, variable in enumerate(variables):
                    file[f"{name}/{i:04d}"] = np.asarray(variable)
            for i, value in enumerate(best or ()):
                file[f"best/{i:04d}"] = value

    def read(self) -> _State | None:
        """The state in the file, after its values were set into the network; None if there is no file."""
        if not self.path.is_file():
            return None
        try:
            with h5py.File(self.path, "r") as file:
                version = int(file.attrs.get("format_version", 0))
                if file.attrs.get("format") != "l1ad-checkpoint" or version != CHECKPOINT_VERSION:
                    raise InputError(str(self.path), "format_version", version, CHECKPOINT_VERSION)
                if file.attrs["fingerprint"] != self.fingerprint:
                    raise InputError(str(self.path), "run", "other data or configuration", "the same, or --overwrite")
                values = {name: [file[name][key][()] for key in sorted(file[name])] for name in file}
                state = _State(
                    int(file.attrs["stage"]),
                    int(file.attrs["epoch"]),
                    float(file.attrs["best_loss"]),
                    int(file.attrs["best_epoch"]),
                    json.loads(file.attrs["history"]),
                    values,
                    values.get("best"),
                )
        except OSError as error:
            raise InputError(
                str(self.path), "file", str(error).splitlines()[0], "a checkpoint, or --overwrite"
            ) from error
        _assign(_network_variables(self.network), state.variables["network"])
        return state


def copy_weights(source: Network, target: Network) -> None:
    """Give a network the weights of another of the same layers; its own words stay."""
    _assign(_network_variables(target), [np.asarray(variable) for variable in _network_variables(source)])


def validation_loss(config: RunConfig, network: Network, data: TrainingData, geometry: Geometry) -> float | None:
    """The loss of the last stage of a network on the validation events; None if there are none."""
    if not len(data.validation[0]):
        return None
    batch = min(config.training.batch, data.n_train)
    stage = build_stages(config, network, geometry, steps=_steps_of_epoch(data, config.data.window_events, batch))[-1]
    return make_evaluation(stage, geometry, ("loss",), seed=config.seed)(*data.validation)["loss"]


def _network_variables(network: Network) -> list[Tensor]:
    return [variable for model in network.models.values() for variable in model.variables]


def _assign(variables: Sequence[Tensor], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


@dataclass(frozen=True, eq=False)
class _Loop:
    """The epochs of one stage after the other."""

    config: RunConfig
    data: TrainingData
    geometry: Geometry
    checkpoint: _Checkpoint
    batch: int
    steps: int
    progress: Callable[[Progress], None] | None
    folder: Path

    def run(self, number: int, stage: Stage, state: _State | None, history: list[Row]) -> None:
        training = self.config.training
        pruner = make_pruner(stage.prunable, self.config.pruning, epochs=stage.epochs, steps_per_epoch=self.steps)
        optimizer = make_optimizer(training, steps_per_epoch=self.steps, epochs=stage.epochs)
        seed = int(np.random.SeedSequence([self.config.seed, number]).generate_state(1)[0] >> 1)
        terms = self._terms(stage)
        jit = compiles(training, stage, steps_per_epoch=self.steps, batch=self.batch)
        run_steps = make_steps(stage, self.geometry, optimizer, pruner, terms, batch=self.batch, seed=seed, jit=jit)
        evaluate = make_evaluation(stage, self.geometry, terms, seed=seed)
        groups: dict[str, Sequence[Tensor]] = {
            "optimizer": _optimizer_variables(optimizer),
            "masks": pruner.masks if pruner else (),
        }
        best: list[Any] | None = None
        if state is None:
            state = _State(number, history=history)
        else:
            for name, variables in groups.items():
                _assign(variables, state.variables.get(name, []))
            best = state.best
            state.history = history
        settled = max(stage.settled, pruner.settled if pruner else 0)
        fits = self.data.n_train <= self.config.data.window_events
        resident = DeviceData.of(*self.data.train, self.geometry) if fits else None
        writer = _summary_writer(self.folder) if training.tensorboard else None
        while state.epoch < stage.epochs:
            row = self._epoch(stage, state.epoch, seed, run_steps, terms, resident, pruner)
            state.epoch += 1
            self._require_finite_weights(stage, state.epoch)
            row["learning_rate"] = float(np.asarray(optimizer.learning_rate))
            row["sparsity"] = sparsity(stage.prunable)
            if len(self.data.validation[0]):
                row.update({f"val_{k}": v for k, v in evaluate(*self.data.validation).items()})
                after = f"the validation after batch {self.steps} of {self.steps}"
                self._require_finite(row["val_loss"], stage, state.epoch, after)
                if state.epoch * self.steps >= settled and row["val_loss"] < state.best_loss:
                    state.best_loss, state.best_epoch = row["val_loss"], state.epoch
                    best = [np.array(variable) for variable in stage.variables]
            history.append(row)
            if writer is not None:
                _write_summaries(writer, row)
            self._report(stage, state.epoch, self.steps, row["events_per_second"], row)
            patience = training.patience
            stop = patience is not None and best is not None and state.epoch - state.best_epoch >= patience
            if stop or state.epoch == stage.epochs:
                break
            if state.epoch % training.checkpoint_epochs == 0:
                self.checkpoint.write(state, groups, best)
        if best is not None:
            _assign(stage.variables, best)
        if pruner is not None:
            pruner.apply()
        self.checkpoint.write(_State(number + 1, history=history), {}, None)

    def _terms(self, stage: Stage) -> tuple[str, ...]:
        """Names of the terms of a loss, found on a few events; ``loss`` first."""
        from l1ad.model.keras import import_tf
        from l1ad.model.stage import Batch

        tf = import_tf().tf
        codes = tf.constant(np.asarray(self.data.train[0][:4]))
        weight = tf.ones((codes.shape[0],))
        zero = tf.constant(0, tf.int64)
        probe = Batch(codes, self.geometry.inputs(codes), weight, tf.constant([0, 0]), zero)
        names = list(stage.loss(probe, False))
        return ("loss", *(name for name in names if name != "loss"))

    def _epoch(
        self,
        stage: Stage,
        epoch: int,
        seed: int,
        run_steps: Callable[..., Any],
        terms: tuple[str, ...],
        resident: DeviceData | None,
        pruner: Pruner | None,
    ) -> Row:
        """One pass over the training events; mean of each term over its steps."""
        totals = np.zeros(len(terms))
        done = 0
        seconds = 0.0
        windows = self.data.windows(self.config.data.window_events, seed=seed, epoch=epoch)
        for window, part in enumerate([None] if resident is not None else windows):
            device = resident if part is None else DeviceData.of(*_part(part), self.geometry)
            assert device is not None
            order = shuffled(len(device), (seed, epoch * 65536 + window))
            # The windows of an epoch may hold a batch more or less than those of the first: steps are counted once.
            n_steps = min(len(device) // self.batch, self.steps - done)
            for first in range(0, n_steps, STEPS_PER_CALL):
                n = min(STEPS_PER_CALL, n_steps - first)
                start = time.perf_counter()
                values = run_steps(device, order, first, epoch * self.steps + done, n)
                seconds += time.perf_counter() - start
                bad = np.flatnonzero(~np.isfinite(values[:, 0]))
                if len(bad):
                    self._require_finite(
                        float("nan"), stage, epoch + 1, f"batch {done + int(bad[0]) + 1} of {self.steps}"
                    )
                totals += values.astype(np.float64).sum(axis=0)
                done += n
                last = dict(zip(terms, values[-1].tolist()))
                self._report(stage, epoch + 1, done, done * self.batch / seconds, last)
        if pruner is not None:
            pruner.apply()
        means = (totals / max(done, 1)).tolist()
        return {
            "stage": stage.name,
            "epoch": epoch + 1,
            "events_per_second": done * self.batch / seconds,
            **dict(zip(terms, means)),
        }

    def _require_finite(self, value: float, stage: Stage, epoch: int, where: str) -> None:
        if math.isfinite(value):
            return
        kept = "no checkpoint was written yet"
        if self.checkpoint.path.is_file():
            kept = f"the last good checkpoint is kept in {self.checkpoint.path}"
        raise TrainingFailed(f"the loss is not a number: stage {stage.name}, epoch {epoch}, {where}; {kept}")

    def _require_finite_weights(self, stage: Stage, epoch: int) -> None:
        """The loss of a step is that before its update: see that the last update of the epoch did no harm."""
        if not all(np.isfinite(np.asarray(variable)).all() for variable in stage.variables):
            self._require_finite(math.nan, stage, epoch, f"batch {self.steps} of {self.steps}")

    def _report(self, stage: Stage, epoch: int, step: int, speed: float, terms: Mapping[str, Any]) -> None:
        if self.progress is not None:
            values = {k: float(v) for k, v in terms.items() if isinstance(v, (int, float))}
            self.progress(Progress(stage.name, epoch, stage.epochs, step, self.steps, speed, values))


def _part(part: Part | None) -> Part:
    assert part is not None
    return part


def _require_tensorboard() -> None:
    try:
        import_module("tensorboard")
    except ImportError as error:
        text = "tensorboard is not installed: pip install tensorboard, or tensorboard: false"
        raise MissingToolError(text) from error


def _summary_writer(folder: Path) -> Any:
    from l1ad.model.keras import import_tf

    return import_tf().tf.summary.create_file_writer(str(folder / "tensorboard"))


def _write_summaries(writer: Any, row: Row) -> None:
    """One epoch for TensorBoard."""
    from l1ad.model.keras import import_tf

    tf = import_tf().tf
    with writer.as_default(step=row["epoch"]):
        for name, value in row.items():
            if isinstance(value, float):
                tf.summary.scalar(f"{row['stage']}/{name}", value)
    writer.flush()


def _optimizer_variables(optimizer: Tensor) -> list[Tensor]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)


def _write_results(
    folder: Path, config: RunConfig, network: Network, history: Sequence[Row], data: TrainingData
) -> None:
    """Models, history and curves."""
    del config, data
    write_history(folder / "history.csv", history)
    draw_history(folder / "learning_curves.png", history)
    for name, part in network.parts.items():
        save_model(part, folder / "parts" / f"{name}.h5")
    # Last: a folder with this file is a finished run.
    save_model(network.encoder, folder / "model.h5")


def _write_summary(folder: Path, config: RunConfig, data: TrainingData, result: TrainResult) -> None:
    last = {k: v for k, v in result.history[-1].items() if isinstance(v, (int, float))} if result.history else {}
    write_json(
        folder / "training.json",
        {
            "format": "l1ad-training",
            "format_version": RUN_VERSION,
            "name": config.name,
            "inputs": data.inputs,
            "events": {"train": result.n_train, "validation": result.n_validation, "test": result.n_test},
            "sparsity": result.sparsity,
            "events_per_second": result.events_per_second,
            "epochs": len(result.history),
            "last": last,
            "notes": list(result.notes),
        },
    )


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write the history as CSV; a term that a stage does not have is an empty field."""
    names = list(dict.fromkeys(name for row in history for name in row))
    lines = [",".join(names)]
    for row in history:
        cells = (row.get(name, "") for name in names)
        lines.append(",".join(f"{cell:.9g}" if isinstance(cell, float) else str(cell) for cell in cells))
    write_text(path, "\n".join(lines) + "\n")


def draw_history(path: Path, history: Sequence[Row]) -> None:
    """Draw training and validation values of each term against the epoch, one panel a stage."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["stage"] for row in history))
    figure = Figure(figsize=(6.0 * max(len(names), 1), 4.0), layout="constrained")
    skip = {"stage", "epoch", "events_per_second", "learning_rate", "sparsity"}
    for i, name in enumerate(names):
        rows = [row for row in history if row["stage"] == name]
        axes = figure.add_subplot(1, len(names), i + 1)
        epochs = [row["epoch"] for row in rows]
        terms = [key for key in rows[0] if key not in skip and not key.startswith("val_")]
        for j, term in enumerate(terms):
            axes.plot(epochs, [row[term] for row in rows], color=f"C{j}", label=f"{term}, training")
            if f"val_{term}" in rows[0]:
                values = [row[f"val_{term}"] for row in rows]
                axes.plot(epochs, values, color=f"C{j}", linestyle="--", label=f"{term}, validation")
        axes.set_title(name)
        axes.set_xlabel("Epoch")
        axes.set_ylabel("Loss and its terms")
        if rows and any(row["sparsity"] for row in rows):
            second = axes.twinx()
            second.plot(epochs, [row["sparsity"] for row in rows], color="0.6", label="sparsity")
            second.set_ylabel("Sparsity")
            second.set_ylim(0.0, 1.0)
        axes.legend(fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
