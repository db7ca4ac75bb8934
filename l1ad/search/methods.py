"""The methods of a dijet search by name: what each gives an event, and which events it selects.

`tag` scores and selects with one of them. Weak supervision is scored by k-fold models that the ledger proves innocent;
the autoencoder is trained on the |delta eta| sideband only, a frozen trigger not at all, and an event's thresholds on
their scores come from folds without it.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search import folds, metrics, quantile, vae, weak
from l1ad.search.config import Method, SearchConfig
from l1ad.search.jets import Dijets
from l1ad.search.tagger import TriggerTagger

FloatArray = npt.NDArray[np.float64]

#: Label of events that are scored but teach nothing and set no threshold: simulated signal that measures an efficiency.
SPECTATOR = -2
#: Selected fraction in a window that is none of the published ones: that of CATHODE in all windows (arXiv:2412.03747).
_OWN_FRACTION = 0.01
#: Bins of the mass in which the selected fraction is compared.
_FLATNESS_BINS = 5


@dataclass(frozen=True)
class Weak:
    """What a weakly supervised scoring was made from, to repeat one of its trainings."""

    columns: dict[str, npt.NDArray[Any]]
    plan: folds.FoldPlan
    fit: folds.Fit


@dataclass(frozen=True)
class Tagged:
    """Events with the scores of one method.

    Attributes
    ----------
    method : its name.
    scores : (n,), the larger the more anomalous; None for the inclusive search.
    selected : (n,).
    category : where a regression sets the thresholds (autoencoder, trigger): 0 below, 1 the 5-10 %, 2 the 1-5 %, 3 the
        0-1 % most anomalous, (n,); else None.
    proof : that no event was scored by a model that had seen it; None where nothing was trained on these events.
    flat : selected fraction against the mass where no signal is expected: in the sidebands of the window, with a
        category everywhere outside of the window; None for the inclusive search.
    weak : of the weak supervision, else None.
    """

    method: Method
    scores: FloatArray | None
    selected: npt.NDArray[np.bool_]
    category: npt.NDArray[np.int8] | None = None
    proof: folds.Proof | None = None
    flat: metrics.Flatness | None = None
    weak: Weak | None = None


def tag(
    used: Dijets,
    labels: npt.NDArray[np.int8],
    config: SearchConfig,
    *,
    method: Method | None = None,
    sideband: Dijets | None = None,
    executor: Executor | None = None,
) -> Tagged:
    """Score and select events of the signal region.

    Parameters
    ----------
    used : events with |delta eta| < 1.3, heavier jet first.
    labels : 1 in the window, 0 in its sidebands, -1 elsewhere, or `SPECTATOR`.
    method : the configuration's if None.
    sideband : events with 2.0 < |delta eta| < 2.5, for the autoencoder.

    Raises
    ------
    InputError
        Too few events for the folds, features that are not there, an autoencoder without constituents or sideband, a
        trigger without Level-1 words of its layout.
    LeakError
        If a model scored what it had seen.
    """
    name = method or config.method
    if name == "inclusive":
        return Tagged(name, None, np.ones(len(used), bool))
    if name == "vae_qr":
        return _vae_qr(used, labels, sideband, config)
    if name == "trigger":
        return _by_regression(name, _trigger_scores(used, config), used, labels, config)
    return _weak(used, labels, config, name, executor)


def classifier(config: SearchConfig) -> weak.Classifier:
    """The classifier of the weak supervision."""
    if config.classifier == "dense":
        return weak.Dense(**config.dense.model_dump())
    return weak.Trees(**config.trees.model_dump())


def selected_fraction(config: SearchConfig) -> float:
    """Fraction of the sidebands that weak supervision selects: the configuration's or the published one."""
    if config.fraction is not None:
        return config.fraction
    return weak.PUBLISHED_FRACTIONS[config.window] if isinstance(config.window, str) else _OWN_FRACTION


def identities(events: Dijets) -> npt.NDArray[np.int64]:
    """Identity of each event from its content: one that is stored twice must not be trained on and scored."""
    return folds.content_ids(np.concatenate([events.jets.reshape(len(events), -1), events.m_jj[:, None]], axis=1))


