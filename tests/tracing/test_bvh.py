"""Triangles met by rays: the tree against testing every triangle, and no gap between neighbours."""

import pytest
import torch
from checks import OpCase, check_op
from tracing_meshes import sphere

from radfield.errors import BadInput
from radfield.rays import Rays
from radfield.tracing.bvh import Bvh, build, trace_triangles, trace_triangles_reference


def some_rays(n: int, generator=None) -> Rays:
    generator = generator or torch.Generator().manual_seed(1)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * 3
    directions = torch.nn.functional.normalize(0.6 * torch.randn(n, 3, generator=generator) - origins, dim=-1)
    return Rays(origins, directions)


def test_native_agrees_with_reference():
    mesh = sphere()
    bvh = Bvh.of(*mesh)

    def of_device(origins):
        return bvh if origins.device.type == "cpu" else Bvh.of(*(each.to(origins.device) for each in mesh))

    def outputs(hits):
        return hits.depth.nan_to_num(posinf=0.0), hits.index, hits.weights * (hits.index >= 0)[:, None]

    case = OpCase(
        function=lambda origins, directions: trace_triangles(of_device(origins), Rays(origins, directions)),
        reference=lambda origins, directions: trace_triangles_reference(of_device(origins), Rays(origins, directions)),
        inputs=lambda n, g: {k: v for k, v in vars(some_rays(n, g)).items() if v is not None},
        outputs=outputs,
        wrong_dtype=("origins", "directions"),
        rtol=2e-5,
        atol=5e-6,
    )
    check_op(case)


def test_the_tree_holds_every_triangle_once_in_boxes_that_hold_it():
    vertices, triangles = sphere(3)
    corners = vertices[triangles]
    bounds = torch.cat((corners.amin(1), corners.amax(1)), -1)
    box, node, order = build(bounds)
    assert sorted(order.tolist()) == list(range(len(triangles)))
    leaves = torch.zeros(len(triangles), dtype=torch.int64)

    def visit(k: int, low, high) -> None:
        assert (box[k, :3] >= low).all() and (box[k, 3:] <= high).all()
        first, count = node[k].tolist()
        if not count:
            return [visit(child, box[k, :3], box[k, 3:]) for child in (first, first + 1)]
        mine = bounds[order[first : first + count].long()]
        assert (mine[:, :3] >= box[k, :3]).all() and (mine[:, 3:] <= box[k, 3:]).all()
        leaves[first : first + count] += 1

    visit(0, torch.full((3,), -torch.inf), torch.full((3,), torch.inf))
    assert (leaves == 1).all()
    assert len(node) > len(triangles) / 4


def test_depth_and_normal_of_a_fine_sphere():
    bvh = Bvh.of(*sphere(5))
    rays = some_rays(2000)
    hits = trace_triangles(bvh, rays)
    met = hits.index >= 0
    x = rays.at(hits.depth)[met]
    assert (x.norm(dim=-1) - 1).abs().max() < 1e-3  # of the facets, which lie inside
    assert ((bvh.normals[hits.index[met].long()] * x).sum(-1) > 0.999).all(), "the right-hand rule points outwards"
    a, b, c = bvh.vertices[bvh.triangles[hits.index[met].long()]].unbind(1)
    u, v = hits.weights[met].unbind(-1)
    again = (1 - u - v)[:, None] * a + u[:, None] * b + v[:, None] * c
    torch.testing.assert_close(again, x, atol=2e-5, rtol=0)


def test_no_ray_slips_between_triangles():
    """From inside a closed surface every ray meets it, also through edges and corners."""
    vertices, triangles = sphere(2)
    edges = torch.cat((triangles[:, :2], triangles[:, 1:]))
    share = torch.rand(len(edges), 1)
    on_edges = vertices[edges[:, 0]] * share + vertices[edges[:, 1]] * (1 - share)
    targets = torch.cat((vertices, on_edges))
    for origin in (torch.zeros(3), torch.tensor([0.1, -0.2, 0.3])):
        rays = Rays(origin.expand_as(targets), torch.nn.functional.normalize(targets - origin, dim=-1))
        hits = trace_triangles(Bvh.of(vertices, triangles), rays)
        torch.testing.assert_close(hits.depth, (targets - origin).norm(dim=-1), atol=1e-5, rtol=0)


def test_both_sides_count_and_a_limit_hides():
    bvh = Bvh.of(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]]))
    rays = Rays(torch.tensor([[0.2, 0.2, 1], [0.2, 0.2, -1]]), torch.tensor([[0.0, 0, -1], [0, 0, 1]]))
    assert trace_triangles(bvh, rays).depth.tolist() == [1, 1]
    assert trace_triangles(bvh, rays, limit=torch.tensor([1.0, 1.001])).index.tolist() == [-1, 0]


def test_triangles_in_one_place_and_without_area():
    """The heuristic finds no plane between them; the deepest tree still ends. Of equal hits the first counts."""
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    many = Bvh.of(corners, torch.tensor([[0, 1, 2]]).repeat(5000, 1))
    ray = Rays(torch.tensor([[0.2, 0.2, 1]]), torch.tensor([[0.0, 0, -1]]))
    hits = trace_triangles(many, ray)
    assert (hits.depth.item(), hits.index.item()) == (1, 0)
    flat = Bvh.of(corners, torch.tensor([[0, 0, 1], [0, 1, 2]]))
    assert trace_triangles(flat, ray).index.item() == 1
    assert torch.equal(flat.normals[0], torch.zeros(3))
    steps = 2.0 ** -torch.arange(60)  # each half as far as the last: a split takes one triangle off
    chain = corners * 0.1 * steps[:, None, None] + steps[:, None, None]
    deep = Bvh.of(chain.view(-1, 3), torch.arange(180).view(-1, 3))
    assert trace_triangles(deep, Rays(torch.tensor([[1.02, 1.02, 3]]), ray.directions)).index.item() == 0


def test_bits_do_not_depend_on_threads(threads):
    bvh, rays = Bvh.of(*sphere(3)), some_rays(3000)
    for a, b in threads(lambda: list(vars(trace_triangles(bvh, rays)).values())):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("vertices", "triangles", "rule"),
    [
        (torch.zeros(3, 3), torch.zeros(0, 3), "it has 0 triangles"),
        (torch.zeros(3, 3), torch.tensor([[0, 1, 3]]), "name the points 0 to 3; the rule: from 0 to 2"),
        (torch.zeros(3, 3), torch.tensor([[0, -1, 2]]), "name the points -1 to 2"),
        (torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]]), "not finite"),
        (torch.zeros(3, 2), torch.tensor([[0, 1, 2]]), "have shapes"),
    ],
)
def test_bad_meshes_are_refused(vertices, triangles, rule):
    with pytest.raises(BadInput, match=rule):
        Bvh.of(vertices, triangles)
