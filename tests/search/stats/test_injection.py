"""Limits with an efficiency that depends on the cross section: the exact mapping, reach, and resumable tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from l1ad.errors import InputError
from l1ad.search.errors import FitError
from l1ad.search.stats import injection


def _efficiency(sigma: np.ndarray, turn_on: float) -> np.ndarray:
    """A training that finds nothing below its turn-on and half of the signal far above."""
    return 0.01 + 0.49 * sigma**3 / (sigma**3 + turn_on**3)


@pytest.mark.parametrize("turn_on", [3.0, 10.0, 40.0])
@pytest.mark.parametrize("n95", [20.0, 80.0, 200.0])
def test_the_limit_is_the_one_on_the_yield_mapped_back(turn_on: float, n95: float) -> None:
    luminosity, acceptance = 26.0, 0.6
    exact = optimize.brentq(
        lambda s: luminosity * acceptance * s * float(_efficiency(np.array(s), turn_on)) - n95, 1e-3, 1e4
    )
    sigma = np.geomspace(0.05, 2000.0, 4000)
    eps = _efficiency(sigma, turn_on)
    spacing = sigma[1] / sigma[0]
    found = injection.limit(sigma, eps, n95, luminosity=luminosity, acceptance=acceptance, tie=0.0)
    assert exact <= found.limit <= exact * spacing * (1 + 1e-12)
    assert found.bracketed
    mapped = injection.limit_on_yield(sigma, eps, n95, luminosity=luminosity, acceptance=acceptance)
    assert mapped == pytest.approx(exact, rel=1e-5)


def test_on_a_coarse_scan_the_limit_is_never_below_the_true_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        turn_on, n95 = 10 ** rng.uniform(0, 2), 10 ** rng.uniform(1, 3)
        exact = optimize.brentq(lambda s: 20 * s * float(_efficiency(np.array(s), turn_on)) - n95, 1e-4, 1e5)  # noqa: B023
        sigma = np.sort(10 ** rng.uniform(-1, 4, 6))
        for tie in (0.0, 0.1):
            found = injection.limit(sigma, _efficiency(sigma, turn_on), n95, luminosity=20.0, tie=tie)
            assert found.limit >= exact * (1 - 1e-9)


def test_constant_efficiency_gives_the_classical_limit() -> None:
    sigma = np.array([1.0, 2.0, 5.0, 10.0, 20.0])
    found = injection.limit(sigma, np.full(5, 0.3), 30.0, luminosity=20.0, tie=0.0)
    assert found.limit == pytest.approx(30.0 / (20.0 * 0.3))
    np.testing.assert_allclose(found.excluded, 5.0)


def test_ties_go_to_the_higher_injection() -> None:
    # max(sigma, excluded) = 10.5, 10, 10.9, 12: the first three are within a tenth of the smallest.
    sigma = np.array([2.0, 10.0, 10.9, 12.0])
    eps = np.array([1 / 10.5, 1 / 9.0, 1 / 8.0, 1 / 7.0])
    assert injection.limit(sigma, eps, 1.0, luminosity=1.0, tie=0.0).index == 1
    found = injection.limit(sigma, eps, 1.0, luminosity=1.0)
    assert (found.index, found.limit) == (2, 10.9)


def test_a_scan_that_ends_too_early_says_so() -> None:
    found = injection.limit([1.0, 2.0], [0.0, 0.1], 50.0, luminosity=10.0)
    assert found.limit == pytest.approx(50.0)
    assert not found.bracketed
    assert np.isinf(found.excluded[0])
    with pytest.raises(FitError, match="excludes anything"):
        injection.limit([1.0, 2.0], [0.0, 0.0], 50.0, luminosity=10.0)


def test_a_yield_that_falls_has_no_inverse() -> None:
    with pytest.raises(InputError, match="rise"):
        injection.limit_on_yield([1.0, 2.0, 3.0], [0.1, 0.5, 0.2], 10.0, luminosity=20.0)
    with pytest.raises(InputError, match="N95"):
        injection.limit_on_yield([1.0, 2.0], [0.1, 0.1], 1000.0, luminosity=20.0)


def test_reach() -> None:
    sigma, z = [1.0, 2.0, 4.0, 8.0], [0.5, 1.0, 5.0, 12.0]
    assert injection.reach(sigma, z) == pytest.approx(3.0)
    assert injection.reach(sigma, z, level=5.0) == pytest.approx(4.0)
    assert injection.reach(sigma, z, level=20.0) == float("inf")
    assert injection.reach(sigma, z, level=0.25) == pytest.approx(0.5)
    assert injection.reach([0.0, 1.0], [4.0, 9.0], level=3.0) == 0.0
    # The training may be unlucky at one point: the first crossing counts.
    assert injection.reach([1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 2.0, 6.0]) == pytest.approx(1 + 2 / 3)


def _work(task: injection.Task) -> Mapping[str, float]:
    return {"efficiency": task.cross_section / 10.0, "draw": float(task.rng().normal())}


def _work_or_fail(task: injection.Task) -> Mapping[str, float]:
    if task.index == 1:
        raise FitError("the training did not converge")
    return _work(task)


def _defect(task: injection.Task) -> Mapping[str, float]:
    if task.index == 1:
        raise ZeroDivisionError
    return _work(task)


def test_results_do_not_depend_on_who_runs_them(tmp_path: Path) -> None:
    todo = injection.tasks([1.0, 2.0, 4.0], repeats=2, seed=11)
    here = injection.run(_work, todo, tmp_path / "here")
    with ThreadPoolExecutor(3) as pool:
        threads = injection.run(_work, todo[::-1], tmp_path / "threads", executor=pool)
    with ProcessPoolExecutor(1) as pool:
        processes = injection.run(_work, todo, tmp_path / "processes", executor=pool)
    values = [o.values for o in here]
    assert values == [o.values for o in threads[::-1]] == [o.values for o in processes]
    assert len({v["draw"] for v in values}) == 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed.*")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dask_runs_them_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    from l1ad.rates.tasks import dask_executor

    todo = injection.tasks([1.0, 2.0, 4.0], repeats=2, seed=11)
    here = injection.run(_work, todo, tmp_path / "here")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, dask_executor(cluster.scheduler_address, 1) as pool:
        with pytest.raises(ZeroDivisionError):
            injection.run(_defect, todo, tmp_path / "dask", executor=pool)
        assert len(list((tmp_path / "dask").glob("injection_*.json"))) == 4
        again = injection.run(_work, todo, tmp_path / "dask", executor=pool)
    assert [o.reused for o in again] == [True, True, False, False, True, True]
    assert [o.values for o in again] == [o.values for o in here]


def test_only_what_is_missing_is_run_again(tmp_path: Path) -> None:
    todo = injection.tasks([1.0, 2.0, 4.0], seed=1)
    first = injection.run(_work_or_fail, todo, tmp_path)
    assert [o.error for o in first] == [None, "the training did not converge", None]
    assert len(list(tmp_path.glob("*.json"))) == 2
    second = injection.run(_work, todo, tmp_path)
    assert [o.reused for o in second] == [True, False, True]
    assert [o.values for o in second] == [_work(t) for t in todo]
    other = injection.run(_work, todo, tmp_path, context={"trees": 50})
    assert not any(o.reused for o in other)


def test_a_defect_is_raised_after_the_good_results_are_stored(tmp_path: Path) -> None:
    todo = injection.tasks([1.0, 2.0, 4.0], seed=1)
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        injection.run(_defect, todo, tmp_path, executor=pool)
    assert len(list(tmp_path.glob("injection_*.json"))) == 2


def test_a_foreign_file_is_not_taken_for_a_result(tmp_path: Path) -> None:
    (tmp_path / "injection_000_000.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="format"):
        injection.run(_work, injection.tasks([1.0], seed=1), tmp_path)


def test_systematic_filter() -> None:
    rng = np.random.default_rng(4)
    mass, tau = rng.normal(100, 10, 200_000), rng.uniform(0, 1, 200_000)
    nominal = {"mass": mass, "tau21": tau}
    assert injection.shifted_features(nominal, {"mass": mass + 0.02, "tau21": tau}, 300) == {}
    moved = injection.shifted_features(nominal, {"mass": mass + 1.0, "tau21": tau}, 300)
    assert set(moved) == {"mass"}
    # The bin at one sigma moves by n phi(1)/10 * width; here checked against the binning done by hand.
    low, high = np.quantile(mass, [0.01, 0.99])
    edges = np.linspace(low, high, 11)
    a = 300 * np.histogram(np.clip(mass, low, high), edges)[0] / mass.size
    b = 300 * np.histogram(np.clip(mass + 1.0, low, high), edges)[0] / mass.size
    assert moved["mass"] == pytest.approx(np.max(np.abs(a - b) / np.sqrt(a)))
    # Sixteen times fewer injected events: four times less sensitive.
    fewer = injection.shifted_features(nominal, {"mass": mass + 1.0, "tau21": tau}, 300 / 16, fraction=0.0)
    assert fewer["mass"] == pytest.approx(moved["mass"] / 4)
    tilted = injection.shifted_features(nominal, nominal, 300, varied_weights=1 + 0.5 * tau)
    assert set(tilted) == {"tau21"}


@pytest.mark.parametrize(
    ("sigma", "eps", "n95", "message"),
    [
        ([1.0, 1.0], [0.1, 0.1], 3.0, "cross sections"),
        ([1.0, 2.0], [0.1, 1.1], 3.0, "efficiency"),
        ([1.0, 2.0], [0.1], 3.0, "shapes"),
        ([1.0, 2.0], [0.1, 0.1], 0.0, "N95"),
    ],
)
def test_scans_that_cannot_be_read(sigma: list, eps: list, n95: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        injection.limit(sigma, eps, n95, luminosity=1.0)


def test_what_excludes_nothing_gives_no_limit() -> None:
    # The second injection is not known: the limit is that of the third.
    found = injection.limit([0.0, 1.0, 4.0], [0.1, 0.4, 0.5], [20.0, np.inf, 20.0], luminosity=10.0)
    assert found.limit == pytest.approx(4.0)
    with pytest.raises(FitError, match="excludes anything"):
        injection.limit([0.0, 1.0], [0.1, 0.4], np.inf, luminosity=10.0)
    with pytest.raises(InputError, match="N95"):
        injection.limit([0.0, 1.0], [0.1, 0.4], [1.0, 2.0, 3.0], luminosity=10.0)
    with pytest.raises(InputError, match="reach"):
        injection.reach([1.0, np.nan, 3.0], [1.0, 2.0, 4.0])


def test_a_value_that_is_no_number_is_a_task_that_failed(tmp_path: Path) -> None:
    todo = injection.tasks([1.0, 2.0], seed=1)
    found = injection.run(lambda t: {"x": np.nan if t.index else 1.0}, todo, tmp_path)
    assert found[0].error is None
    assert found[1].error == "x: not a finite number"
    assert [p.name for p in tmp_path.iterdir()] == ["injection_000_000.json"]
    text = (tmp_path / "injection_000_000.json").read_text()
    (tmp_path / "injection_000_000.json").write_text(text.replace('"values"', '"valeurs"'))
    with pytest.raises(InputError, match="values"):
        injection.run(lambda t: {"x": 1.0}, todo, tmp_path)


def test_filter_and_tasks_refuse_what_is_none() -> None:
    feature = {"m": np.arange(50.0)}
    with pytest.raises(InputError, match="injected events"):
        injection.shifted_features(feature, feature, np.inf)
    with pytest.raises(InputError, match="m, weights"):
        injection.shifted_features(feature, feature, 10.0, weights=np.ones(3))
    with pytest.raises(InputError, match="seed"):
        injection.tasks([1.0], seed=-1)
