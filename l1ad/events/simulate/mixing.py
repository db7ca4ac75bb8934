"""Crossings: Poisson pile-up drawn from libraries, natural or stratified with exact weights.

A *stratum* is a kind of collision with its expected number an inelastic collision. Libraries are split further by
their hardest muon, their hardest photon or electron and, for the soft one, by parton transverse momentum, and spikes
are a stratum without particles: what fires a trigger rarely comes from a common kind of collision, and a sample that
draws it by its kind needs no luck.

Strata are ordered from the most frequent to the rarest; a crossing's *class* is the rarest stratum that it holds. With
independent Poisson numbers n_k of means lambda_k the class k has the probability

    P_k = (1 - exp(-lambda_k)) * exp(-sum_{j > k} lambda_j),        P_0 = exp(-sum_{j > 0} lambda_j),

where class 0 also holds the empty crossing. A stratified crossing draws its class with probabilities q of our choice,
no collision of any rarer stratum, at least one of stratum k (zero-truncated Poisson) and the usual numbers of the
others; its weight is P_k / q_k. Of twelve such candidates one is kept, the active ones (much central transverse
energy) by preference, and its weight is divided by twelve times the probability of being kept. Any average over
natural crossings equals the weighted average over stratified ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l1ad.errors import InputError
from l1ad.events.simulate.detector import Detector
from l1ad.events.simulate.library import EM, MUON, Library
from l1ad.events.simulate.processes import PTHAT_EDGES
from l1ad.events.simulate.towers import Deposits, deposit

__all__ = [
    "MU_REFERENCE",
    "Crossings",
    "Pool",
    "Stratum",
    "class_probabilities",
    "draw",
    "draw_counts",
    "make_pool",
    "sampling_probabilities",
]

#: Mean number of inelastic collisions at which :attr:`Detector.spikes` is quoted.
MU_REFERENCE = 52.0
#: Candidates drawn for each stratified crossing that is kept.
CANDIDATES = 12
MU_RANGE = (1.0, 120.0)
SPIKE = "spike"
_MUON_CUTS_GEV = (12.0, 7.0, 4.0, 2.0)
_EM_CUTS_GEV = (20.0, 10.0)
_SOFT_CUT_GEV = 10.0
_COMMON = 1e-4  # collisions rarer than this are few enough as they are: no need to split them
_MIN_MEMBERS = 25  # a smaller part of a library is not split off: it would repeat too few collisions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Stratum:
    """One kind of collision: the numbers of its collisions in the pool, and how many an inelastic collision holds."""

    name: str
    members: Ints
    fraction: float


@dataclass(frozen=True)
class Pool:
    """All collisions that crossings are drawn from; muons at the vertex, pt in GeV.

    ``strata`` run from the most frequent to the rarest; ``signal`` holds the collisions of the signal, if any.
    """

    strata: tuple[Stratum, ...]
    deposits: Deposits
    mu_offset: Ints
    muons: NDArray[np.float32]  # (m, 4): pt, eta, phi, charge
    pthat: NDArray[np.float32]
    gen_met: NDArray[np.float32]
    activity: NDArray[np.float32]  # transverse energy of central particles above 1 GeV: what makes trigger objects
    signal: Ints
    sigma_inelastic_mb: float

    @property
    def fractions(self) -> Floats:
        """Expected numbers of each stratum an inelastic collision."""
        return np.array([s.fraction for s in self.strata])


@dataclass(frozen=True)
class Crossings:
    """Drawn crossings: collision ``events[first[i]:first[i + 1]]`` make crossing i, each turned by ``turns`` towers in
    azimuth, mirrored in pseudorapidity where ``mirrors`` is set, its energy times ``scales`` (1, or less out of time).

    ``spikes`` (n, 3) are transverse energy, row and column; ``counts`` (n, strata) how many of each stratum.
    """

    first: Ints
    events: Ints
    turns: Ints
    mirrors: NDArray[np.uint8]
    scales: NDArray[np.float32]
    spikes: NDArray[np.float32]
    counts: Ints
    mu: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def hardest(self) -> Ints:
        """Class of each crossing: its rarest stratum."""
        k = self.counts.shape[1]
        rarest = k - 1 - np.argmax(self.counts[:, ::-1] > 0, axis=1)
        return np.where(self.counts.any(axis=1), rarest, 0)


def _split(library: Library, base: int, common: bool) -> list[tuple[str, Ints]]:
    """Parts of a common library by leading muon, leading photon or electron and, for the soft one, pTHat."""
    n = len(library)
    if not common:
        return [(library.process, base + np.arange(n))]
    muon, photon = np.zeros(n), np.zeros(n)
    np.maximum.at(muon, np.repeat(np.arange(n), np.diff(library.mu_offset)), library.mu_pt)
    electromagnetic = np.where(library.kind == EM, library.et, 0.0)
    np.maximum.at(photon, np.repeat(np.arange(n), np.diff(library.offset)), electromagnetic)
    tests = [(f"+mu{cut:g}", muon >= cut) for cut in _MUON_CUTS_GEV]
    tests += [(f"+em{cut:g}", photon >= cut) for cut in _EM_CUTS_GEV]
    if library.process == "soft":
        tests.append((f"+{_SOFT_CUT_GEV:g}", library.pthat >= _SOFT_CUT_GEV))
    rest = np.ones(n, bool)
    parts = []
    for label, passes in tests:  # a collision goes to the first test that it passes, if enough do
        here = rest & passes
        if here.sum() >= _MIN_MEMBERS:
            parts.append((library.process + label, here))
            rest &= ~here
    parts.append((library.process, rest))
    return [(name, base + np.flatnonzero(mask)) for name, mask in parts if mask.any()]


def _activity(library: Library) -> NDArray[np.float32]:
    """Transverse energy of particles above 1 GeV and within |eta| < 3 of each collision, GeV."""
    et = library.et.astype(np.float32)
    counts = np.where((et > 1.0) & (np.abs(library.eta) < 3.0) & (library.kind != MUON), et, 0.0)
    owner = np.repeat(np.arange(len(library)), np.diff(library.offset))
    return np.bincount(owner, counts, len(library)).astype(np.float32)


def make_pool(libraries: list[Library], detector: Detector, signal: Library | None = None) -> Pool:
    """Shower libraries of background strata (and of a signal) and order the strata.

    The inelastic cross section is the sum of the soft and the hard-QCD libraries'.

    Raises
    ------
    InputError
        If there is no soft library, or a hard-QCD slice is missing below one that is there.
    """
    by_name = {lib.process: lib for lib in libraries}
    if "soft" not in by_name:
        raise InputError("libraries", "processes", ", ".join(by_name) or "none", "one called soft among them")
    slices = [f"qcd_{edge:g}" for edge in PTHAT_EDGES]
    there = [name in by_name for name in slices]
    if any(there) and not all(there[: max(i for i, x in enumerate(there) if x) + 1]):
        raise InputError("libraries", "processes", f"no {slices[there.index(False)]}", "no gap in the hard-QCD slices")
    inelastic = sum(lib.sigma_mb for name, lib in by_name.items() if name == "soft" or name in slices)
    every = [*libraries, *([signal] if signal is not None else [])]
    base = np.cumsum([0] + [len(lib) for lib in every])
    strata = []
    for lib, start in zip(libraries, base, strict=False):
        fraction = lib.sigma_mb / inelastic
        parts = _split(lib, int(start), fraction > _COMMON)
        strata += [Stratum(name, members, fraction * len(members) / len(lib)) for name, members in parts]
    if detector.spikes > 0:
        strata.append(Stratum(SPIKE, np.zeros(0, np.int64), detector.spikes / MU_REFERENCE))
    strata.sort(key=lambda s: (-s.fraction, s.name))
    mu_ends = np.cumsum([0] + [int(lib.mu_offset[-1]) for lib in every])
    mu_offset = [np.zeros(1, np.int64), *(lib.mu_offset[1:] + end for lib, end in zip(every, mu_ends, strict=False))]
    columns = ("mu_pt", "mu_eta", "mu_phi", "mu_charge")
    return Pool(
        strata=tuple(strata),
        deposits=Deposits.concatenate([deposit(lib, detector) for lib in every]),
        mu_offset=np.concatenate(mu_offset),
        muons=np.concatenate([np.column_stack([getattr(lib, c) for c in columns]) for lib in every]).astype(np.float32),
        pthat=np.concatenate([lib.pthat for lib in every]),
        gen_met=np.concatenate([lib.gen_met for lib in every]),
        activity=np.concatenate([_activity(lib) for lib in every]),
        signal=np.arange(base[-2], base[-1]) if signal is not None else np.zeros(0, np.int64),
        sigma_inelastic_mb=float(inelastic),
    )


def class_probabilities(mu: Floats, fractions: Floats) -> Floats:
    """Probability of each class at pile-up ``mu`` (n,): (n, strata), rows sum to 1. See the module docstring."""
    means = mu[:, None] * fractions
    above = np.cumsum(means[:, ::-1], axis=1)[:, ::-1] - means  # sum over rarer strata
    some = -np.expm1(-means)
    some[:, 0] = 1.0  # class 0 is "nothing rarer", empty or not
    out: Floats = some * np.exp(-above)
    return out


def sampling_probabilities(mu: float, fractions: Floats) -> Floats:
    """Probability with which a stratified sample draws each class: half of it uniform, half as the root of its own.

    For the rate of some rare trigger the error is least for q_k proportional to P_k sqrt(t_k), with t_k the share of
    class k that fires: to P_k where all of it does, to sqrt(P_k) where all classes contribute alike, as here for want
    of better knowledge; the uniform half keeps the rarest classes populated.
    """
    root = np.sqrt(class_probabilities(np.array([mu]), fractions)[0])
    out: Floats = 0.5 / len(root) + 0.5 * root / root.sum()
    return out


def draw_counts(means: Floats, rng: np.random.Generator, classes: Ints | None = None) -> Ints:
    """Poisson numbers (n, strata) of these means, given each crossing's class if ``classes`` (n,) is set.

    A zero-truncated Poisson number of mean L is one more than a Poisson number of mean L - t, where t is the time of
    the first arrival given that it falls before L.
    """
    counts = rng.poisson(means)
    if classes is None:
        return counts
    rows = np.arange(len(means))
    counts[np.arange(means.shape[1])[None, :] > classes[:, None]] = 0
    mean = means[rows, classes]
    first = -np.log1p(rng.random(len(means)) * np.expm1(-mean))
    truncated = 1 + rng.poisson(np.maximum(mean - first, 0.0))
    counts[rows, classes] = np.where(classes > 0, truncated, counts[rows, classes])
    return counts


def _spikes(number: Ints, detector: Detector, rng: np.random.Generator) -> NDArray[np.float32]:
    """Energy and place of the spike of each crossing that has one; of two the second is dropped."""
    out = np.zeros((len(number), 3), np.float32)
    hit = np.flatnonzero(number)
    m = len(hit)
    ieta = np.where(rng.random(m) < 0.4, rng.integers(29, 41, m), rng.integers(1, 18, m))  # HF, or barrel
    out[hit, 0] = detector.spike_min * (1.0 - rng.random(m)) ** (-1.0 / 1.5)
    out[hit, 1] = np.where(rng.random(m) < 0.5, 39 + ieta, 40 - ieta)
    out[hit, 2] = rng.integers(0, 72, m)
    return out


def systematic_sample(size: Floats, n: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Choose ``n`` of the rows with probabilities proportional to ``size``, none twice: rows in order, probabilities
    of all.

    A row whose share would exceed 1 is always chosen. Dividing by the probabilities gives unbiased sums over all rows
    (Horvitz and Thompson 1952).
    """
    certain = np.zeros(len(size), bool)
    while True:
        rest = n - int(certain.sum())
        share = np.where(certain, 1.0, size * (rest / max(size[~certain].sum(), 1e-300)))
        over = (share > 1.0) & ~certain
        if not over.any():
            break
        certain |= over
    # comb with n teeth of unit pitch: a row is chosen when a tooth falls in its share
    ends = np.cumsum(share)
    ends *= n / ends[-1]
    teeth = rng.random() + np.arange(n)
    return np.minimum(np.searchsorted(ends, teeth, side="right"), len(size) - 1), share


