"""Views by ray tracing: every lens, the shutter, the aperture."""

import math

import pytest
import torch
from renderers_traced import gaussian_scene as scene

from radfield.cameras import Cameras, look_at
from radfield.errors import BadInput
from radfield.gaussians.scene import see
from radfield.renderers.gaussian_camera import Camera, RollingShutter
from radfield.renderers.gaussian_trace import Tracing
from radfield.renderers.traced_view import (
    in_image_circle,
    lens_rays,
    rolling_rays,
    trace_view,
    view_rays,
    with_lens,
)
from radfield.tracing.particle_bvh import Kernel

LIKE_RASTER = Tracing(Kernel(min_response=1 / 255), min_transmittance=1e-4)


def apart():
    """Small Gaussians far apart along y: where they overlap, centres and rays order them differently."""
    gaussians = scene(400, size=-4.0, spread=0.12)
    gaussians.means[1] *= 30
    return gaussians


def cameras(width=64, height=48, model="perspective", origin=(0.0, -3.0, 0.4), focal=60.0):
    pose = look_at(torch.tensor([origin]), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    size = torch.tensor([[width, height]])
    return Cameras(pose, torch.full((1, 2), focal), size / 2.0, size, torch.zeros(1, 9), model)


def psnr(a, b):
    return -10 * math.log10(float((a - b).square().mean()))


@pytest.mark.parametrize("model", ("perspective", "fisheye"))
def test_it_draws_what_the_rasteriser_draws(model):
    gaussians, seen_by = apart(), cameras(96, 72, model, (0.0, -30.0, 4.0), 8000.0)
    background = torch.tensor([0.2, 0.4, 0.6])
    ours = trace_view(gaussians, seen_by, 0, background, tracing=LIKE_RASTER)
    theirs = see(gaussians, Camera.of(seen_by, 0), background).image
    assert psnr(ours.color, theirs.color) > 40 and psnr(ours.opacity, theirs.alpha) > 40
    assert float(ours.opacity.mean()) > 0.3


def test_a_fisheye_sees_half_a_sphere_and_a_whole_one_all():
    one = cameras(64, 48)
    fisheye, whole = with_lens(one, "fisheye"), with_lens(one, "equirectangular")
    assert fisheye.size.tolist() == [[64, 64]] and whole.size.tolist() == [[64, 32]]
    assert with_lens(one, "capture") is one
    share = float(in_image_circle(fisheye, 0).float().mean())
    assert abs(share - math.pi / 4) < 0.02
    directions = view_rays(whole, 0).directions.view(32, 64, 3)
    assert float((directions[:, 0] * directions[:, -1]).sum(-1).min()) > math.cos(0.11)  # left and right are neighbours
    assert float(view_rays(whole, 0).directions.mean(0).norm()) < 0.02
    with pytest.raises(BadInput, match="lens is 'tele'"):
        with_lens(one, "tele")


def test_a_whole_sphere_has_no_seam():
    """Turned by half a turn, what was on the seam is in the middle: the picture is the same one, moved by half."""
    gaussians, there = scene(600, spread=2.0), with_lens(cameras(64, 32, origin=(0.3, -0.2, 0.1)), "equirectangular")
    turned = Cameras(
        **{**vars(there), "camera_to_world": there.camera_to_world @ torch.diag(torch.tensor([-1.0, 1, -1, 1]))}
    )
    ours = trace_view(gaussians, there, 0).color
    theirs = trace_view(gaussians, turned, 0).color
    assert float(ours.mean()) > 0.05
    assert float((ours - theirs.roll(32, 1)).abs().max()) < 2e-4


def test_a_shutter_that_rolls_while_nothing_moves_is_none():
    one = cameras()
    still = rolling_rays(one, 0, RollingShutter(torch.linalg.inv(one.camera_to_world[0])))
    wanted = view_rays(one, 0)
    torch.testing.assert_close(still.origins, wanted.origins)
    torch.testing.assert_close(still.directions, wanted.directions)


@pytest.mark.parametrize("direction", ("down", "left"))
def test_a_rolling_shutter_sees_what_the_rasteriser_sees(direction):
    gaussians, one = apart(), cameras(96, 80, "perspective", (0.0, -30.0, 1.0), 8000.0)
    later = look_at(torch.tensor([0.15, -30.0, 1.1]), torch.tensor([0.02, 0.0, 0.03]), torch.tensor([0.03, 0.0, 1.0]))
    shutter = RollingShutter(torch.linalg.inv(later), direction)
    ours = trace_view(gaussians, one, 0, tracing=LIKE_RASTER, shutter=shutter)
    camera = Camera.of(one, 0)
    rolling = Camera(**{**{k: getattr(camera, k) for k in camera.__dataclass_fields__}, "shutter": shutter})
    theirs, still = (see(gaussians, c).image.color for c in (rolling, camera))
    assert psnr(ours.color, theirs) > 35 > psnr(ours.color, still)


def test_a_lens_is_sharp_where_it_is_in_focus():
    gaussians, one = scene(40, size=-4.0, spread=0.1), cameras(48, 48, focal=300.0)
    far = float(one.camera_to_world[0, :3, 3].norm())
    rays, generator = view_rays(one, 0), torch.Generator().manual_seed(0)
    bent = lens_rays(rays, one.camera_to_world[0], 0.2, far, generator)
    forward = one.camera_to_world[0, :3, 2]
    at = far / (rays.directions @ forward), far / (bent.directions @ forward)
    torch.testing.assert_close(rays.at(at[0]), bent.at(at[1]), rtol=1e-4, atol=1e-4)
    off = (bent.origins - rays.origins).norm(dim=1)
    assert 0.19 < float(off.max()) <= 0.2001 and float(off.mean()) > 0.1
    sharp = trace_view(gaussians, one, 0)
    focused = trace_view(gaussians, one, 0, aperture=0.05, focus=far, samples=8)
    blurred = trace_view(gaussians, one, 0, aperture=0.3, focus=far / 3, samples=8)
    assert psnr(sharp.color, focused.color) > psnr(sharp.color, blurred.color) + 6


def test_nothing_nearer_than_near_is_seen():
    gaussians, one = scene(200), cameras()
    assert float(trace_view(gaussians, one, 0, near=1.0).opacity.mean()) > 0.1
    assert not trace_view(gaussians, one, 0, near=20.0).opacity.any()


@pytest.mark.parametrize("options", ({"aperture": -1.0}, {"focus": 0.0}, {"samples": 0}))
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(BadInput, match="trace_view"):
        trace_view(scene(3), cameras(), 0, **options)
