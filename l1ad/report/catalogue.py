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
    size, weight : number of crossings and sum of their weights.
    mean_score : integer, LSB 1/16.
    occupancy : mean number of objects of each type.
    distinguishing : (feature, mean here, mean in zero bias, difference in standard deviations of zero bias), the
        strongest first.
    """

    number: int
    size: int
    weight: float
    mean_score: float
    occupancy: dict[str, float]
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
    """

    index: npt.NDArray[np.int64]
    scores: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    clusters: tuple[Cluster, ...]
    space: Space


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
    own = {name: values[index] for name, values in reference.items()}
    clusters = []
    for number in np.unique(labels):
        members = labels == number
        clusters.append(_describe(int(number), members, selected, all_scores[index], own, reference))
    clusters.sort(key=lambda c: (c.number < 0, -c.size))
    return Catalogue(index, all_scores[index], labels, tuple(clusters), space)


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
    members: npt.NDArray[np.bool_],
    selected: Events,
    scores: npt.NDArray[np.int64],
    own: dict[str, npt.NDArray[np.float64]],
    reference: dict[str, npt.NDArray[np.float64]],
) -> Cluster:
    part = selected[members]
    occupancy = {g.name: float((part.objects(g.name)[:, :, 0] > 0).sum(axis=1).mean()) for g in part.layout.groups}
    rows = []
    for name, values in reference.items():
        here, mean, spread = own[name][members].mean(), values.mean(), values.std()
        rows.append((name, float(here), float(mean), float((here - mean) / spread) if spread > 0 else 0.0))
    rows.sort(key=lambda row: -abs(row[3]))
    return Cluster(
        number,
        int(members.sum()),
        float(part.weight.sum()),
        float(scores[members].mean()),
        occupancy,
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
