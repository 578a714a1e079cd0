"""FlexiCubes: closed surfaces from any values, errors that fall with the square of the spacing, exact gradients."""

import math

import pytest
import torch

from radfield.meshing import flexicubes
from radfield.meshing.flexicubes import Grid, Weights, extract
from radfield.tracing.surface import Surface


def grid_of(n):
    return Grid((-1.0, -1.0, -1.0), 2 / n, (n, n, n))


def ball(x):
    return x.norm(dim=-1) - 0.7


def torus(x):
    return torch.hypot(torch.hypot(x[..., 0], x[..., 1]) - 0.6, x[..., 2]) - 0.25


def euler(mesh):
    edges = torch.cat([mesh.triangles[:, [i, (i + 1) % 3]] for i in range(3)]).sort(-1).values.unique(dim=0)
    return len(mesh.vertices) - len(edges) + len(mesh.triangles)


def closed(triangles, points):
    start, end = triangles.reshape(-1), triangles.roll(-1, 1).reshape(-1)
    forth, back = (start * points + end).sort().values, (end * points + start).sort().values
    return torch.equal(forth, back) and len(forth.unique()) == len(forth)


def test_each_crossed_edge_is_on_one_line_of_either_kind():
    loop, count, twice = flexicubes.tables()
    assert torch.equal(loop[0] >= 0, loop[1] >= 0)
    assert torch.equal(loop.amax(-1) + 1, count)
    assert 0 < int((twice >= 0).sum()) < 100
    for case in (twice >= 0).nonzero()[:, 0].tolist():
        assert count[1, case] > count[0, case], "joining the inside corners takes the line apart"


@pytest.mark.parametrize(("field", "characteristic"), [(ball, 2), (torus, 0)], ids=["ball", "torus"])
@pytest.mark.parametrize("training", [False, True])
def test_errors_fall_with_the_square_of_the_spacing(field, characteristic, training):
    errors = []
    for n in (24, 48):
        grid = grid_of(n)
        found = extract(grid, field(grid.points(torch.float64)), training=training)
        mesh = found.mesh()
        assert closed(mesh.triangles, len(mesh.vertices)) and euler(mesh) == characteristic
        surface = Surface.of(mesh.vertices, mesh.triangles)
        assert surface.volume > 0, "triangles turn counter-clockwise seen from outside"
        points = surface.sample(20_000, torch.Generator().manual_seed(0))
        errors.append(float(field(points.double()).abs().mean()))
    assert 3 < errors[0] / errors[1] < 5
    volume = 4 / 3 * math.pi * 0.7**3 if field is ball else 2 * math.pi**2 * 0.6 * 0.25**2
    assert surface.volume == pytest.approx(volume, rel=0.02)


def test_random_values_give_a_closed_manifold():
    """All cases next to one another: each edge has two triangles, which turn the same way."""
    n = 14
    grid = grid_of(n)
    for seed in range(3):
        values = torch.randn(n + 1, n + 1, n + 1, generator=torch.Generator().manual_seed(seed)) - 0.2
        for axis in range(3):
            values.select(axis, 0).fill_(1.0), values.select(axis, n).fill_(1.0)
        for training in (False, True):
            found = extract(grid, values.view(-1), training=training)
            assert closed(found.triangles, len(found.vertices)) and len(found.triangles) > 5000


def test_gradients_are_exact():
    n = 4
    grid = grid_of(n)
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values = random((n + 1) ** 3)
    values = values + 0.2 * values.sign()  # no sign changes within the differences' step
    raw, shift = 0.5 * random(n**3, 21), 0.3 * random((n + 1) ** 3, 3)

    def of(values, raw, shift):
        found = extract(grid, values, Weights.of(raw), flexicubes.moved(grid, shift), training=True)
        return found.vertices, found.deviation

    inputs = [each.requires_grad_() for each in (values, raw, shift)]
    assert torch.autograd.gradcheck(of, inputs, eps=1e-6, atol=1e-5, fast_mode=True)
    # every weight around the surface says something
    of(*inputs)[0].square().sum().backward()
    assert (raw.grad[:, :8].abs().sum(0) > 0).all() and (raw.grad[:, 8:20].abs().sum(0) > 0).all()
    assert raw.grad[:, 20].abs().sum() > 0


def test_weights_move_vertices_and_choose_diagonals():
    grid = grid_of(12)
    values = ball(grid.points())
    plain = extract(grid, values)
    same = extract(grid, values, Weights.of(torch.zeros(12**3, 21)))
    assert torch.equal(plain.vertices, same.vertices) and torch.equal(plain.triangles, same.triangles)
    random = torch.randn(12**3, 21, generator=torch.Generator().manual_seed(0))
    other = extract(grid, values, Weights.of(random))
    assert (other.vertices - plain.vertices).norm(dim=-1).max() > 0.01
    assert not torch.equal(other.triangles, plain.triangles)
    assert closed(other.triangles, len(other.vertices))


def test_signs_that_agree_cost_nothing():
    grid = grid_of(4)
    assert flexicubes.sign_changes(grid, torch.ones(125)) == 0
    values = ball(grid.points())
    assert flexicubes.sign_changes(grid, values) > 0
    assert len(extract(grid, torch.ones(125)).triangles) == 0
