"""Comparisons against the figures of single triggers, against closed forms, and against the scatter of toy samples."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from l1ad.baselines import BASELINES, all_baselines, ht
from l1ad.cli import app
from l1ad.errors import InputError, L1adError
from l1ad.events import Events
from l1ad.events.layout import get_layout
from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias, find_threshold
from l1ad.rates.compare import Comparison, Contestant, Sample, Weights, compare, page, table, write
from l1ad.rates.intervals import clopper_pearson
from l1ad.rates.physics import Signal, area_under_curve, efficiency_at_fpr, summarise
from tests.rates.conftest import make_events, make_trigger

BASE = BaseRate(1e6)


def toys(seed: int, *, n: int = 4000, weighted: bool = True) -> tuple[Weights, dict[str, Weights], Contestant]:
    """Zero bias and two signals of integer scores with many ties, and what a menu thinks of them."""
    rng = np.random.default_rng(seed)

    def weights(n: int) -> Weights:
        return Weights(rng.gamma(2.0, 0.5, n) if weighted else np.ones(n), (rng.random(n) < 0.7).astype(float))

    scales = {"a": 30.0, "b": 60.0}
    scores = {name: np.floor(rng.exponential(scale, 900)).astype(int) for name, scale in scales.items()}
    zero = np.floor(rng.exponential(20.0, n)).astype(int)
    return weights(n), {name: weights(900) for name in scales}, Contestant("toy", zero, scores)


def histogram(scores: np.ndarray, w: Weights) -> ScoreHistogram:
    assert w.rejected is not None
    result = ScoreHistogram(has_menu=True)
    result.fill(scores, w.weight, chance_none=w.rejected, mean_share=w.rejected)
    return result


@pytest.mark.parametrize("weighted", [False, True])
def test_the_figures_are_those_of_single_triggers(weighted: bool) -> None:
    zero, signals, toy = toys(1, weighted=weighted)
    found = compare(zero, signals, [toy], 8000.0, base=BASE, replicas=2)
    (row,) = found.rows
    background = ZeroBias(histogram(toy.zero_bias, zero), BASE)
    total = find_threshold(background, 8000.0)
    pure = find_threshold(background, 8000.0, kind="pure")
    assert row.threshold is not None
    # Everything above the largest value that does not pass: the integer threshold is the next one that occurs.
    assert row.threshold < total.threshold
    assert not ((toy.zero_bias > row.threshold) & (toy.zero_bias < total.threshold)).any()
    assert row.rate_hz == pytest.approx(total.rate.hz)
    assert row.events == total.rate.events
    for name, w in signals.items():
        signal = Signal(name, histogram(toy.signals[name], w))
        figures = row.signals[name]
        assert figures.efficiency.value == pytest.approx(signal.efficiency(int(row.threshold) + 1).value)
        assert figures.auc.value == pytest.approx(area_under_curve(signal, background))
        assert figures.tpr.value == pytest.approx(efficiency_at_fpr(signal, background, 1e-5)[1])
        assert figures.pure is not None
        top = int(toy.zero_bias[toy.zero_bias < pure.threshold].max()) + 1
        assert figures.pure.value == pytest.approx(signal.efficiency(top, "pure").value)
    values = [figures.efficiency.value for figures in row.signals.values()]
    assert {k: v.value for k, v in row.summary["efficiency"].items()} == pytest.approx(vars(summarise(values)))


def test_errors_are_the_scatter_of_independent_samples() -> None:
    """The error of mean and median over five signals that one threshold moves together, against 150 toy samples."""
    rng = np.random.default_rng(3)
    n, events, share = 1200, 400, 0.004

    def draw() -> tuple[Weights, dict[str, Weights], Contestant]:
        # Importance sampling, as stratified zero bias is: twice the slope, weights to match.
        zero = rng.exponential(2.0, n)
        weight = 2.0 * np.exp(-zero / 2.0)
        signals = {f"s{k}": rng.exponential(2.5 + 0.1 * k, events) for k in range(5)}
        return Weights(weight), {name: Weights(np.ones(events)) for name in signals}, Contestant("x", zero, signals)

    rows = []
    for _ in range(150):
        zero, signals, contestant = draw()
        rows.append(compare(zero, signals, [contestant], share * BASE.hz, base=BASE, replicas=2).rows[0])
    zero, signals, contestant = draw()
    row = compare(zero, signals, [contestant], share * BASE.hz, base=BASE, replicas=300).rows[0]
    for name in ("mean", "median"):
        scatter = np.std([r.summary["efficiency"][name].value for r in rows], ddof=1)
        assert row.summary["efficiency"][name].error == pytest.approx(scatter, rel=0.3), name
    single = np.std([r.signals["s0"].efficiency.value for r in rows], ddof=1)
    assert row.signals["s0"].efficiency.error == pytest.approx(single, rel=0.3)
    low, high = row.signals["s0"].interval
    assert (high - low) / 2 == pytest.approx(single, rel=0.3)
    # Five independent signals would average their errors down; a common threshold does not let them.
    independent = np.sqrt(sum(f.efficiency.error**2 for f in row.signals.values())) / 5
    assert row.summary["efficiency"]["mean"].error > 1.15 * independent


def test_only_the_order_of_scores_counts() -> None:
    zero, signals, toy = toys(4)
    bent = Contestant("bent", np.log1p(toy.zero_bias), {k: np.log1p(v) for k, v in toy.signals.items()})
    found = compare(zero, signals, [toy, bent], 3000.0, base=BASE, reference="toy", replicas=20)
    first, second = found.rows
    assert first.against is None
    assert second.against is not None
    assert [(m.value, m.error) for m in second.against.values()] == [(0.0, 0.0)] * 2
    for name in signals:
        assert first.signals[name] == second.signals[name]
    again = compare(zero, signals, [bent, toy], 3000.0, base=BASE, replicas=20)
    assert again.rows[1].signals == first.signals


def test_nothing_of_a_signal_is_not_known_exactly() -> None:
    zero, signals, toy = toys(5, weighted=False)
    deaf = replace(toy, signals={"a": np.zeros(900, int), "b": toy.signals["b"]})
    figures = compare(zero, signals, [deaf], 1000.0, base=BASE, replicas=30).rows[0].signals["a"]
    assert (figures.efficiency.value, figures.efficiency.error, figures.events) == (0.0, 0.0, 0)
    assert figures.interval.low == 0.0
    assert figures.interval.high == pytest.approx(clopper_pearson(0, 900).high)


def test_a_saturated_score_has_no_threshold() -> None:
    zero, signals, toy = toys(6)
    flat = Contestant("flat", np.minimum(toy.zero_bias, 20), {k: np.minimum(v, 20) for k, v in toy.signals.items()})
    row = compare(zero, signals, [flat], 1000.0, base=BASE, replicas=5).rows[0]
    assert (row.threshold, row.events, row.rate_hz) == (20.0, 0, 0.0)
    assert all(figures.efficiency.value == 0.0 for figures in row.signals.values())


def test_bad_input_is_one_line() -> None:
    zero, signals, toy = toys(7)
    broken = replace(toy, zero_bias=np.where(np.arange(4000) < 3, np.nan, 1.0))
    cases: list[tuple[list[Contestant], dict[str, object], str]] = [
        ([], {}, "contestants"),
        ([toy, toy], {}, "toy twice"),
        ([toy], {"reference": "ht"}, "reference: found ht, expected one of toy"),
        ([broken], {}, "3 not finite"),
        ([replace(toy, zero_bias=toy.zero_bias[:5])], {}, "found \\(5,\\)"),
        ([replace(toy, signals={"a": toy.signals["a"]})], {}, "signals: found a, expected a, b"),
        ([toy], {"replicas": 1}, "replicas"),
    ]
    for contestants, options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            compare(zero, signals, contestants, 1000.0, base=BASE, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no menu"):
        bare = {name: Weights(w.weight) for name, w in signals.items()}
        table(compare(Weights(zero.weight), bare, [toy], 1000.0, base=BASE, replicas=2), pure=True)
    with pytest.raises(InputError, match="above 0"):
        Weights.of(Events.from_arrays(np.zeros((3, 19, 3), int), weight=np.zeros(3)))


@pytest.fixture(scope="module")
def shown() -> Comparison:
    background, signals = make_events(1, 3000, weighted=True), {"s": make_events(2, 300, scale=30.0)}
    sample = Sample.of(background, signals)
    scores = {"toy": make_trigger().score, **all_baselines(background, [make_trigger()])}
    contestants = [sample.contestant(name, score) for name, score in scores.items()]
    return compare(
        sample.weights, sample.signal_weights, contestants, 5e3, base=BASE, reference="joint tail", replicas=10
    )


def test_every_baseline_is_there(shown: Comparison) -> None:
    assert [row.name for row in shown.rows] == [
        "toy", "ht", "met", "sum_pt", "n_objects", "input norm", "isolation forest", "joint tail"
    ]  # fmt: skip
    regions = get_layout("cms_calo_regions")
    hw = np.random.default_rng(1).integers(0, 50, (1500, *regions.shape))
    names = list(all_baselines(Events.from_arrays(hw, layout=regions)))
    assert "ht" not in names
    assert "met" not in names
    assert {"sum_pt", "isolation forest", "joint tail"} <= set(names)
    events = make_events(3, 50)
    assert np.array_equal(BASELINES["ht"](events), ht(events))


def test_the_table_shows_every_row_and_signal(shown: Comparison, tmp_path) -> None:
    lines = table(shown).splitlines()
    assert len(lines) == 2 + len(shown.rows)
    assert len({line.count("|") for line in lines}) == 1
    cell = f"{100 * shown.rows[0].summary['efficiency']['mean'].value:.1f} ± "
    assert lines[2].startswith(f"| toy | {cell}")
    write(shown, tmp_path / "a.json")
    value = json.loads((tmp_path / "a.json").read_text())
    assert value["rows"][0]["signals"]["s"]["efficiency"][0] == shown.rows[0].signals["s"].efficiency.value
    write(shown, tmp_path / "a.md")
    assert (tmp_path / "a.md").read_text() == page(shown) + "\n"
    write(shown, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(InputError, match=r"suffix: found \.csv"):
        write(shown, tmp_path / "a.csv")


def test_the_command(tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    make_trigger().save(folder / "trigger.json")
    make_trigger("other", bias=20).save(tmp_path / "other.json")
    make_events(1, 3000).write(tmp_path / "zb.h5")
    make_events(2, 200, scale=30.0).write(tmp_path / "s.h5")
    words = ["compare", folder, tmp_path / "other.json", "--zero-bias", tmp_path / "zb.h5", "--rate", "200"]
    words += ["--signals", f"hard={tmp_path / 's.h5'}", "--replicas", "5", "--out", tmp_path / "t.json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.exception
    assert "| other |" in result.output
    # The events carry decisions of two seeds: there are pure efficiencies without a menu being named.
    assert "pure" in result.output
    value = json.loads((tmp_path / "t.json").read_text())
    assert value["reference"] == "joint tail"
    assert value["rate_hz"] == 200_000.0
    result = CliRunner().invoke(app, [*(str(word) for word in words), "--no-baselines", "--out", "x.csv"])
    assert isinstance(result.exception, L1adError)
    assert ".png" in str(result.exception)
