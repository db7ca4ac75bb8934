"""The compiled part: deposits to towers, towers to jets, e/gamma, taus, regions and missing energy.

Each step is a function of its own so that it can be tested on towers made by hand. Towers live in a padded array: 80
x 72 with :data:`PAD` rows of nothing above and below and the azimuth continued by :data:`PAD` columns on both sides,
so that no window needs a modulo. Needs numba (extra ``simulate``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from l1ad.events.simulate.detector import FIRST_ENDCAP, FIRST_HF, FIRST_REGION_COLUMN, FIRST_REGION_ROW
from l1ad.events.simulate.towers import LEAK_STEPS

__all__ = [
    "N_CANDIDATES",
    "N_REGIONS",
    "PAD",
    "PADDED",
    "crossings",
    "e_gammas",
    "fill",
    "jets",
    "missing",
    "primitives",
    "regions",
    "taus",
    "wrap_phi",
]

F = TypeVar("F", bound=Callable[..., Any])
_compile = cast(Callable[[F], F], numba.njit(cache=True, nogil=True))

PAD = 7  # a jet's outer strip ends 7 towers from its centre
PADDED = (80 + 2 * PAD, 72 + 2 * PAD)
N_CANDIDATES = 16  # jets, e/gammas and taus kept for the final sort
TOWER_MAX_GEV = 127.5  # 8 bits of 0.5 GeV
N_REGIONS = 18 * 14
REGION_CODE_MAX = 1023  # 10 bits of 0.5 GeV

Array = NDArray[Any]


def _window(rows: int, columns: int) -> NDArray[np.int64]:
    """Offsets (row, column, later) of a window without its centre, nearest first.

    ``later`` is 1 for towers after the centre in reading order: of equal towers only the first is a maximum.
    """
    cells = [
        (r, c, int((r, c) > (0, 0)))
        for r in range(-rows, rows + 1)
        for c in range(-columns, columns + 1)
        if (r, c) != (0, 0)
    ]
    return np.array(sorted(cells, key=lambda x: (x[0] ** 2 + x[1] ** 2, x)), np.int64)


JET_WINDOW = _window(4, 4)
EG_WINDOW = _window(1, 2)
TAU_WINDOW = _window(1, 1)
#: The column at each place from -1 to 72: entry 0 is that left of the first.
_NEAR = np.array([71, *range(72), 0], np.int64)


@_compile
def _abs_ieta(row: int) -> int:
    return row - 39 if row >= 40 else 40 - row


@_compile
def _place(cell: int, turn: int, mirror: int) -> tuple[Any, Any]:
    """Row and column of a cell of a collision that is turned and mirrored."""
    c = np.int64(cell)
    row = c // 72
    column = c - 72 * row + turn
    return 79 - row if mirror else row, column - 72 if column >= 72 else column


@_compile
def fill(
    events: Array,
    turns: Array,
    mirrors: Array,
    scales: Array,
    offset: Array,
    forward: Array,
    records: Array,
    sum_em: Array,
    sum_had: Array,
    lead: Array,
) -> None:
    """Add the deposits of the collisions ``events`` to 80 x 72 towers; ``lead`` keeps each tower's largest em deposit.

    HF, from ``forward`` on in each collision, has one tower for two columns: the energy is shared evenly over both.
    The loops decide nothing: a branch that chance decides costs more than all the arithmetic here.
    """
    for k in range(len(events)):
        j = events[k]
        turn, mirror, scale = turns[k], mirrors[k], scales[k]
        for i in range(offset[j], forward[j]):
            deposit = records[i]
            row, column = _place(deposit.cell, turn, mirror)
            sum_had[row, column] += scale * deposit.had
            energy = scale * deposit.em
            step = np.int64(deposit.leak)
            spilt = energy * np.float32(abs(step)) / np.float32(LEAK_STEPS)
            energy -= spilt
            sum_em[row, _NEAR[column + 1 + (step > 0) - (step < 0)]] += spilt
            sum_em[row, column] += energy
            lead[row, column] = max(lead[row, column], energy)
        for i in range(forward[j], offset[j + 1]):
            deposit = records[i]
            row, column = _place(deposit.cell, turn, mirror)
            column -= column % 2
            half = np.float32(0.5) * scale * (deposit.em + deposit.had)
            sum_had[row, column] += half
            sum_had[row, column + 1] += half


@_compile
def primitives(
    sum_em: Array,
    sum_had: Array,
    gain_em: Array,
    gain_had: Array,
    noise: Array,
    start: int,
    knobs: Array,
    em: Array,
    had: Array,
    tower: Array,
) -> tuple[int, float]:
    """Noise, zero suppression, Layer-1 scale, 0.5 GeV steps and 8-bit saturation, into padded arrays.

    ``knobs``: noise em, noise had, zs em, zs had, zs hf, scale em, scale had. Returns the number of towers hit
    outside HF and the sum of all.
    """
    noise_em, noise_had, zs_em, zs_had, zs_hf, scale_em, scale_had = knobs
    hit = 0
    total = 0.0
    q = start
    for row in range(80):
        a = _abs_ieta(row)
        cut = zs_hf if a >= FIRST_HF else zs_had
        for column in range(72):
            x = 0.0
            gain = gain_em[row, column]
            if a < FIRST_HF and gain > 0:
                x = sum_em[row, column] * gain + noise_em * noise[q]
                x = min(np.floor(2.0 * scale_em * x) * 0.5, TOWER_MAX_GEV) if x >= zs_em else 0.0
            y = 0.0
            gain = gain_had[row, column]
            if gain > 0:
                y = sum_had[row, column] * gain + noise_had * noise[q + 1]
                y = min(np.floor(2.0 * scale_had * y) * 0.5, TOWER_MAX_GEV) if y >= cut else 0.0
            q += 2
            em[row + PAD, column + PAD] = x
            had[row + PAD, column + PAD] = y
            tower[row + PAD, column + PAD] = x + y
            total += x + y
            if a < FIRST_HF and x + y > 0:
                hit += 1
    wrap_phi(em)
    wrap_phi(tower)
    return hit, total


@_compile
def wrap_phi(padded: Array) -> None:
    """Continue the azimuth of a padded array beyond both ends."""
    for row in range(PAD, PAD + 80):
        for c in range(PAD):
            padded[row, c] = padded[row, c + 72]
            padded[row, c + 72 + PAD] = padded[row, c + PAD]


@_compile
def missing(tower: Array, hit: int, knobs: Array, out: Array) -> None:
    """Missing transverse energy: minus the vector sum of towers above threshold, without and with HF.

    ``knobs``: thresholds of barrel, endcap and HF, and their rise for each tower hit beyond 200 (for the endcap in
    proportion to the tower's number, up to the whole at its end). ``out``: x and y without HF, x and y with it.
    """
    barrel, endcap, hf, rise = knobs
    rise *= max(0, hit - 200)
    in_x = 0.0
    in_y = 0.0
    hf_x = 0.0
    hf_y = 0.0
    for row in range(80):
        a = _abs_ieta(row)
        if a < FIRST_ENDCAP:
            cut = barrel
        elif a < FIRST_HF:
            cut = endcap + rise * 0.5 * (a - FIRST_ENDCAP + 1) / 12.0
        else:
            cut = hf + rise * 0.5
        for column in range(72):
            t = tower[row + PAD, column + PAD]
            if t > cut:
                phi = (column + 0.5) * (2 * np.pi / 72)
                if a < FIRST_HF:
                    in_x -= t * np.cos(phi)
                    in_y -= t * np.sin(phi)
                else:
                    hf_x -= t * np.cos(phi)
                    hf_y -= t * np.sin(phi)
    out[0] = in_x
    out[1] = in_y
    out[2] = in_x + hf_x
    out[3] = in_y + hf_y


@_compile
def _is_maximum(tower: Array, row: int, column: int, window: Array) -> bool:
    s = tower[row, column]
    for k in range(len(window)):
        t = tower[row + window[k, 0], column + window[k, 1]]
        if t > s or (t == s and window[k, 2] == 0):
            return False
    return True


@_compile
def _keep(out: Array, n: int, value: float) -> int:
    """Slot for a candidate ranked by column 0: the next free one, or that of the softest if it is softer; else -1."""
    if n < len(out):
        return n
    softest = 0
    for k in range(1, len(out)):
        if out[k, 0] < out[softest, 0]:
            softest = k
    return softest if out[softest, 0] < value else -1


@_compile
def _block(tower: Array, row0: int, row1: int, column0: int, column1: int) -> float:
    total = 0.0
    for row in range(row0, row1):
        for column in range(column0, column1):
            total += tower[row, column]
    return total


@_compile
def jets(tower: Array, seed_min: float, out: Array) -> int:
    """9 x 9 sliding-window jets with chunky-donut pile-up subtraction.

    A seed is the largest tower of its window. Of the four 3 x 9 strips around the window the three lowest, together
    as large as the window, are subtracted. A strip that leaves the detector is scaled to the rows of the window; one
    wholly outside is replaced by the mean of the two strips in azimuth. ``out`` (k, 4) gets pt, pile-up subtracted,
    row and column of the hardest k. Returns how many there are.
    """
    n = 0
    for row in range(PAD, PAD + 80):
        for column in range(PAD, PAD + 72):
            if tower[row, column] < seed_min or not _is_maximum(tower, row, column, JET_WINDOW):
                continue
            window = _block(tower, row - 4, row + 5, column - 4, column + 5)
            rows = min(row + 5, PAD + 80) - max(row - 4, PAD)
            s1 = _block(tower, row - 4, row + 5, column + 5, column + 8)
            s2 = _block(tower, row - 4, row + 5, column - 7, column - 4)
            above = min(row + 8, PAD + 80) - min(row + 5, PAD + 80)
            below = max(row - 4, PAD) - max(row - 7, PAD)
            # all strips on the footing of the rows that the window itself has
            s3 = _block(tower, row + 5, row + 8, column - 4, column + 5) * 3.0 / max(above, 1) * rows / 9.0
            s4 = _block(tower, row - 7, row - 4, column - 4, column + 5) * 3.0 / max(below, 1) * rows / 9.0
            if above == 0:
                s3 = 0.5 * (s1 + s2)
            if below == 0:
                s4 = 0.5 * (s1 + s2)
            pileup = s1 + s2 + s3 + s4 - max(max(s1, s2), max(s3, s4))
            pt = window - pileup
            if pt <= 0:
                continue
            k = _keep(out, n, pt)
            if k < 0:
                continue
            if k == n:
                n += 1
            out[k, 0] = pt
            out[k, 1] = pileup
            out[k, 2] = row - PAD
            out[k, 3] = column - PAD
    return n


@_compile
def e_gammas(em: Array, had: Array, lead: Array, knobs: Array, eta_centre: Array, out: Array) -> int:
    """E/gamma clusters: a seed tower, its neighbours in azimuth and the stronger of the two adjacent rows.

    ``knobs``: least seed, largest H/E, least leading share, largest share left out, seed energy above which no veto
    applies. ``out`` (k, 3) gets pt, pseudorapidity and azimuth. Returns how many there are.
    """
    seed_min, h_over_e, fine_grain, shape, veto_off = knobs
    step = 2 * np.pi / 72
    n = 0
    for row in range(PAD + 12, PAD + 68):
        for column in range(PAD, PAD + 72):
            s = em[row, column]
            if s < seed_min or s <= 0 or not _is_maximum(em, row, column, EG_WINDOW):
                continue
            # had is laid over em: the seed's hadronic energy; lead has no padding
            vetoed = had[row, column] > h_over_e * s or lead[row - PAD, column - PAD] < fine_grain * s
            if vetoed and s < veto_off:
                continue
            up = 0.0
            down = 0.0
            ring = 0.0
            for c in range(column - 2, column + 3):
                u, d = em[row + 1, c], em[row - 1, c]
                ring += u + d + em[row, c]
                if abs(c - column) <= 1:
                    up += u if u >= 1.0 else 0.0
                    down += d if d >= 1.0 else 0.0
            left, right = em[row, column - 1], em[row, column + 1]
            left = left if left >= 1.0 else 0.0
            right = right if right >= 1.0 else 0.0
            pt = s + left + right + max(up, down)
            if ring - pt > shape * s + 1.5:
                continue
            k = _keep(out, n, pt)
            if k < 0:
                continue
            if k == n:
                n += 1
            r = row - PAD
            lean = (up if up > down else -down if down > up else 0.0) / pt
            out[k, 0] = pt
            out[k, 1] = eta_centre[r] + lean * (eta_centre[r + 1] - eta_centre[r])
            out[k, 2] = (column - PAD + 0.5 + (right - left) / pt) * step
    return n


@_compile
def taus(tower: Array, knobs: Array, eta_centre: Array, out: Array) -> int:
    """Narrow clusters: 3 x 3 towers (0.26 x 0.26) around a tower that is the largest of them, within |eta| < 2.5.

    ``knobs``: least energy of the seed tower. Neither isolation nor a shape is asked for, as for the list that the
    topological trigger gets. ``out`` (k, 3) gets pt of the hardest k, pseudorapidity and azimuth of their seeds.
    Returns how many there are.
    """
    seed_min = knobs[0]
    n = 0
    for row in range(PAD + 14, PAD + 66):
        for column in range(PAD, PAD + 72):
            s = tower[row, column]
            if s < seed_min or s <= 0 or not _is_maximum(tower, row, column, TAU_WINDOW):
                continue
            pt = _block(tower, row - 1, row + 2, column - 1, column + 2)
            k = _keep(out, n, pt)
            if k < 0:
                continue
            if k == n:
                n += 1
            out[k, 0] = pt
            out[k, 1] = eta_centre[row - PAD]
            out[k, 2] = (column - PAD + 0.5) * (2 * np.pi / 72)
    return n


@_compile
def regions(tower: Array, out: Array) -> None:
    """Transverse energy of 18 x 14 regions of 4 x 4 towers in steps of 0.5 GeV, at most 10 bits, into ``out`` (252,).

    Position 14 * azimuth + pseudorapidity; azimuth 0 is centred on 0 (towers 71, 72, 1, 2 of 72), pseudorapidity 0 is
    the most negative, next to -3.
    """
    for a in range(18):
        column = PAD + FIRST_REGION_COLUMN + 4 * a
        for e in range(14):
            row = PAD + FIRST_REGION_ROW + 4 * e
            total = _block(tower, row, row + 4, column, column + 4)
            out[14 * a + e] = min(np.int64(np.rint(2.0 * total)), REGION_CODE_MAX)


@_compile
def crossings(
    first: Array,
    events: Array,
    turns: Array,
    mirrors: Array,
    scales: Array,
    offset: Array,
    forward: Array,
    records: Array,
    gain_em: Array,
    gain_had: Array,
    noise: Array,
    starts: Array,
    spikes: Array,
    eta_centre: Array,
    tower_knobs: Array,
    met_knobs: Array,
    eg_knobs: Array,
    tau_knobs: Array,
    jet_seed: float,
    out_jets: Array,
    out_egs: Array,
    out_taus: Array,
    out_regions: Array,
    out_met: Array,
    out_sums: Array,
) -> None:
    """All crossings of a chunk: collisions ``events[first[i]:first[i + 1]]`` make crossing i.

    ``spikes`` (n, 3): transverse energy (0 for none), row, column. Outputs: jets (n, k, 4), e/gammas and taus (n, k,
    3), regions (n, 252), missing energy (n, 4), towers hit and total (n, 2); unused slots keep what they held. An
    output of the first four that has no rows is not wanted and not made.
    """
    sum_em = np.zeros((80, 72), np.float32)
    sum_had = np.zeros((80, 72), np.float32)
    lead = np.zeros((80, 72), np.float32)
    em_pad = np.zeros(PADDED, np.float32)
    had_pad = np.zeros(PADDED, np.float32)
    tower = np.zeros(PADDED, np.float32)
    for i in range(len(first) - 1):
        sum_em[:] = 0
        sum_had[:] = 0
        lead[:] = 0
        a, b = first[i], first[i + 1]
        fill(events[a:b], turns[a:b], mirrors[a:b], scales[a:b], offset, forward, records, sum_em, sum_had, lead)
        if spikes[i, 0] > 0:
            row, column = int(spikes[i, 1]), int(spikes[i, 2])
            if row < 12 or row >= 68:
                column -= column % 2
                sum_had[row, column] += 0.5 * spikes[i, 0]
                sum_had[row, column + 1] += 0.5 * spikes[i, 0]
            else:
                sum_em[row, column] += spikes[i, 0]
                lead[row, column] = max(lead[row, column], spikes[i, 0])
        hit, total = primitives(
            sum_em, sum_had, gain_em, gain_had, noise, starts[i], tower_knobs, em_pad, had_pad, tower
        )
        out_sums[i, 0] = hit
        out_sums[i, 1] = total
        missing(tower, hit, met_knobs, out_met[i])
        if len(out_jets) > 0:
            jets(tower, jet_seed, out_jets[i])
        if len(out_egs) > 0:
            e_gammas(em_pad, had_pad, lead, eg_knobs, eta_centre, out_egs[i])
        if len(out_taus) > 0:
            taus(tower, tau_knobs, eta_centre, out_taus[i])
        if len(out_regions) > 0:
            regions(tower, out_regions[i])
