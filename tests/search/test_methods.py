"""The methods by name: what the configuration of the autoencoder's thresholds changes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from l1ad.search import methods
from l1ad.search.config import SearchConfig
from l1ad.search.jets import WINDOWS, Dijets


def test_a_blind_regression_leaves_the_window_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    mass = 2000.0 * rng.uniform(size=n) ** (-1 / 5.5)
    jets = np.zeros((n, 2, 4), np.float32)
    jets[:, :, 0] = mass[:, None] / 2
    events = Dijets(
        jets, ("pt", "eta", "phi", "m"), mass, np.zeros(n, np.int8), np.ones(n), np.ones((n, 2, 1, 3), np.float32)
    )
    labels = WINDOWS["B3"].labels(mass)
    inside = labels == 1
    scores = mass / 1000.0 * rng.exponential(1.0, n)
    # A third of the window is far beyond everything else.
    odd = inside & (rng.uniform(size=n) < 0.33)
    scores[odd] = 1000.0
    monkeypatch.setattr(methods, "train_vae", lambda *_: SimpleNamespace(score=lambda _: scores))

    def ordinary_kept(blind: bool) -> float:
        config = SearchConfig.model_validate({"method": "vae_qr", "quantile": {"folds": 5, "blind": blind}})
        tagged = methods.tag(events, labels, config, sideband=events[:10])
        assert tagged.selected[odd].all()
        return float(np.mean(tagged.selected[inside & ~odd]))

    assert ordinary_kept(True) == pytest.approx(0.1, abs=0.025)
    assert ordinary_kept(False) < 0.06
