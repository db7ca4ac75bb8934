"""Limits and discovery reach when the efficiency depends on the cross section.

A weakly supervised selection is trained on data that may hold the signal: the more signal, the better it is selected.
So signal is injected at several cross sections, the training repeated at each, and the limit read where the excluded
cross section meets the injected one. `tasks` and `run` do the trainings, on any `concurrent.futures.Executor`, each
resumable on its own; `limit`, `limit_on_yield` and `reach` read the result; `shifted_features` says which systematic
uncertainties need a training of their own.

Source: CMS-EXO-22-026 (arXiv:2412.03747) and CMS-MLG-23-002 (arXiv:2512.20395).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, L1adError
from l1ad.io import read_json, write_json
from l1ad.search.errors import FitError

FloatArray = npt.NDArray[np.float64]

_FORMAT = 1


@dataclass(frozen=True)
class InjectionLimit:
    """An upper limit on a cross section.

    Attributes
    ----------
    limit : in the unit of the injected cross sections.
    index : the injection that gives it.
    excluded : excluded cross section at each injection, with the efficiency found there; infinite without efficiency.
    bracketed : true if some injection lies below its excluded cross section and some above. If none lies above, the
        scan ends too early and the limit is what the largest injection excludes: valid if the efficiency rises, weaker
        than necessary.
    """

    limit: float
    index: int
    excluded: FloatArray
    bracketed: bool


@dataclass(frozen=True)
class Task:
    """One training at one injected cross section.

    Attributes
    ----------
    index : position of the cross section in the scan.
    repeat : which of the repetitions, from 0.
    cross_section : injected, in the unit of the scan.
    seed : entropy of the whole scan; with `index` and `repeat` it gives the task its own random numbers.
    """

    index: int
    repeat: int
    cross_section: float
    seed: int

    def rng(self) -> np.random.Generator:
        """The task's own generator: the same whatever ran before and wherever it runs."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.index, self.repeat)))


@dataclass(frozen=True)
class Outcome:
    """What a task gave.

    Attributes
    ----------
    task : the task.
    values : numbers by name, empty if it failed.
    error : why it failed, or None.
    reused : true if it was read from an earlier run.
    """

    task: Task
    values: Mapping[str, float]
    error: str | None
    reused: bool


def limit(
    cross_sections: npt.ArrayLike,
    efficiencies: npt.ArrayLike,
    n95: npt.ArrayLike,
    *,
    luminosity: float,
    acceptance: float = 1.0,
    tie: float = 0.1,
) -> InjectionLimit:
    """Limit from an injection scan: ``min_i max(sigma_i, excluded_i)`` with ``excluded_i = N95/(L A eps_i)``.

    Injections whose value is within a fraction `tie` of the smallest are tied, and the one with the largest injected
    cross section is taken (0.1 is the published choice; 0 gives the plain minimum).

    Parameters
    ----------
    cross_sections : injected, increasing, >= 0, shape (n,).
    efficiencies : of the selection that was trained with that much signal, in [0, 1].
    n95 : excluded number of selected events, one or one an injection; infinite where nothing can be excluded.
    luminosity : in the inverse of the unit of the cross sections.
    acceptance : fraction of the signal before the selection.

    Raises
    ------
    InputError
        Bad shapes or values.
    FitError
        If no injection has any efficiency or a finite N95: there is no limit.
    """
    sigma, eps = _scan(cross_sections, efficiencies)
    n = np.asarray(n95, np.float64)
    if n.shape not in ((), sigma.shape):
        raise InputError("injection limit", "N95", n.shape, f"one number or {sigma.shape}")
    n = np.broadcast_to(n, sigma.shape)
    if not np.all(n > 0) or not luminosity > 0 or not 0 < acceptance <= 1 or not tie >= 0:
        raise InputError("injection limit", "N95, luminosity, acceptance, tie", "a bad value", "all positive, A <= 1")
    with np.errstate(divide="ignore"):
        excluded = np.where(eps > 0, n / (luminosity * acceptance * np.where(eps > 0, eps, 1.0)), np.inf)
    value = np.maximum(sigma, excluded)
    best = float(value.min())
    if not np.isfinite(best):
        raise FitError("injection limit: no injected cross section excludes anything")
    index = int(np.flatnonzero(value <= best * (1.0 + tie))[-1])
    above = sigma >= excluded
    return InjectionLimit(float(value[index]), index, excluded, bool(above.any() and not above.all()))


