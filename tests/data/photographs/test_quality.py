"""When cameras cannot be had, and what is said of them. A pair is (inliers, kind, shift)."""

from itertools import combinations

import pytest
from checks import require_pycolmap

require_pycolmap()

from radfield.data.photographs import quality as q  # noqa: E402

GOOD = (200, "UNCALIBRATED", 0.1)


class Model:
    def __init__(self, registered: int):
        self.num_reg_images = lambda: registered


def all_pairs(members, pair=GOOD) -> dict:
    return {(i, j): pair for i, j in combinations(members, 2)}


def test_components_are_those_of_the_graph():
    assert q.components({(0, 1): GOOD, (2, 3): GOOD, (1, 4): GOOD}, 6) == [[0, 1, 4], [2, 3], [5]]


@pytest.mark.parametrize(
    ("two_views", "text"),
    [
        ({}, "nothing"),
        ({(0, 1): GOOD, (2, 3): GOOD}, "nothing"),
        (all_pairs(range(6), (200, "PLANAR_OR_PANORAMIC", 0.001)), "from one place"),
        (all_pairs(range(6), (200, "PLANAR_OR_PANORAMIC", 0.1)), "100 % of the pairs look like a camera that turns"),
    ],
)
def test_matches_from_which_nothing_follows(two_views, text):
    with pytest.raises(q.StageFailed, match=text.replace("nothing", "no three of the 6")) as failed:
        q.check_matches(two_views, 6)
    assert failed.value.stage == "matching" and failed.value.advice


def test_matches_that_are_fine():
    weak = dict.fromkeys([(0, 5), (1, 5)], (16, "PLANAR_OR_PANORAMIC", 0.2))
    q.check_matches(all_pairs(range(6)) | weak, 6)


@pytest.mark.parametrize(("registered", "fails"), [(0, True), (2, True), (9, True), (10, False), (30, False)])
def test_less_than_a_third_is_no_result(registered, fails):
    model = Model(registered) if registered else None
    if not fails:
        return q.check_mapped(model, all_pairs(range(30)), 30)
    with pytest.raises(q.StageFailed, match="no cameras" if not registered else f"{registered} of 30 photographs"):
        q.check_mapped(model, all_pairs(range(30)), 30)


def test_groups_are_named_where_they_are_why():
    two_views = all_pairs(range(0, 5)) | all_pairs(range(5, 10)) | all_pairs(range(10, 20, 2))
    with pytest.raises(q.StageFailed, match="the largest of 5") as failed:
        q.check_mapped(Model(5), two_views, 20)
    assert failed.value.advice == "photographs between the groups"


def test_few_features():
    q.check_features([500, 800, 20])
    with pytest.raises(q.StageFailed, match="20 features in the median"):
        q.check_features([500, 20, 10])


def test_models_that_are_left_out_are_told_in_words():
    said = q.others_left_out
    assert said([4]) == "a separate model of 4 photographs was left out"
    assert said([5, 3]) == "2 separate models were left out, of 5 and 3 photographs"
    assert said([5, 3, 2]) == "3 separate models were left out, of 5, 3 and 2 photographs"
