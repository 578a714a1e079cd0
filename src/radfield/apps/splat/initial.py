"""The Gaussians that a training begins with: at the capture's sparse points, on surfaces that a short NeRF finds, or
anywhere.

Letter: G Gaussians.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...cameras import Cameras
from ...data.scene import Scene
from ...errors import BadInput, warn
from ...gaussians import initial
from ...gaussians.scene import GaussianScene
from .config import Config

LEAST_POINTS = 1000  # fewer sparse points are too few to begin with
RAYS_EACH = 4  # rays of the NeRF per Gaussian that is wanted: most see empty space


def source(config: Config, scene: Scene) -> str:
    """Where the first Gaussians come from: "points", "nerf" or "random". Raises `BadInput` where points are asked for
    and the capture has none."""
    points = 0 if scene.points is None else len(scene.points.position)
    if config.initial == "points" and not points:
        raise BadInput("--splat.initial is points; the rule: auto, nerf or random, since the capture has no points")
    if config.initial != "auto":
        return config.initial
    return "points" if points >= LEAST_POINTS else "nerf"


def make(
    config: Config, scene: Scene, seed: int, most: int, memory: int | None, device: torch.device | str = "cpu"
) -> GaussianScene:
    """At most `most` Gaussians in scene coordinates, on the CPU. memory: of the images where they are on disk. device:
    where a NeRF trains."""
    generator = torch.Generator().manual_seed(seed)
    count, kind = min(config.initial_gaussians, most), source(config, scene)
    if kind == "points":
        return initial.from_points(scene.points, most, config.sh_degree, generator)
    if kind == "nerf":
        position, color = surfaces(scene, count, config.nerf_steps, seed, memory, device)
        if len(position) >= 4:
            return initial.on_surfaces(position, color, config.sh_degree)
        warn("the short NeRF found no surface: the first Gaussians are at random places")
    return initial.at_random(count, scene.cascades, config.sh_degree, generator)


def surfaces(
    scene: Scene, count: int, steps: int, seed: int, memory: int | None, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """At most `count` points [G, 3] with colours [G, 3] where rays of the training views end in a NeRF of `steps`
    steps, in random order."""
    from .. import ngp

    config = ngp.Config(log2_size=17, finest_resolution=1024, batch_samples=1 << 15, uniform_cells=1 << 18)
    where = {"cascades": scene.cascades, "transform": scene.transform, "background": scene.background}
    model = ngp.build(config, **where, seed=seed, device=device)
    training = ngp.Training(model, scene, seed, memory)
    for step in range(steps):
        ngp.train_step(training, step / steps)
    training.settle()
    return ends_in(model, scene.train.cameras, count, seed)


def ends_in(model, cameras: Cameras, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """At most `count` points [G, 3] with colours [G, 3] where rays of the views of `cameras` end in a model, in random
    order."""
    found = [_ends(model, small, view) for small, view in _small_views(cameras, RAYS_EACH * count)]
    position, color = (torch.cat(parts) for parts in zip(*found, strict=True))
    chosen = torch.randperm(len(position), generator=torch.Generator().manual_seed(seed))[:count]
    return position[chosen], color[chosen]


def _small_views(cameras: Cameras, rays: int):
    """(cameras, view) of all views, so small that they have about `rays` pixels together."""
    pixels = int(cameras.size.prod(1).sum())
    small = cameras if pixels <= rays else cameras.scaled((rays / pixels) ** 0.5)
    return [(small, view) for view in range(len(small))]


def _ends(model, cameras: Cameras, view: int) -> tuple[Tensor, Tensor]:
    """Where the rays of a view end that hit something, and the colours there."""
    from ...camera_rays import camera_rays

    cameras = cameras.to(model.device)
    seen = model.render_view(cameras, view)
    pixel = cameras.pixel_centres(view)
    rays = camera_rays(cameras, torch.full((len(pixel),), view, dtype=torch.int32, device=model.device), pixel)
    hit = seen.opacity.reshape(-1) > 0.5
    position = rays.origins + seen.depth.reshape(-1, 1) * rays.directions
    return position[hit].cpu(), seen.color.reshape(-1, 3)[hit].cpu()
