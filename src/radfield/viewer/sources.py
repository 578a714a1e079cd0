"""What the server draws: a source answers rays, or whole images, of a camera in scene coordinates.

A source has `channels` (what it can show), `transform` and `cascades` (its scene), and one of

    ask(look, rays, index) -> Answer     colours, opacities and distances of a camera's pixels `index`
    draw(look, camera, background) -> View       where only whole images can be drawn (`whole` is True)

Letters: N pixels, G Gaussians. Cameras have V = 1.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera_rays import camera_rays
from ..cameras import Cameras
from ..geometry import SceneTransform, intersect_box
from ..rays import Rays
from ..renderers import sphere_tracing, surface_volume, volume
from ..sampling.march import march
from .crop import Box

COLOR, DEPTH, NORMALS, OPACITY, SAMPLES, OCCUPANCY = CHANNELS = (
    "colour",
    "depth",
    "normals",
    "opacity",
    "samples",
    "occupancy",
)
#: while the camera moves, steps along rays are this many times longer, and rays end at this transmittance
HASTE, HASTY_STOP = 2.0, 0.02


@dataclass(frozen=True)
class Look:
    """How a picture is wanted. channel: one of CHANNELS; background: [3] colour, None for the run's own; crop: nothing
    outside this box is drawn; hasty: coarser along rays, for a camera that moves; level: of distance fields, where the
    surface is shown; frame: of a sequence."""

    channel: str = COLOR
    background: tuple[float, float, float] | None = None
    crop: Box | None = None
    hasty: bool = False
    level: float = 0.0
    frame: int = 0


@dataclass(frozen=True)
class Answer:
    """color [N, 3], opacity [N] and distance along the ray [N] (scene units, 0 where nothing is), on the CPU."""

    color: Tensor
    opacity: Tensor
    depth: Tensor


class RadianceSource:
    """A radiance field of the method ngp (`apps/ngp`)."""

    whole = False
    channels = CHANNELS

    def __init__(self, model):
        self.model = model

    @property
    def transform(self) -> SceneTransform:
        """World to scene."""
        return self.model.transform

    @property
    def cascades(self) -> int:
        """How many nested cubes hold the scene."""
        return self.model.cascades

    def background(self, look: Look) -> Tensor:
        """[3], behind what is drawn."""
        from ..apps.ngp import background_color

        if look.background is None:
            return background_color(self.model.background, self.model.device)
        return torch.tensor(look.background, device=self.model.device)

    @torch.no_grad()
    def ask(self, look: Look, camera: Cameras, index: Tensor) -> Answer:
        """The pixels `index` [N] (row by row) of `camera`, whose principal point and size are those of the image."""
        model = self.model
        camera, index = camera.to(model.device), index.to(model.device)
        rays = cropped(pixel_rays(camera, index), look.crop)
        if look.channel == SAMPLES:
            return self._samples(rays)
        if look.channel == OCCUPANCY:
            return self._occupied(rays, look)
        config = model.render
        if look.hasty:
            longer = {"step": config.step * HASTE, "cone": config.cone * HASTE}
            config = dataclasses.replace(config, **longer, stop=HASTY_STOP)
        return Answer(*(each.cpu() for each in self._seen(rays, self.background(look), config)))

    def _seen(self, rays: Rays, background: Tensor, config: volume.Config) -> tuple[Tensor, Tensor, Tensor]:
        return volume.render_rays(self.model.field, self.model.grid, rays, background, config)

    def _march(self, rays: Rays, **options):
        config = self.model.render
        if rays.near is None:
            rays = dataclasses.replace(rays, near=torch.full_like(rays.origins[:, 0], config.near))
        longest = volume.longest_step(config, self.model.grid)
        return march(rays, self.model.grid, step=config.step, cone=config.cone, max_step=longest, **options)

    def _samples(self, rays: Rays) -> Answer:
        """The number of steps of each ray in occupied cells, as grey: 0 black, 256 and more white; `depth` counts."""
        count = self._march(rays).ray_start.diff().float().cpu()
        return Answer((count / 256).clamp(max=1)[:, None].expand(-1, 3), torch.ones_like(count), count)

    def _occupied(self, rays: Rays, look: Look) -> Answer:
        """The first occupied cell of each ray, in a colour of the cell, darker with distance."""
        first = self._march(rays, max_per_ray=1)
        hit = first.ray_start.diff() > 0
        opacity = hit.float()
        x, t = (torch.zeros(len(rays), *each.shape[1:], device=opacity.device) for each in (first.x, first.t_start))
        x[hit], t[hit] = first.x, first.t_start
        cell = (x * self.model.grid.config.resolution).floor()
        shade = (torch.sin(cell @ x.new_tensor([12.9898, 78.233, 37.719])) * 43758.5453).frac().abs()
        color = (0.35 + 0.4 * shade)[:, None] * x.new_tensor([0.55, 0.8, 1.0]) * (1.3 / (1 + 0.3 * t))[:, None]
        color = torch.where(hit[:, None], color.clamp(0, 1), self.background(look))
        return Answer(color.cpu(), opacity.cpu(), t.cpu())


class SurfaceSource(RadianceSource):
    """A surface with colours (`apps/neus2`), drawn as it is trained."""

    def _seen(self, rays: Rays, background: Tensor, config: volume.Config) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        each = surface_volume.RAYS_PER_CALL
        parts = [rays[begin : begin + each] for begin in range(0, max(len(rays), 1), each)]
        given = (background, config)
        found = [surface_volume.render_rays(model.field, model.outside, model.grid, p, *given)[:3] for p in parts]
        return tuple(torch.cat(each) for each in zip(*found, strict=True))


class GaussianSource:
    """Gaussians (`apps/splat`), drawn as whole images."""

    whole = True
    channels = (COLOR, DEPTH, NORMALS, OPACITY)

    def __init__(self, model):
        self.model = model
        self._cropped = (None, None, None)

    transform = property(lambda self: self.model.transform)
    cascades = property(lambda self: self.model.cascades)

    def draw(self, look: Look, camera: Cameras) -> volume.View:
        """The whole image of `camera`, on the CPU."""
        background = None if look.background is None else torch.tensor(look.background)
        return self._inside(look.crop).render_view(camera, 0, background).cpu()

    def _inside(self, crop: Box | None):
        """The model with the Gaussians whose centres are inside the box; kept until the box or they change."""
        if crop is None:
            return self.model
        gaussians = self.model.gaussians
        if self._cropped[0] != crop or self._cropped[1] is not gaussians:
            inside = dataclasses.replace(self.model, gaussians=gaussians.select(crop.contains(gaussians.means.T)))
            self._cropped = (crop, gaussians, inside)
        return self._cropped[2]


class DistanceSource:
    """A distance field (`apps/fit/sdf.py`), signed or not, whose surface is where the distance is the look's level."""

    whole = False
    channels = (COLOR, DEPTH, NORMALS, OPACITY)
    levels = 0.1  # furthest from 0 that may be looked at, in scene units

    def __init__(self, model):
        self.model = model
        self._space = (None, None)

    transform = property(lambda self: self.model.transform)
    cascades = property(lambda self: self.model.cascades)

    @torch.no_grad()
    def ask(self, look: Look, camera: Cameras, index: Tensor) -> Answer:
        """The pixels `index` [N] (row by row) of `camera`."""
        device = self.model.device
        camera, index = camera.to(device), index.to(device)
        crop = None if look.crop is None else (look.crop.low, look.crop.high)
        distance = sphere_tracing.FieldDistance(self.model.field, look.level, crop, self.model.hit)
        if self._space[0] != (look.level, look.crop):
            self._space = ((look.level, look.crop), sphere_tracing.FreeSpace.of(distance, device))
        background = torch.tensor(look.background or (1.0, 1.0, 1.0), device=device)
        given = distance, self._space[1], pixel_rays(camera, index), self.model.box, background
        return Answer(*(each.cpu() for each in sphere_tracing.render_rays(*given)))


