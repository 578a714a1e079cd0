"""Cells that masks say are empty: those outside of the visual hull."""

import torch

from radfield.cameras import Cameras, look_at
from radfield.sampling.occupancy_reference import coordinates_of
from radfield.sampling.visual_hull import AGREEING, empty_cells

RADIUS, SIDE, PIXELS = 0.2, 32, 96


def views_of_a_ball():
    """Six cameras along the axes around the cube's middle, and their masks of the ball."""
    axes = torch.cat((torch.eye(3), -torch.eye(3))).double()
    centre = torch.full((3,), 0.5, dtype=torch.float64)
    pose = torch.stack([look_at(centre + 1.5 * a, centre, a.roll(1)) for a in axes]).float()
    whole = torch.full((6, 2), PIXELS / 2)
    cameras = Cameras(pose, torch.full((6, 2), 1.2 * PIXELS), whole, (2 * whole).long(), torch.zeros(6, 9))
    images = []
    for view in range(6):
        rays = cameras.image_rays(view)
        way = 0.5 - rays.origins
        nearest = way - (way * rays.directions).sum(1, keepdim=True) * rays.directions
        image = torch.zeros(PIXELS, PIXELS, 4, dtype=torch.uint8)
        image[..., 3] = 255 * (nearest.norm(dim=1) < RADIUS).view(PIXELS, PIXELS)
        images.append(image)
    return cameras, images


def middles(cells):
    return (coordinates_of(cells, SIDE)[1] + 0.5) / SIDE


def test_what_is_outside_of_all_silhouettes_is_empty_and_the_object_is_not():
    cells = torch.arange(SIDE**3)
    empty = empty_cells(*views_of_a_ball(), cells, SIDE)
    p = middles(cells) - 0.5
    reach = 2 * 3**0.5 / SIDE  # of a cell's block, and what a pixel rounds
    assert not bool(empty[p.norm(dim=1) < RADIUS + 0.5 / SIDE].any())
    assert bool(empty[p.abs().amax(1) > RADIUS + 2.5 * reach].all())
    assert 0.5 < float(empty.float().mean()) < 0.95


def test_one_bad_mask_takes_nothing_away():
    cameras, images = views_of_a_ball()
    cells = torch.arange(SIDE**3)
    right = empty_cells(cameras, images, cells, SIDE)
    assert AGREEING == 2
    images[2] = torch.zeros_like(images[2])
    wrong = empty_cells(cameras, images, cells, SIDE)
    assert not bool(wrong[(middles(cells) - 0.5).norm(dim=1) < RADIUS].any())
    assert bool(wrong[right].all())


def test_cells_that_no_mask_shows_stay():
    cameras, images = views_of_a_ball()
    white = [torch.full_like(image, 255) for image in images]
    cells = torch.tensor([5, 900, 20_000])
    assert not bool(empty_cells(cameras, white, cells, SIDE).any())
    assert empty_cells(cameras, images, cells[:0], SIDE).shape == (0,)
