"""From fractions of zero bias to rates: how many crossings there are, and what pile-up they have.

What to use when: `BaseRate.from_bunches(2544)`, `BaseRate.from_filling_scheme(...)` or `BaseRate(crossing_hz=...)` for
the number of crossings a second; `luminosity_scale` for a target luminosity other than that of the data;
`PileupProfile` and `pileup_factors` to give the events the pile-up of the target.
"""

from __future__ import annotations

import csv
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.rates.exact import FloatArray

#: Turns of the LHC a second at 6.8 TeV, Hz.
LHC_REVOLUTION_HZ = 11245.6
#: Places for bunches on the ring.
LHC_BUNCH_PLACES = 3564
#: Largest average pile-up that a profile may name.
MAX_PILEUP = 1000


@dataclass(frozen=True)
class BaseRate:
    """How many crossings a second a fraction of zero bias is multiplied with.

    Attributes
    ----------
    crossing_hz : colliding bunches times turns a second, Hz.
    luminosity_scale : instantaneous luminosity of the target over that of the data; 1 without one.
    bunches : colliding bunches, or None if the crossing rate was given.
    """

    crossing_hz: float
    luminosity_scale: float = 1.0
    bunches: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.crossing_hz) and self.crossing_hz > 0):
            raise InputError("base rate", "crossing rate", self.crossing_hz, "a number of Hz above 0")
        if not (math.isfinite(self.luminosity_scale) and self.luminosity_scale > 0):
            raise InputError("base rate", "luminosity scale", self.luminosity_scale, "a finite number above 0")

    @classmethod
    def from_bunches(cls, bunches: int, *, luminosity_scale: float = 1.0) -> BaseRate:
        """`bunches` colliding bunches.

        >>> BaseRate.from_bunches(2544).hz
        28608806.4

        Raises
        ------
        InputError
            If there are no bunches, or more than places on the ring.
        """
        if not 1 <= bunches <= LHC_BUNCH_PLACES:
            raise InputError("base rate", "bunches", bunches, f"1 to {LHC_BUNCH_PLACES}")
        return cls(round(bunches * LHC_REVOLUTION_HZ, 6), luminosity_scale, bunches)

    @classmethod
    def from_filling_scheme(cls, scheme: str, *, luminosity_scale: float = 1.0) -> BaseRate:
        """Colliding bunches from the name of an LHC filling scheme.

        The name reads spacing, bunches a beam, collisions in IP1 and IP5, in IP2, in IP8, and further fields: the third
        field is what CMS and ATLAS see.

        >>> BaseRate.from_filling_scheme("25ns_2556b_2544_2215_2330_144bpi_14inj").bunches
        2544

        Raises
        ------
        InputError
            If the name does not have that form.
        """
        match = re.match(r"^[A-Za-z]*_?\d+(?:\.\d+)?ns_\d+b?_(\d+)_\d+_\d+", scheme)
        if match is None:
            raise InputError(
                "base rate", "filling scheme", scheme, "a name such as 25ns_2556b_2544_2215_2330_144bpi_14inj"
            )
        return cls.from_bunches(int(match.group(1)), luminosity_scale=luminosity_scale)

    @property
    def hz(self) -> float:
        """Rate of a trigger that fires on every crossing, Hz, with the luminosity scale."""
        return self.crossing_hz * self.luminosity_scale

    def check_target(self, target_hz: float) -> None:
        """Check that a target rate can be reached.

        Raises
        ------
        InputError
            If it is not a number above 0, or above the crossing rate.
        """
        if not (math.isfinite(target_hz) and target_hz > 0):
            raise InputError("rate", "target", f"{target_hz} Hz", "a finite number above 0")
        if target_hz > self.hz:
            raise InputError("rate", "target", f"{target_hz:g} Hz", f"at most the crossing rate, {self.hz:g} Hz")


def luminosity_scale(target: float | None, data: float | None) -> float:
    """Target over data luminosity (the same unit); 1 if neither is given.

    A rate taken in proportion to the luminosity assumes that the pile-up is that of the data: reweight it to the
    target's (`pileup_factors`) in place of this where the luminosity a bunch differs.

    Raises
    ------
    InputError
        If only one is given, or one is not a finite number above 0.
    """
    if target is None and data is None:
        return 1.0
    for name, value in (("target luminosity", target), ("data luminosity", data)):
        if value is None:
            raise InputError("luminosity", name, "nothing", "a value: the scale needs target and data")
        if not (math.isfinite(value) and value > 0):
            raise InputError("luminosity", name, value, "a finite number above 0")
    assert target is not None
    assert data is not None
    return target / data


