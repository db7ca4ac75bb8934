"""Offline searches in events that an anomaly trigger kept.

What to use when: `l1ad.search.jets` reads dijets, `tagger` and `weak` score them, `folds` keeps what was seen apart
from what is scored, and `stats` turns selected spectra into p-values, limits and reaches.
"""
