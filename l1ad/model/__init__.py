"""What can be trained: one file a family, all quantised with QKeras where they run on the FPGA.

What to use when: `build_network` and `build_stages` for the Keras models of a configuration and what training does with
them, `load_encoder` for the trained encoder of a run folder, whose hls4ml conversion is bit-exact; `l1ad.train.train`
does the training, `l1ad.trigger.freeze` makes the integer program.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l1ad.config import RunConfig
from l1ad.errors import InputError
from l1ad.events.layout import ObjectLayout

if TYPE_CHECKING:
    from l1ad.model.network import Network
    from l1ad.model.stage import Geometry, Stage

__all__ = ["build_network", "build_stages", "load_encoder", "select_outputs"]


def build_network(config: RunConfig, layout: ObjectLayout) -> Network:
    """The untrained models of a configuration, with weights drawn from its seed.

    Raises
    ------
    ConfigError
        If sizes do not fit together.
    """
    from importlib import import_module

    from l1ad.model.network import weight_seeds

    family = import_module(f"l1ad.model.{_MODULES[config.model.family]}")
    network: Network = family.build(config.model, layout, weight_seeds(config.seed))
    return network


def build_stages(config: RunConfig, network: Network, geometry: Geometry, *, steps: int) -> tuple[Stage, ...]:
    """What training does, in order; `steps` is the number of steps of an epoch."""
    from importlib import import_module

    family = import_module(f"l1ad.model.{_MODULES[config.model.family]}")
    stages: tuple[Stage, ...] = family.stages(config, network, geometry, steps=steps)
    return stages


_MODULES = {
    "vae": "vae",
    "autoencoder": "autoencoder",
    "cnn_vae": "cnn",
    "cnn_autoencoder": "cnn",
    "embedding": "embedding",
    "cicada": "cicada",
    "contrast": "contrast",
}


def load_encoder(run_dir: str | os.PathLike[str], outputs: tuple[str, ...] | None = None) -> Any:
    """The trained, quantised encoder of a run folder as a Keras model with only the outputs that the score needs.

    Its inputs are the scaled inputs (N, inputs), its outputs those of `outputs`, by default what the score of the run's
    configuration takes from the network, in that order. A target is not among them: it is the quantised input.

    Raises
    ------
    InputError
        If the folder holds no trained model.
    """
    from l1ad.model.keras import load_model
    from l1ad.scores import SCORES

    folder = Path(run_dir)
    for name in ("config.yaml", "model.h5"):
        if not (folder / name).is_file():
            raise InputError(str(folder), name, "no such file", "the folder of a finished `l1ad train`")
    config = RunConfig.read(folder / "config.yaml")
    wanted = outputs or tuple(need for need in SCORES[config.score].needs if need != "target")
    return select_outputs(load_model(folder / "model.h5"), wanted)


def select_outputs(model: Any, outputs: tuple[str, ...]) -> Any:
    """The part of a model that leads to the layers called `outputs`.

    Raises
    ------
    InputError
        If there is no such layer.
    """
    from l1ad.model.keras import import_tf

    known = {layer.name for layer in model.layers}
    missing = [name for name in outputs if name not in known]
    if missing:
        raise InputError(str(model.name), "output", missing[0], f"one of the layers {', '.join(sorted(known))}")
    tensors = [model.get_layer(name).output for name in outputs]
    return import_tf().keras.Model(model.inputs, tensors, name=model.name)
