"""Errors of the offline searches that are not plain bad input.

`FitError` for a fit that did not converge after its retries, `LeakError` for an event scored by a model that saw it.
"""

from __future__ import annotations

from l1ad.errors import CheckFailed


class FitError(CheckFailed):
    """A fit that did not converge, with what was tried: it is reported, never replaced by a number."""


class LeakError(CheckFailed):
    """An event that a model had seen, in training or in model selection, was scored by that model."""