@dataclass(frozen=True, eq=False)
class PileupProfile:
    """A distribution of the number of pile-up collisions.

    Attributes
    ----------
    probability : (M,) for 0, 1, ... M - 1 collisions, summing to 1.
    name : what it was made from.
    """

    probability: FloatArray
    name: str

    @classmethod
    def from_gaussian(cls, mean: float, sigma: float) -> PileupProfile:
        """A normal distribution at whole numbers from 0 to `MAX_PILEUP`; sigma 0 is the nearest whole number alone.

        Raises
        ------
        InputError
            If mean or sigma cannot be.
        """
        if not (math.isfinite(mean) and 0 <= mean <= MAX_PILEUP):
            raise InputError("pile-up", "mean", mean, f"0 to {MAX_PILEUP}")
        if not (math.isfinite(sigma) and sigma >= 0):
            raise InputError("pile-up", "sigma", sigma, "0 or more")
        centres = np.arange(MAX_PILEUP + 1)
        if sigma == 0:
            values = (centres == round(mean)).astype(np.float64)
        else:
            values = np.exp(-0.5 * ((centres - mean) / sigma) ** 2)
        return cls.from_histogram(values, name=f"mean {mean:g}, sigma {sigma:g}")

    @classmethod
    def from_histogram(cls, values: npt.ArrayLike, *, name: str = "histogram") -> PileupProfile:
        """Any numbers not below 0 for 0, 1, ... collisions.

        Raises
        ------
        InputError
            If they are negative, NaN, all zero or too many.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1 or not 1 <= len(array) <= MAX_PILEUP + 1:
            raise InputError(name, "pile-up histogram", f"shape {array.shape}", f"1 to {MAX_PILEUP + 1} bins")
        if not np.isfinite(array).all() or (array < 0).any() or not array.any():
            raise InputError(name, "pile-up histogram", "NaN, negative or only zeros", "numbers from 0 on, one above 0")
        return cls(array / array.sum(), name)

    @classmethod
    def parse(cls, text: str) -> PileupProfile:
        """``MEAN,SIGMA`` or the path of a table (see `read`).

        Raises
        ------
        InputError
            If it is neither.
        """
        fields = text.split(",")
        if len(fields) == 2:
            try:
                mean, sigma = float(fields[0]), float(fields[1])
            except ValueError:
                pass
            else:
                return cls.from_gaussian(mean, sigma)
        return cls.read(text)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PileupProfile:
        """A text table of two columns, pile-up (whole number) and height, separated by commas, blanks or tabs.

        Raises
        ------
        InputError
            Naming the line that cannot be read.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(str(path), "file", "not readable as text", "a table of pile-up and height") from error
        values = np.zeros(MAX_PILEUP + 1)
        found = False
        for number, line in enumerate(lines, 1):
            text = line.split("#")[0].strip()
            if not text or (not found and re.match(r"^[A-Za-z]", text)):
                continue
            fields = next(csv.reader([re.sub(r"[\s;,]+", ",", text)]))
            try:
                pileup, height = (float(field) for field in fields)
            except ValueError as error:
                raise InputError(str(path), f"line {number}", text, "two numbers: pile-up and height") from error
            if not (0 <= pileup <= MAX_PILEUP and pileup == int(pileup)):
                raise InputError(str(path), f"line {number}", pileup, f"a whole number from 0 to {MAX_PILEUP}")
            values[int(pileup)] += height
            found = True
        if not found:
            raise InputError(str(path), "file", "no numbers", "a table of pile-up and height")
        return cls.from_histogram(values, name=Path(path).name)


def pileup_bin(n_pv: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The whole number of collisions that each event counts for, (N,), ends included in the range of profiles."""
    return np.clip(np.rint(np.asarray(n_pv, dtype=np.float64)), 0, MAX_PILEUP).astype(np.int64)


def pileup_factors(profile: PileupProfile, source: FloatArray, *, where: str = "zero bias") -> tuple[FloatArray, float]:
    """Factors on the event weight by `pileup_bin`, (MAX_PILEUP + 1,), that turn the pile-up of the data into `profile`.

    Parameters
    ----------
    source : (MAX_PILEUP + 1,) sum of weights of the data by `pileup_bin`.

    Returns
    -------
    factors : target over source, 0 where the data has nothing.
    uncovered : share of the target where the data has nothing, and which is therefore left out.

    Raises
    ------
    InputError
        If more than half of the target lies where the data has no events.
    """
    target = np.zeros(MAX_PILEUP + 1)
    target[: len(profile.probability)] = profile.probability
    has = source > 0
    uncovered = float(target[~has].sum())
    if uncovered > 0.5:
        raise InputError(
            where, "pile-up", f"no events under {100 * uncovered:.0f} % of the profile ({profile.name})", "at most half"
        )
    share = source / source.sum()
    return np.divide(target, share, out=np.zeros_like(target), where=has), uncovered
