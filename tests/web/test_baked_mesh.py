"""A mesh with a texture of features."""

import pytest
import torch

from radfield.errors import BadInput
from radfield.meshing.mesh import Mesh
from radfield.rays import Rays
from radfield.web.baked_mesh import FEATURES, WIDE, BakedMesh, fit, seen_part

#: a square in the plane z = 0.5, as two triangles
VERTICES = torch.tensor([[0.0, 0, 0.5], [1, 0, 0.5], [0, 1, 0.5], [1, 1, 0.5]], dtype=torch.float64)
SQUARE = Mesh(VERTICES, torch.tensor([[0, 1, 2], [3, 2, 1]]))


def made(texels=5, copies=1):
    corners = SQUARE.vertices[SQUARE.triangles].float()
    return BakedMesh(torch.cat([corners + torch.tensor([0.0, 0, 0.1 * i]) for i in range(copies)]), texels)


def down(count=2000):
    origins = torch.cat((torch.rand(count, 2), torch.full((count, 1), 3.0)), 1)
    return Rays(origins, torch.tensor([0.0, 0.0, -1.0]).expand(count, 3).contiguous())


@pytest.mark.parametrize("texels", [1, 2, 5, 7])
def test_no_texel_is_shared_by_two_triangles(texels):
    mesh = made(texels, copies=700)  # more than a row of blocks
    texel, triangle, _ = mesh.places()
    assert len(texel.unique()) == len(texel) == len(mesh.corners) * texels * (texels + 1) // 2
    assert int(texel.max()) < mesh.height * WIDE == len(mesh.features)
    pairs = torch.stack((texel, triangle // 2), 1)
    assert len(pairs[:, 1].unique()) == 700


def test_every_place_on_a_triangle_has_a_texel_of_its_own_triangle():
    mesh = made(6, copies=3)
    own = {int(t): set() for t in range(6)}
    for texel, triangle in zip(*(v.tolist() for v in mesh.places()[:2]), strict=True):
        own[triangle].add(texel)
    edge = torch.linspace(0, 1, 101)
    weights = torch.cat([torch.stack((edge, 1 - edge), 1), torch.stack((edge, 0 * edge), 1), torch.rand(900, 2) / 2])
    for triangle in range(6):
        found = mesh.texel(torch.full((len(weights),), triangle), weights)
        assert set(found.tolist()) <= own[triangle]


def test_the_middles_of_texels_are_met_where_they_lie():
    mesh = made(4)
    texel, _, x = mesh.places()
    rays = Rays(x + torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, -1.0]).expand_as(x).contiguous())
    found, hit = mesh.meet(rays)
    assert hit.all() and torch.equal(found, texel)


def test_it_begins_as_the_fields_colours_from_in_front():
    mesh = made(8)
    asked = []

    def color(x, d):
        asked.append(d)
        return torch.stack((x[:, 0], x[:, 1], 0 * x[:, 0] + 0.5), 1)

    mesh.paint(color)
    assert (asked[0].abs() == torch.tensor([0.0, 0.0, 1.0])).all()
    rays = down()
    seen = mesh(rays, 1.0)
    wanted = torch.stack((rays.origins[:, 0], rays.origins[:, 1], torch.full((2000,), 0.5)), 1)
    assert (seen - wanted).abs().max() < 1 / 8
    side = Rays(rays.origins + 2, rays.directions)
    assert (mesh(side, 0.25) == 0.25).all()


def test_it_learns_colours_by_place_and_direction():
    mesh = made(4)
    origins = torch.rand(6000, 3) * torch.tensor([3.0, 3.0, 0.0]) + torch.tensor([-1.0, -1.0, 2.0])
    aim = torch.cat((torch.rand(6000, 2), torch.full((6000, 1), 0.5)), 1)
    rays = Rays(origins, torch.nn.functional.normalize(aim - origins, dim=1))
    color = torch.stack((aim[:, 0], 0.5 + 0.5 * rays.directions[:, 0], 0 * aim[:, 0] + 0.2, 0 * aim[:, 0] + 1), 1)
    before = (mesh(rays, 1.0) - color[:, :3]).square().mean()
    steps = fit(mesh, rays, color, lambda step: step / 150)
    after = (mesh(rays, 1.0) - color[:, :3]).square().mean()
    assert steps == 150 and after < 0.003 and after < 0.1 * before
    assert mesh.picture().shape == (mesh.height * WIDE, FEATURES)


def test_what_no_ray_meets_is_left_out():
    far = Mesh(
        torch.cat((SQUARE.vertices, SQUARE.vertices - torch.tensor([0, 0, 1.0]))),
        torch.cat((SQUARE.triangles, SQUARE.triangles + 4)),
    )
    kept = seen_part(far, down())
    assert len(kept.triangles) == 2 and (kept.vertices[:, 2] == 0.5).all()
    with pytest.raises(BadInput, match="no ray"):
        seen_part(far, Rays(down().origins, -down().directions))


def test_textures_larger_than_browsers_allow_are_refused():
    with pytest.raises(BadInput, match="rows of a texture"):
        BakedMesh(torch.rand(2000, 3, 3), 512)
