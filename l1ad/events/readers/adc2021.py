"""ADC2021: the anomaly detection challenge data of arXiv:2107.02157, HDF5 with physical values.

`/Particles` is a float array (N, 19, 4) of pT (GeV), eta, phi (radians) and class (1 MET, 2 electron, 3 muon, 4 jet),
in the row order MET, 4 electrons, 4 muons, 10 jets, padded with zeros. `AdcFile` puts it onto the uGT grid (layout
``adc2021``); `float_view` gives the numbers as published, for training on the published preprocessing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.readers._files import open_hdf5_dataset
from l1ad.events.readers._jagged import physical_codes
from l1ad.events.readers._source import Block, FileSource
from l1ad.events.store import MenuBits, open_hdf5

#: Class number of each row.
ROW_CLASSES = np.array([1] + [2] * 4 + [3] * 4 + [4] * 10)
FEATURES = ("pT", "eta", "phi", "class")


class AdcFile(FileSource):
    """An ADC2021 file, quantised piece by piece.

    Raises
    ------
    InputError
        If the file is absent, truncated or not of this format.
    """

    format_name = "adc2021"

    def __init__(self, path: str | os.PathLike[str], *, saturation: str = "keep") -> None:
        super().__init__(os.fspath(path), "adc2021", saturation)
        self._file = self._stack.enter_context(open_hdf5(path))
        try:
            particles = open_hdf5_dataset(self._file, "Particles", self.path)
            expected = (self.layout.n_objects, len(FEATURES))
            if particles.ndim != 3 or particles.shape[1:] != expected:
                raise InputError(
                    self.path, "/Particles", f"shape {particles.shape}", f"(N, {expected[0]}, {expected[1]})"
                )
            if not np.issubdtype(particles.dtype, np.floating):
                raise InputError(self.path, "/Particles", f"values of type {particles.dtype}", "floating point numbers")
        except BaseException:
            self.close()
            raise
        self._particles = particles
        self._notes = [
            "GeV and radians were rounded to the nearest code of the uGT grid; the data has no pile-up, "
            "no menu bits and no run numbers"
        ]

    @property
    def n_events(self) -> int:
        """Number of events."""
        return int(self._particles.shape[0])

    def _blocks(self, size: int) -> Iterator[Block]:
        for start in range(0, max(self.n_events, 1), size):
            floats = _read(self.path, self._particles, start, start + size)
            hw = np.zeros((len(floats), *self.layout.shape), dtype=np.int16)
            clipped = 0
            for group in self.layout.groups:
                rows = self.layout.slices[group.name]
                for feature, word in enumerate(group.words):
                    if not word.bits:
                        continue
                    field = f"/Particles {group.name} {FEATURES[feature]}"
                    codes, n_clipped = physical_codes(floats[:, rows, feature], word, where=self.path, field=field)
                    hw[:, rows, feature] = codes
                    clipped += n_clipped
            yield Block(hw, {}, MenuBits.empty(len(hw)), {"clipped_objects": clipped})


def _read(path: str, particles: object, start: int, stop: int) -> npt.NDArray[np.floating]:
    try:
        floats: npt.NDArray[np.floating] = particles[start:stop]  # type: ignore[index]
    except (OSError, RuntimeError) as error:
        raise InputError(path, "/Particles", str(error).splitlines()[0], "a complete file") from error
    classes = floats[:, :, 3]
    pt = floats[:, :, 0]
    # An empty row carries class 0 or its own; any other class means another row order.
    wrong = (classes != ROW_CLASSES) & ~((classes == 0) & (pt == 0))
    if wrong.any():
        event, row = np.argwhere(wrong)[0]
        raise InputError(
            path,
            f"/Particles class of event {start + int(event)}, row {int(row)}",
            f"{classes[event, row]:g}",
            f"{ROW_CLASSES[row]} (row order MET, 4 electrons, 4 muons, 10 jets)",
        )
    return floats


def float_view(path: str | os.PathLike[str], start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
    """pT (GeV), eta and phi (radians, -pi to pi) as published, float32 (events, 19, 3): nothing is rounded or sorted.

    Raises
    ------
    InputError
        As `AdcFile`, and if a class does not fit its row or a number is NaN.
    """
    source = AdcFile(path)
    with source:
        last = source.n_events if stop is None else min(stop, source.n_events)
        floats = _read(source.path, source._particles, start, last)
    if not np.isfinite(floats).all():
        raise InputError(source.path, "/Particles", "NaN or infinity", "finite numbers")
    return floats[:, :, :3].astype(np.float32)
