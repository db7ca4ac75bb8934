"""From scores of zero bias to integer thresholds with rates, intervals and tests.

What to use when: `calibrate.calibrate` from files to ``thresholds.json``; `histogram.ScoreHistogram` with
`thresholds.ZeroBias` and `thresholds.find_threshold` for scores in memory; `files.load_thresholds` to use thresholds
with the trigger they belong to; `physics` for efficiencies and ROC curves, `stability` for drifts, `ladder` for several
working points and their prescales.

>>> import numpy as np
>>> from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias, find_threshold
>>> histogram = ScoreHistogram()
>>> histogram.fill(np.arange(1000) // 2)  # two events at each score from 0 to 499
>>> found = find_threshold(ZeroBias(histogram, BaseRate(1000.0)), 21.0)
>>> found.threshold, found.rate.hz, found.next_threshold, found.next_rate.hz
(490, 20.0, 489, 22.0)
"""

from l1ad.rates.files import Thresholds, load_thresholds
from l1ad.rates.histogram import ScoreHistogram
from l1ad.rates.rates import BaseRate, PileupProfile
from l1ad.rates.thresholds import RateEstimate, Threshold, TooFewEvents, ZeroBias, find_threshold

__all__ = [
    "BaseRate",
    "PileupProfile",
    "RateEstimate",
    "ScoreHistogram",
    "Threshold",
    "Thresholds",
    "TooFewEvents",
    "ZeroBias",
    "find_threshold",
    "load_thresholds",
]
