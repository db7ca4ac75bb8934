"""The trigger's own score in a dijet search: the firmware's integers, flat in mass, clear errors without its words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from l1ad import Trigger
from l1ad.errors import ConfigError, InputError, TriggerError
from l1ad.report import search_page
from l1ad.search import dijet_search, injected, jets, methods, outputs, readers
from l1ad.search.config import SearchConfig
from l1ad.search.jets import WINDOWS, Dijets

SMALL = {
    "window": "A3",
    "method": "trigger",
    "quantile": {"folds": 4},
    "fit": {"low": 1460, "high": 5500, "bin_width": 40, "orders": [2, 3]},
    "toys": 0,
    "limits": False,
}


@pytest.fixture(scope="module")
def trigger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(6)
    types = {
        "input": "ap_fixed<12,9,RND_CONV,SAT>", "weight": "ap_fixed<6,3>", "bias": "ap_fixed<12,9>",
        "relu": "ap_ufixed<14,12,RND_CONV,SAT>", "result": "ap_fixed<16,13,RND_CONV,SAT>",
    }  # fmt: skip
    weights = [rng.integers(0, 8, (57, 5)), rng.integers(-8, 8, (5, 3))]
    scaling = {"offset": np.zeros(57), "shift": np.full(57, 5)}
    made = Trigger.from_layers(weights, [np.zeros(5, int), np.zeros(3, int)], types, scaling, name="small")
    path = tmp_path_factory.mktemp("trigger") / "trigger.json"
    made.save(path)
    return path


def _dijets(n: int, n_signal: int, seed: int = 1) -> Dijets:
    """Dijets with words of the uGT: two jets whose pt goes with the mass, soft ones; for the signal four hard ones."""
    rng = np.random.default_rng(seed)
    mass = np.concatenate([1350 * rng.uniform(size=n) ** (-1 / 5.5), rng.normal(2700, 90, n_signal)])
    signal = np.arange(mass.size) >= n
    table = np.zeros((mass.size, 2, 4), np.float32)
    table[:, :, 0] = mass[:, None] * rng.uniform(0.3, 0.5, (mass.size, 2))
    table[:, :, 3] = 100.0
    words = np.zeros((mass.size, 19, 3), np.int16)
    words[:, 9:, 0] = np.sort(rng.exponential(50.0, (mass.size, 10)).astype(np.int16) + 10, axis=1)[:, ::-1]
    words[:, 9:11, 0] = np.minimum(rng.normal(0.5, 0.1, (mass.size, 2)) * mass[:, None], 2047)
    words[signal, 11:15, 0] = 700
    words[:, 0, 0] = rng.exponential(100.0, mass.size)
    label = signal.astype(np.int8)
    return Dijets(table, ("pt", "eta", "phi", "m"), mass, label, np.ones(mass.size), l1_hw=words)


def test_the_score_is_the_firmwares_and_the_selection_flat(trigger: Path) -> None:
    events = _dijets(8000, 60)
    config = SearchConfig.model_validate({**SMALL, "trigger": str(trigger)})
    labels = WINDOWS["A3"].labels(events.m_jj)
    tagged = methods.tag(events, labels, config)
    assert events.l1_hw is not None
    np.testing.assert_array_equal(tagged.scores, Trigger.load(trigger).score(events.l1_hw, golden=True))
    assert np.mean(tagged.selected[events.label == 1]) > 0.5
    # Without signal: the score goes with the mass, the selection does not.
    nothing = events[events.label == 0]
    tagged = methods.tag(nothing, labels[events.label == 0], config)
    assert tagged.scores is not None
    assert np.corrcoef(tagged.scores, nothing.m_jj)[0, 1] > 0.3
    assert tagged.flat is not None
    assert tagged.flat.p > 1e-3
    assert np.mean(tagged.selected) == pytest.approx(0.1, abs=0.01)


def test_a_search_with_it(trigger: Path, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({**SMALL, "trigger": str(trigger)}))
    result = dijet_search.search(_dijets(12_000, 60), SearchConfig.read(tmp_path / "search.yaml"))
    assert abs(result.mass - 2700) <= 100
    assert result.z_local > 3
    outputs.write(result, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert sum(content["categories"]) == 12_060
    with h5py.File(tmp_path / "out" / "events.h5") as file:
        assert file.attrs["method"] == "trigger"
    assert "trigger score" in search_page.render(result, sample="Toy dijets.")


def test_it_is_compared_with_another_score(trigger: Path) -> None:
    trees = {"members": 1, "max_iterations": 5, "min_samples_leaf": 40}
    changes = {"method": "cwola", "features": ["pt"], "compare": ["trigger"], "trees": trees, "fraction": 0.1}
    config = SearchConfig.model_validate({**SMALL, **changes, "trigger": str(trigger)})
    events = _dijets(6000, 20)
    study = dijet_search.search(events, config).study
    assert study is not None
    assert "trigger" in study.taggers


def test_what_it_cannot_score_is_an_error(trigger: Path, tmp_path: Path) -> None:
    config = SearchConfig.model_validate({**SMALL, "trigger": str(trigger)})
    events = _dijets(3000, 0)
    assert events.l1_hw is not None
    with pytest.raises(InputError, match="no Level-1 words"):
        dijet_search.search(replace(events, l1_hw=None), config)
    with pytest.raises(TriggerError, match="small"):
        dijet_search.search(replace(events, l1_hw=events.l1_hw[:, :12]), config)
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"compare": ["trigger"]}))
    with pytest.raises(ConfigError, match="run folder of a frozen trigger"):
        SearchConfig.read(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match="nowhere"):
        dijet_search.search(events, config.model_copy(update={"trigger": str(tmp_path / "nowhere.json")}))


def test_stored_trainings_belong_to_one_trigger_and_its_words(trigger: Path) -> None:
    events = _dijets(3000, 0)
    config = SearchConfig.model_validate({**SMALL, "trigger": str(trigger)})
    plan = injected.Injection(events, _dijets(10, 200), config, 2700.0, 100.0)
    assert events.l1_hw is not None
    other = events.l1_hw.copy()
    other[0, 9, 0] += 1
    assert plan.context == replace(plan, data=replace(events, l1_hw=events.l1_hw.copy())).context
    assert plan.context["events"] != replace(plan, data=replace(events, l1_hw=other)).context["events"]


def test_words_stay_with_their_events(tmp_path: Path) -> None:
    events = _dijets(50, 5)
    assert events.l1_hw is not None
    events.write(tmp_path / "a.h5")
    again = readers.read(tmp_path / "a.h5", start=3)
    np.testing.assert_array_equal(again.l1_hw, events.l1_hw[3:])
    assert again.l1_hw is not None
    assert again.l1_hw.dtype == np.int16
    rows = np.array([7, 2])
    np.testing.assert_array_equal(events[rows].heavier_first().l1_hw, events.l1_hw[rows])
    both = jets.concatenate([events, again])
    np.testing.assert_array_equal(both.l1_hw, np.concatenate([events.l1_hw, again.l1_hw]))
    assert jets.concatenate([events, replace(again, l1_hw=None)]).l1_hw is None
    with pytest.raises(InputError, match=r"l1_hw: found \(12, 3\) and \(19, 3\)"):
        jets.concatenate([events, replace(again, l1_hw=again.l1_hw[:, :12])])
    with pytest.raises(InputError, match="l1_hw"):
        replace(events, l1_hw=events.l1_hw[1:])
    for wrong in (events.l1_hw * 0.5, np.full(events.l1_hw.shape, 70_000)):
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["l1_hw"]
            file["l1_hw"] = wrong
        with pytest.raises(InputError, match=r"a.h5: l1_hw: .*16 bits"):
            readers.read(tmp_path / "a.h5")
