"""Marching cubes: closed surfaces from any values, the right volume, sparse as dense; components; files; comparison."""

import math

import pytest
import torch
from tracing_meshes import sphere

from radfield.data.synthetic.mesh import read_mesh
from radfield.errors import BadInput
from radfield.geometry import SceneTransform
from radfield.meshing import cube_cases
from radfield.meshing.compare import compare, overlap
from radfield.meshing.files import write_mesh
from radfield.meshing.marching_cubes import Lattice, marching_cubes
from radfield.meshing.mesh import Mesh
from radfield.tracing.surface import Surface

LOW, HIGH = torch.full((3,), -1.0), torch.full((3,), 1.0)


def everywhere(centres, radius):
    return torch.ones(len(centres), dtype=torch.bool)


def ball(x):
    return x.norm(dim=-1) - 0.7


def near_ball(centres, radius):
    return ball(centres).abs() <= radius


def test_every_case_cuts_each_crossed_edge_once_and_fits_its_neighbours():
    for case in range(256):
        crossed = {(k, axis) for k, axis in cube_cases.EDGES if (case >> k ^ case >> (k | 1 << axis)) & 1}
        loops = cube_cases.loops(case)
        assert sorted(edge for loop in loops for edge in loop) == sorted(crossed)
        triangles = cube_cases.table()[case]
        assert int((triangles[:, 0] >= 0).sum()) == sum(len(loop) - 2 for loop in loops)
    assert int((cube_cases.table()[..., 0] >= 0).sum(1).max()) == cube_cases.MOST


def test_random_values_give_a_closed_surface():
    """All cases, ambiguous ones among them, next to one another: no edge is open, all triangles turn the same way."""
    n = 12
    grid = torch.randn(n, n, n, generator=torch.Generator().manual_seed(0))
    for axis in range(3):  # nothing inside at the border
        grid.select(axis, 0).fill_(1.0), grid.select(axis, n - 1).fill_(1.0)
    lattice = Lattice(torch.zeros(3, dtype=torch.float64), 1.0, (n - 1,) * 3)

    def value(x):
        x = x.round().long()
        return torch.where((x < n).all(-1), grid[tuple(x.clamp_max(n - 1).T)], 1.0)

    mesh = marching_cubes(value, lattice, everywhere)
    start, end = mesh.triangles.reshape(-1), mesh.triangles.roll(-1, 1).reshape(-1)
    forth, back = (start * len(mesh.vertices) + end).sort().values, (end * len(mesh.vertices) + start).sort().values
    assert torch.equal(forth, back)
    assert len(mesh.triangles) > 3000


def test_a_ball_has_its_volume_and_is_the_same_sparse_and_dense():
    lattice = Lattice.of(LOW, HIGH, 50)  # ends within a block
    mesh = marching_cubes(ball, lattice, everywhere)
    surface = Surface.of(mesh.vertices, mesh.triangles)
    assert (surface.open_edges, surface.left_out) == (0, 0)
    assert surface.volume == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=3e-3)
    assert (mesh.vertices.norm(dim=-1) - 0.7).abs().max() < 1e-3
    assert ((mesh.normals() * mesh.vertices).sum(-1) > 0.69).all(), "normals point outwards"
    asked = []
    sparse = marching_cubes(lambda x: (asked.append(len(x)), ball(x))[1], lattice, near_ball)
    assert torch.equal(sparse.vertices, mesh.vertices) and len(sparse.triangles) == len(mesh.triangles)
    fine, before = Lattice.of(LOW, HIGH, 200), sum(asked)
    assert len(marching_cubes(lambda x: (asked.append(len(x)), ball(x))[1], fine, near_ball).triangles) > 100_000
    assert sum(asked) - before < 0.35 * 201**3, "what is asked grows with the surface"


def test_a_box_that_is_no_cube_and_nothing_inside():
    lattice = Lattice.of(torch.tensor([-1.0, -1, -0.75]), torch.tensor([1.0, 1, 0.75]), 40)
    assert lattice.cells == (40, 40, 30)
    mesh = marching_cubes(ball, lattice, everywhere)
    assert Surface.of(mesh.vertices, mesh.triangles).open_edges == 0
    assert len(marching_cubes(lambda x: ball(x) + 9, lattice, everywhere).triangles) == 0
    assert len(marching_cubes(ball, lattice, lambda c, r: torch.zeros(len(c), dtype=torch.bool)).triangles) == 0


def test_the_largest_component_stays():
    vertices, triangles = sphere(3)
    small, few = sphere(1)
    both = Mesh(torch.cat((small + 3, vertices)).double(), torch.cat((few, triangles + len(small))))
    assert len(both.components().unique()) == 2
    largest = both.largest()
    assert len(largest.triangles) == len(triangles) and largest.vertices.max() <= 1
    far = both.transformed(SceneTransform(2.0, offset=(1.0, 0.0, 0.0)))
    torch.testing.assert_close(far.vertices, 2 * both.vertices + torch.tensor([1.0, 0, 0]).double())


@pytest.mark.parametrize("ending", ["ply", "obj", "glb"])
def test_files_keep_places_triangles_and_colours(tmp_path, ending):
    vertices, triangles = sphere(1)
    colors = (vertices + 1) / 2
    path = tmp_path / f"mesh.{ending}"
    write_mesh(path, Mesh(1000 * vertices.double(), triangles, colors))
    again = read_mesh(path)
    torch.testing.assert_close(again[0], 1000 * vertices, rtol=1e-6, atol=1e-3)
    assert torch.equal(again[1], triangles)
    from radfield.srgb import decode_srgb

    # 8 bits of sRGB, or of linear light in GLB
    torch.testing.assert_close(again[4], decode_srgb((colors * 255).round() / 255), rtol=0, atol=1.1 / 255)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(BadInput, match=r"one of \.ply, \.obj, \.glb"):
        write_mesh(tmp_path / "mesh.stl", Mesh(vertices.double(), triangles))


def test_two_spheres_have_the_distance_between_them():
    """Spheres of radius r and r + d have Chamfer d, and the F-score is 1 from there on, 0 below."""
    vertices, triangles = sphere(5)
    d = 0.1
    small, large = Surface.of(vertices, triangles), Surface.of((1 + d) * vertices.double(), triangles)
    found = compare(small, large, 1.02 * d, samples=5000)
    assert found["chamfer"] == pytest.approx(d, rel=5e-3)
    assert (found["f_score"], found["precision"], found["recall"]) == (1, 1, 1)
    assert compare(small, large, 0.98 * d, samples=5000)["f_score"] < 0.02
    assert compare(small, small, 1e-5, samples=5000)["chamfer"] < 1e-6
    x = torch.rand(4000, 3) * 2.4 - 1.2
    inside = [(s.signed_distance(x) < 0) for s in (small, large)]
    assert overlap(*inside) == pytest.approx((1 / (1 + d)) ** 3, abs=0.03)
    assert overlap(inside[0], inside[0]) == 1
