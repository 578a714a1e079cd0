"""Visibility of cells: no cell that a camera sees is missing, and most of the others are found."""

import pytest
import torch
from test_camera_rays import cameras_with

from radfield.cameras import Cameras, look_at
from radfield.sampling import occupancy_reference as reference
from radfield.sampling.occupancy import Config, OccupancyGrid


@pytest.mark.parametrize("lens", ["pinhole", "opencv", "fisheye"])
def test_no_cell_on_a_ray_is_given_up(lens):
    cameras = cameras_with(lens, views=2)
    grid = OccupancyGrid(Config(resolution=32, cascades=3))
    grid.mark_invisible(cameras)
    generator = torch.Generator().manual_seed(0)
    view = torch.randint(2, (20000,), generator=generator)
    rays = cameras.rays(view, torch.rand(20000, 2, generator=generator) * torch.tensor([320.0, 240.0]))
    x = rays.at(torch.rand(20000, generator=generator) * 5)
    x = x[((x - 0.5).abs() < 2).all(-1)]
    for k in range(3):
        inside = x[((x - 0.5).abs() < 2.0 ** (k - 1)).all(-1)]
        cell = reference.cell_of(inside, torch.full((len(inside),), k), 32)
        assert (grid.values[cell] > 0).all()


def test_cells_outside_of_the_images_are_given_up():
    pose = look_at(torch.tensor([[0.5, 0.5, 0.9]]), torch.tensor([0.5, 0.5, 2.0]), torch.tensor([0.0, 1.0, 0.0]))
    lens = torch.tensor([[100.0, 100.0]]), torch.tensor([[50.0, 50.0]]), torch.tensor([[100, 100]]), torch.zeros(1, 6)
    grid = OccupancyGrid(Config(resolution=64))
    grid.mark_invisible(Cameras(pose, *lens))
    x = torch.rand(50000, 3, generator=torch.Generator().manual_seed(1))
    seen = grid.values[reference.cell_of(x, torch.zeros(len(x), dtype=torch.long), 64)] > 0
    depth, across = x[:, 2] - 0.9, (x[:, :2] - 0.5).abs().amax(-1)
    margin = 6 / 64  # the camera's surroundings count as seen
    assert not seen[(depth < -margin) | (across > 0.5 * depth.clamp_min(0) + margin)].any()
    assert seen[(depth > 0) & (across < 0.5 * depth)].all()
    assert grid.occupied_fraction() < 0.02
    before = grid.values.clone()
    grid.update(lambda x: x[:, 0] * 1000, uniform=grid.config.cells)
    assert torch.equal(grid.values < 0, before < 0)
