"""Views by ray tracing: any lens of `Cameras`, a shutter that rolls, a lens with an aperture.

A traced view needs no projection of Gaussians: each pixel has its ray, whatever bends or moves it. So a fisheye lens
of 180 degrees and a whole sphere are seen like any other, without seams, and a camera that moves while its rows are
exposed gives each row the rays of its time.

Letters: N rays, one per pixel, row by row.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import BadInput
from ..gaussians.scene import GaussianScene
from ..rays import Rays
from ..tracing.particle_bvh import ParticleBvh
from .gaussian_camera import Camera, RollingShutter
from .gaussian_projection_reference import exposure_times
from .gaussian_trace import DEFAULT, Tracing, scene_bvh, trace
from .volume import View

LENSES = ("capture", "fisheye", "equirectangular")
MOST_SAMPLES = 1024


def with_lens(cameras: Cameras, lens: str) -> Cameras:
    """The cameras where they are, with another lens: "fisheye", a circle of 180 degrees within the image, or
    "equirectangular", the whole sphere on an image twice as wide as high; "capture" leaves them as they are."""
    if lens not in LENSES:
        raise BadInput(f"lens is {lens!r:.40}; the rule: one of {', '.join(LENSES)}")
    if lens == "capture":
        return cameras
    size = cameras.size.amax(1, keepdim=True)
    if lens == "fisheye":
        size, focal = size.repeat(1, 2), (size / math.pi).repeat(1, 2)
    else:
        size = torch.cat((size, (size + 1) // 2), 1)
        focal = size / torch.tensor([2 * math.pi, math.pi])
    options = {"size": size, "focal": focal.to(cameras.focal), "principal": (size / 2).to(cameras.focal)}
    return replace(cameras, **options, distortion=torch.zeros_like(cameras.distortion), model=lens)


def in_image_circle(cameras: Cameras, view: int) -> Tensor:
    """[N], whether a fisheye's pixel is at most 90 degrees off the axis; of other lenses all."""
    pixel = cameras.pixel_centres(view)
    if cameras.model_of(view) != "fisheye":
        return torch.ones(len(pixel), dtype=torch.bool)
    return cameras.image_rays(view).directions @ cameras.camera_to_world[view, :3, 2] >= 0


def rolling_rays(cameras: Cameras, view: int, shutter: RollingShutter) -> Rays:
    """The rays of a view whose rows (or columns) are exposed one after another, by the motion that gaussian_camera.py
    describes: each at the time of its pixel."""
    pose = cameras.camera_to_world[view]
    width, height = cameras.size[view].tolist()
    start = torch.linalg.inv(pose.double())
    moving = Camera(start, (1.0, 1.0), (0.0, 0.0), width, height, shutter=shutter)
    axis, angle, shift = moving.shutter_motion()
    times = exposure_times(cameras.pixel_centres(view).double(), moving)[:, None]
    local = cameras.image_rays(view).directions.double() @ pose[:3, :3].double()

    def turned_back(x: Tensor) -> Tensor:  # by the rotation of that time, and that of the start
        back, along = -times * angle, axis * (x @ axis)[:, None]
        turned = along + back.cos() * (x - along) + back.sin() * torch.linalg.cross(axis.expand_as(x), x)
        return turned @ start[:3, :3]

    origins = turned_back(-(start[:3, 3] + times * shift))
    return Rays(origins.to(pose), turned_back(local).to(pose))


def lens_rays(rays: Rays, pose: Tensor, aperture: float, focus: float, generator: torch.Generator) -> Rays:
    """The rays through random points of a thin lens of radius `aperture` that has in focus what is at the depth `focus`
    along the axis of `pose` [4, 4] (camera to world)."""
    radius, angle = torch.rand(2, len(rays), generator=generator).to(rays.origins)
    radius, angle = aperture * radius.sqrt(), 2 * math.pi * angle
    off = (radius * angle.cos())[:, None] * pose[:3, 0] + (radius * angle.sin())[:, None] * pose[:3, 1]
    ahead = (rays.directions @ pose[:3, 2]).clamp_min(1e-6)
    seen = rays.at(focus / ahead)
    return Rays(
        rays.origins + off, torch.nn.functional.normalize(seen - rays.origins - off, dim=-1), rays.near, rays.far
    )


def view_rays(cameras: Cameras, view: int, *, near: float = 0.0, shutter: RollingShutter | None = None) -> Rays:
    """The rays of all pixels of a view; nothing nearer than `near` is seen."""
    rays = rolling_rays(cameras, view, shutter) if shutter else cameras.image_rays(view)
    origins, directions = rays.origins.contiguous(), torch.nn.functional.normalize(rays.directions, dim=-1)
    return Rays(origins, directions, torch.full_like(origins[:, 0], near) if near > 0 else None)


def trace_view(
    gaussians: GaussianScene,
    cameras: Cameras,
    view: int,
    background: Tensor | None = None,
    *,
    tracing: Tracing = DEFAULT,
    bvh: ParticleBvh | None = None,
    near: float = 0.0,
    shutter: RollingShutter | None = None,
    aperture: float = 0.0,
    focus: float = 1.0,
    samples: int = 1,
) -> View:
    """A view of `gaussians` over `background` [3] (black by default). With an aperture each pixel is the mean of
    `samples` rays through the lens, the same ones at every call. Raises `BadInput` for numbers out of range."""
    if not (0 <= aperture < math.inf and 0 < focus < math.inf and 1 <= samples <= MOST_SAMPLES):
        found = f"aperture {aperture}, focus {focus}, samples {samples}"
        raise BadInput(f"trace_view: {found}; the rule: at least 0, above 0, and from 1 to {MOST_SAMPLES}")
    width, height = cameras.size[view].tolist()
    rays, generator = view_rays(cameras, view, near=near, shutter=shutter), torch.Generator().manual_seed(0)
    bvh = bvh or scene_bvh(gaussians, tracing.kernel)
    color, opacity, depth = 0, 0, 0
    for _ in range(samples):
        bent = lens_rays(rays, cameras.camera_to_world[view], aperture, focus, generator) if aperture > 0 else rays
        seen = trace(gaussians, bent, tracing=tracing, bvh=bvh, background=background, width=width)
        color, opacity, depth = (
            color + seen.color / samples,
            opacity + seen.opacity / samples,
            depth + seen.depth / samples,
        )
    depth = depth / opacity.clamp_min(1e-6)
    return View(color.view(height, width, 3), opacity.view(height, width), depth.view(height, width))
