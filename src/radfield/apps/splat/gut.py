"""Gaussians rasterised with their response along rays, 3DGUT: in training (`--splat.renderer 3dgut` or `3dgut-sorted`)
and of runs (`radfield render --renderer 3dgut`)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...cameras import Cameras
from ...gaussians.memory_cap import MemoryCap
from ...gaussians.scene import GaussianScene, Seen
from ...renderers.gaussian_camera import Camera
from ...renderers.gaussian_eval3d import SORTED_K, Drawn, Eval3d, see_eval3d
from ...renderers.gaussian_raster import Rasterised
from ...renderers.traced_view import view_rays
from ...renderers.volume import View
from ..run_files import BACKGROUNDS
from .config import Config

#: the names of the renderers, and how many hits of a ray wait to be sorted
BUFFERS = {"3dgut": 0, "3dgut-sorted": SORTED_K}


def _see(
    gaussians: GaussianScene, cameras: Cameras, view: int, background: Tensor, config: Config, cap: MemoryCap | None
) -> Drawn:
    cameras, background = (value.to(gaussians.means.device) for value in (cameras, background))
    camera = dataclasses.replace(Camera.of(cameras, view, near=config.near), unscented=True)
    options = Eval3d(k=BUFFERS[config.renderer], max_alpha=config.max_alpha)
    return see_eval3d(
        gaussians, camera, view_rays(cameras, view), background, near=config.near, options=options, cap=cap
    )


def see_gut(
    gaussians: GaussianScene, cameras: Cameras, view: int, background: Tensor, config: Config, cap: MemoryCap
) -> Seen:
    """As `gaussians.scene.see`, through any lens but one of a whole sphere. What is seen has no projection: its
    gradients go to the Gaussians past the image."""
    drawn = _see(gaussians, cameras, view, background, config, cap)
    return Seen(Rasterised(drawn.color, drawn.alpha), None)


def render_view(model, cameras: Cameras, view: int, background: Tensor | None = None) -> View:
    """As `splat.Model.render_view`, of a model whose renderer is one of `BUFFERS`."""
    if background is None:
        background = torch.full((3,), BACKGROUNDS[model.background], device=model.device)
    with torch.no_grad():
        drawn = _see(model.gaussians, cameras, view, background, model.config, None)
    return View(drawn.color, drawn.alpha, drawn.depth / drawn.alpha.clamp_min(1e-6))
