"""``thresholds.json``: the result of a calibration on disk.

Format version 2, JSON:

================  ====================================================================================================
key               meaning
================  ====================================================================================================
format            ``l1ad-thresholds``
format_version    2
trigger           ``name`` and ``hash`` of the only trigger that the integers are for
kind              ``total``, ``pure`` or ``proportional``: what the targets are rates of
interval          ``clopper-pearson`` or ``mid-p``: how intervals of rates are made
base              ``crossing_hz``, ``bunches``, ``luminosity_scale``, ``pileup`` (what zero bias was reweighted to)
sample            ``files`` (name, SHA-256), ``events``, ``sum_w``, ``effective_events``, ``weighted``, ``saturation``
menu              ``name``, ``seeds`` (name, prescale, origin, rate in Hz), ``rate_hz`` of their OR; null without one
thresholds        one entry a working point: see `l1ad.rates.thresholds.Threshold`
prescales         by name, if a budget was given
curves            rate against threshold by kind, with the 68 % interval
stability         by working point and variable: groups, their shares, chi-square and CUSUM
overlap           by working point and seed: share of the rate that the seed has too, share of pure rate it almost had
signals           by name: efficiencies, gain over the menu, area under the ROC curve, points of the curve
summary           by working point: mean, median and CVaR25 of the signal efficiencies
notes             what a user should know, in words
================  ====================================================================================================

An event fires if ``score >= threshold``, score and threshold in units of 1/16.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from l1ad.errors import InputError, TriggerError
from l1ad.io import read_json

FORMAT = "l1ad-thresholds"
FORMAT_VERSION = 2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TriggerEntry(_Strict):
    name: str
    hash: str


class _RateEntry(_Strict):
    hz: float = Field(ge=0)
    interval_68_hz: tuple[float, float]
    interval_95_hz: tuple[float, float]
    events: int = Field(ge=0)
    effective_events: float
    method: str


class _ThresholdEntry(_Strict):
    name: str
    kind: str
    target_hz: float = Field(gt=0)
    threshold: int = Field(ge=0, lt=1 << 18)
    rates: dict[str, _RateEntry]
    next_threshold: int | None
    next_rate: _RateEntry | None
    threshold_68: tuple[int, int] | None
    threshold_95: tuple[int, int] | None
    extrapolation: dict[str, float | None] | None


class _File(_Strict):
    format: str
    format_version: int
    trigger: _TriggerEntry
    kind: str
    interval: str
    base: dict[str, Any]
    sample: dict[str, Any]
    menu: dict[str, Any] | None
    thresholds: tuple[_ThresholdEntry, ...]
    prescales: dict[str, int] | None
    curves: dict[str, Any]
    stability: dict[str, Any]
    overlap: dict[str, Any]
    signals: dict[str, Any]
    summary: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Thresholds:
    """Integers by working point, and the trigger they belong to.

    Attributes
    ----------
    trigger_name, trigger_hash : of the trigger.
    kind : of the rate that was asked for.
    values : integer threshold by name.
    targets_hz : rate that was asked for by name, Hz.
    rates_hz : rate that the integer gives by name, Hz.
    content : everything in the file.
    """

    trigger_name: str
    trigger_hash: str
    kind: str
    values: dict[str, int]
    targets_hz: dict[str, float]
    rates_hz: dict[str, float]
    content: dict[str, Any]


def load_thresholds(path: str | os.PathLike[str], *, trigger_hash: str | None) -> Thresholds:
    """Read ``thresholds.json`` for use with one trigger.

    Parameters
    ----------
    path : the file, or the run folder that holds one.
    trigger_hash : hash of the trigger they are to be used with; None only to look at them.

    Raises
    ------
    TriggerError
        If they belong to another trigger: its scores mean something else.
    InputError
        If the file is not of this format.
    """
    from l1ad.configs import check_config

    file = os.path.join(path, "thresholds.json") if os.path.isdir(path) else os.fspath(path)
    value = read_json(file)
    found = value.get("format") if isinstance(value, dict) else type(value).__name__
    if found != FORMAT:
        raise InputError(file, "format", found, FORMAT)
    if value.get("format_version") != FORMAT_VERSION:
        raise InputError(file, "format_version", value.get("format_version"), FORMAT_VERSION)
    content = check_config(_File, value, where=file)
    if trigger_hash is not None and content.trigger.hash != trigger_hash:
        raise TriggerError(
            file, "trigger hash", f"{content.trigger.hash[:12]} ({content.trigger.name})", f"{trigger_hash[:12]}"
        )
    items = content.thresholds
    return Thresholds(
        content.trigger.name,
        content.trigger.hash,
        content.kind,
        {item.name: item.threshold for item in items},
        {item.name: item.target_hz for item in items},
        {item.name: item.rates[item.kind].hz for item in items},
        value,
    )
