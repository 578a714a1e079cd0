"""Fused depth against the sphere it shows: place, colour, unseen parts, edges."""

import math

import pytest
import torch

from radfield.cameras import Cameras, look_at
from radfield.meshing import fusion
from radfield.meshing.fusion import DepthViews, fuse
from radfield.renderers.volume import View
from radfield.tracing.surface import Surface

CENTRE, RADIUS = torch.tensor([0.5, 0.45, 0.55]), 0.3


def cameras(count, size=96):
    """Around the ball, above and below in turn."""
    angle = torch.arange(count) / count * 2 * math.pi
    height = torch.where(torch.arange(count) % 2 == 0, 0.7, -0.7)
    origin = CENTRE + 1.5 * torch.stack((angle.cos(), angle.sin(), height), -1)
    pose = look_at(origin, CENTRE, torch.tensor([0.0, 0, 1]))
    one = torch.ones(count, 2)
    return Cameras(pose, 1.6 * size * one, 0.5 * size * one, (size * one).long(), torch.zeros(count, 9))


def render(cameras, i):
    """The ball's exact depth; colours are its normals."""
    width, height = cameras.size[i].tolist()
    rays = cameras.image_rays(i)
    to = rays.origins - CENTRE
    b = (to * rays.directions).sum(-1)
    under = b.square() - to.square().sum(-1) + RADIUS**2
    depth = torch.where(under > 0, -b - under.clamp_min(0).sqrt(), 0.0)
    color = 0.5 + 0.5 * (rays.at(depth) - CENTRE) / RADIUS
    shape = (height, width)
    return View(color.view(*shape, 3), (under > 0).float().view(shape), depth.view(shape))


@pytest.fixture(scope="module")
def views():
    return DepthViews.of(cameras(8), render)


def test_a_ball_seen_from_all_sides(views):
    mesh, truncation = fuse(views, 1, 48)
    radius = (mesh.vertices - CENTRE).norm(dim=-1)
    # half a cell, and what a pixel's middle is off where the surface is steep
    assert (radius - RADIUS).abs().mean() < 0.003 and (radius - RADIUS).abs().max() < 0.02
    assert truncation == pytest.approx(fusion.TRUNCATION * 0.6 / 48, rel=0.2)
    surface = Surface.of(mesh.vertices, mesh.triangles)
    assert (surface.area_vectors * (surface.corners.mean(1) - CENTRE)).sum(-1).gt(0).float().mean() > 0.99
    color = views.color_of(mesh.vertices.float(), mesh.normals().float(), truncation)
    wanted = 0.5 + 0.5 * (mesh.vertices - CENTRE).float() / RADIUS
    assert (color - wanted).abs().mean() < 0.03


def test_what_no_view_sees_is_left_open(views):
    one = DepthViews(views.cameras[0], views.depth[:1], views.color[:1])
    mesh, _ = fuse(one, 1, 40)
    towards = torch.nn.functional.normalize(one.cameras.camera_to_world[0, :3, 3] - CENTRE, dim=-1).double()
    height = ((mesh.vertices - CENTRE) @ towards) / RADIUS
    assert len(mesh.triangles) > 500 and height.min() > -0.1, "nothing of the far side"
    assert mesh.vertices.isfinite().all() and Surface.of(mesh.vertices, mesh.triangles).open_edges > 0


def test_values_are_truncated_distances():
    """One camera that looks along z at a wall: the value is linear in z there, 1 before it, unknown behind."""
    pose = torch.eye(4)[None]
    camera = Cameras(
        pose, torch.full((1, 2), 50.0), torch.full((1, 2), 32.0), torch.full((1, 2), 64), torch.zeros(1, 9)
    )
    z = 2.0
    rays = camera.image_rays(0)
    depth = (z / rays.directions[:, 2]).view(64, 64)
    views = DepthViews(camera, [depth], [torch.zeros(64, 64, 3)])
    x = torch.tensor(
        [[0.0, 0, 1.0], [0.0, 0, 1.95], [0.0, 0, 2.0], [0.0, 0, 2.05], [0.0, 0, 2.2], [9.0, 0, 2], [0, 0, -2]]
    )
    value = views.value(x, 0.1)
    torch.testing.assert_close(value[:4], torch.tensor([1.0, 0.5, 0.0, -0.5]), atol=5e-3, rtol=0)
    assert value[4:].isnan().all()


def test_edges_say_nothing_and_empty_pixels_are_free():
    depth, opacity = torch.full((9, 9), 2.0), torch.ones(9, 9)
    depth[:, 5:] = 3.0
    opacity[0] = 0
    found = fusion.clear_depth(depth, opacity)
    assert found[0].isinf().all() and found[1].isnan().all()
    assert found[2:, 4:6].isnan().all() and (found[2:, :4] == 2).all() and (found[2:, 6:] == 3).all()
