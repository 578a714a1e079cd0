"""Textures: every triangle has texels of its own, and a texel the colour of its place on the surface."""

import pytest
import torch
from tracing_meshes import cube, sphere

from radfield.data.synthetic.mesh import _bilinear
from radfield.meshing.mesh import Mesh
from radfield.meshing.texture import bake, covered, padded, unwrap

SIZE = 256


def colour(x, normals):
    """Linear in the place, so that what is read between texels is exact."""
    return 0.5 + 0.25 * x.float()


@pytest.mark.parametrize("made", [cube, lambda: sphere(3)], ids=["cube", "sphere"])
def test_a_place_has_its_colour(made):
    vertices, triangles = made()
    mesh = Mesh(vertices.double(), triangles)
    unwrapped, which, size = unwrap(mesh, SIZE)
    assert torch.equal(unwrapped.vertices, mesh.vertices[which]) and len(unwrapped.triangles) == len(triangles)
    assert unwrapped.uv.min() >= 0 and unwrapped.uv.max() <= 1 and max(size) < 2 * SIZE
    textured = bake(unwrapped, mesh.normals()[which], size, colour)
    weights = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) + 1e-3
    weights /= weights.sum(-1, keepdim=True)
    corner = unwrapped.triangles[torch.arange(2000) % len(triangles)]
    x, uv = ((values[corner].float() * weights[..., None]).sum(1) for values in (unwrapped.vertices, unwrapped.uv))
    error = (_bilinear(textured.image.float() / 255, uv) - colour(x, None)).abs()
    assert error.max() < 0.03 and error.mean() < 0.004


def test_no_two_triangles_share_a_texel():
    vertices, triangles = sphere(2)
    unwrapped, _, (width, height) = unwrap(Mesh(vertices.double(), triangles), SIZE)
    triangle, weights, texel = covered(unwrapped, width, height)
    assert len(texel) == len(texel.unique()) and len(triangle.unique()) == len(triangles)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights), dtype=torch.float64))
    place = (unwrapped.uv[unwrapped.triangles[triangle]].double() * weights[..., None]).sum(1)
    centre = torch.stack(((texel % width + 0.5) / width, 1 - (texel // width + 0.5) / height), -1)
    torch.testing.assert_close(place, centre.double(), rtol=0, atol=1e-4)


def test_empty_texels_take_the_colour_beside_them():
    image, known = torch.zeros(9, 9, 3), torch.zeros(9, 9, dtype=torch.bool)
    image[4, 4], known[4, 4] = torch.tensor([1.0, 0.5, 0.25]), True
    image[0, 0], known[0, 0] = torch.tensor([0.0, 0.5, 0.25]), True
    near = padded(image, known, 1)
    torch.testing.assert_close(near[3:6, 3:6], image[4, 4].expand(3, 3, 3))
    torch.testing.assert_close(near[8, 0], torch.tensor([0.5, 0.5, 0.25]))
    torch.testing.assert_close(near[known], image[known])
