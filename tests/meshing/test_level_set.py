"""Surfaces of fields: over nested cubes, only where cells are occupied, without small parts; their holes."""

import math

import pytest
import torch
from tracing_meshes import cube, sphere

from radfield.meshing import level_set, parts
from radfield.meshing.mesh import Mesh
from radfield.sampling import occupancy
from radfield.tracing.surface import Surface

RADIUS = 1.3  # of a ball that ends in the third cube


def density(x):
    """20 on the ball's surface, falling to nothing in 0.05."""
    return 20 * torch.exp((RADIUS - (x - 0.5).norm(dim=-1)) / 0.05)


@pytest.fixture(scope="module")
def grid():
    made = occupancy.OccupancyGrid(occupancy.Config(cascades=3, resolution=32))
    made.update(density, uniform=made.config.cells, occupied=0)
    return made


def test_a_ball_beyond_the_innermost_cube(grid):
    cells = level_set.occupied_cells(grid, 3)
    mesh = level_set.mesh_of_density(density, cells, 20.0, 64)
    surface = Surface.of(mesh.vertices, mesh.triangles)
    assert surface.open_edges == 0
    # the level falls with the distance from the middle, measured along the axis where that is largest
    wanted = RADIUS + 0.05 * (2 * (mesh.vertices - 0.5).abs().amax(-1)).log()
    assert ((mesh.vertices - 0.5).norm(dim=-1) - wanted).abs().max() < 2e-3
    assert 1 < surface.volume / (4 / 3 * math.pi * RADIUS**3) < 1.2
    inner = level_set.mesh_of_density(density, level_set.occupied_cells(grid, 1), 20.0, 16)
    assert not len(inner.triangles), "the innermost cube is all inside"


def test_no_occupied_cell_is_missed():
    """Every ball whose cube meets an occupied cell is near; most of the others are not."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(3, 8, 8, 8, generator=generator) < 0.01
    centres = 5 * torch.rand(3000, 3, generator=generator) - 2
    for radius in (0.02, 0.3):
        wanted = torch.zeros(len(centres), dtype=torch.bool)
        for cascade, place in ((c[0], c[1:]) for c in cells.nonzero()):
            side = 2.0 ** float(cascade)
            low = 0.5 + side * (place / 8 - 0.5)
            wanted |= ((centres + radius >= low) & (centres - radius <= low + side / 8)).all(-1)
        near = level_set.near_cells(cells, centres, radius)
        assert bool(near[wanted].all()) and near.float().mean() < 0.75


def test_cells_count_in_their_finest_cube(grid):
    cells = level_set.occupied_cells(grid, 3)
    assert cells.shape == (3, 32, 32, 32) and cells[0].all() and not cells[1:, 8:24, 8:24, 8:24].any()
    side = (torch.arange(32) + 0.5) / 32 - 0.5
    far = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), -1).norm(dim=-1) * 4
    assert cells[2][far > RADIUS + 0.4].sum() == 0


def test_small_parts_go_by_their_area():
    vertices, triangles = sphere(2)
    three = [Mesh(scale * vertices.double() + place, triangles) for scale, place in ((1, 0), (0.3, 3), (0.05, 5))]
    shift = torch.tensor([0, len(vertices), 2 * len(vertices)])
    mesh = Mesh(torch.cat([m.vertices for m in three]), torch.cat([triangles + s for s in shift]))
    for share, left in ((0.0, 3), (0.01, 2), (0.2, 1), (1.0, 1)):
        kept, gone = parts.without_small_parts(mesh, share)
        assert (len(kept.components().unique()), gone) == (left, 3 - left)


def test_parts_that_no_camera_sees_go_and_the_others_stay_whole():
    vertices, triangles = sphere(2)
    three = [vertices.double() + place for place in (0, 3, 6)]
    mesh = Mesh(torch.cat(three), torch.cat([triangles + k * len(vertices) for k in range(3)]))
    count = len(triangles)
    visible = torch.zeros(3 * count, dtype=torch.bool)
    visible[: count // 2], visible[count] = True, True  # half of the first, one triangle of the second
    kept, gone = parts.without_unseen_parts(mesh, visible)
    assert gone == 2 and len(kept.triangles) == count and float(kept.vertices.abs().max()) < 1.01
    kept, gone = parts.without_unseen_parts(mesh, visible, share=0.0)
    assert gone == 1 and len(kept.triangles) == 2 * count
    kept, gone = parts.without_unseen_parts(mesh, torch.zeros_like(visible))
    assert gone == 3 and len(kept.triangles) == 0


def test_holes_have_their_length():
    vertices, triangles = cube()  # two triangles per side
    assert len(parts.holes(vertices, triangles)) == 0
    one = parts.holes(vertices, triangles[2:])
    assert one.tolist() == pytest.approx([8.0])
    opposite = torch.cat((triangles[4:], triangles[2:3]))  # the sides at x = -1, and half of that at x = 1
    assert parts.holes(vertices, opposite).tolist() == pytest.approx([8.0, 4 + 8**0.5])
    figures = parts.hole_figures(vertices, opposite)
    assert figures == pytest.approx({"holes": 2, "hole_length": 12 + 8**0.5, "longest_hole": 8.0})
    apart = vertices[triangles.reshape(-1)]  # every triangle with corners of its own, as in an STL file
    assert len(parts.holes(apart, torch.arange(36).view(-1, 3))) == 0