def _weak(
    used: Dijets, labels: npt.NDArray[np.int8], config: SearchConfig, method: Method, executor: Executor | None
) -> Tagged:
    features = used.features(tuple(config.features))
    columns: dict[str, npt.NDArray[Any]] = {"label": labels}
    fit: folds.Fit
    if method == "cwola":
        columns |= {"jets": features, "plane": used.feature("pt")}
        fit = weak.cwola_hunting(classifier(config), combine=config.combine)
    else:
        columns["event"] = features.reshape(len(used), -1)
        fit = weak.cwola_pair(classifier(config))
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(0,)))
    plan = folds.plan(identities(used), rng, n_outer=config.folds.outer, n_inner=config.folds.inner)
    scored = folds.cross_score(columns, plan, fit, seed=config.seed, executor=executor)
    fraction = selected_fraction(config)
    # The sidebands alone set the threshold, so that a signal cannot raise it.
    side = labels == 0
    selected = folds.select(scored.scores, plan, fraction, within=side)
    edges = np.quantile(used.m_jj[side], np.linspace(0, 1, _FLATNESS_BINS + 1))
    flat = metrics.flatness(used.m_jj[side], selected[side], edges)
    return Tagged(method, scored.scores, selected, None, scored.proof, flat, Weak(columns, plan, fit))


def _vae_qr(used: Dijets, labels: npt.NDArray[np.int8], sideband: Dijets | None, config: SearchConfig) -> Tagged:
    if used.constituents is None or (sideband is not None and sideband.constituents is None):
        raise InputError("vae_qr", "events", "no constituents", "dijets with the constituents of their jets")
    if sideband is None or not len(sideband):
        raise InputError("vae_qr", "|delta eta| sideband", "no event", "events with 2.0 < |delta eta| < 2.5")
    scores = train_vae(used, sideband, config).score(used.constituents)
    return _by_regression("vae_qr", scores, used, labels, config)


def _trigger_scores(used: Dijets, config: SearchConfig) -> FloatArray:
    if used.l1_hw is None:
        raise InputError("trigger", "events", "no Level-1 words", "dijets with l1_hw, what the trigger saw of them")
    assert config.trigger is not None
    from l1ad.trigger import Trigger

    return TriggerTagger(Trigger.load(config.trigger)).score(used.l1_hw)


def _by_regression(
    name: Method, scores: FloatArray, used: Dijets, labels: npt.NDArray[np.int8], config: SearchConfig
) -> Tagged:
    """Select by thresholds that a regression of the scores against the mass has set: flat in mass."""
    teach = labels != SPECTATOR
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(4,)))
    regression = quantile.DenseQuantiles() if config.quantile.regression == "dense" else None
    learned = quantile.decorrelate(
        scores[teach],
        used.m_jj[teach],
        rng,
        ids=identities(used)[teach],
        learn=labels[teach] != 1 if config.quantile.blind else None,
        n_folds=config.quantile.folds,
        regression=regression,
    )
    category = learned.curves.categories(scores, used.m_jj)
    category[teach] = learned.category
    # A signal in the window is no fault of the thresholds: flatness is judged outside.
    outside = teach & (labels != 1)
    edges = np.quantile(used.m_jj[outside], np.linspace(0, 1, 4 * _FLATNESS_BINS + 1))
    flat = metrics.flatness(used.m_jj[outside], category[outside] >= 1, edges)
    return Tagged(name, scores, category >= 1, category, None, flat)


def train_vae(used: Dijets, sideband: Dijets, config: SearchConfig) -> vae.JetVae:
    """The autoencoder, trained on sideband jets that are drawn with the pt of the signal region's."""
    if sideband.constituents is None:
        raise InputError("vae_qr", "events", "no constituents", "dijets with the constituents of their jets")
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(3,)))
    weights = vae.sideband_weights(sideband.feature("pt"), used.feature("pt"))
    return vae.JetVae(**config.vae.model_dump()).fit(sideband.constituents, weights=weights, rng=rng)