def _interest(activity: Floats, classes: Ints, floor: Floats) -> Floats:
    """How much a candidate is wanted: its activity relative to its class, cubed, at least the class's ``floor``."""
    numbers = np.maximum(np.bincount(classes, minlength=len(floor)), 1)
    relative = activity / np.maximum(np.bincount(classes, activity, len(floor)) / numbers, 1e-6)[classes]
    size = np.clip(relative**3, floor[classes], 100.0)
    return np.asarray(size / (np.bincount(classes, size, len(floor)) / numbers)[classes])


def _collisions(pool: Pool, counts: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Crossing and collision of everything that ``counts`` (n, strata) asks for, ordered by crossing."""
    owner, picked = [], []
    for k, stratum in enumerate(pool.strata):
        if len(stratum.members):
            crossing = np.repeat(np.arange(len(counts)), counts[:, k])
            owner.append(crossing)
            picked.append(stratum.members[rng.integers(0, len(stratum.members), len(crossing))])
    order = np.argsort(np.concatenate(owner), kind="stable")
    return np.concatenate(owner)[order], np.concatenate(picked)[order]


def draw(
    pool: Pool,
    n: int,
    detector: Detector,
    rng: np.random.Generator,
    *,
    mu: float = MU_REFERENCE,
    mu_spread: float = 6.0,
    stratified: bool = False,
    signal: Ints | None = None,
) -> Crossings:
    """Draw ``n`` crossings.

    Parameters
    ----------
    mu, mu_spread:
        Mean number of inelastic collisions and its spread from crossing to crossing.
    stratified:
        Draw :data:`CANDIDATES` times as many, each of a class by :func:`sampling_probabilities`, keep the active ones
        by preference (:func:`systematic_sample`), and give weights.
    signal:
        (n,) a collision of ``pool`` to add to each crossing; it comes last.
    """
    fractions = pool.fractions
    m = n * CANDIDATES if stratified else n
    mu_each = np.clip(rng.normal(mu, mu_spread, m), *MU_RANGE) if mu > 0 else np.zeros(m)
    classes = None
    if stratified:
        q = sampling_probabilities(mu, fractions)
        classes = rng.choice(len(q), m, p=q)
    counts = draw_counts(mu_each[:, None] * fractions, rng, classes)
    owner, events = _collisions(pool, counts, rng)
    weight = np.ones(n)
    if classes is not None:
        weight = class_probabilities(mu_each, fractions)[np.arange(m), classes] / q[classes]
        activity = np.bincount(owner, pool.activity[events], m).astype(np.float64)
        # a muon needs no activity around it, its misfortune happens in the track finder
        floor = np.array([1.0 if "+mu" in stratum.name else 0.3 for stratum in pool.strata])
        kept, share = systematic_sample(_interest(activity, classes, floor), n, rng)
        weight = weight[kept] / (share[kept] * CANDIDATES)
        mu_each, counts = mu_each[kept], counts[kept]
        number = np.full(m, -1)
        number[kept] = np.arange(n)
        owner = number[owner]
        owner, events = owner[owner >= 0], events[owner >= 0]

    scales = np.ones(len(owner), np.float32)
    extra: list[tuple[Ints, Ints, float]] = []
    if detector.out_of_time > 0:
        # the crossing before: nearly all its energy is in its common collisions
        before = np.repeat(np.arange(n), rng.poisson(mu_each))
        common = pool.strata[0].members
        extra.append((before, common[rng.integers(0, len(common), len(before))], detector.out_of_time))
    if signal is not None:
        extra.append((np.arange(n), np.asarray(signal, np.int64), 1.0))
    for crossing, collision, share_of_energy in extra:
        owner, events = np.concatenate([owner, crossing]), np.concatenate([events, collision])
        scales = np.concatenate([scales, np.full(len(crossing), share_of_energy, np.float32)])
    order = np.argsort(owner, kind="stable")
    spikes = [k for k, stratum in enumerate(pool.strata) if stratum.name == SPIKE]
    return Crossings(
        first=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))]).astype(np.int64),
        events=events[order],
        turns=rng.integers(0, 72, len(owner)),
        mirrors=rng.integers(0, 2, len(owner)).astype(np.uint8),
        scales=scales[order],
        spikes=_spikes(counts[:, spikes].sum(axis=1), detector, rng),
        counts=counts,
        mu=mu_each,
        weight=weight,
    )


def hardest_pthat(pool: Pool, crossings: Crossings) -> NDArray[np.float32]:
    """Largest parton transverse momentum in each crossing, GeV; 0 for an empty one."""
    out = np.zeros(len(crossings), np.float32)
    owner: Any = np.repeat(np.arange(len(crossings)), np.diff(crossings.first))
    np.maximum.at(out, owner, np.where(crossings.scales == 1.0, pool.pthat[crossings.events], 0.0))
    return out
