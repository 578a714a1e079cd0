"""Solids met by rays: closed forms, the laws of distances and joins, and both implementations."""

import math

import numpy as np
import pytest
import torch
from checks import OpCase, check_op

from radfield.errors import BadInput
from radfield.rays import Rays
from radfield.tracing.solids import KINDS, Shape, Solids, trace_solids
from radfield.tracing.solids_reference import primitive, solid_distance

SIZES = {
    "plane": (),
    "sphere": (0.5,),
    "box": (0.3, 0.4, 0.2, 0.05),
    "torus": (0.5, 0.2),
    "cylinder": (0.3, 0.4, 0.05),
    "capsule": (0.15, 0.4),
    "gyroid": (1.5, 0.04),
}
TILT = tuple(map(tuple, torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))[0].tolist()))


def everything() -> Solids:
    box = Shape("box", (0.3, 0.3, 0.3, 0.04), (0, 1.2, 0))
    return Solids.of(
        [
            Shape("plane", (), (0, 0, -1.0)),
            Shape("sphere", (0.5,), (0, 0, 0.2)),
            Shape("box", (0.3, 0.2, 0.4), (1.2, 0, 0), TILT),
            Shape("torus", (0.4, 0.15), (-1.2, 0, 0), TILT),
            [box, Shape("sphere", (0.33,), (0, 1.4, 0.2), operation="subtract")],
            [Shape("capsule", (0.1, 0.4), (0, -1.2, 0), TILT), Shape("sphere", (0.2,), (0.1, -1.2, 0.3), blend=0.2)],
            Shape("cylinder", (0.3, 0.3, 0.05), (1.1, 1.1, 0), TILT),
            [Shape("gyroid", (1.5, 0.05), (-1, 1, 0)), Shape("sphere", (0.4,), (-1, 1, 0), operation="intersect")],
        ]
    )


def some_rays(n: int, generator=None, dtype=torch.float32) -> Rays:
    """Rays from above towards the middle."""
    generator = generator or torch.Generator().manual_seed(1)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * 4
    origins[:, 2] = origins[:, 2].abs() + 1
    directions = torch.nn.functional.normalize(0.9 * torch.randn(n, 3, generator=generator) - origins, dim=-1)
    return Rays(origins.to(dtype), directions.to(dtype))


def visible(hits) -> tuple:
    return hits.depth.nan_to_num(posinf=0.0), hits.normal, hits.index


def hits_of(origins, directions):
    return trace_solids(everything(), Rays(origins, directions))


def test_native_agrees_with_reference():
    def inputs(n, generator):
        return dict(vars(some_rays(n, generator)), near=None, far=None)

    case = OpCase(
        function=lambda origins, directions, near, far: hits_of(origins, directions),
        reference=lambda origins, directions, near, far: hits_of(origins, directions),
        inputs=inputs,
        outputs=visible,
        wrong_dtype=("origins", "directions"),
        rtol=1e-5,
        atol=2e-5,
    )
    check_op(case)


def test_sphere_plane_and_box_in_closed_form():
    rays = some_rays(2000)
    o, d = rays.origins.double(), rays.directions.double()
    hits = trace_solids(Solids.of([Shape("sphere", (0.7,), (0.1, 0.2, 0.3))]), rays)
    c = o - torch.tensor((0.1, 0.2, 0.3))
    b = (c * d).sum(-1)
    inside = b * b - (c * c).sum(-1) + 0.49
    clear = inside.abs() > 1e-4
    assert torch.equal((hits.index >= 0)[clear], (inside > 0)[clear])
    t = -b - inside.clamp_min(0).sqrt()
    met = (inside > 1e-3) & (hits.index >= 0)
    assert met.sum() > 500
    assert (hits.depth - t)[met].abs().max() < 1e-4
    assert (hits.normal - (c + t[:, None] * d) / 0.7)[met].abs().max() < 1e-4

    hits = trace_solids(Solids.of([Shape("plane", (), (0, 0, -0.5))]), rays)
    t = -(o[:, 2] + 0.5) / d[:, 2]
    assert (hits.depth - t)[d[:, 2] < -0.1].abs().max() < 1e-4
    assert torch.equal(hits.normal[d[:, 2] < 0], torch.tensor((0.0, 0, 1)).expand(int((d[:, 2] < 0).sum()), 3))

    hits = trace_solids(Solids.of([Shape("box", (0.5, 0.4, 0.3))]), rays)
    planes = (-d.sign() * torch.tensor((0.5, 0.4, 0.3)) - o) / d  # the three faces that look at the origin
    t, axis = planes.max(-1)
    x = (o + t[:, None] * d).abs().scatter(-1, axis[:, None], 0.0)
    met = (x < torch.tensor((0.5, 0.4, 0.3)) - 1e-4).all(-1)
    assert met.sum() > 200 and (hits.index[met] == 0).all()
    assert (hits.depth - t)[met].abs().max() < 1e-4
    expected = torch.zeros_like(o).scatter(-1, axis[:, None], -d.sign().gather(-1, axis[:, None]))
    assert (hits.normal - expected)[met].abs().max() < 1e-4


