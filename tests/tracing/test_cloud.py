"""Clouds of points: the nearest one, what is left out, what is refused."""

import pytest
import torch

from radfield import backend
from radfield.errors import BadInput, RadfieldWarning
from radfield.tracing.cloud import FEWEST, Cloud, nearest_index


def points(count, seed=0):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e5], ids=str)
@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_the_nearest_point_is_that_of_brute_force(scale, name):
    with backend.use(name):
        cloud = Cloud.of(scale * points(300))
        x = (scale * (1.4 * points(500, 1) - 0.2)).float()
        distance, point = cloud.nearest(x)
        assert torch.equal(cloud.points[nearest_index(cloud.points, x)].float(), point)
    exact = torch.cdist(x.double(), cloud.points).amin(-1)
    assert torch.allclose(distance.double(), exact, rtol=1e-5, atol=1e-6 * scale)
    assert torch.allclose((x - point).norm(dim=-1), distance)


def test_the_spacing_of_an_even_grid():
    side = torch.arange(40, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side, torch.zeros(1, dtype=torch.float64))
    assert Cloud.of(0.25 * grid).spacing == pytest.approx(0.25, rel=0.1)


def test_what_is_left_out_is_said():
    many = points(100)
    many[3, 1], many[7, 0], many[11] = torch.nan, torch.inf, many[10]
    cloud = Cloud.of(many)
    assert (len(cloud.points), cloud.not_finite, cloud.repeated) == (97, 2, 1)
    with pytest.warns(RadfieldWarning) as said:
        cloud.announce("scan one.xyz")
    assert [str(each.message) for each in said] == [
        "scan one.xyz: 2 of 100 points are not finite, and left out",
        "scan one.xyz: 1 of 100 points are repeated, and left out",
    ]


def test_bad_clouds_are_one_line():
    for bad, rule in (
        (points(FEWEST - 1), f"it has {FEWEST - 1} points; the rule: at least {FEWEST}"),
        (points(10).repeat(20, 1), "10 points \\(0 not finite, 190 repeated\\); the rule"),
        (torch.full((200, 3), torch.nan), "0 points \\(200 not finite, 0 repeated\\)"),
        (torch.linspace(0, 1, 200)[:, None] * torch.tensor([1.0, 2.0, 3.0]), "on one line"),
    ):
        with pytest.raises(BadInput, match=rule):
            Cloud.of(bad)
