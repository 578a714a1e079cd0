"""Meshes and Gaussians in one scene: mirrors, glass, shadows."""

import math

import pytest
import torch
from renderers_traced import gaussian_scene as scene
from renderers_traced import image_rays

from radfield.errors import BadInput
from radfield.rays import Rays
from radfield.renderers.gaussian_trace import trace
from radfield.renderers.traced_scene import Sun, Surface, fresnel, nearest_surface, shadowed, trace_scene
from radfield.tracing.bvh import Bvh

BLUE = torch.tensor([0.1, 0.2, 0.9])


def square(z, side=10.0, x=0.0):
    corners = torch.tensor([[x - side, -side, z], [x + side, -side, z], [x + side, side, z], [x - side, side, z]])
    return Bvh.of(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def box(side):
    corners = torch.cartesian_prod(*(torch.tensor([-side, side]),) * 3)
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return Bvh.of(corners, torch.tensor([t for a, b, c, d in faces for t in ((a, b, c), (a, c, d))]))


def test_without_surfaces_it_is_tracing():
    gaussians, rays = scene(200), image_rays(24, 16)
    wanted = trace(gaussians, rays, background=BLUE).color
    torch.testing.assert_close(trace_scene(gaussians, [], rays, background=BLUE), wanted)


def test_an_opaque_wall_hides_what_is_behind():
    gaussians, rays = scene(200), image_rays(24, 16)
    wall = Surface(square(-2.0), "matte", (0.5, 0.25, 0.0))
    seen = trace_scene(gaussians, [wall], rays, sun=Sun((0.0, 0.0, -1.0), ambient=1.0), background=BLUE)
    front = trace(gaussians, Rays(rays.origins, rays.directions, None, 1 / rays.directions[:, 2]))
    wanted = front.color + (1 - front.opacity)[:, None] * torch.tensor([0.5, 0.25, 0.0])
    torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-4)


def test_a_mirror_shows_the_reflected_scene():
    """A mirror behind the camera's target shows the scene as one behind it would: reflected rays are the same rays from
    the mirrored origin."""
    gaussians = scene(200)
    rays = image_rays(24, 16, distance=-3.0)  # they look away from the scene, into the mirror at z = 5
    seen = trace_scene(gaussians, [Surface(square(5.0), "mirror")], rays)
    flip = torch.tensor([1.0, 1.0, -1.0])
    wanted = trace(
        gaussians, Rays((rays.origins * flip + torch.tensor([0.0, 0.0, 10.0])), rays.directions * flip)
    ).color
    assert float(wanted.mean()) > 0.02
    torch.testing.assert_close(seen, wanted, rtol=1e-3, atol=1e-3)


def test_glass_of_index_one_is_not_there():
    gaussians, rays = scene(200), image_rays(24, 16)
    wanted = trace(gaussians, rays, background=BLUE).color
    seen = trace_scene(gaussians, [Surface(box(0.5), "glass", index=1.0, smooth=False)], rays, background=BLUE)
    assert float((seen - wanted).abs().max()) < 2e-2 and float((seen - wanted).abs().mean()) < 1e-4


def test_glass_loses_no_light():
    """In a white room a glass box is invisible: what it reflects and lets through is all there is."""
    rays = image_rays(32, 32, distance=4.0)
    nothing = scene(4).select(torch.zeros(4, dtype=torch.bool))
    seen = trace_scene(nothing, [Surface(box(0.7), "glass", smooth=False)], rays, background=torch.ones(3), bounces=40)
    assert float(seen.min()) > 0.95 and float(seen.max()) < 1.0001


def test_fresnel():
    straight, behind = fresnel(torch.ones(1), torch.tensor([1 / 1.5]))
    assert math.isclose(float(straight), 0.04, abs_tol=1e-6) and float(behind) == 1
    brewster = math.atan(1.5)  # where light along the plane is not reflected at all
    share, _ = fresnel(torch.tensor([math.cos(brewster)], dtype=torch.float64), torch.tensor([1 / 1.5]).double())
    assert math.isclose(float(share), 0.5 * math.cos(2 * brewster) ** 2, abs_tol=1e-6)
    total, _ = fresnel(torch.tensor([0.5]), torch.tensor([1.5]))  # beyond the critical angle
    assert float(total) == 1


def test_shadows_fall_both_ways():
    overhead = Sun((0.0, 0.0, 1.0), ambient=0.25)
    ground, lid = Surface(square(-2.0), "matte"), Surface(square(2.0, 1.0), "matte")
    down = Rays(torch.tensor([[0.0, 0.0, 1.0], [5.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, -1.0]]).repeat(2, 1))
    nothing = scene(4).select(torch.zeros(4, dtype=torch.bool))
    seen = trace_scene(nothing, [ground, lid], down, sun=overhead)
    torch.testing.assert_close(seen[:, 0], torch.tensor([0.25, 1.0]))
    gaussians = scene(1, spread=0.0)  # between the ground and the sun
    low = Rays(down.origins - torch.tensor([0.0, 0.0, 2.5]), down.directions)
    opacity = trace(gaussians, Rays(low.origins[:1] - torch.tensor([0.0, 0.0, 0.5]), -low.directions[:1])).opacity
    seen = trace_scene(gaussians, [ground], low, sun=overhead)
    torch.testing.assert_close(
        seen[:, 0], torch.stack((1 - 0.75 * opacity[0], torch.tensor(1.0))), rtol=1e-4, atol=1e-4
    )
    dark = shadowed(scene(50, spread=0.3), [lid], overhead)
    bright = scene(50, spread=0.3)
    inside = bright.means[:2].abs().amax(0) < 1
    color, was = (0.5 + 0.28209479 * s.base for s in (dark, bright))
    torch.testing.assert_close(color[:, inside], 0.25 * was[:, inside], rtol=1e-4, atol=1e-4)
    assert int(inside.sum()) > 40


def test_the_nearest_of_several_meshes_counts():
    rays = image_rays(8, 8)
    surfaces = [Surface(square(2.0)), Surface(square(1.0)), Surface(square(3.0, 0.01))]
    hits = nearest_surface(surfaces, rays)
    assert (hits.surface == 1).all()
    torch.testing.assert_close(hits.depth * rays.directions[:, 2], torch.full((64,), 4.0))
    assert (nearest_surface([], rays).surface == -1).all()


def test_bad_input_is_refused():
    with pytest.raises(BadInput, match="material is 'wood'"):
        Surface(square(0.0), "wood")
    with pytest.raises(BadInput, match=r"index is 0\.5"):
        Surface(square(0.0), "glass", index=0.5)
    with pytest.raises(BadInput, match="Sun: towards"):
        Sun((0.0, 0.0, 0.0))
    with pytest.raises(BadInput, match="bounces is -1"):
        trace_scene(scene(3), [], image_rays(4, 4), bounces=-1)