def test_torus_in_closed_form():
    """The quartic (|x|^2 + R^2 - r^2)^2 = 4 R^2 (x^2 + y^2), its roots as eigenvalues."""
    ring, tube = 0.8, 0.3
    rays = some_rays(300, dtype=torch.float64)
    hits = trace_solids(Solids.of([Shape("torus", (ring, tube))]), rays.to(torch.float32))
    compared = 0
    for i in range(len(rays)):
        o, d = rays.origins[i].numpy(), rays.directions[i].numpy()
        square = np.array([1.0, 2 * o @ d, o @ o + ring**2 - tube**2])
        flat = np.array([d[:2] @ d[:2], 2 * o[:2] @ d[:2], o[:2] @ o[:2]])
        roots = np.roots(np.polysub(np.polymul(square, square), 4 * ring**2 * flat))
        real = sorted(r.real for r in roots if abs(r.imag) < 1e-9)
        if min(abs(np.subtract.outer(roots, roots))[~np.eye(4, dtype=bool)]) < 1e-3:
            continue  # grazes
        compared += 1
        assert math.isfinite(hits.depth[i]) == bool(real)
        if real:
            x = o + real[0] * d
            middle = np.append(x[:2] / np.hypot(*x[:2]) * ring, 0)
            assert abs(hits.depth[i] - real[0]) < 1e-4
            assert np.abs(hits.normal[i].numpy() - (x - middle) / tube).max() < 1e-4
    assert compared > 200