class PhotographSource:
    """A photograph, seen from where it was taken: for comparing it with a render. Elsewhere it answers nothing.

    cameras: of the capture, in scene coordinates; image [H, W, 3] sRGB in [0, 1] of its view.
    """

    whole = False
    channels = (COLOR,)

    def __init__(self, cameras: Cameras, view: int, image: Tensor):
        self.cameras, self.view, self.image = cameras[view], view, image
        self.position = self.cameras.camera_to_world[0, :3, 3]

    def here(self, camera: Cameras) -> bool:
        """Whether `camera` stands where the photograph was taken; it may be turned."""
        return bool((camera.camera_to_world[0, :3, 3] - self.position).norm() < 1e-4)

    def ask(self, look: Look, camera: Cameras, index: Tensor) -> Answer:
        """What the photograph shows along the camera's pixels, and opacity 0 where it ends."""
        rays = pixel_rays(camera, index)
        points = rays.origins + rays.directions
        pixel, ahead = self.cameras.project(torch.zeros(len(rays), dtype=torch.long), points)
        height, width = self.image.shape[:2]
        inside = (ahead > 0) & (pixel >= 0).all(1) & (pixel < torch.tensor([width, height])).all(1)
        grid = (2 * pixel / torch.tensor([width, height]) - 1)[None, :, None]
        planes = self.image.permute(2, 0, 1)[None].float()
        options = {"mode": "bilinear", "padding_mode": "border", "align_corners": False}
        color = torch.nn.functional.grid_sample(planes, grid.float(), **options)[0, :, :, 0].T
        return Answer(color, inside.float(), torch.zeros(len(rays)))


def source_of(model):
    """The source of a model of `radfield train` or `radfield fit-sdf`."""
    if hasattr(model, "gaussians"):
        return GaussianSource(model)
    if hasattr(model, "outside"):
        return SurfaceSource(model)
    return (DistanceSource if hasattr(model, "distance") else RadianceSource)(model)


def moved(camera: Cameras, start: SceneTransform, end: SceneTransform) -> Cameras:
    """A camera in the scene of `start` as one in the scene of `end`: the same view of the world."""
    if start == end:
        return camera
    pose = end.poses(start.inverse().poses(camera.camera_to_world.double()))
    return dataclasses.replace(camera, camera_to_world=pose.float())


def pixel_rays(camera: Cameras, index: Tensor) -> Rays:
    """The rays through the centres of a camera's pixels `index` [N], row by row."""
    width = int(camera.size[0, 0])
    pixel = torch.stack([index % width + 0.5, index.div(width, rounding_mode="floor") + 0.5], 1)
    return camera_rays(camera, torch.zeros(len(index), dtype=torch.int32, device=index.device), pixel)


def cropped(rays: Rays, crop: Box | None) -> Rays:
    """The part of the rays inside the box: of no length where they miss it."""
    if crop is None:
        return rays
    near, far = intersect_box(rays.origins, rays.directions, crop.low, crop.high)
    return dataclasses.replace(rays, near=near.contiguous(), far=far.contiguous())
