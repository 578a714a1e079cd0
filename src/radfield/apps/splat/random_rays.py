"""Training Gaussians along random rays (`--splat.rays`), which only tracing can: a step sees N pixels of all training
views instead of all pixels of one.

SSIM compares neighbours, and random pixels have none: the loss is the absolute difference alone. Images have their full
size from the first step on. Letters: N rays, V views, G Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...camera_rays import camera_rays
from ...cameras import Cameras
from ...data.pixels import Pixels, drawable, sample_pixels
from ...data.scene import Images, Scene
from ...errors import BadInput
from ...gaussians.scene import GaussianScene
from ...rays import Rays
from ...renderers.gaussian_trace import Traced, trace
from .config import Config
from .tracing import TrainingTree, tracing_of

MOST_POSITIONS = 8  # cameras that a Gaussian's distance is a mean over


@dataclass(frozen=True)
class RayBatch:
    """Pixels with their rays; `background` [3] is behind all of them."""

    pixels: Pixels
    rays: Rays
    background: Tensor


def check_images(config: Config, scene: Scene) -> None:
    """Raises `BadInput` where random pixels are asked for of images that are not in memory."""
    if config.rays and not isinstance(scene.train.images, Images):
        raise BadInput(f"--splat.rays is {config.rays} and the images are on disk; the rule: a larger --memory-gb")


class RaySampler:
    """What random rays are drawn from: the pixels of `images` by `cameras`, all on `device`. positions: [up to 8, 3],
    centres of views spread evenly over all, from which density control measures distances."""

    def __init__(self, config: Config, images: Images, cameras: Cameras, device: torch.device | str = "cpu"):
        self.config, self.images, self.cameras = config, images.to(device), cameras.to(device)
        self.spans = drawable(self.images)
        last, count = len(cameras) - 1, min(len(cameras), MOST_POSITIONS)
        views = torch.linspace(0, last, count, device=device).long()
        self.positions = self.cameras.camera_to_world[views, :3, 3]

    def draw(self, background: Tensor, seed: int, step: int) -> RayBatch:
        """The rays of a step, the same for the same (seed, step); pixels that are ignored are not drawn."""
        given = {"seed": seed, "step": step, "background": background, "spans": self.spans}
        pixels = sample_pixels(self.images, self.config.rays, **given)
        rays = camera_rays(self.cameras, pixels.view, pixels.pixel, check=False)
        near = torch.full_like(pixels.alpha, self.config.near)
        return RayBatch(pixels, Rays(rays.origins.contiguous(), rays.directions.contiguous(), near), background)


def see(gaussians: GaussianScene, batch: RayBatch, config: Config, tree: TrainingTree) -> Traced:
    """What the rays see."""
    tracing = tracing_of(config)
    options = {"tracing": tracing, "bvh": tree.of(gaussians, tracing)}
    return trace(gaussians, batch.rays, background=batch.background, **options)
