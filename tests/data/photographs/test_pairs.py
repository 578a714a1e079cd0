"""Laws of the choice of pairs."""

import numpy as np
import pytest

from radfield.data.photographs import pairs as p


def features(rng, groups: list[list[int]], shared: int = 60) -> list:
    """Per photograph 300 descriptors; the members of a group share `shared` of them, up to noise, at large scale."""
    count = 1 + max(i for group in groups for i in group)
    found = [rng.integers(0, 120, (300, 128)).astype(np.uint8) for _ in range(count)]
    scales = [rng.uniform(1, 2, 300) for _ in range(count)]
    for group in groups:
        common = rng.integers(0, 120, (shared, 128))
        for i in group:
            at = rng.permutation(300)[:shared]
            found[i][at] = np.clip(common + rng.normal(0, 2, common.shape), 0, 255)
            scales[i][at] += 5
    return list(zip(found, scales, strict=True))


@pytest.mark.parametrize("likeness", [p.preemptive_matches, p.vlad_likeness])
def test_photographs_of_one_group_are_likelier(likeness):
    groups = [list(range(0, 10)), list(range(10, 20))]
    table = likeness(features(np.random.default_rng(0), groups))
    assert np.array_equal(table, table.T)
    same = np.kron(np.eye(2), np.ones((10, 10))).astype(bool) & ~np.eye(20, dtype=bool)
    assert table[same].min() > table[~same & ~np.eye(20, dtype=bool)].max()


def test_preemptive_matches_counts_what_is_shared():
    table = p.preemptive_matches(features(np.random.default_rng(0), [[0, 1], [2]], shared=60))
    assert table[0, 1] == 60 and table[0, 2] <= 2


def test_few_photographs_are_matched_in_all_pairs():
    rng = np.random.default_rng(0)
    assert p.choose_pairs(features(rng, [[0, 1], [2, 3, 4]]), ["a", "c", "x", "y", "z"]) == p.all_pairs(5)


def test_choice_connects_everything_and_stays_linear():
    rng, count = np.random.default_rng(0), 60
    chosen = p.choose_pairs(
        features(rng, [list(range(0, 30)), list(range(30, 60))]), [f"{x}" for x in rng.random(count)]
    )
    assert all(0 <= i < j < count for i, j in chosen) and len(set(chosen)) == len(chosen)
    assert len(chosen) <= count * (p.PARTNERS + 1)
    reached = {0}
    for _ in range(count):
        reached |= {b for i, j in chosen for a, b in ((i, j), (j, i)) if a in reached}
    assert len(reached) == count


def test_spanning_tree_has_the_greatest_sum():
    weights = np.array([[0, 5, 1, 2], [5, 0, 4, 1], [1, 4, 0, 3], [2, 1, 3, 0]])
    assert p.spanning_tree(weights) == {(0, 1), (1, 2), (2, 3)}


def test_sequences_add_neighbours_in_time():
    assert {(0, 1), (0, 6), (0, 8), (5, 13)} <= p.neighbours(20, 6)
    assert all(0 <= i < j < 20 for i, j in p.neighbours(20, 6))


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        (["frame_0001.jpg", "frame_0002.jpg", "frame_0003.jpg"], True),
        (["0001.jpg", "0002.jpg", "0004.jpg", "0009.jpg", "0010.jpg"], True),
        (["IMG_1.jpg", "IMG_50.jpg", "IMG_200.jpg"], False),
        (["a1.jpg", "b2.jpg", "c3.jpg"], False),
        (["front.jpg", "left.jpg", "right.jpg"], False),
    ],
)
def test_which_names_are_a_sequence(names, is_one):
    assert p.is_sequence(names) == is_one


def test_matches_are_mutual_and_pass_the_ratio_test():
    x = np.eye(4, dtype=np.float32)
    assert p.count_matches(x @ x.T) == 4
    twice = np.concatenate((x, x[:1]))  # two equally good partners for the first
    assert p.count_matches(x @ twice.T) == 3
    assert p.count_matches(np.ones((1, 1), dtype=np.float32)) == 0
