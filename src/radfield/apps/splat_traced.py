"""Runs of Gaussians drawn by ray tracing (`radfield render --tracer`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import BadInput
from ..renderers.gaussian_projection import MIN_ALPHA
from ..renderers.gaussian_raster import MIN_TRANSMITTANCE
from ..renderers.gaussian_trace import Tracing, scene_bvh
from ..renderers.traced_view import trace_view, with_lens
from ..renderers.volume import View
from ..tracing.particle_bvh import Kernel
from .run_files import BACKGROUNDS
from .splat import Model

__all__ = ["TracedModel", "with_lens"]


class TracedModel:
    """A run's Gaussians, traced with the thresholds that rasterising has, since they were trained with those."""

    def __init__(self, model: Model):
        if model.device.type != "cpu":
            raise BadInput(f"--tracer with --device {model.device}; the rule: cpu, where rays are traced")
        self.model, self.transform = model, model.transform
        limits = {"min_transmittance": MIN_TRANSMITTANCE, "max_alpha": model.config.max_alpha}
        self.tracing = Tracing(Kernel(min_response=MIN_ALPHA), **limits)
        self.bvh = scene_bvh(model.gaussians, self.tracing.kernel) if len(model.gaussians) else None

    def render_view(self, cameras: Cameras, view: int, background: Tensor | None = None) -> View:
        """As `Model.render_view`, through any lens."""
        if background is None:
            background = torch.full((3,), BACKGROUNDS[self.model.background])
        options = {"tracing": self.tracing, "bvh": self.bvh, "near": self.model.config.near}
        with torch.no_grad():
            return trace_view(self.model.gaussians, cameras, view, background, **options)