def limit_on_yield(
    cross_sections: npt.ArrayLike,
    efficiencies: npt.ArrayLike,
    n95: float,
    *,
    luminosity: float,
    acceptance: float = 1.0,
) -> float:
    """Limit on the selected yield mapped back to a cross section: where ``L A sigma eps(sigma) = N95``.

    Between injections ln(yield) is linear in ln(sigma). For a yield that rises with the cross section this is the
    intersection that `limit` approximates from above, to the spacing of the scan.

    Raises
    ------
    InputError
        If the yield does not rise everywhere (then several cross sections give one yield and there is no inverse), or
        does not reach N95 within the scan.
    """
    sigma, eps = _scan(cross_sections, efficiencies)
    y = luminosity * acceptance * sigma * eps
    used = y > 0
    x, y = sigma[used], y[used]
    if x.size < 2 or np.any(np.diff(y) <= 0):
        raise InputError("limit on the yield", "yield", "one that does not rise with the cross section", "a rising one")
    if not y[0] <= n95 <= y[-1]:
        raise InputError("limit on the yield", "N95", f"{n95:g}", f"within the scanned yields, {y[0]:g} to {y[-1]:g}")
    return float(np.exp(np.interp(np.log(n95), np.log(y), np.log(x))))


def reach(cross_sections: npt.ArrayLike, significance: npt.ArrayLike, *, level: float = 3.0) -> float:
    """Smallest injected cross section whose expected significance reaches `level`, linear between injections.

    Parameters
    ----------
    significance : expected (Asimov) significance of the selection trained with that injection, shape (n,).

    Returns
    -------
    The cross section of the first crossing; infinity if the scan never gets there. If the first injection is already
    above, its own cross section scaled from the origin, where the significance is 0.

    Raises
    ------
    InputError
        Bad shapes, cross sections that do not increase, values that are not finite.
    """
    sigma, z = np.asarray(cross_sections, np.float64), np.asarray(significance, np.float64)
    if sigma.ndim != 1 or sigma.shape != z.shape or sigma.size == 0:
        raise InputError("reach", "shapes", f"{sigma.shape} and {z.shape}", "equal, one dimension")
    if not np.all(np.isfinite(z)) or not np.all(np.diff(sigma) > 0) or not sigma[0] >= 0 or not level > 0:
        raise InputError("reach", "values", "not finite, or not increasing", "increasing cross sections, finite Z")
    if sigma[0] > 0:
        sigma, z = np.concatenate([[0.0], sigma]), np.concatenate([[0.0], z])
    reached = np.flatnonzero(z >= level)
    if not reached.size:
        return float("inf")
    i = int(reached[0])
    if i == 0:
        return float(sigma[0])
    fraction = (level - z[i - 1]) / (z[i] - z[i - 1])
    return float(sigma[i - 1] + fraction * (sigma[i] - sigma[i - 1]))


def tasks(cross_sections: Sequence[float], *, repeats: int = 1, seed: int) -> list[Task]:
    """One task for each cross section and repetition."""
    values = [float(v) for v in cross_sections]
    if seed < 0:
        raise InputError("injection scan", "seed", seed, "at least 0")
    if not values or repeats < 1 or any(v < 0 or not np.isfinite(v) for v in values):
        raise InputError("injection scan", "cross sections", values, "at least one, finite and >= 0, repeats >= 1")
    if any(a >= b for a, b in itertools.pairwise(values)):
        raise InputError("injection scan", "cross sections", values, "increasing values")
    return [Task(i, r, v, seed) for i, v in enumerate(values) for r in range(repeats)]


def run(
    function: Callable[[Task], Mapping[str, float]],
    todo: Sequence[Task],
    folder: str | Path,
    *,
    executor: Executor | None = None,
    context: Mapping[str, Any] | None = None,
) -> list[Outcome]:
    """Run the tasks, keep each result in its own file, skip those that are there already.

    Parameters
    ----------
    function : gets a task, returns numbers by name. Must be picklable for an executor of processes or machines.
    folder : one JSON file a task is written here by this process, so that workers need no common disk.
    executor : any `concurrent.futures.Executor` (dask's ``Client.get_executor()`` too); in this thread if None.
    context : what else the result depends on (settings, hashes of inputs). A stored result of another context is not
        reused.

    Returns
    -------
    Outcomes in the order of the tasks. A task that raises an `L1adError` (a fit that did not converge, for one) has its
    message as `error` and is not stored, so that the next run tries again, and so has one whose values are not all
    finite; any other exception is a defect and is raised after the finished tasks have been stored.
    """
    base = Path(folder)
    done: dict[int, Outcome] = {}
    for i, task in enumerate(todo):
        stored = _stored(base, task, context)
        if stored is not None:
            done[i] = Outcome(task, stored, None, True)
    left = [i for i in range(len(todo)) if i not in done]
    defect: Exception | None = None

    def keep(i: int, call: Callable[[], Mapping[str, float]]) -> None:
        try:
            values = {str(k): float(v) for k, v in call().items()}
        except L1adError as error:
            done[i] = Outcome(todo[i], {}, str(error), False)
            return
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad:
            done[i] = Outcome(todo[i], {}, f"{', '.join(bad)}: not a finite number", False)
            return
        _store(base, todo[i], context, values)
        done[i] = Outcome(todo[i], values, None, False)

    if executor is None:
        for i in left:
            keep(i, lambda i=i: function(todo[i]))  # type: ignore[misc]
    else:
        futures = {executor.submit(function, todo[i]): i for i in left}
        for future in as_completed(futures):
            try:
                keep(futures[future], future.result)
            except Exception as error:  # the other results must reach the disk first; raised again below
                defect = defect or error
    if defect is not None:
        raise defect
    return [done[i] for i in range(len(todo))]


