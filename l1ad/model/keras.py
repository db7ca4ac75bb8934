"""The one place where TensorFlow, Keras and QKeras are imported.

QKeras and tfmot are Keras 2: ``TF_USE_LEGACY_KERAS=1`` must stand in the environment before TensorFlow is imported,
and TensorFlow takes seven seconds to import, so nothing else in this project imports it by itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, TypeAlias

from l1ad.errors import InputError, MissingToolError
from l1ad.scores import FloatOps

#: Tensors, Keras models and layers have no usable types of their own.
Tensor: TypeAlias = Any
KerasModel: TypeAlias = Any
KerasLayer: TypeAlias = Any


@lru_cache(maxsize=1)
def import_tf() -> SimpleNamespace:
    """TensorFlow (``tf``), Keras 2 (``keras``) and QKeras (``qkeras``) in a namespace.

    Raises
    ------
    MissingToolError
        If one is not installed, or TensorFlow was already imported with Keras 3.
    """
    if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        raise MissingToolError("tensorflow was imported with Keras 3: set TF_USE_LEGACY_KERAS=1 before importing it")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # One definition of a float result on one machine: oneDNN picks its kernels by what else is running.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # XLA's own matrix products are a seventh of a training step slower than Eigen's on our narrow layers.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
    import warnings

    try:
        with warnings.catch_warnings(), _quiet_start():
            warnings.simplefilter("ignore")
            import qkeras
            import tensorflow as tf
            import tf_keras as keras

            # The search for devices talks too; it must not do so later.
            tf.config.list_logical_devices()
    except ImportError as error:
        raise MissingToolError(f"{error.name} is not installed: pip install l1ad brings it") from error
    tf.get_logger().setLevel("ERROR")
    return SimpleNamespace(tf=tf, keras=keras, qkeras=qkeras)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep the file of standard error closed: TensorFlow writes past Python, before any log level is looked at."""
    try:
        saved = os.dup(2)
    except OSError:
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def tf_ops() -> FloatOps[Tensor]:
    """The operations that the definitions in `l1ad.scores` are made of, on tensors."""
    tf = import_tf().tf

    def row_sum(x: Tensor, axis: int) -> Tensor:
        # The product with a vector of ones is a fast kernel, the sum over a short last axis is not.
        if axis == -1 and len(x.shape) == 2 and x.shape[-1] is not None:
            return tf.linalg.matvec(x, tf.ones((x.shape[-1],), x.dtype))
        return tf.reduce_sum(x, axis=axis)

    return FloatOps(SimpleNamespace(exp=tf.exp, sum=row_sum))


def save_model(model: KerasModel, path: str | os.PathLike[str]) -> None:
    """Write a Keras model as HDF5 (a functional QKeras model saved as ``.keras`` hangs for ever when it is loaded)."""
    import warnings

    from l1ad.io import atomic_hdf5

    with atomic_hdf5(path) as file, warnings.catch_warnings():
        # Keras recommends its own format here, which QKeras cannot use.
        warnings.simplefilter("ignore", UserWarning)
        model.save(file, save_format="h5", include_optimizer=False)


def load_model(path: str | os.PathLike[str]) -> KerasModel:
    """Read a model that `save_model` wrote, or any QKeras or Keras 2 model in HDF5.

    Raises
    ------
    InputError
        If the file is absent or holds no Keras 2 model.
    """
    if not os.path.isfile(path):
        raise InputError(os.fspath(path), "file", "no such file", "a Keras model in HDF5")
    modules = import_tf()
    try:
        return modules.qkeras.utils.load_qmodel(os.fspath(path), compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(os.fspath(path), "model", reason, "a stripped QKeras model in HDF5") from error
