"""Gaussians rasterised with their response along rays, 3DGUT: in training (`--splat.renderer 3dgut` or `3dgut-sorted`)
and of runs (`radfield render --renderer 3dgut`)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...cameras import Cameras
from ...gaussians.memory_cap import MemoryCap
from ...gaussians.scene import GaussianScene, Seen
from ...rays import Rays
from ...renderers.gaussian_camera import Camera
from ...renderers.gaussian_eval3d import SORTED_K, Drawn, Eval3d, see_eval3d
from ...renderers.gaussian_raster import Rasterised
from ...renderers.gaussian_tiles import EntryBudget
from ...renderers.traced_view import view_rays
from ...renderers.volume import View
from ..run_files import BACKGROUNDS
from .config import Config

#: the names of the renderers, and how many hits of a ray wait to be sorted
BUFFERS = {"3dgut": 0, "3dgut-sorted": SORTED_K}


def _see(gaussians: GaussianScene, camera: Camera, rays: Rays, background: Tensor, config: Config, **room) -> Drawn:
    camera = dataclasses.replace(camera, unscented=True)
    options = Eval3d(k=BUFFERS[config.renderer], max_alpha=config.max_alpha)
    return see_eval3d(gaussians, camera, rays, background, near=config.near, options=options, **room)


def _view(gaussians: GaussianScene, cameras: Cameras, view: int, near: float) -> tuple[Camera, Rays]:
    """A view and its rays, where the Gaussians are."""
    cameras = cameras.to(gaussians.means.device)
    return Camera.of(cameras, view, near=near), view_rays(cameras, view)


def see_gut(
    gaussians: GaussianScene, cameras: Cameras, view: int, background: Tensor, config: Config, cap: MemoryCap
) -> Seen:
    """As `gaussians.scene.see`, through any lens but one of a whole sphere. What is seen has no projection: its
    gradients go to the Gaussians past the image."""
    drawn = _see(gaussians, *_view(gaussians, cameras, view, config.near), background, config, cap=cap)
    return Seen(Rasterised(drawn.color, drawn.alpha), None)


def local_directions(cameras: Cameras, view: int) -> Tensor:
    """[N, 3], those of a view's rays in the camera's axes: the same for all views through one lens."""
    return view_rays(cameras, view).directions @ cameras.camera_to_world[view, :3, :3]


def see_from_pose(
    gaussians: GaussianScene, camera: Camera, local: Tensor, background: Tensor, config: Config, budget: EntryBudget
) -> Seen:
    """The same of a view whose pose alone is known, on the device: `local` are the `local_directions` of its lens."""
    origins = camera.position.expand(len(local), 3).contiguous()
    rays = Rays(origins, local @ camera.world_to_camera[:3, :3])
    drawn = _see(gaussians, camera, rays, background, config, budget=budget)
    return Seen(Rasterised(drawn.color, drawn.alpha), None)


def render_view(model, cameras: Cameras, view: int, background: Tensor | None = None) -> View:
    """As `splat.Model.render_view`, of a model whose renderer is one of `BUFFERS`."""
    if background is None:
        background = torch.full((3,), BACKGROUNDS[model.background], device=model.device)
    with torch.no_grad():
        camera, rays = _view(model.gaussians, cameras, view, model.config.near)
        drawn = _see(model.gaussians, camera, rays, background.to(model.device), model.config)
    return View(drawn.color, drawn.alpha, drawn.depth / drawn.alpha.clamp_min(1e-6))
