"""What a family tells the training loop: `Stage`, the `Batch` its loss gets, and the `Geometry` of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.events.layout import ObjectLayout
from l1ad.model.forward import quantize
from l1ad.model.keras import KerasModel, Tensor, import_tf
from l1ad.trigger.layers import Scaling
from l1ad.trigger.quantizer import Quantizer
from l1ad.trigger.scaling import scale_node


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch on the device.

    Attributes
    ----------
    codes : int16 (B, inputs), hardware codes.
    x : float32 (B, inputs), scaled and in the input type: what the network sees.
    weight : float32 (B,), event weights with mean 1 over the training events.
    seed : int32 (2,), for the random numbers of this step and of no other.
    step : int64, counted from 0 over the whole stage.
    """

    codes: Tensor
    x: Tensor
    weight: Tensor
    seed: Tensor
    step: Tensor


Terms = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Stage:
    """One training problem.

    Attributes
    ----------
    name : for tables and checkpoints.
    trained : models or layers whose weights change.
    prunable : the quantised kernels that pruning may thin out.
    loss : batch and ``training`` to scalars by name, of which ``loss`` is minimised.
    epochs : how many.
    settled : the first step from which losses of different epochs are comparable (beta has its last value).
    compiles : whether XLA makes the step faster.
    """

    name: str
    trained: tuple[KerasModel, ...]
    prunable: tuple[Tensor, ...]
    loss: Callable[[Batch, bool], Terms]
    epochs: int
    settled: int = 0
    compiles: bool = True

    @property
    def variables(self) -> list[Tensor]:
        """Everything that training changes, in a fixed order and each once."""
        seen: dict[int, Tensor] = {}
        for part in self.trained:
            for variable in part.variables:
                seen.setdefault(id(variable), variable)
        return list(seen.values())

    @property
    def trainable(self) -> list[Tensor]:
        """The variables that have a gradient."""
        return [variable for variable in self.variables if variable.trainable]


def quantised_kernels(parts: Sequence[KerasModel]) -> tuple[Tensor, ...]:
    """Kernels of all layers that have a kernel quantiser, of models or of layers."""
    result: dict[int, Tensor] = {}
    for part in parts:
        for layer in getattr(part, "layers", [part]):
            if getattr(layer, "kernel_quantizer", None) is not None and layer.trainable:
                result.setdefault(id(layer.kernel), layer.kernel)
    return tuple(result.values())


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where pt, eta and phi of each object stand among the inputs, and what they are in GeV and radians.

    Arrays have one entry an object; an index of -1 says that the object lacks the feature.
    """

    layout: ObjectLayout
    scaling: Scaling
    input: Quantizer
    index: Mapping[str, npt.NDArray[np.int64]]
    groups: tuple[str, ...]

    @classmethod
    def of(cls, layout: ObjectLayout, scaling: Scaling, input: Quantizer) -> Geometry:
        """The geometry of a layout, its scaling and the quantiser of the scaled inputs."""
        position = {int(flat): i for i, flat in enumerate(layout.input_index)}
        index: dict[str, list[int]] = {"pt": [], "eta": [], "phi": []}
        for slot, words in enumerate(layout.words):
            names = {word.name: slot * layout.n_features + j for j, word in enumerate(words) if word.bits}
            names.setdefault("pt", names.get("et", -1))
            for feature, column in index.items():
                column.append(position.get(names.get(feature, -1), -1))
        groups = tuple(group.name for group in layout.groups for _ in range(group.count))
        return cls(layout, scaling, input, {k: np.array(v) for k, v in index.items()}, groups)

    def scale(self, codes: Tensor) -> Tensor:
        """Hardware codes (B, inputs) to scaled inputs on the grid of the word, as the frozen program has them.

        Float32 is exact here: words have less than 24 bits, and `l1ad.trigger.scaling.scaling_report` has refused what
        could wrap.
        """
        tf = import_tf().tf
        node = scale_node(self.scaling, self.layout, self.scaling.word)
        exact = tf.cast(codes, tf.float32) * node.multiplier.astype(np.float32) - node.offset.astype(np.float32)
        return tf.floor(exact * np.ldexp(1.0, -node.shift).astype(np.float32)) * np.float32(self.scaling.word.lsb)

    def inputs(self, codes: Tensor) -> Tensor:
        """Hardware codes (B, inputs) to what the network sees: scaled and in the input type."""
        return quantize(self.input, self.scale(codes))

    def unscale(self, x: Tensor) -> Tensor:
        """Scaled values (B, inputs) back to what the word holds: GeV for pt, hardware codes for the rest."""
        factor = np.ldexp(1.0, self.scaling.shift).astype(np.float32)
        return x * factor + self.scaling.stored_offset().astype(np.float32)

    def feature(self, values: Tensor, name: str) -> Tensor:
        """One feature of each object (B, objects) from values of all inputs (B, inputs); 0 where it lacks."""
        tf = import_tf().tf
        index = self.index[name]
        column = tf.gather(values, np.maximum(index, 0), axis=1)
        return column * tf.cast(index >= 0, column.dtype)

    def to_unit(self, name: str) -> npt.NDArray[np.float32]:
        """GeV or radians or pseudorapidity for one unit of the word, for each object."""
        unit = scale_node(self.scaling, self.layout, self.scaling.word).multiplier * self.scaling.word.lsb
        lsb = np.array([w.lsb for w in self.layout.input_words]) / unit
        return np.asarray(lsb[np.maximum(self.index[name], 0)], dtype=np.float32)

    def physical(self, word_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pt in GeV, eta and phi in radians, (B, objects) each, from values as the word holds them (B, inputs)."""
        pt, eta, phi = (self.feature(word_values, name) * self.to_unit(name) for name in ("pt", "eta", "phi"))
        return pt, eta, phi

    def word_values(self, codes: Tensor) -> Tensor:
        """Hardware codes to what the word holds."""
        tf = import_tf().tf
        unit = scale_node(self.scaling, self.layout, self.scaling.word).multiplier * self.scaling.word.lsb
        return tf.cast(codes, tf.float32) * unit.astype(np.float32)

    def filled(self, codes: Tensor) -> Tensor:
        """1 for each slot (B, objects) that holds an object, 0 for padding."""
        tf = import_tf().tf
        return tf.cast(self.feature(tf.cast(codes, tf.float32), "pt") != 0, tf.float32)

    def input_mask(self, codes: Tensor) -> Tensor:
        """1 for each input (B, inputs) that counts: of a filled slot, and not constant by construction."""
        tf = import_tf().tf
        slots = (self.layout.input_index // self.layout.n_features).astype(np.int64)
        alive = np.array([word.bits > 0 for word in self.layout.input_words], dtype=np.float32)
        return tf.gather(self.filled(codes), slots, axis=1) * alive
