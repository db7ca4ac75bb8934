"""The catalogue of anomalies: which kinds of crossing a trigger selects.

Selected crossings are clustered in the latent space or in the scaled inputs with HDBSCAN (Campello, Moulavi, Sander,
PAKDD 2013; scikit-learn's implementation), each cluster is described by what sets it apart from zero bias, and all of
it is written as parquet or HDF5.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from l1ad.baselines import BASELINES
from l1ad.errors import InputError, require
from l1ad.events.store import Events
from l1ad.io import atomic_path
from l1ad.trigger.program import Trigger

Space = Literal["latent", "inputs"]


@dataclass(frozen=True)
class Cluster:
    """One kind of crossing.

    Attributes
    ----------
    number : cluster number, -1 for crossings that belong to no cluster.
    size : number of crossings.
    share : their weight over that of all events, selected or not: times the crossing rate it is a rate.
    mean_score : integer, LSB 1/16.
    occupancy : mean number of objects of each type.
    seeds : (seed, share of the cluster in which it fired) of the menu decisions that come with the events, the most
        frequent first; empty without decisions.
    distinguishing : (feature, mean here, mean in zero bias, difference in standard deviations of zero bias), the
        strongest first.

    Means and shares are weighted.
    """

    number: int
    size: int
    share: float
    mean_score: float
    occupancy: dict[str, float]
    seeds: tuple[tuple[str, float], ...]
    distinguishing: tuple[tuple[str, float, float, float], ...]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Selected crossings with their clusters.

    Attributes
    ----------
    index : (n,) positions of the selected crossings in the events.
    scores : (n,) integers, LSB 1/16.
    labels : (n,) cluster of each, -1 for none.
    clusters : descriptions, the largest first.
    space : in which the clusters were found.
    threshold : at or above which crossings were selected; the highest scores only if there were too many.
    """

    index: npt.NDArray[np.int64]
    scores: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    clusters: tuple[Cluster, ...]
    space: Space
    threshold: int


def catalogue(
    trigger: Trigger,
    events: Events,
    threshold: int,
    *,
    space: Space = "latent",
    min_cluster_size: int = 15,
    max_events: int = 5000,
) -> Catalogue:
    """Cluster the crossings at or above `threshold`; the `max_events` highest scores if there are more.

    Raises
    ------
    InputError
        If fewer than ``2 * min_cluster_size`` crossings are selected.
    MissingToolError
        If scikit-learn is not installed.
    """
    require("sklearn", "search")
    from sklearn.cluster import HDBSCAN

    all_scores = trigger.score(events)
    index = np.flatnonzero(all_scores >= threshold)
    if len(index) < 2 * min_cluster_size:
        raise InputError(
            "catalogue", f"crossings with a score of {threshold} or more", len(index), 2 * min_cluster_size
        )
    if len(index) > max_events:
        index = np.sort(index[np.argsort(-all_scores[index], kind="stable")[:max_events]])
    selected = events[index]
    points = _points(trigger, selected, space)
    labels = np.asarray(HDBSCAN(min_cluster_size=min_cluster_size, copy=True).fit_predict(points), dtype=np.int64)
    reference = summary_features(events)
    clusters = []
    for number in np.unique(labels):
        clusters.append(_describe(int(number), index[labels == number], events, all_scores, reference))
    clusters.sort(key=lambda c: (c.number < 0, -c.share))
    return Catalogue(index, all_scores[index], labels, tuple(clusters), space, threshold)


def _points(trigger: Trigger, selected: Events, space: Space) -> npt.NDArray[np.float64]:
    if space == "latent" and trigger.program.latents is not None:
        values = trigger.latents(selected).astype(np.float64)
    else:
        node = next((n for n in trigger.program.nodes if n.op == "scale"), trigger.program.nodes[0])
        values = trigger.trace(selected)[node.name].astype(np.float64)
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def summary_features(events: Events) -> dict[str, npt.NDArray[np.float64]]:
    """What a person would call the features of a crossing: sums, leading pt, number of objects by type, (N,) each."""
    result: dict[str, npt.NDArray[np.float64]] = {}
    types = {group.name for group in events.layout.groups}
    for name, function in BASELINES.items():
        if (name == "ht" and "jet" not in types) or (name == "met" and "met" not in types):
            continue
        result[name] = function(events)
    for group in events.layout.groups:
        if group.count > 1:
            pt = np.asarray(events.objects(group.name)[:, :, 0] * group.words[0].lsb, dtype=np.float64)
            result[f"leading {group.name} pt"] = pt[:, 0]
            result[f"number of {group.name}"] = (pt > 0).sum(axis=1).astype(np.float64)
    return result


def _describe(
    number: int,
    members: npt.NDArray[np.int64],
    events: Events,
    scores: npt.NDArray[np.int64],
    reference: dict[str, npt.NDArray[np.float64]],
) -> Cluster:
    part, weight = events[members], events.weight
    own = part.weight

    def mean(values: npt.NDArray[Any], weights: npt.NDArray[Any]) -> float:
        # Weights that are all 0 say nothing about the shape of a cluster.
        return float(np.average(values, weights=weights if weights.any() else None))

    occupancy = {g.name: mean((part.objects(g.name)[:, :, 0] > 0).sum(axis=1), own) for g in part.layout.groups}
    fired = [(name, mean(part.menu_bits[name], own)) for name in part.menu_bits]
    rows = []
    for name, values in reference.items():
        here, there = mean(values[members], own), mean(values, weight)
        spread = float(np.sqrt(mean((values - there) ** 2, weight)))
        rows.append((name, here, there, (here - there) / spread if spread > 0 else 0.0))
    rows.sort(key=lambda row: -abs(row[3]))
    return Cluster(
        number,
        len(members),
        float(own.sum() / weight.sum()),
        mean(scores[members], own),
        occupancy,
        tuple(sorted((f for f in fired if f[1] > 0), key=lambda f: -f[1])[:3]),
        tuple(rows[:4]),
    )


def write_catalogue(path: str | os.PathLike[str], result: Catalogue, events: Events) -> None:
    """Write index, score, cluster, weight and all codes of the selected crossings: parquet, or HDF5 for ``.h5``.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    selected = events[result.index]
    columns: dict[str, npt.NDArray[Any]] = {
        "index": result.index,
        "score": result.scores,
        "cluster": result.labels,
        "weight": selected.weight,
    }
    if str(path).endswith((".h5", ".hdf5")):
        marked = selected.with_columns(score=result.scores, cluster=result.labels, index=result.index)
        marked.write(path)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = selected.inputs
    columns.update({name: flat[:, i] for i, name in enumerate(selected.layout.input_names)})
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
