"""Distances to triangles: the tree against testing every triangle, exact answers, both rules of what is inside."""

import math

import pytest
import torch
from checks import OpCase, check_op
from tracing_meshes import cube, sphere

from radfield import backend
from radfield.errors import BadInput, RadfieldWarning
from radfield.tracing.mesh_distance import mesh_distance, mesh_distance_reference
from radfield.tracing.surface import MOST_TRIANGLES, Surface
from radfield.tracing.wide_bvh import WIDE, WideBvh
from radfield.tracing.winding import mesh_winding, mesh_winding_reference, moments


def points(n: int, generator=None, size: float = 2.5) -> torch.Tensor:
    generator = generator or torch.Generator().manual_seed(3)
    return size * (2 * torch.rand(n, 3, generator=generator) - 1)


def signed_reference(corners: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    distance, winding = mesh_distance_reference(corners, x)[0], mesh_winding_reference(corners, x)
    return torch.where(winding > 0.5, -distance, distance)


def test_unsigned_distance_agrees_with_reference():
    vertices, triangles = sphere(2)
    corners = vertices.double()[triangles]
    tree = WideBvh.of(corners)
    check_op(
        OpCase(
            function=lambda x: mesh_distance(tree, x)[0],
            reference=lambda x: mesh_distance_reference(corners, x)[0],
            inputs=lambda n, g: {"x": points(n, g)},
            wrong_dtype=("x",),
            rtol=2e-7,
            atol=1e-7,
        )
    )


@pytest.mark.parametrize("mesh", [sphere(1), cube()], ids=["sphere", "cube"])
def test_pseudonormals_and_winding_numbers_agree_on_what_is_inside(mesh):
    """Two routes to the sign: the op's by normals, the reference's by solid angles."""
    surface = Surface.of(*mesh)
    assert surface.rule == "pseudonormal"
    check_op(
        OpCase(
            function=lambda x: surface.signed_distance(x),
            reference=lambda x: signed_reference(surface.corners, x),
            inputs=lambda n, g: {"x": points(n, g, 1.2)},
            rtol=2e-7,
            atol=1e-7,
        )
    )


def test_winding_number_agrees_with_reference():
    vertices, triangles = sphere(4)
    corners = vertices.double()[triangles][: 3 * len(triangles) // 4]  # with a hole
    tree = WideBvh.of(corners)
    sums = moments(tree)
    check_op(
        OpCase(
            function=lambda x: mesh_winding(tree, sums, x),
            reference=lambda x: mesh_winding_reference(corners, x),
            inputs=lambda n, g: {"x": points(n, g, 1.5)},
            wrong_dtype=("x",),
            sizes=(0, 1, 7, 300),
            rtol=0,
            atol=0.02,  # of the dipoles
        )
    )


def test_the_index_is_the_nearest_triangle():
    vertices, triangles = sphere(3)
    corners = vertices.double()[triangles]
    x = points(500)
    distance, index = mesh_distance(WideBvh.of(corners), x)
    mine = torch.stack(
        [mesh_distance_reference(corners[i : i + 1], p[None].double())[0][0] for i, p in zip(index, x, strict=True)]
    )
    torch.testing.assert_close(distance, mine.float(), rtol=1e-6, atol=1e-7)


def test_exact_distances_to_a_cube():
    surface = Surface.of(*cube())
    x = torch.tensor([[0.0, 0, 0], [0.9, 0, 0], [2, 0, 0], [2, 2, 0], [2, 2, 2], [-3, 0.5, 0.25], [1, 1, 1]])
    wanted = torch.tensor([-1, -0.1, 1, math.sqrt(2), math.sqrt(3), 2, 0])
    torch.testing.assert_close(surface.signed_distance(x), wanted)


@pytest.mark.parametrize(("unit", "place"), [(1e-3, 0.0), (1e6, 0.0), (1e3, 1e6)])
def test_any_unit_and_place(unit, place):
    """A mesh in millimetres or kilometres, or far from the origin, has the distances of the same one here."""
    vertices, triangles = sphere(3)
    moved = vertices.double() * unit + place
    x = (points(500) * unit + place).float()
    exact = mesh_distance_reference(moved[triangles], x.double())[0]
    found = Surface.of(moved, triangles).distance(x).double()
    assert (found - exact).abs().max() < 1e-6 * unit


def test_a_hole_is_closed_by_the_winding_number():
    vertices, triangles = sphere(4)
    whole = Surface.of(vertices, triangles)
    top = vertices[triangles].mean(1)[:, 2] > 0.9
    surface = Surface.of(vertices, triangles[~top])
    assert surface.rule == "winding" and surface.open_edges > 0
    with pytest.warns(RadfieldWarning, match="open or shared .* winding number"):
        surface.announce("holed.obj")
    x = points(4000, size=1.2)
    x = x[x[:, 2] < 0.6]
    same = (surface.signed_distance(x) < 0) == (whole.signed_distance(x) < 0)
    assert same.float().mean() > 0.99


def test_surfaces_through_one_another_and_inside_out():
    vertices, triangles = sphere(3)
    two = torch.cat((vertices - torch.tensor([0.5, 0, 0]), vertices + torch.tensor([0.5, 0, 0])))
    surface = Surface.of(two, torch.cat((triangles, triangles + len(vertices))))
    assert surface.open_edges == 0 and surface.rule == "winding"
    x = points(3000, size=1.6)
    centre = torch.tensor([0.5, 0, 0])
    truth = torch.minimum((x - centre).norm(dim=-1), (x + centre).norm(dim=-1)) - 1
    sure = truth.abs() > 0.02
    assert torch.equal(surface.signed_distance(x)[sure] < 0, truth[sure] < 0)
    turned = Surface.of(vertices, triangles.flip(-1))
    assert turned.volume > 0 and turned.signed_distance(torch.zeros(1, 3)).item() < 0


def test_degenerate_repeated_and_split_triangles():
    vertices, triangles = cube()
    more = torch.cat((triangles, triangles[:3].roll(1, 1), torch.tensor([[0, 0, 1], [2, 2, 2]])))
    surface = Surface.of(vertices, more)
    assert (surface.left_out, surface.open_edges, surface.rule) == (5, 0, "pseudonormal")
    with pytest.warns(RadfieldWarning, match="5 triangles are degenerate or repeated"):
        surface.announce("cube.obj")
    soup = vertices[triangles].reshape(-1, 3)  # each triangle with corners of its own, as STL files have them
    assert Surface.of(soup, torch.arange(len(soup)).view(-1, 3)).open_edges == 0


def test_the_tree_holds_every_triangle_once():
    vertices, triangles = sphere(4)
    tree = WideBvh.of(vertices.double()[triangles])
    assert sorted(tree.triangle[tree.triangle >= 0].tolist()) == list(range(len(triangles)))
    inner = tree.child[tree.child > 0]
    assert sorted(inner.tolist()) == list(range(1, len(tree.child)))
    assert sorted((-1 - tree.child[tree.child < 0]).tolist()) == list(range(len(tree.block)))
    assert tree.span[0, :, 1].sum() == len(triangles) and len(tree.block) > len(triangles) / WIDE


def test_points_that_are_no_numbers_get_none(each_backend_once):
    surface = Surface.of(*cube())
    with backend.use("cpu"):
        assert surface.rule == "pseudonormal"  # asked at many points
    x = torch.tensor([[torch.nan, 0, 0], [0, torch.inf, 0], [0, 0, 0.5]])
    for found in (surface.distance(x), surface.signed_distance(x), surface.winding(x)):
        assert found.isnan().tolist() == [True, True, False]
    assert mesh_distance(surface.tree, x)[1].tolist()[:2] == [-1, -1]


def test_points_from_which_the_mesh_is_a_point(each_backend_once):
    """Farther away than where unused triangles of a block lie (wide_bvh.h: AWAY)."""
    tree = WideBvh.of(cube()[0].double()[cube()[1]])
    x = torch.tensor([[3e16, 3e16, 3e16], [-4e17, 0, 0]])
    distance, index = mesh_distance(tree, x)
    torch.testing.assert_close(distance, x.norm(dim=1))
    assert (index >= 0).all()


def test_bits_do_not_depend_on_threads(threads):
    surface, x = Surface.of(*sphere(3)), points(5000)
    assert surface.rule
    for a, b in threads(lambda: [surface.signed_distance(x), surface.winding(x)]):
        assert torch.equal(a, b)


def test_points_of_the_surface_are_even_by_area():
    surface = Surface.of(*cube())
    x = surface.sample(20000, torch.Generator().manual_seed(0))
    assert surface.distance(x).max() < 1e-6
    sides = torch.stack([(x[:, k] * s > 1 - 1e-6).float().mean() for k in range(3) for s in (-1, 1)])
    assert (sides - 1 / 6).abs().max() < 0.01


@pytest.mark.parametrize(
    ("vertices", "triangles", "rule"),
    [
        (torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64), "it has no triangles"),
        (torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), "none of its 1 triangles has an area"),
        (torch.zeros(3, 3), torch.tensor([[0, 1, 3]]), "name the points 0 to 3; the rule: from 0 to 2"),
        (torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, torch.nan, 0]]), torch.tensor([[0, 1, 2]]), "1 of its 3 points are"),
        (torch.zeros(3, 3), torch.zeros(1, 3, dtype=torch.int64).expand(MOST_TRIANGLES + 1, 3), "at most 4000000"),
    ],
)
def test_bad_meshes_are_refused(vertices, triangles, rule):
    with pytest.raises(BadInput, match=rule):
        Surface.of(vertices, triangles)
