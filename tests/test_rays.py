"""Rays and Samples: shapes checked, packing understood."""

import pytest
import torch

from radfield.rays import Rays, Samples


def some_rays(n: int) -> Rays:
    directions = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)
    return Rays(torch.randn(n, 3), directions, torch.zeros(n), torch.full((n,), 2.0))


def test_at_moves_by_t_along_the_unit_direction():
    rays = some_rays(5)
    t = torch.linspace(0, 4, 5)
    torch.testing.assert_close((rays.at(t) - rays.origins).norm(dim=-1), t)


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True, False])])
def test_selection_takes_everything_along(index):
    rays = some_rays(4)
    part = rays[index]
    assert len(part) == 2
    for name in ("origins", "directions", "near", "far"):
        assert torch.equal(getattr(part, name), getattr(rays, name)[1:3])


def test_selection_keeps_absent_limits_absent():
    part = Rays(torch.zeros(3, 3), torch.zeros(3, 3))[:1].to(torch.float64)
    assert part.near is None and part.far is None and part.origins.dtype == torch.float64


def test_empty():
    assert len(Rays(torch.zeros(0, 3), torch.zeros(0, 3))) == 0


@pytest.mark.parametrize("directions, near", [((4, 2), (4,)), ((3, 3), (4,)), ((4, 3), (4, 1))])
def test_wrong_shapes_are_named(directions, near):
    with pytest.raises(ValueError, match=r"Rays\.(directions|near) has shape .*; it must be"):
        Rays(torch.zeros(4, 3), torch.zeros(directions), torch.zeros(near))


def packed(ray_start) -> Samples:
    m = int(ray_start[-1])
    return Samples(torch.zeros(m, 3), torch.zeros(m, 3), torch.zeros(m), torch.zeros(m), ray_start)


def test_ray_index_inverts_the_packing_with_empty_rays():
    ray_start = torch.tensor([0, 0, 2, 2, 5, 5], dtype=torch.int32)
    samples = packed(ray_start)
    assert len(samples) == 5 and samples.ray_count == 5
    assert samples.ray_index().tolist() == [1, 1, 3, 3, 3]


def test_no_rays():
    samples = packed(torch.zeros(1, dtype=torch.int32))
    assert samples.ray_count == 0 and samples.ray_index().shape == (0,)


def test_ray_start_must_be_int32():
    with pytest.raises(ValueError, match=r"ray_start is torch.int64 \[2\]; it must be int32"):
        packed(torch.tensor([0, 1]))
