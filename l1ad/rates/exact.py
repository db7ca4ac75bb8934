"""Sums of floating-point numbers that do not depend on the order of adding.

A float64 is an integer of 53 bits times a power of two. `ExactSums` keeps the sum of each bin as integers in limbs of
32 bits (a long accumulator, as in Kulisch, Computer Arithmetic and Validity, chapter 8), so that nothing is ever
rounded: chunks, files and workers may come in any order and the sums are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

LIMB_BITS = 32
_MASK = np.int64((1 << LIMB_BITS) - 1)
#: Numbers added at a time: 2^18 limbs below 2^33 sum to less than 2^53, which float64 (and so bincount) holds exactly.
_BLOCK = 1 << 18
#: Numbers after which carries are moved up: 2^28 limbs below 2^33 stay below 2^61.
_CARRY_AFTER = 1 << 28


class ExactSums:
    """Exact sums of non-negative float64 numbers in `n_bins` bins.

    Attributes
    ----------
    limbs : int64 (n_bins,) by power: the sum of a bin is the sum over j of ``limbs[j] * 2**(32 j)``.
    """

    def __init__(self, n_bins: int, limbs: Mapping[int, IntArray] | None = None) -> None:
        self.n_bins = n_bins
        self.limbs: dict[int, IntArray] = dict(limbs or {})
        self._since_carry = 0
        if limbs:
            self.carry()

    def add(self, bins: npt.NDArray[np.integer[Any]], values: npt.ArrayLike) -> None:
        """Add `values` (N,), finite and not negative, to `bins` (N,)."""
        numbers = np.asarray(values, dtype=np.float64)
        for start in range(0, len(numbers), _BLOCK):
            self._add_block(bins[start : start + _BLOCK], numbers[start : start + _BLOCK])

    def add_counts(self, counts: IntArray) -> None:
        """Add integers (n_bins,) to the bins."""
        self.limbs[0] = self.limbs[0] + counts if 0 in self.limbs else counts.astype(np.int64)
        self._since_carry += int(counts.sum()) >> LIMB_BITS
        self.carry()

    def _add_block(self, bins: npt.NDArray[np.integer[Any]], numbers: FloatArray) -> None:
        mantissa, exponent = np.frexp(numbers)
        integers = np.ldexp(mantissa, 53).astype(np.int64)
        exponent = exponent.astype(np.int64) - 53
        limb, shift = exponent // LIMB_BITS, exponent % LIMB_BITS
        low, high = (integers & _MASK) << shift, (integers >> LIMB_BITS) << shift
        parts = (low & _MASK, (low >> LIMB_BITS) + (high & _MASK), high >> LIMB_BITS)
        present = np.unique(limb[integers > 0])
        for j in present.tolist():
            here = limb == j
            everything = bool(here.all())
            for offset, part in enumerate(parts):
                chosen = part if everything else part[here]
                if not chosen.any():
                    continue
                summed = np.bincount(bins if everything else bins[here], chosen.astype(np.float64), self.n_bins)
                total = summed.astype(np.int64)
                key = j + offset
                if key in self.limbs:
                    self.limbs[key] += total
                else:
                    self.limbs[key] = total
        self._since_carry += len(numbers)
        if self._since_carry > _CARRY_AFTER:
            self.carry()

    def grow(self, n_bins: int) -> None:
        """Have `n_bins` bins, no fewer than now; the new ones are empty."""
        extra = n_bins - self.n_bins
        self.limbs = {power: np.pad(limb, (0, extra)) for power, limb in self.limbs.items()}
        self.n_bins = n_bins

    def carry(self) -> None:
        """Bring every limb below 2^32: the form of a sum that is the same however it was added up."""
        self._since_carry = 0
        if not self.limbs:
            return
        power = min(self.limbs)
        while power <= max(self.limbs):
            limb = self.limbs.get(power)
            if limb is not None:
                over = limb >> LIMB_BITS
                if over.any():
                    limb &= _MASK
                    self.limbs[power + 1] = self.limbs[power + 1] + over if power + 1 in self.limbs else over
            power += 1

    def merge(self, other: ExactSums, index: IntArray | None = None) -> None:
        """Add the bins of `other`; `index` says where each goes (bin i to bin i without it)."""
        other.carry()
        self.carry()
        for power, limb in other.limbs.items():
            if power not in self.limbs:
                self.limbs[power] = np.zeros(self.n_bins, dtype=np.int64)
            if index is None:
                self.limbs[power] += limb
            else:
                np.add.at(self.limbs[power], index, limb)
        self.carry()

    def tail(self) -> ExactSums:
        """Sums over bin i and all above it."""
        self.carry()
        return ExactSums(self.n_bins, {power: np.cumsum(limb[::-1])[::-1] for power, limb in self.limbs.items()})

    def total(self) -> float:
        """Sum over all bins."""
        self.carry()
        one = ExactSums(1, {power: np.array([limb.sum()]) for power, limb in self.limbs.items()})
        return float(one.to_float()[0])

    def to_float(self) -> FloatArray:
        """The sums as float64, (n_bins,): a larger sum never gives a smaller number.

        Horner's rule from the lowest limb: what has been gathered is at most one unit of the next limb, so rounding
        cannot put two sums in the wrong order.
        """
        self.carry()
        result = np.zeros(self.n_bins)
        if not self.limbs:
            return result
        top = max(self.limbs)
        for power in range(min(self.limbs), top + 1):
            result *= 2.0**-LIMB_BITS
            if power in self.limbs:
                result += self.limbs[power]
        return np.ldexp(result, LIMB_BITS * top)
