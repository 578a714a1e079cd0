"""Gaussians drawn by ray tracing: in training (`--splat.renderer trace`), and of runs (`radfield render --tracer`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...cameras import Cameras
from ...gaussians.scene import GaussianScene, Seen
from ...renderers.gaussian_projection import MIN_ALPHA
from ...renderers.gaussian_raster import MIN_TRANSMITTANCE, Rasterised
from ...renderers.gaussian_trace import Tracing, scene_bvh, scene_particles, trace
from ...renderers.traced_view import trace_view, view_rays, with_lens
from ...renderers.volume import View
from ...tracing.particle_bvh import Kernel, ParticleBvh
from ..run_files import BACKGROUNDS
from .config import Config

__all__ = ["TracedModel", "TrainingTree", "see_traced", "tracing_of", "with_lens"]

MOST_REFITS = 15  # then the tree is built again (3DGRT)


def tracing_of(config: Config) -> Tracing:
    """With the thresholds that rasterising has, so that a scene can go from one to the other."""
    limits = {"min_transmittance": MIN_TRANSMITTANCE, "max_alpha": config.max_alpha}
    return Tracing(Kernel(min_response=MIN_ALPHA), **limits)


class TrainingTree:
    """The tree of Gaussians that change a little at every step."""

    def __init__(self):
        self.bvh: ParticleBvh | None = None
        self.refits = 0

    def forget(self) -> None:
        """After Gaussians were added, removed or put into another order."""
        self.bvh = None

    def of(self, gaussians: GaussianScene, tracing: Tracing) -> ParticleBvh | None:
        """The tree, fitted to `gaussians`."""
        if self.bvh is None or self.refits == MOST_REFITS or len(self.bvh) != len(gaussians):
            self.bvh, self.refits = scene_bvh(gaussians, tracing.kernel), 0
        else:
            self.bvh.refit(*(value.detach() for value in scene_particles(gaussians)))
            self.refits += 1
        return self.bvh


def see_traced(
    gaussians: GaussianScene, cameras: Cameras, view: int, background: Tensor, config: Config, tree: TrainingTree
) -> Seen:
    """As `gaussians.scene.see`, by rays, through any lens; there is no projection then."""
    width, height = cameras.size[view].tolist()
    tracing = tracing_of(config)
    options = {"tracing": tracing, "bvh": tree.of(gaussians, tracing), "background": background, "width": width}
    rays = view_rays(cameras.to(gaussians.means.device), view, near=config.near)
    seen = trace(gaussians, rays, **options)
    return Seen(Rasterised(seen.color.view(height, width, 3), seen.opacity.view(height, width)), None)


class TracedModel:
    """A run's Gaussians, drawn by rays."""

    def __init__(self, model):
        self.model, self.transform, self.tracing = model, model.transform, tracing_of(model.config)
        self.bvh = scene_bvh(model.gaussians, self.tracing.kernel)

    def render_view(self, cameras: Cameras, view: int, background: Tensor | None = None) -> View:
        """As `splat.Model.render_view`, through any lens."""
        if background is None:
            background = torch.full((3,), BACKGROUNDS[self.model.background], device=self.model.device)
        cameras, background = cameras.to(self.model.device), background.to(self.model.device)
        options = {"tracing": self.tracing, "bvh": self.bvh, "near": self.model.config.near}
        with torch.no_grad():
            return trace_view(self.model.gaussians, cameras, view, background, **options)