def test_leaving_a_solid_from_inside(each_backend_once):
    directions = torch.nn.functional.normalize(torch.randn(200, 3), dim=-1)
    start = 0.3 * torch.randn(200, 3).clamp(-1, 1)
    hits = trace_solids(Solids.of([Shape("sphere", (0.8,))]), Rays(start, directions), inside=True)
    b = (start * directions).sum(-1)
    expected = -b + (b * b - (start * start).sum(-1) + 0.64).sqrt()
    torch.testing.assert_close(hits.depth, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_never_overestimate(kind):
    """Any two points are as far apart as their distances to the surface differ, or further; the gradient is exact."""
    p = torch.randn(3000, 3, dtype=torch.float64, requires_grad=True)
    sizes = [*(*SIZES[kind], 0.0, 0.0)[:4], 0.0]
    distance, gradient = primitive(kind, sizes, p)
    q = torch.randn(3000, 3, dtype=torch.float64)
    for step in (0.01, 0.3, 2.0):
        other, _ = primitive(kind, sizes, (p + step * q).detach())
        assert ((other - distance).abs() <= (step * q).norm(dim=-1) + 1e-9).all()
    expected = torch.autograd.grad(distance.sum(), p)[0]
    torch.testing.assert_close(gradient, expected)


def test_nothing_lies_before_the_depth_and_the_hit_is_on_the_surface():
    solids, rays = everything(), some_rays(500)
    hits = trace_solids(solids, rays)
    groups = [range(int(a), int(b)) for a, b in zip(solids.first[:-1], solids.first[1:], strict=True)]

    def distance(t):
        return torch.stack([solid_distance(solids, g, rays.at(t).double())[0] for g in groups]).amin(0)

    met = hits.index >= 0
    assert met.sum() > 300
    assert distance(hits.depth.nan_to_num(posinf=0.0))[met].abs().max() < 1e-5
    for share in torch.linspace(0, 0.999, 50):
        assert distance(share * hits.depth.clamp_max(10.0)).min() > -1e-5


def test_joins_are_set_operations():
    a, b = Shape("sphere", (0.5,)), Shape("sphere", (0.5,), (0.4, 0, 0))
    x = torch.rand(5000, 3, dtype=torch.float64) * 2 - 1
    in_a, in_b = x.norm(dim=-1) < 0.5, (x - torch.tensor((0.4, 0, 0))).norm(dim=-1) < 0.5
    wanted = {"union": in_a | in_b, "intersect": in_a & in_b, "subtract": in_a & ~in_b}
    for operation, expected in wanted.items():
        distance, _, _ = solid_distance(Solids.of([[a, b.join(operation)]]), range(2), x)
        assert torch.equal(distance < 0, expected)
    blended, _, _ = solid_distance(Solids.of([[a, b.join("union", 0.3)]]), range(2), x)
    plain, _, _ = solid_distance(Solids.of([[a, b]]), range(2), x)
    assert (blended <= plain).all() and (plain - blended).max() <= 0.3 / 4 + 1e-12 and (blended < plain).any()


def test_the_shape_that_decides_is_named():
    block = [Shape("box", (0.5, 0.5, 0.5)), Shape("cylinder", (0.2, 1.0), operation="subtract")]
    origins = torch.tensor([[0.4, 0.4, 2.0], [0.1, 0.0, 2.0], [-2.0, 0.3, 0.0], [2.0, 2.0, 2.0]])
    directions = torch.tensor([[0.0, 0, -1], [0.05, 0, -1], [1.0, 0, 0], [0.0, 0, -1]])
    directions = torch.nn.functional.normalize(directions, dim=-1)
    hits = trace_solids(Solids.of([block]), Rays(origins, directions))
    assert hits.index.tolist() == [0, 1, 0, -1]
    inward = Rays(torch.tensor([[0.0, 0, 0.2]]), torch.tensor([[1.0, 0, 0]]))
    hits = trace_solids(Solids.of([block]), inward)
    assert hits.index.tolist() == [1] and hits.depth.item() == pytest.approx(0.2, abs=1e-5)
    torch.testing.assert_close(hits.normal, torch.tensor([[-1.0, 0, 0]]))


def test_a_limit_hides_what_lies_behind(each_backend_once):
    rays = some_rays(300)
    hits = trace_solids(everything(), rays)
    limit = torch.where(torch.arange(300) % 2 == 0, hits.depth * 0.99, hits.depth * 1.01)
    again = trace_solids(everything(), rays, limit=limit)
    met = hits.index >= 0
    assert (again.index[met & (torch.arange(300) % 2 == 0)] == -1).all()
    assert torch.equal(again.depth[met & (torch.arange(300) % 2 == 1)], hits.depth[met & (torch.arange(300) % 2 == 1)])


def test_bits_do_not_depend_on_threads(threads):
    rays = some_rays(3000)
    for a, b in threads(lambda: [*visible(trace_solids(everything(), rays))]):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Shape("cone", (1.0,)), "kind is 'cone'; the rule: one of plane, sphere"),
        (lambda: Shape("sphere", ()), "a sphere has 0 sizes; the rule: 1"),
        (lambda: Shape("sphere", (math.nan,)), "the rule: finite"),
        (lambda: Shape("sphere", (1.0,), operation="xor"), "operation is 'xor'"),
        (lambda: Solids.of([Shape("gyroid", (1.0, 0.1))]), "gyroid without end"),
        (lambda: Solids.of([[Shape("sphere", (1.0,)), Shape("plane", ())]]), "without end"),
    ],
)
def test_bad_shapes_are_refused(make, rule):
    with pytest.raises(BadInput, match=rule):
        make()
