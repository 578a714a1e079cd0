"""What cameras see of a mesh: the near side and no inside."""

import torch
from tracing_meshes import sphere

from radfield.cameras import Cameras, look_at
from radfield.meshing.mesh import Mesh
from radfield.meshing.visibility import around, seen


def camera(origin):
    pose = look_at(torch.tensor([origin]), torch.zeros(1, 3), torch.tensor([[0.0, 1, 0]]))
    one = torch.ones(1, 2)
    return Cameras(pose, 300 * one, 128 * one, (256 * one).long(), torch.zeros(1, 9))


def test_a_hidden_ball_and_a_far_side_are_not_seen():
    vertices, triangles = sphere(4)
    both = Mesh(torch.cat((vertices, 0.5 * vertices)).double(), torch.cat((triangles, triangles + len(vertices))))
    found = seen(both, camera([0.0, 0.0, -4.0]))
    outer, inner = found.view(2, -1)
    assert not inner.any()
    height = vertices[triangles].mean(1)[:, 2]
    assert outer[height < -0.35].all(), "the horizon is at -1/4"
    assert not outer[height > 0.1].any()
    from_two = seen(both, Cameras(*(torch.cat(p) for p in zip(*_both(), strict=True))))
    assert from_two[: len(triangles)][height.abs() > 0.35].all()


def _both():
    for origin in ([0.0, 0.0, -4.0], [0.0, 0.0, 4.0]):
        c = camera(origin)
        yield c.camera_to_world, c.focal, c.principal, c.size, c.distortion


def test_rings_grow_by_common_points():
    strip = torch.tensor([[i, i + 1, i + 2] for i in range(10)])
    chosen = torch.zeros(10, dtype=torch.bool)
    chosen[0] = True
    assert around(strip, chosen, 12, 1).nonzero()[:, 0].tolist() == [0, 1, 2]
    assert around(strip, chosen, 12, 2).nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]
