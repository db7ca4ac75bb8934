"""A calibration from files: the same result for any division and executor, resumed after a kill, and refusals."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l1ad.errors import InputError, L1adError, TriggerError
from l1ad.events import Events
from l1ad.menu import Leg, Menu, Seed, load_menu
from l1ad.rates import BaseRate, PileupProfile, load_thresholds
from l1ad.rates.calibrate import Calibration, calibrate
from l1ad.rates.plots import write_plots
from l1ad.rates.tasks import ScoreTask
from l1ad.trigger.program import Trigger
from tests.rates.conftest import make_events, make_trigger

TARGETS = {"Tight": 10_000.0, "Loose": 50_000.0}
BASE = BaseRate(10e6)


def run(trigger: Trigger, folder: Path, work: Path, **options: Any) -> Calibration:
    options = {"kind": "pure", "base": BASE, "signals": {"s": [folder / "signal.h5"]}, **options}
    files = options.pop("files", [folder / "zb1.h5", folder / "zb2.h5"])
    return calibrate(trigger, files, options.pop("targets", TARGETS), work=work / "work", **options)


def written(calibration: Calibration, path: Path) -> bytes:
    calibration.write(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def reference(trigger: Trigger, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return run(trigger, sample, tmp_path_factory.mktemp("reference"))


# ------------------------------------------------------------------ what comes out


def test_thresholds_agree_with_scores_in_memory(reference: Calibration, trigger: Trigger, sample: Path) -> None:
    events = Events.concatenate([Events.read(sample / "zb1.h5"), Events.read(sample / "zb2.h5")])
    scores = trigger.score(events)
    fired = events.menu_bits["L1_A"] | events.menu_bits["L1_B"]
    for item in reference.thresholds:
        unit = BASE.hz / len(events)
        smallest = next(t for t in range(1 << 18) if ((scores >= t) & ~fired).sum() * unit <= item.target_hz)
        assert item.threshold == smallest
        above = scores >= item.threshold
        assert item.rate.events == (above & ~fired).sum()
        assert item.rates["total"].hz == pytest.approx(above.sum() * unit)
        share = 1.0 / (1.0 + events.menu_bits["L1_A"].astype(int) + events.menu_bits["L1_B"])
        assert item.rates["proportional"].hz == pytest.approx(share[above].sum() * unit)
        overlap = reference.content["overlap"][item.name]
        for seed in ("L1_A", "L1_B"):
            both = (above & events.menu_bits[seed]).sum()
            assert overlap[seed]["seed_given_anomaly"] == pytest.approx(both / above.sum())
            assert overlap[seed]["anomaly_given_seed"] == pytest.approx(both / events.menu_bits[seed].sum())
            assert overlap[seed]["almost_given_pure"] is None
    assert reference.content["menu"]["rate_hz"] == pytest.approx(fired.sum() * unit)


def test_signals_agree_with_scores_in_memory(reference: Calibration, trigger: Trigger, sample: Path) -> None:
    signal = Events.read(sample / "signal.h5")
    scores = trigger.score(signal)
    fired = signal.menu_bits.any_of()
    content = reference.content["signals"]["s"]
    for item in reference.thresholds:
        above = scores >= item.threshold
        entry = content["thresholds"][item.name]
        assert entry["total"]["value"] == pytest.approx(above.mean())
        assert entry["pure"]["value"] == pytest.approx((above & ~fired).mean())
        assert entry["gain"]["value"] == pytest.approx((above | fired).sum() / fired.sum() - 1)
        assert reference.content["summary"][item.name]["total"]["mean"] == pytest.approx(above.mean())
    background = np.concatenate([trigger.score(Events.read(sample / f"zb{i}.h5")) for i in (1, 2)])
    ranks = np.searchsorted(np.sort(background), scores, "left") + np.searchsorted(np.sort(background), scores, "right")
    assert content["area_under_curve"] == pytest.approx(ranks.mean() / 2 / len(background))


def test_almost_fired_seeds(trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    menu = Menu(name="m", seeds=(Seed(name="Jet50", legs=(Leg(object="jet", pt=50),)), Seed(name="L1_B")))
    result = run(trigger, sample, tmp_path, menu=menu, files=[sample / "zb1.h5"])
    events = Events.read(sample / "zb1.h5")
    scores = trigger.score(events)
    jet = events.objects("jet")[:, :, 0].max(axis=1)
    pure = (jet < 100) & ~events.menu_bits["L1_B"] & (scores >= result.thresholds[1].threshold)
    entry = result.content["overlap"]["Loose"]
    assert entry["Jet50"]["almost_given_pure"] == pytest.approx((jet[pure] >= 80).mean())
    assert entry["L1_B"]["almost_given_pure"] is None
    origins = {seed["name"]: seed["origin"] for seed in result.content["menu"]["seeds"]}
    assert origins == {"Jet50": "evaluated", "L1_B": "data"}


def test_stability_and_lumi_sections(trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    result = run(trigger, sample, tmp_path, files=[sample / "weighted.h5"], kind="total")
    assert set(result.stability["Loose"]) == {"pileup", "run", "lumi", "bx"}
    assert len(result.stability["Loose"]["lumi"].keys) == 40
    assert result.thresholds[1].rate.method == "effective counts from lumi sections"
    assert result.drift["Loose"]["lumi"].chi2_p_value > 1e-4
    assert result.content["sample"]["weighted"]
    plain = run(trigger, sample, tmp_path / "p", kind="total")
    # The same spectrum: thresholds of the weighted and of the natural sample agree within their intervals.
    for one, other in zip(result.thresholds, plain.thresholds):
        low, high = one.rate.interval_95
        assert low <= plain.zero_bias.rate_at(one.threshold).hz <= high
        assert other.rate.method == "Clopper-Pearson"


def test_every_rate_of_a_weighted_sample_keeps_the_order(trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    """Also where lumi sections widen the interval of one kind only, and for intervals by mid-P."""
    for interval in ("clopper-pearson", "mid-p"):
        result = run(trigger, sample, tmp_path, files=[sample / "weighted.h5"], interval=interval)
        assert result.content["interval"] == interval
        for item in result.thresholds:
            chain = [item.rates[kind] for kind in ("pure", "proportional", "total")]
            assert ("mid-P" in chain[0].method) == (interval == "mid-p")
            for small, large in itertools.pairwise(chain):
                for ends in ("interval_68", "interval_95"):
                    assert getattr(small, ends).low <= getattr(large, ends).low
                    assert getattr(small, ends).high <= getattr(large, ends).high


def test_pileup_is_reweighted(trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    result = run(trigger, sample, tmp_path, pileup=PileupProfile.from_gaussian(56, 5), kind="total", signals={})
    events = Events.concatenate([Events.read(sample / f"zb{i}.h5") for i in (1, 2)])
    assert events.n_pv is not None
    target = PileupProfile.from_gaussian(56, 5).probability[: int(events.n_pv.max()) + 1]
    counts = np.bincount(events.n_pv.astype(int), minlength=len(target))
    factors = np.divide(target, counts, out=np.zeros_like(target), where=counts > 0)
    weight = factors[events.n_pv.astype(int)]
    above = trigger.score(events) >= result.thresholds[0].threshold
    assert result.thresholds[0].rate.hz == pytest.approx(weight[above].sum() / weight.sum() * BASE.hz)
    assert result.content["base"]["pileup"] == "mean 56, sigma 5"


def test_the_decisions_of_the_data_without_a_menu(reference: Calibration) -> None:
    assert "menu: the 2 decisions in the data, all taken as unprescaled" in reference.notes


def test_zero_bias_and_anomaly_bits_are_no_menu(trigger: Trigger, tmp_path: Path) -> None:
    events = make_events(5, 3000)
    everything = {**events.menu_bits, "L1_ZeroBias": np.ones(3000, bool), "L1_AXO_Tight": np.ones(3000, bool)}
    events.with_menu_bits(everything, origin="test").write(tmp_path / "zb.h5")
    result = run(trigger, tmp_path, tmp_path, files=[tmp_path / "zb.h5"], signals={}, targets={"a": 1e5})
    assert [seed["name"] for seed in result.content["menu"]["seeds"]] == ["L1_A", "L1_B"]
    assert "not part of that menu: L1_ZeroBias, L1_AXO_Tight" in result.notes


def test_plots_are_written(reference: Calibration, tmp_path: Path) -> None:
    paths = write_plots(reference, tmp_path / "plots")
    assert {"rates.png", "efficiencies.png", "efficiencies_pure.png", "stability_Tight_pileup.png"} <= {
        path.name for path in paths
    }
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000


# ------------------------------------------------------------------ the same whoever does it


@pytest.mark.parametrize("chunk", [1 << 20, 1000, 777])
def test_division_into_tasks_changes_no_byte(
    reference: Calibration, trigger: Trigger, sample: Path, tmp_path: Path, chunk: int
) -> None:
    files = [sample / "zb2.h5", sample / "zb1.h5"] if chunk == 777 else [sample / "zb1.h5", sample / "zb2.h5"]
    other = run(trigger, sample, tmp_path, chunk_events=chunk, files=files)
    other.content["sample"]["files"].sort(key=lambda file: file["name"])
    assert written(other, tmp_path / "a.json") == written(reference, tmp_path / "b.json")


def test_executors_change_no_byte(reference: Calibration, trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    expected = written(reference, tmp_path / "reference.json")
    assert written(run(trigger, sample, tmp_path / "p", workers=2, chunk_events=4000), tmp_path / "p.json") == expected
    with ThreadPoolExecutor(3) as threads:
        other = run(trigger, sample, tmp_path / "t", executor=threads, chunk_events=900)
    assert written(other, tmp_path / "t.json") == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed.*")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dask_cluster_changes_no_byte(reference: Calibration, trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    other = run(trigger, sample, tmp_path, dask="local", workers=2, chunk_events=5000)
    assert written(other, tmp_path / "a.json") == written(reference, tmp_path / "b.json")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed.*")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_scheduler_at_an_address(reference: Calibration, trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster:
        other = run(trigger, sample, tmp_path, dask=cluster.scheduler_address, chunk_events=5000)
    assert written(other, tmp_path / "a.json") == written(reference, tmp_path / "b.json")


def test_weighted_samples_too(trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"files": [sample / "weighted.h5"], "kind": "proportional"}
    one = run(trigger, sample, tmp_path / "a", **options)
    other = run(trigger, sample, tmp_path / "b", chunk_events=500, **options)
    assert written(one, tmp_path / "a.json") == written(other, tmp_path / "b.json")


# ------------------------------------------------------------------ resuming


class Counting:
    """A trigger that counts the tasks it scores and fails after so many."""

    def __init__(self, trigger: Trigger, fail_after: int) -> None:
        self.trigger, self.left, self.calls = trigger, fail_after, 0
        self.name, self.hash = trigger.name, trigger.hash

    def score(self, events: Events) -> Any:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.calls += 1
        return self.trigger.score(events)


def test_an_interrupted_calibration_goes_on(
    reference: Calibration, trigger: Trigger, sample: Path, tmp_path: Path
) -> None:
    first = Counting(trigger, 7)
    with pytest.raises(KeyboardInterrupt):
        run(first, sample, tmp_path, chunk_events=2000)  # type: ignore[arg-type]
    assert len(list((tmp_path / "work").glob("scores-*.h5"))) == 7
    assert not list((tmp_path / "work").glob("*.part"))
    second = Counting(trigger, 1000)
    result = run(second, sample, tmp_path, chunk_events=2000)  # type: ignore[arg-type]
    # Ten ranges of zero bias and one of the signal; seven were done.
    assert second.calls == 11 - 7
    assert written(result, tmp_path / "a.json") == written(reference, tmp_path / "b.json")
    assert not (tmp_path / "work").exists()


def test_a_killed_worker_is_replaced(reference: Calibration, trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    killed: list[int | None] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list((tmp_path / "work").glob("scores-*.h5")):
            time.sleep(0.005)
        for child in multiprocessing.active_children():
            child.kill()
            killed.append(child.pid)
            return

    thread = threading.Thread(target=kill_one)
    thread.start()
    result = run(trigger, sample, tmp_path, workers=2, chunk_events=500)
    thread.join()
    assert killed
    assert written(result, tmp_path / "a.json") == written(reference, tmp_path / "b.json")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed.*")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_killed_dask_worker_is_replaced(
    reference: Calibration, trigger: Trigger, sample: Path, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list((tmp_path / "work").glob("scores-*.h5")):
            time.sleep(0.005)
        killed.append(cluster.workers[0].pid)
        os.kill(killed[0], signal.SIGKILL)

    with distributed.LocalCluster(**options) as cluster:
        thread = threading.Thread(target=kill_one)
        thread.start()
        result = run(trigger, sample, tmp_path, dask=cluster.scheduler_address, chunk_events=500)
        thread.join()
    assert killed
    assert written(result, tmp_path / "a.json") == written(reference, tmp_path / "b.json")


def test_other_input_does_not_meet_old_results(trigger: Trigger, sample: Path) -> None:
    from l1ad.rates.tasks import Context, Source

    def name(trigger: Trigger, menu: Menu | None, digest: str, start: int, saturation: str = "keep") -> str:
        return ScoreTask(Source("f", digest, start, 100), Context(trigger, menu, None, saturation, "w")).result.name

    names = [
        name(trigger, None, "a", 0),
        name(make_trigger(bias=3), None, "a", 0),
        name(trigger, load_menu("run3_lite"), "a", 0),
        name(trigger, load_menu("run3_lite").scaled(0.5), "a", 0),
        name(trigger, None, "b", 0),
        name(trigger, None, "a", 1),
        name(trigger, None, "a", 0, "drop"),
    ]
    assert len(set(names)) == len(names)
    assert name(make_trigger("renamed"), None, "a", 0) == names[0]


# ------------------------------------------------------------------ the file


def test_thresholds_belong_to_one_trigger(reference: Calibration, trigger: Trigger, tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    reference.write(path)
    loaded = load_thresholds(path, trigger_hash=trigger.hash)
    assert loaded.values == {item.name: item.threshold for item in reference.thresholds}
    assert loaded.rates_hz["Tight"] == reference.thresholds[0].rate.hz
    assert load_thresholds(tmp_path, trigger_hash=None).kind == "pure"
    with pytest.raises(TriggerError, match=r"thresholds.json: trigger hash: found .* \(toy\), expected"):
        load_thresholds(path, trigger_hash=make_trigger(bias=1).hash)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format: found other, expected l1ad-thresholds"),
        ({"format_version": 1}, "format_version: found 1, expected 2"),
        ({"kind": None}, "kind: found None"),
        ({"extra": 1}, "extra: found an unknown key"),
    ],
)
def test_files_that_are_something_else(
    reference: Calibration, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps({**reference.content, **change}))
    with pytest.raises(InputError, match=message):
        load_thresholds(path, trigger_hash=None)


# ------------------------------------------------------------------ bad input


def refused(folder: Path, work: Path, message: str, trigger: Trigger | None = None, **options: Any) -> None:
    with pytest.raises(L1adError, match=message) as caught:
        run(trigger or make_trigger(), folder, work, **options)
    assert "\n" not in str(caught.value)
    assert not (work / "work").exists()


def test_no_zero_bias_events(sample: Path, tmp_path: Path) -> None:
    make_events(1, 10)[:0].write(tmp_path / "empty.h5")
    refused(sample, tmp_path, "zero bias: events: found none", files=[tmp_path / "empty.h5"])
    refused(sample, tmp_path, "zero bias: files: found none", files=[])
    refused(sample, tmp_path, "no such file", files=[tmp_path / "absent.h5"])
    refused(sample, tmp_path, "zb1.h5 twice, expected each event once", files=[sample / "zb1.h5"] * 2)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(500), "weight: found 0 for all 500 events"),
        (np.r_[np.ones(497), -np.ones(3)], "weight: found 3 of 500 negative, expected 0 or more"),
    ],
)
def test_weights_that_cannot_be(sample: Path, tmp_path: Path, weight: np.ndarray, message: str) -> None:
    events = make_events(1, 500).with_columns(weight=weight)
    events.write(tmp_path / "zb.h5")
    refused(sample, tmp_path, message, files=[tmp_path / "zb.h5"])


def test_menu_bits_missing(sample: Path, tmp_path: Path) -> None:
    make_events(1, 500).with_menu_bits({}, origin="none").write(tmp_path / "zb.h5")
    for kind in ("pure", "proportional"):
        refused(
            sample, tmp_path, f"menu bits: found none, which a {kind} rate needs", files=[tmp_path / "zb.h5"], kind=kind
        )
    only = Menu.from_names(["L1_Other"])
    refused(sample, tmp_path, "L1_Other: found no cuts and no decision in the data", menu=only)


def test_targets_and_options_that_cannot_be(sample: Path, tmp_path: Path) -> None:
    refused(sample, tmp_path, "at most the crossing rate", targets={"a": 2e7})
    refused(sample, tmp_path, "at least 10, more zero bias or --extrapolate", targets={"a": 1000.0})
    refused(sample, tmp_path, "targets: found none", targets={})
    refused(sample, tmp_path, "kind: found purely", kind="purely")
    refused(sample, tmp_path, "interval: method: found wald, expected clopper-pearson or mid-p", interval="wald")
    refused(sample, tmp_path, "workers and chunk size", workers=0)
    refused(sample, tmp_path, "budget", budget_hz=-1.0)
    refused(sample, tmp_path, "column n_pv", pileup=PileupProfile.from_gaussian(50, 5), files=[sample / "signal.h5"])


def test_extrapolation_through_files(trigger: Trigger, sample: Path, tmp_path: Path) -> None:
    result = run(trigger, sample, tmp_path, targets={"rare": 2000.0, "Loose": 50_000.0}, kind="total", extrapolate=True)
    rare, loose = result.thresholds
    assert rare.extrapolation is not None
    assert loose.extrapolation is None
    assert rare.threshold > loose.threshold
    path = tmp_path / "t.json"
    result.write(path)
    assert load_thresholds(path, trigger_hash=trigger.hash).values["rare"] == rare.threshold


def test_an_address_where_nobody_answers(sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    refused(sample, tmp_path, "--dask: address: found nowhere", dask="nowhere")
