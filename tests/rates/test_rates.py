"""Base rates, luminosities and pile-up profiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.rates.rates import MAX_PILEUP, BaseRate, PileupProfile, luminosity_scale, pileup_bin, pileup_factors


def test_2544_bunches_have_the_published_rate() -> None:
    base = BaseRate.from_bunches(2544)
    assert base.hz == pytest.approx(28_608.8064e3, rel=1e-12)
    # Fractions of zero bias that published rates stand for.
    for target, fraction in ((250, 8.74e-6), (1000, 3.50e-5), (5000, 1.75e-4), (10_000, 3.50e-4)):
        assert target / base.hz == pytest.approx(fraction, rel=2e-3)


def test_other_ways_to_the_same_rate() -> None:
    assert BaseRate.from_filling_scheme("25ns_2556b_2544_2215_2330_144bpi_14inj") == BaseRate.from_bunches(2544)
    assert BaseRate.from_filling_scheme("25ns_2460b_2448_1737_1735_180bpi_16inj_2INDIV").bunches == 2448
    assert BaseRate(1000.0, luminosity_scale(2.2, 2.0)).hz == pytest.approx(1100.0)
    assert luminosity_scale(None, None) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BaseRate.from_bunches(0), "bunches: found 0, expected 1 to 3564"),
        (lambda: BaseRate.from_bunches(4000), "bunches: found 4000"),
        (lambda: BaseRate(float("nan")), "crossing rate: found nan"),
        (lambda: BaseRate(0.0), "crossing rate: found 0.0"),
        (lambda: BaseRate.from_filling_scheme("lots of bunches"), "filling scheme: found lots of bunches"),
        (lambda: luminosity_scale(float("nan"), 2.0), "target luminosity: found nan"),
        (lambda: luminosity_scale(2.0, float("nan")), "data luminosity: found nan"),
        (lambda: luminosity_scale(2.0, 0.0), "data luminosity: found 0.0"),
        (lambda: luminosity_scale(2.0, None), "data luminosity: found nothing"),
        (lambda: BaseRate(1000.0).check_target(1001.0), "target: found 1001 Hz, expected at most the crossing rate"),
        (lambda: BaseRate(1000.0).check_target(float("nan")), "target: found nan Hz"),
        (lambda: BaseRate(1000.0).check_target(0.0), "target: found 0.0 Hz"),
        (lambda: PileupProfile.from_gaussian(-1, 3), "mean: found -1"),
        (lambda: PileupProfile.from_gaussian(50, float("inf")), "sigma: found inf"),
        (lambda: PileupProfile.from_histogram([0.0, -1.0]), "NaN, negative or only zeros"),
        (lambda: PileupProfile.from_histogram([0.0, 0.0]), "NaN, negative or only zeros"),
    ],
)
def test_what_cannot_be(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)


def test_profiles() -> None:
    profile = PileupProfile.from_gaussian(52, 8)
    values = np.arange(MAX_PILEUP + 1)
    mean = float(values @ profile.probability)
    assert profile.probability.sum() == pytest.approx(1.0)
    assert mean == pytest.approx(52, abs=1e-3)
    assert np.sqrt(float((values - mean) ** 2 @ profile.probability)) == pytest.approx(8, rel=1e-3)
    assert np.flatnonzero(PileupProfile.parse("52,0").probability).tolist() == [52]


def test_a_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pileup.csv"
    path.write_text("pileup,height\n# a comment\n50, 1\n51\t3\n\n")
    profile = PileupProfile.parse(str(path))
    assert profile.probability[[50, 51]].tolist() == [0.25, 0.75]
    for text, message in (("50,x\n", "line 1: found 50,x"), ("50.5 1\n", "found 50.5"), ("# none\n", "no numbers")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            PileupProfile.read(path)
    with pytest.raises(InputError, match="not readable"):
        PileupProfile.parse(str(tmp_path / "absent.csv"))


def test_reweighting_gives_the_profile() -> None:
    rng = np.random.default_rng(1)
    n_pv = rng.poisson(52, 50_000)
    source = np.bincount(pileup_bin(n_pv), minlength=MAX_PILEUP + 1).astype(float)
    target = PileupProfile.from_gaussian(56, 5)
    factors, uncovered = pileup_factors(target, source)
    weight = factors[pileup_bin(n_pv)]
    got = np.bincount(n_pv, weight, minlength=MAX_PILEUP + 1) / weight.sum()
    expected = np.where(source > 0, target.probability, 0.0)
    assert got == pytest.approx(expected / expected.sum(), abs=1e-12)
    assert uncovered == pytest.approx(target.probability[source == 0].sum())
    with pytest.raises(InputError, match="no events under 100 % of the profile"):
        pileup_factors(PileupProfile.from_gaussian(200, 3), source)
