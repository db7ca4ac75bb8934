"""Event displays: explanations against scoring by hand."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad import Events, Trigger
from l1ad.errors import InputError
from l1ad.events.layout import get_layout
from l1ad.report.display import draw, explain, most_anomalous, neighbours, remove_object

TYPES = {
    "input": "ap_fixed<14,11,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "result": "ap_fixed<18,14,RND_CONV,SAT>",
}


@pytest.fixture(scope="module")
def trigger():
    """Score = (2 pt of the first jet + 1 pt of the second, in GeV)^2."""
    weights = np.zeros((57, 1), int)
    weights[27], weights[30] = 16, 8
    scaling = {"offset": np.zeros(57), "shift": np.zeros(57, int)}
    return Trigger.from_layers([weights], [np.zeros(1, int)], TYPES, scaling)


@pytest.fixture(scope="module")
def events():
    hw = np.zeros((3, 19, 3), int)
    hw[0, 9:11] = [[20, 10, 40], [10, -10, 100]]
    hw[1, 9] = [40, 0, 0]
    hw[1, 0] = [9, 0, 143]
    hw[2, 9:11] = [[20, 10, 40], [12, -10, 100]]
    return Events.from_arrays(hw, menu_bits={"A": [1, 0, 0], "B": [0, 0, 1]}, n_pv=[50, 60, 70])


def test_removal_and_sensitivity_are_differences_of_scores(trigger, events):
    view = explain(trigger, events, 0)
    # 2 x 10 + 5 = 25 GeV; without the first jet the second moves up: 2 x 5 = 10; without the second: 20.
    assert view.value == 25**2
    removal = {o.slot: o.removal for o in view.objects}
    assert removal == {"jet1": 10**2 - 25**2, "jet2": 20**2 - 25**2}
    jet1 = view.objects[0]
    assert jet1.sensitivity == {"pt": 27.0**2 - 25**2, "eta": 0.0, "phi": 0.0}
    assert (jet1.pt, jet1.eta) == (10.0, pytest.approx(0.435))
    assert view.fired == ("A",)
    assert view.columns == {"n_pv": 50.0}


def test_removing_closes_the_gap_within_the_type_only():
    layout = get_layout("cms_ugt")
    hw = np.arange(57, dtype=np.int16).reshape(19, 3)
    result = remove_object(hw, layout, 2)  # the second e/gamma
    assert np.array_equal(result[[0, 1]], hw[[0, 1]])
    assert np.array_equal(result[[2, 3]], hw[[3, 4]])
    assert not result[4].any()
    assert np.array_equal(result[5:], hw[5:])


def test_neighbours_and_order(trigger, events):
    assert most_anomalous(trigger, events, 2).tolist() == [1, 2]
    near = neighbours(trigger, events, 0, events, k=2)
    assert [n[0] for n in near] == [0, 2]
    assert near[0][2] == 0.0
    assert near[1][2] == pytest.approx(1.0)  # 1 GeV in one scaled input


def test_figure_has_its_labels(trigger, events):
    figure = draw(explain(trigger, events, 1))
    text = " ".join(t.get_text() for a in figure.axes for t in [a.title, a.xaxis.label, a.yaxis.label])
    assert "GeV" in text
    assert "rad" in text
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ETmiss", "jet"]
    removed, moved = figure.axes[2:]
    assert "removed" in removed.get_xlabel()
    assert [t.get_text() for t in removed.get_yticklabels()] == ["met  4.5 GeV", "jet1  20 GeV"]
    assert "moved" in moved.get_xlabel()
    assert len(moved.get_legend().get_texts()) == 3


def test_moved_features_are_drawn_at_their_change(trigger, events):
    """The circle of jet1 lies at the change of the score for 10 % more pt."""
    view = explain(trigger, events, 0)
    moved = draw(view).axes[3]
    circles = next(line for line in moved.lines if line.get_marker() == "o")
    # Drawn from the weakest to the strongest removal: jet1 (525 of 625) is last.
    assert circles.get_xdata()[-1] == view.objects[0].sensitivity["pt"] == 27.0**2 - 25**2


def test_no_such_event(trigger, events):
    with pytest.raises(InputError, match="0 to 2"):
        explain(trigger, events, 3)
