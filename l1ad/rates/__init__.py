"""From scores of zero bias to integer thresholds with rates, intervals and tests.

What to use when: `calibrate.calibrate` from files to ``thresholds.json``; `histogram.ScoreHistogram` with
`thresholds.ZeroBias` and `thresholds.find_threshold` for scores in memory, `thresholds.find_thresholds` where there are
many and only their thresholds are asked for; `files.load_thresholds` to use thresholds with the trigger they belong to;
`physics` for efficiencies and ROC curves, `stability` for drifts, `ladder` for several working points and their
prescales.

>>> import numpy as np
>>> from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias, find_threshold, find_thresholds
>>> histogram = ScoreHistogram()
>>> histogram.fill(np.arange(1000) // 2)  # two events at each score from 0 to 499
>>> found = find_threshold(ZeroBias(histogram, BaseRate(1000.0)), 21.0)
>>> found.threshold, found.rate.hz, found.next_threshold, found.next_rate.hz
(490, 20.0, 489, 22.0)
>>> [one.threshold for one in find_thresholds(np.arange(1000) // 2, BaseRate(1000.0), [21.0])]
[490]
"""

from l1ad.rates.files import Thresholds, load_thresholds
from l1ad.rates.histogram import ScoreHistogram
from l1ad.rates.rates import BaseRate, PileupProfile
from l1ad.rates.thresholds import RateEstimate, Threshold, TooFewEvents, ZeroBias, find_threshold, find_thresholds

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
    "find_thresholds",
    "load_thresholds",
]
