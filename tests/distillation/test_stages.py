"""Stages: their ends, weights, and what is left of them."""

import itertools

import pytest

from radfield.distillation.stages import PVD, WITHOUT_STAGES, Stage, checked, for_names, stage_at
from radfield.errors import BadInput

EPSILON = 1e-9


def test_stages_are_those_published():
    assert [round(30_000 * stage.until) for stage in PVD] == [2000, 5000, 30_000]
    names = [set(stage.weights) for stage in PVD]
    assert names == [{"features"}, {"features", "density", "color"}, {"features", "density", "color", "rendered"}]
    assert PVD[2].weights == {"features": 0.002, "density": 0.002, "color": 0.002, "rendered": 1.0}


def test_a_stage_begins_where_the_last_one_ends():
    for before, after in itertools.pairwise(PVD):
        assert stage_at(PVD, before.until - EPSILON) is before
        assert stage_at(PVD, before.until) is after
    assert stage_at(PVD, 0.0) is PVD[0] and stage_at(PVD, 1.0) is PVD[2]


def test_features_fade_and_nothing_else():
    early, late = PVD[2].at(0), PVD[2].at(1000)
    assert early == PVD[2].weights
    assert late["features"] == pytest.approx(0.002 * 0.995**1000) and late["features"] < 2e-5
    assert {k: v for k, v in late.items() if k != "features"} == {k: v for k, v in early.items() if k != "features"}


def test_stages_without_anything_to_compare_are_skipped():
    kept = for_names(PVD, ["density", "color", "rendered"])
    assert [stage.until for stage in kept] == [1 / 6, 1.0]
    assert stage_at(kept, 0.0).weights == {"density": 0.002, "color": 0.002}
    assert for_names(WITHOUT_STAGES, ["rendered"])[0].weights == {"rendered": 1.0}


@pytest.mark.parametrize("ends", [(), (0.5,), (0.5, 0.3, 1.0), (0.0, 1.0), (0.5, 2.0)])
def test_stages_that_do_not_rise_to_the_end_are_refused(ends):
    with pytest.raises(BadInput, match="rising from above 0 to 1"):
        checked(tuple(Stage(end, {"color": 1.0}) for end in ends))


def test_unknown_names_are_refused():
    with pytest.raises(BadInput, match="compares 'colour'; the rule: features, density"):
        checked((Stage(1.0, {"colour": 1.0}),))
