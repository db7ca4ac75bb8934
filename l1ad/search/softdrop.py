"""Soft drop, compiled (needs numba; import late).

fastjet's Python interface has soft drop too and gives the same masses; it hands back every constituent with them, which
takes longer than all other substructure together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., Any])
_compile = cast(Callable[[F], F], numba.njit(cache=True))


@_compile
def _separation(y: Floats, phi: Floats, i: int, j: int) -> float:
    turn = abs(phi[i] - phi[j])
    if turn > np.pi:
        turn = 2.0 * np.pi - turn
    return float((y[i] - y[j]) ** 2 + turn * turn)


@_compile
def _jet(p: Floats, z_cut: float) -> float:
    """Groomed mass of one jet, p of shape (n, 4): E, px, py, pz."""
    n = len(p)
    if n < 2:
        return 0.0
    nodes = np.empty((2 * n - 1, 4))
    nodes[:n] = p
    child = np.full((2 * n - 1, 2), -1)
    y, phi, pt = np.empty(2 * n - 1), np.empty(2 * n - 1), np.empty(2 * n - 1)
    for i in range(n):
        pt[i] = np.hypot(p[i, 1], p[i, 2])
        y[i] = np.arctanh(p[i, 3] / p[i, 0])
        phi[i] = np.arctan2(p[i, 2], p[i, 1])
    alive = np.arange(n)
    near, apart = np.empty(2 * n - 1, np.int64), np.full(2 * n - 1, np.inf)
    for a in range(n):
        for b in range(n):
            if a != b:
                d = _separation(y, phi, a, b)
                if d < apart[a]:
                    apart[a], near[a] = d, b
    left, new = n, n
    while left > 1:
        # Cambridge/Aachen: the closest pair becomes one.
        first = alive[0]
        for k in range(1, left):
            if apart[alive[k]] < apart[first]:
                first = alive[k]
        second = near[first]
        nodes[new] = nodes[first] + nodes[second]
        child[new, 0], child[new, 1] = first, second
        pt[new] = np.hypot(nodes[new, 1], nodes[new, 2])
        ratio = nodes[new, 3] / nodes[new, 0]
        y[new] = np.arctanh(ratio) if abs(ratio) < 1.0 else np.sign(ratio) * 1e5
        phi[new] = np.arctan2(nodes[new, 2], nodes[new, 1])
        kept = 0
        for k in range(left):
            if alive[k] != first and alive[k] != second:
                alive[kept] = alive[k]
                kept += 1
        for k in range(kept):
            a = alive[k]
            if near[a] == first or near[a] == second:
                apart[a] = np.inf
                for m in range(kept):
                    b = alive[m]
                    if b != a:
                        d = _separation(y, phi, a, b)
                        if d < apart[a]:
                            apart[a], near[a] = d, b
            d = _separation(y, phi, a, new)
            if d < apart[a]:
                apart[a], near[a] = d, new
            if d < apart[new]:
                apart[new], near[new] = d, a
        alive[kept] = new
        left, new = kept + 1, new + 1
    node = 2 * n - 2
    while child[node, 0] >= 0:
        a, b = child[node, 0], child[node, 1]
        if min(pt[a], pt[b]) > z_cut * (pt[a] + pt[b]):
            e, x, v, z = nodes[node]
            return float(np.sqrt(max(e * e - x * x - v * v - z * z, 0.0)))
        node = a if pt[a] > pt[b] else b
    return 0.0


@_compile
def _all(momenta: Floats, offset: NDArray[np.int64], z_cut: float) -> Floats:
    out = np.empty(len(offset) - 1)
    for k in range(len(out)):
        out[k] = _jet(momenta[offset[k] : offset[k + 1]], z_cut)
    return out


def soft_drop_mass(momenta: Floats, counts: NDArray[np.int64], *, z_cut: float = 0.1) -> Floats:
    """Soft-drop mass in GeV of jets, beta 0 (the modified mass drop, arXiv:1402.2657).

    The jet is clustered again with Cambridge/Aachen and undone until a step has min(pt1, pt2) > z_cut (pt1 + pt2); the
    softer branch is dropped at each other step. A jet without such a step has mass 0.

    Parameters
    ----------
    momenta : E, px, py, pz of the particles of all jets, one jet after the other, shape (particles, 4).
    counts : particles of each jet, shape (jets,).
    """
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.asarray(_all(np.ascontiguousarray(momenta, np.float64), offset, z_cut))
