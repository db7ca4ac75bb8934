"""What a selection looks at: features of the anomalous events, the score's dependence on each, agreement of methods.

`study` makes all of it for one search; the pieces work on any score (`l1ad.search.tagger`).
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.search import folds, methods, metrics
from l1ad.search.config import SearchConfig
from l1ad.search.jets import Dijets
from l1ad.search.methods import Tagged
from l1ad.search.tagger import perturbation_importance, score_correlation

FloatArray = npt.NDArray[np.float64]

#: Features shown where an event has them, besides those that the score uses.
_ALWAYS_SHOWN = ("m", "pt", "tau21")
#: Most bins of a distribution; fewer if there are few anomalous jets to fill them.
_BINS = 40
#: Background events of a SIC curve's thresholds: 1/error^2 with the papers' 20 %.
_SIC_EVENTS = 25


@dataclass(frozen=True)
class FeatureShape:
    """One feature of both jets, anomalous events of the window against its ordinary ones.

    Attributes
    ----------
    name : of the feature.
    edges : of the bins.
    anomalous, ordinary : share of the jets in each bin, both normalised to 1 over all jets.
    """

    name: str
    edges: FloatArray
    anomalous: FloatArray
    ordinary: FloatArray


@dataclass(frozen=True)
class Study:
    """What a selection has understood.

    Attributes
    ----------
    features : distributions.
    n_anomalous, n_ordinary : events of the window behind them.
    perturbation : for each input feature the mean change of the score of the 0.5 % most anomalous events when it is
        taken from another event, of both jets; empty where the score has no such features.
    taggers : names of the scores that are compared.
    correlation : Spearman rank correlation between them on the window and its sidebands, (taggers, taggers).
    sic : for each tagger its significance improvement in the window; empty where the truth is not known.
    """

    features: tuple[FeatureShape, ...]
    n_anomalous: int
    n_ordinary: int
    perturbation: dict[str, float]
    taggers: tuple[str, ...]
    correlation: FloatArray
    sic: dict[str, metrics.SicCurve]


def study(
    used: Dijets,
    labels: npt.NDArray[np.int8],
    tagged: Tagged,
    config: SearchConfig,
    *,
    sideband: Dijets | None = None,
    executor: Executor | None = None,
) -> Study:
    """Everything for one search; the methods in ``config.compare`` are trained for it."""
    inside = labels == 1
    anomalous, ordinary = inside & tagged.selected, inside & ~tagged.selected
    scores: dict[str, FloatArray] = {}
    if tagged.scores is not None:
        scores[tagged.method] = tagged.scores
    for other in config.compare:
        if other not in scores and other != "inclusive":
            done = methods.tag(used, labels, config, method=other, sideband=sideband, executor=executor)
            if done.scores is not None:
                scores[other] = done.scores
    mass = used.feature("m")
    scores["sum of the jet masses"] = mass.sum(axis=1)
    if "tau1" in used.names and "tau2" in used.names:
        scores["two prongs (1 - tau21, both)"] = (1.0 - used.feature("tau21")).min(axis=1)
    near = labels >= 0
    varied = {k: v for k, v in scores.items() if np.ptp(v[near]) > 0}
    known = used.label[inside]
    sic = {}
    if np.any(known == 1) and np.count_nonzero(known == 0) >= _SIC_EVENTS and np.all(known >= 0):
        sic = {k: metrics.sic_curve(v[inside], known == 1) for k, v in varied.items()}
    return Study(
        features=feature_shapes(used, anomalous, ordinary, tuple(config.features)),
        n_anomalous=int(anomalous.sum()),
        n_ordinary=int(ordinary.sum()),
        perturbation=perturbation(tagged, config),
        taggers=tuple(varied),
        correlation=score_correlation(np.stack([v[near] for v in varied.values()])),
        sic=sic,
    )


def feature_shapes(
    used: Dijets, anomalous: npt.NDArray[np.bool_], ordinary: npt.NDArray[np.bool_], names: tuple[str, ...]
) -> tuple[FeatureShape, ...]:
    """Distributions of features of both jets in two selections; the ends of the axes hold 99 % of the jets."""
    available = [
        n for n in (*names, *_ALWAYS_SHOWN) if n in used.names or (n.startswith("tau") and "tau1" in used.names)
    ]
    bins = int(np.clip(2.0 * np.sqrt(2 * np.count_nonzero(anomalous)), 8, _BINS))
    out = []
    for name in dict.fromkeys(available):
        values = used.feature(name)
        both = values[anomalous | ordinary]
        if not both.size:
            continue
        low, high = np.quantile(both, [0.005, 0.995])
        if not high > low:
            high = low + 1.0
        edges = np.linspace(low, high, bins + 1)
        shares = [
            np.histogram(np.clip(values[rows], low, high), edges)[0] / max(2 * np.count_nonzero(rows), 1)
            for rows in (anomalous, ordinary)
        ]
        out.append(FeatureShape(name, edges, shares[0], shares[1]))
    return tuple(out)


def perturbation(tagged: Tagged, config: SearchConfig) -> dict[str, float]:
    """Mean change of the score by feature, with one of the search's own models on events that it has not seen.

    The top 0.5 % of the events, each feature replaced by that of 100 random events; the two jets' changes are averaged.
    """
    if tagged.weak is None:
        return {}
    columns, plan, fit = tagged.weak.columns, tagged.weak.plan, tagged.weak.fit
    split = next(iter(plan.splits()))
    scorer, _ = folds.train_one(columns, plan, split, fit, seed=config.seed)
    key = "jets" if "jets" in columns else "event"
    table = columns[key][split.test].reshape(len(split.test), -1)
    shape = columns[key].shape[1:]

    def score(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        rows = np.arange(len(x))
        return scorer(folds.View({key: x.reshape(len(x), *shape)}, rows, rows))

    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(5,)))
    change = perturbation_importance(score, table, rng).reshape(2, -1).mean(axis=0)
    return dict(zip(config.features, change.tolist()))
