"""The joint tail score: how improbable each of a few sums is in zero bias, added up.

For each family f (the sum of pt of each object type, and a sum over all objects of how far each sticks out) let
``u_f = -ln P(F >= f)`` on zero bias. The score is ``sum_f u_f^2``. Each u_f is a monotone function of one sum, that is
a look-up table, so the score is a `Trigger` of adders, tables and squares: `JointTail.fit(events)`, then `.trigger()`.

It needs no training and is hard to beat: any learned score should be shown next to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.layout import ObjectLayout
from l1ad.events.store import Events
from l1ad.scores import mu2
from l1ad.trigger.build import NodeOps, ProgramBuilder, Ref
from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.program import Trigger

FloatArray = npt.NDArray[np.float64]

#: Entries of the tables: u from 0 to 32 in steps of 1/32; e^-32 is far below one event in a year of crossings.
U_TYPE = FixedType(10, 5, False, "RND_CONV", "SAT")
#: How far one object sticks out, max(z, 0)^2, rounded; a third muon of 10 GeV reaches some 14,000.
EXCESS_TYPE = FixedType(14, 14, False, "RND_CONV", "SAT")
#: Bits of a table's address.
ADDRESS_BITS = 10
#: Where fewer effective events than this lie above, the tail is extrapolated.
TAIL_EVENTS = 25.0


@dataclass(frozen=True, eq=False)
class Family:
    """One sum and its tables.

    Sums span more than the addresses of one table, so there are two: a fine one that saturates, and a coarse one over
    the whole range that adds what lies beyond the end of the fine one.

    Attributes
    ----------
    name : of the family.
    inputs : positions of the network inputs that are summed.
    fine, coarse : types into which the sum is cast to address the tables; `coarse` is None where `fine` holds all.
    u_fine : (entries,) ``-ln P(F >= f)`` for each fine address.
    u_coarse : (entries,) what to add for each coarse address.
    """

    name: str
    inputs: npt.NDArray[np.int64]
    fine: FixedType
    coarse: FixedType | None
    u_fine: FloatArray
    u_coarse: FloatArray

    @classmethod
    def fit(cls, name: str, inputs: npt.NDArray[np.int64], sums: Codes, largest: int, weight: FloatArray) -> Family:
        """Tables of the sums (N,) with weights (N,); `largest` is the largest sum that can occur."""
        fine = FixedType(ADDRESS_BITS, ADDRESS_BITS, False, "TRN", "SAT")
        u_fine = _minus_log_survival(fine.cast(sums, 0), weight, 1 << ADDRESS_BITS)
        if largest <= fine.max_code:
            return cls(name, inputs, fine, None, u_fine, np.zeros(0))
        coarse = FixedType(ADDRESS_BITS, largest.bit_length(), False, "TRN", "SAT")
        u = _minus_log_survival(coarse.cast(sums, 0), weight, 1 << ADDRESS_BITS)
        beyond = np.arange(1 << ADDRESS_BITS) * coarse.lsb > fine.max_code
        return cls(name, inputs, fine, coarse, u_fine, np.where(beyond, np.maximum(u - u_fine[-1], 0.0), 0.0))

    def u(self, sums: Codes) -> FloatArray:
        """``-ln P(F >= f)`` of sums (N,)."""
        result = self.u_fine[self.fine.cast(sums, 0)]
        if self.coarse is not None:
            result = result + self.u_coarse[self.coarse.cast(sums, 0)]
        return np.asarray(result)

    def add(self, builder: ProgramBuilder, total: Ref) -> tuple[Ref, ...]:
        """Add the tables of the sum `total` to a program: one node for each table."""
        result = []
        tables = (("fine", self.fine, self.u_fine), ("coarse", self.coarse, self.u_coarse))
        for label, kind, u in tables:
            if kind is not None:
                address = builder.quantize(total, kind, name=f"{label}_address_{self.name}")
                table = U_TYPE.quantize(u)[None, :]
                result.append(builder.lut(address, table, first=0, type=U_TYPE, name=f"{label}_{self.name}"))
        return tuple(result)


@dataclass(frozen=True, eq=False)
class JointTail:
    """A fitted joint tail score.

    Attributes
    ----------
    layout : of the events it was fitted on.
    families : one for each object type.
    excess : the one of the sum over objects of ``max(z, 0)^2``; z is the standardised ``log(1 + pt)``.
    excess_tables : (slots, entries) codes of `EXCESS_TYPE` for each address of `pt_address`.
    pt_address : type into which the pt of each slot is cast.
    """

    layout: ObjectLayout
    families: tuple[Family, ...]
    excess: Family
    excess_tables: Codes
    pt_address: FixedType

    @classmethod
    def fit(cls, events: Events) -> JointTail:
        """Learn the tables from zero bias; event weights are honoured.

        Raises
        ------
        InputError
            If there are fewer than 1000 events, or their weights are negative or all zero.
        """
        weight = events.weight
        if len(events) < 1000:
            raise InputError("joint tail score", "zero-bias events", len(events), "1000 at least")
        if weight.min() < 0 or weight.sum() <= 0:
            raise InputError(
                "joint tail score", "weights", f"{weight.min():g} to {weight.max():g}", "0 or more, not all 0"
            )
        layout, inputs = events.layout, events.inputs.astype(np.int64)
        positions = _magnitudes(layout)
        families = []
        for name, index in positions.items():
            largest = sum(layout.input_words[i].word_max for i in index)
            families.append(Family.fit(name, index, inputs[:, index].sum(axis=1), largest, weight))
        every = np.concatenate(list(positions.values()))
        pt_address = FixedType(9, 10, False, "TRN", "SAT")
        tables = _excess_tables(layout, inputs[:, every], every, weight, pt_address)
        total = _excess(tables, pt_address.cast(inputs[:, every], 0))
        excess = Family.fit("excess", every, total, int(tables.max(axis=1).sum()), weight)
        return cls(layout, tuple(families), excess, tables, pt_address)

    def tails(self, events: Events) -> FloatArray:
        """``u_f`` of each family, (N, families), not rounded to `U_TYPE`."""
        inputs = events.inputs.astype(np.int64)
        columns = [f.u(inputs[:, f.inputs].sum(axis=1)) for f in self.families]
        codes = self.pt_address.cast(inputs[:, self.excess.inputs], 0)
        columns.append(self.excess.u(_excess(self.excess_tables, codes)))
        return np.stack(columns, axis=1)

    def score(self, events: Events) -> FloatArray:
        """``sum_f u_f^2`` in float64, (N,)."""
        return np.asarray(mu2(self.tails(events)))

    def program(self) -> Program:
        """The score as an integer program."""
        builder = ProgramBuilder(self.layout)
        bit = FixedType(1, 1, False)
        parts: list[Ref] = []
        owner: list[int] = []
        for i, family in enumerate((*self.families, self.excess)):
            values = builder.take(builder.input, family.inputs, name=f"pt_{family.name}")
            if family is self.excess:
                address = builder.quantize(values, self.pt_address, name="pt_address")
                values = builder.lut(address, self.excess_tables, first=0, type=EXCESS_TYPE, name="excess")
            ones = np.ones((values.size, 1), dtype=np.int64)
            total = builder.dense(values, ones, weight_type=bit, name=f"sum_{family.name}")
            tables = family.add(builder, total)
            parts += tables
            owner += [i] * len(tables)
        pairs = (np.array(owner)[:, None] == np.arange(len(self.families) + 1)).astype(np.int64)
        tails = builder.dense(builder.concat(*parts), pairs, weight_type=bit, name="tails")
        return builder.program(score=mu2(tails, ops=NodeOps(builder)), latents=tails)

    def trigger(self, *, name: str = "joint_tail") -> Trigger:
        """The score as a frozen trigger."""
        return Trigger(self.program(), name, "tail", provenance={"families": [f.name for f in self.families]})


def _magnitudes(layout: ObjectLayout) -> dict[str, npt.NDArray[np.int64]]:
    """Positions among the inputs of the first feature of each slot, by object type."""
    result = {}
    for group in layout.groups:
        flat = np.arange(layout.n_objects)[layout.slices[group.name]] * layout.n_features
        result[group.name] = np.flatnonzero(np.isin(layout.input_index, flat))
    return result


def _excess(tables: Codes, codes: Codes) -> Codes:
    """Sum over slots of the entries of `tables` (slots, entries) at `codes` (N, slots)."""
    return np.asarray(tables[np.arange(len(tables)), codes].sum(axis=1))


def _minus_log_survival(codes: Codes, weight: FloatArray, n_codes: int) -> FloatArray:
    """``-ln P(C >= c)`` for c = 0 ... n_codes - 1, extended where too few events lie above.

    The extension is a power law, u linear in ln(1 + c), through the last decade of the survival that has statistics:
    spectra of pt fall as powers.
    """
    total = np.bincount(codes, weight, n_codes)
    squares = np.bincount(codes, weight**2, n_codes)
    above, above2 = np.cumsum(total[::-1])[::-1], np.cumsum(squares[::-1])[::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        u = -np.log(above / above[0])
        effective = np.where(above2 > 0, above**2 / above2, 0.0)
    last = int(np.flatnonzero(effective >= TAIL_EVENTS)[-1])
    x = np.log1p(np.arange(n_codes, dtype=np.float64))
    inside = np.flatnonzero((u >= u[last] - np.log(10.0)) & (np.arange(n_codes) <= last))
    slope = np.polyfit(x[inside], u[inside], 1)[0] if len(inside) > 1 else 1.0
    u[last + 1 :] = u[last] + max(float(slope), 0.0) * (x[last + 1 :] - x[last])
    return np.maximum.accumulate(u)


def _excess_tables(
    layout: ObjectLayout,
    pt: Codes,
    index: npt.NDArray[np.int64],
    weight: FloatArray,
    address: FixedType,
) -> Codes:
    lsb = np.array([layout.input_words[i].lsb for i in index])
    value = np.log1p(pt * lsb)
    mean = np.average(value, axis=0, weights=weight)
    spread = np.sqrt(np.average((value - mean) ** 2, axis=0, weights=weight))
    entries = np.arange(1 << address.width) * address.lsb
    z = (np.log1p(entries[None, :] * lsb[:, None]) - mean[:, None]) / np.maximum(spread, 1e-6)[:, None]
    # A slot that is always empty says nothing about what is unusual.
    z[spread < 1e-6] = 0.0
    return EXCESS_TYPE.quantize(np.maximum(z, 0.0) ** 2)
