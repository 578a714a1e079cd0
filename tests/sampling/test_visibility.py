"""Visibility of cells: no cell that a camera sees is missing, and most of the others are found."""

import pytest
import torch
from test_camera_rays import cameras_with

from radfield.cameras import Cameras, look_at
from radfield.sampling import occupancy_reference as reference
from radfield.sampling.occupancy import Config, OccupancyGrid
from radfield.sampling.visibility import seen_cells


@pytest.mark.parametrize(
    ("lens", "many"), [("pinhole", False), ("opencv", False), ("fisheye", False), ("pinhole", True), ("mixed", True)]
)
def test_no_cell_on_a_ray_is_given_up(lens, many, monkeypatch):
    if many:
        monkeypatch.setattr("radfield.sampling.visibility.MANY_VIEWS", 1)
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


def narrow(views: int) -> Cameras:
    """Cameras with a field of view of 53 degrees at one place near a face of the cube, that look out of it."""
    pose = look_at(torch.tensor([[0.5, 0.5, 0.6]]), torch.tensor([0.5, 0.5, 2.0]), torch.tensor([0.0, 1.0, 0.0]))
    lens = torch.tensor([[100.0, 100.0]]), torch.tensor([[50.0, 50.0]]), torch.tensor([[100, 100]]), torch.zeros(1, 6)
    return Cameras(*(value.repeat(views, *(1,) * (value.ndim - 1)) for value in (pose, *lens)))


def test_many_views_keep_little_more(monkeypatch):
    exact = seen_cells(narrow(3), 64, 2)
    monkeypatch.setattr("radfield.sampling.visibility.MANY_VIEWS", 2)
    found = seen_cells(narrow(3), 64, 2)
    assert bool((found | ~exact).all())
    assert exact.float().mean() < found.float().mean() < 3 * exact.float().mean() < 0.5


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
