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
from ...data.pixels import Pixels, sample_pixels
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


def check_images(config: Config, scene: Scene, device: torch.device) -> None:
    """Raises `BadInput` where random pixels are asked for of images that are not in memory, or on a GPU."""
    if config.rays and device.type == "cuda":
        raise BadInput(f"--splat.rays is {config.rays} on {device}; the rule: --device cpu, where pixels are drawn")
    if config.rays and not isinstance(scene.train.images, Images):
        raise BadInput(f"--splat.rays is {config.rays} and the images are on disk; the rule: a larger --memory-gb")


def draw(images: Images, cameras, config: Config, background: Tensor, seed: int, step: int) -> RayBatch:
    """The rays of a step, the same for the same (seed, step); pixels that are ignored are not drawn."""
    pixels = sample_pixels(images, config.rays, seed=seed, step=step, background=background)
    rays = camera_rays(cameras, pixels.view, pixels.pixel, check=False)
    near = torch.full_like(pixels.alpha, config.near)
    return RayBatch(pixels, Rays(rays.origins.contiguous(), rays.directions.contiguous(), near), background)


def see(gaussians: GaussianScene, batch: RayBatch, config: Config, tree: TrainingTree) -> Traced:
    """What the rays see."""
    tracing = tracing_of(config)
    options = {"tracing": tracing, "bvh": tree.of(gaussians, tracing)}
    return trace(gaussians, batch.rays, background=batch.background, **options)


def positions(cameras) -> Tensor:
    """[up to 8, 3], centres of views spread evenly over all: what density control measures distances from."""
    views = torch.linspace(0, len(cameras) - 1, min(len(cameras), MOST_POSITIONS)).long()
    return cameras.camera_to_world[views, :3, 3]
