"""The joint tail score: its tables against counting, its integers against its floats."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad import Events
from l1ad.errors import InputError
from l1ad.scores import to_integer
from l1ad.trigger.tail import U_TYPE, Family, JointTail
from l1ad.trigger.widths import prove


def zero_bias(n: int, seed: int, layout: str = "cms_ugt") -> Events:
    rng = np.random.default_rng(seed)
    hw = np.zeros((n, 19, 3), dtype=np.int64)
    for slots, mean in ((slice(0, 1), 20), (slice(1, 5), 8), (slice(5, 9), 1), (slice(9, 19), 25)):
        width = slots.stop - slots.start
        pt = np.sort(rng.exponential(mean, (n, width)).astype(int), axis=1)[:, ::-1]
        hw[:, slots, 0] = np.minimum(pt, 511)
    return Events.from_arrays(hw, layout=layout, weight=rng.uniform(0.5, 1.5, n))


@pytest.fixture(scope="module")
def tail():
    return JointTail.fit(zero_bias(20_000, 1))


def test_u_is_minus_the_log_of_the_weighted_fraction(tail):
    events = zero_bias(20_000, 1)
    met = events.hw[:, 0, 0]
    family = next(f for f in tail.families if f.name == "met")
    for cut in (5, 20, 60):
        fraction = events.weight[met >= cut].sum() / events.weight.sum()
        assert family.u(np.array([cut]))[0] == pytest.approx(-np.log(fraction), rel=1e-12)


def test_u_never_falls_and_goes_on_beyond_the_data(tail):
    for family in (*tail.families, tail.excess):
        top = 40_000 if family.coarse else family.fine.max_code
        u = family.u(np.arange(0, top, 7))
        assert (np.diff(u) >= -1e-12).all()
        assert u[0] == 0.0
    met = next(f for f in tail.families if f.name == "met")
    assert met.u(np.array([4000]))[0] > met.u(np.array([1000]))[0] > 12


def test_extrapolated_power_law_has_the_slope_of_the_spectrum():
    """P(X >= x) = (1 + x)^-3 gives u = 3 ln(1 + x), also where there is no event."""
    rng = np.random.default_rng(3)
    x = np.floor(rng.uniform(size=200_000) ** (-1 / 3) - 1).astype(np.int64)
    family = Family.fit("x", np.array([0]), x, 1000, np.ones(len(x)))
    assert family.u(np.array([900]))[0] == pytest.approx(3 * np.log1p(900), rel=0.1)


def test_integer_trigger_is_the_float_score_within_its_steps(tail):
    events = zero_bias(3000, 2)
    trigger = tail.trigger()
    u = tail.tails(events)
    got = trigger.score(events)
    # Each u is rounded once or twice (fine and coarse table), each square is cut to 1/16.
    step = 2 * U_TYPE.lsb
    low = to_integer(np.maximum(u - step, 0) ** 2 @ np.ones(u.shape[1])) - u.shape[1]
    high = to_integer((u + step) ** 2 @ np.ones(u.shape[1])) + 1
    assert (got >= low).all()
    assert (got <= high).all()
    assert np.corrcoef(got, tail.score(events))[0, 1] > 0.999


def test_program_is_proven(tail):
    report = prove(tail.program())
    assert report.proven
    assert tail.program().latents == "tails"


def test_other_layouts_work():
    rng = np.random.default_rng(4)
    hw = np.zeros((2000, 15, 3), dtype=np.int64)
    for group, width in ((slice(0, 6), 6), (slice(6, 10), 4), (slice(10, 14), 4), (slice(14, 15), 1)):
        hw[:, group, 0] = np.sort(rng.integers(0, 200, (2000, width)), axis=1)[:, ::-1]
    events = Events.from_arrays(hw, layout="atlas_l1topo")
    trigger = JointTail.fit(events).trigger()
    assert trigger.score(events).max() > trigger.score(events).min()


def test_too_few_or_negative_events_are_refused():
    with pytest.raises(InputError, match="1000 at least"):
        JointTail.fit(zero_bias(10, 1))
    events = zero_bias(2000, 1).with_columns(weight=-np.ones(2000))
    with pytest.raises(InputError, match="weights"):
        JointTail.fit(events)
