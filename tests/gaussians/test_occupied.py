"""Cells that Gaussians can be seen in."""

import pytest
import torch

from radfield.gaussians.occupied import occupied, take_occupancy
from radfield.gaussians.scene import GaussianScene, covariances
from radfield.sampling import occupancy


def some(count, scale, opacity=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return GaussianScene(
        torch.rand(3, count, generator=generator),
        torch.randn(4, count, generator=generator),
        scale + 0.7 * torch.randn(3, count, generator=generator),
        torch.full((count,), opacity),
        torch.zeros(3, count),
        torch.zeros(0, count),
    )


def alphas(gaussians, x):
    """[M, G] of each Gaussian at points x [M, 3]."""
    offset = (x[:, None] - gaussians.means.T).double()
    inverse = torch.linalg.inv(covariances(gaussians).double())
    return gaussians.opacity_logits.sigmoid() * torch.einsum("mgi,gij,mgj->mg", offset, inverse, offset).mul(-0.5).exp()


@pytest.mark.parametrize("scale", [-6.0, -4.0, -1.5])  # less than a cell, some cells, and half of the cube
def test_no_visible_point_is_missed(scale):
    gaussians = some(40, scale)
    found = occupied(gaussians, 32, 0.0, 1.0)
    x = torch.cat([torch.rand(20_000, 3), gaussians.means.T + 0.01 * torch.randn(40, 3)]).clamp(0, 0.999)
    seen = (alphas(gaussians, x) >= 1 / 255).any(1)
    assert seen.any() and found[tuple((32 * x[seen]).long().T)].all()


def test_cells_far_from_all_are_empty():
    gaussians = some(12, -4.5)
    found = occupied(gaussians, 64, 0.0, 1.0)
    assert 0 < found.float().mean() < 0.2
    centre = (found.nonzero() + 0.5) / 64
    larger = gaussians.map(lambda v: v)
    reach = 3.4 * 2**0.5 * larger.log_scales.exp().amax(0) + 2 * 8 / 64  # in the coarsest cells that are used
    assert ((centre[:, None] - gaussians.means.T).norm(dim=2) <= reach).any(1).all()


def test_what_is_never_drawn_is_nowhere():
    gaussians = some(5, -2.0, opacity=-9.0)
    assert not occupied(gaussians, 16, 0.0, 1.0).any()
    broken = some(5, -2.0)
    broken.means[0] = torch.nan
    assert not occupied(broken, 16, 0.0, 1.0).any()


def test_a_grid_gives_up_what_is_empty_in_each_cascade():
    grid = occupancy.OccupancyGrid(occupancy.Config(resolution=32, cascades=2))
    gaussians = some(20, -4.0)
    take_occupancy(grid, gaussians)
    grid.update(lambda x: torch.full((len(x),), 100.0), uniform=grid.config.cells, occupied=0)
    low, high = grid.occupied_box()
    assert 0 < grid.occupied_fraction() < 0.5
    assert (low < gaussians.means.amin(1)).all() and (high > gaussians.means.amax(1)).all()
    known = grid.values[32**3 :] >= 0  # of the outer cascade
    assert known.any() and not known.all()
