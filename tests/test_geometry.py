"""SceneTransform is a similarity and a group element; intersect_box agrees with membership of points."""

import json
import math

import pytest
import torch

from radfield.cameras import Cameras, look_at
from radfield.errors import BadInput
from radfield.geometry import SceneTransform, cascade_box, intersect_box

C, S = math.cos(0.7), math.sin(0.7)
TRANSFORM = SceneTransform(0.33, ((C, -S, 0), (S, C, 0), (0, 0, 1)), (0.5, -0.2, 0.1))


def points(n: int = 50) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_points_follow_the_formula():
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    expected = [[0.33 * (C - 2 * S) + 0.5, 0.33 * (S + 2 * C) - 0.2, 0.33 * 3 + 0.1]]
    torch.testing.assert_close(TRANSFORM.points(x), x.new_tensor(expected))


def test_inverse_undoes():
    x = points()
    torch.testing.assert_close(TRANSFORM.inverse().points(TRANSFORM.points(x)), x)
    torch.testing.assert_close(TRANSFORM.inverse().directions(TRANSFORM.directions(x)), x)
    torch.testing.assert_close(TRANSFORM.inverse().inverse().points(x), TRANSFORM.points(x))


def test_distances_scale_and_directions_keep_length():
    x = points()
    torch.testing.assert_close(torch.pdist(TRANSFORM.points(x)), 0.33 * torch.pdist(x))
    torch.testing.assert_close(TRANSFORM.directions(x).norm(dim=-1), x.norm(dim=-1))


def test_cameras_move_with_the_points_they_see():
    x = points()
    pose = look_at(x.new_tensor([[4.0, 1, 2]]), x.new_tensor([0.0, 0, 0]), x.new_tensor([0.0, 0, 1]))
    lens = torch.tensor([[100.0, 110]], dtype=torch.float64)
    cameras = Cameras(pose, lens, lens / 2, torch.tensor([[100, 110]]), torch.zeros(1, 6, dtype=torch.float64))
    view = torch.zeros(len(x), dtype=torch.long)
    before, depth = cameras.project(view, x)
    after, scene_depth = TRANSFORM.cameras(cameras).project(view, TRANSFORM.points(x))
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(scene_depth, 0.33 * depth)


def test_json_round_trip():
    assert SceneTransform.from_dict(json.loads(json.dumps(TRANSFORM.to_dict()))) == TRANSFORM


@pytest.mark.parametrize(
    "change, rule",
    [
        ({"scale": 0.0}, "scale is 0.0; it must be a positive number"),
        ({"scale": math.nan}, "must be a positive number"),
        ({"offset": [0, math.inf, 0]}, "it must be finite"),
        ({"offset": [0, 0]}, "offset must have 3 numbers"),
        ({"rotation": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]}, "it must be a rotation"),
        ({"rotation": [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]}, "it must be a rotation"),
        ({"rotation": "no"}, "it needs scale, rotation"),
        ({"scale": None}, "it needs scale, rotation"),
    ],
)
def test_from_dict_says_what_is_wrong(change, rule):
    with pytest.raises(BadInput, match=rule):
        SceneTransform.from_dict(TRANSFORM.to_dict() | change)


def test_cascades_double_around_the_unit_cube():
    assert [cascade_box(k) for k in range(3)] == [(0, 1), (-0.5, 1.5), (-1.5, 2.5)]


@pytest.mark.parametrize(
    "origin, direction, near, far",
    [
        ((-1, 0.5, 0.5), (1, 0, 0), 1, 2),
        ((2, 0.5, 0.5), (-1, 0, 0), 1, 2),
        ((0.5, 0.5, 0.5), (0, 0, 1), 0, 0.5),
        ((2, 0.5, 0.5), (1, 0, 0), 0, 0),  # behind
        ((-1, 2, 0.5), (1, 0, 0), 0, 0),  # beside, parallel to the faces it misses
        ((-1, 0, 0.5), (1, 0, 0), 1, 2),  # in the plane of a face, which belongs to the box
        ((-1, 1, 1), (1, 0, 0), 1, 2),  # along an edge
        ((0, 0, 0), (1, 0, 0), 0, 1),
        ((-1, 1, 0.5), (math.sqrt(0.5), math.sqrt(0.5), 0), 0, 0),  # passes beside the edge
        ((1, 0.5, 0.5), (1, 0, 0), 0, 0),  # leaves from a face
    ],
)
def test_box_exact(origin, direction, near, far):
    found = intersect_box(torch.tensor([origin]).float(), torch.tensor([direction]).float(), 0.0, 1.0)
    assert [v.item() for v in found] == pytest.approx([near, far], abs=1e-6)


def test_box_interval_is_where_points_are_inside():
    origins = 2 * points(400)
    directions = torch.nn.functional.normalize(points(800)[400:], dim=-1)
    directions[::7, 1] = 0
    low, high = torch.tensor([-1.0, -0.5, -2.0]), torch.tensor([1.5, 0.5, 0.25])
    near, far = intersect_box(origins, directions, low, high)
    assert (near >= 0).all() and (near <= far).all()
    t = torch.linspace(1e-3, 9, 400, dtype=torch.float64)[:, None, None]
    x = origins + t * directions
    inside = ((x > low) & (x < high)).all(-1)
    within = (t[..., 0] > near) & (t[..., 0] < far)
    assert (inside == within).all()
    assert 0.05 < (near < far).double().mean() < 0.95


def test_box_of_no_rays():
    near, far = intersect_box(torch.zeros(0, 3), torch.zeros(0, 3), 0, 1)
    assert near.shape == far.shape == (0,)