def shifted_features(
    nominal: Mapping[str, npt.ArrayLike],
    varied: Mapping[str, npt.ArrayLike],
    n_injected: float,
    *,
    weights: npt.ArrayLike | None = None,
    varied_weights: npt.ArrayLike | None = None,
    bins: int = 10,
    fraction: float = 0.2,
) -> dict[str, float]:
    """Which features a systematic variation moves by more than the injected signal could show.

    Each feature is histogrammed in `bins` equal bins between the 1st and 99th percentile of the nominal signal, values
    outside in the end bins, both normalised to `n_injected` events. A feature is listed if a bin moves by more than
    `fraction` (one fifth) of its statistical error ``sqrt(n)``; its value is the largest shift in units of that error.
    An empty result means: no training for this variation.

    Raises
    ------
    InputError
        Features that differ, no events, a feature without spread, weights without a positive sum.
    """
    if set(nominal) != set(varied) or not nominal:
        raise InputError("systematic filter", "features", sorted(varied), f"{sorted(nominal)}")
    if not 0 < n_injected < np.inf:
        raise InputError("systematic filter", "injected events", n_injected, "a positive number")
    out = {}
    for name in nominal:
        a, b = np.asarray(nominal[name], np.float64), np.asarray(varied[name], np.float64)
        if a.size == 0 or b.size == 0 or not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
            raise InputError("systematic filter", name, "no or undefined values", "finite values")
        low, high = np.quantile(a, [0.01, 0.99])
        if not high > low:
            raise InputError("systematic filter", name, "equal values", "a distribution")
        edges = np.linspace(low, high, bins + 1)
        shares = []
        for values, w in ((a, weights), (b, varied_weights if varied_weights is not None else weights)):
            if w is not None and np.shape(w) != values.shape:
                raise InputError("systematic filter", f"{name}, weights", np.shape(w), values.shape)
            counts = np.histogram(np.clip(values, low, high), edges, weights=w)[0]
            if not counts.sum() > 0:
                raise InputError("systematic filter", name, "weights without a positive sum", "a positive sum")
            shares.append(n_injected * counts / counts.sum())
        filled = shares[0] > 0
        shift = np.abs(shares[1] - shares[0])[filled] / np.sqrt(shares[0][filled])
        if shift.max() > fraction:
            out[name] = float(shift.max())
    return out


def _scan(cross_sections: npt.ArrayLike, efficiencies: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    sigma, eps = np.asarray(cross_sections, np.float64), np.asarray(efficiencies, np.float64)
    if sigma.ndim != 1 or sigma.shape != eps.shape or sigma.size == 0:
        raise InputError("injection scan", "shapes", f"{sigma.shape} and {eps.shape}", "equal, one dimension")
    if not np.all(np.isfinite(sigma)) or sigma[0] < 0 or np.any(np.diff(sigma) <= 0):
        raise InputError("injection scan", "cross sections", "not increasing from 0 or more", "increasing values")
    if not np.all((eps >= 0) & (eps <= 1)):
        raise InputError("injection scan", "efficiency", "a value outside [0, 1]", "0 <= efficiency <= 1")
    return sigma, eps


def _key(task: Task, context: Mapping[str, Any] | None) -> str:
    text = json.dumps({"task": asdict(task), "context": context or {}}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _path(folder: Path, task: Task) -> Path:
    return folder / f"injection_{task.index:03d}_{task.repeat:03d}.json"


def _stored(folder: Path, task: Task, context: Mapping[str, Any] | None) -> dict[str, float] | None:
    path = _path(folder, task)
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise InputError(str(path), "format", found, _FORMAT)
    if content.get("key") != _key(task, context):
        return None
    if not isinstance(content.get("values"), dict):
        raise InputError(str(path), "values", type(content.get("values")).__name__, "numbers by name")
    return {str(k): float(v) for k, v in content["values"].items()}


def _store(folder: Path, task: Task, context: Mapping[str, Any] | None, values: Mapping[str, float]) -> None:
    content = {"format": _FORMAT, "key": _key(task, context), "task": asdict(task), "values": dict(values)}
    write_json(_path(folder, task), content)
