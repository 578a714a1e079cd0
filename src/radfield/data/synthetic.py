"""A synthetic capture with exact answers: textured spheres and boxes on a slab, traced by ray.

`write_synthetic_capture` writes a posed capture in NeRF-synthetic form; `synthetic_depth` and `synthetic_color`
answer for any ray. World: z up, the solids around the origin inside +-1, cameras at distance 4.031 with
NeRF-synthetic's field of view. Shading: one sun with hard shadows, a sky brighter from above, and a mild Phong
highlight, so that colour depends on the view. Letters: N rays or points. Units: the world's.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Cameras, look_at
from ..errors import BadInput
from ..geometry import SceneTransform
from ..rays import Rays
from .images import write_png

CAMERA_DISTANCE, CAMERA_ANGLE = 4.031, 0.6911112
SUBPIXELS = 2  # along each side: 4 rays per pixel
SUN = (0.45, -0.35, 0.82)
SUN_LIGHT, SKY_LIGHT, GROUND_LIGHT = 0.80, 0.38, 0.14
HIGHLIGHT, SHININESS = 0.30, 40.0
# Shadow rays start this far off the surface, or rounding would let it shadow itself.
SHADOW_OFFSET = 1e-3

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Solid:
    """A sphere (`half` is its radius) or a box (`half` are its half sides; turned by `yaw` radians about z).

    pattern, a key of PATTERNS, mixes the two linear-light `colors` with `frequency` periods per unit of length.
    """

    centre: tuple[float, float, float]
    half: float | tuple[float, float, float]
    pattern: str
    frequency: float
    colors: tuple[Color, Color]
    yaw: float = 0.0


SOLIDS = (
    Solid((0, 0, -0.40), (0.90, 0.90, 0.08), "checker", 2.72, ((0.75, 0.73, 0.68), (0.08, 0.11, 0.15))),
    Solid((-0.28, 0.26, 0.11), 0.43, "stripes", 4.6, ((0.80, 0.06, 0.04), (0.90, 0.82, 0.70))),
    Solid((0.48, 0.36, -0.02), (0.22, 0.22, 0.30), "checker", 4.5, ((0.90, 0.52, 0.04), (0.60, 0.14, 0.02)), 0.5),
    Solid((0.31, -0.36, -0.04), 0.28, "gradient", 1.9, ((0.02, 0.06, 0.45), (0.06, 0.70, 0.65))),
    Solid((-0.44, -0.47, -0.15), (0.17, 0.17, 0.17), "rings", 5.9, ((0.03, 0.28, 0.08), (0.62, 0.78, 0.20)), 0.8),
    Solid((0.48, 0.36, 0.45), 0.17, "rings", 7.0, ((0.40, 0.05, 0.45), (0.90, 0.65, 0.85))),
    Solid((-0.44, -0.47, 0.14), 0.12, "gradient", 3.5, ((0.75, 0.20, 0.02), (0.95, 0.80, 0.20))),
    Solid((0.74, -0.74, -0.06), (0.07, 0.07, 0.26), "stripes", 7.0, ((0.80, 0.80, 0.84), (0.04, 0.14, 0.50))),
)


def _wave(phase: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.cos(2 * math.pi * phase)


def _steps(wave: Tensor) -> Tensor:
    # A square wave with soft edges: a sharper one would alias in small images.
    return ((wave - 0.5) * 6 + 0.5).clamp(0, 1)


def _checker(p: Tensor) -> Tensor:
    # Blocks of side 1 centred at whole numbers, in all three axes.
    return 0.5 + 0.5 * (6 * torch.cos(math.pi * p)).clamp(-1, 1).prod(-1)


# Each takes points [N, 3] in the solid's axes, times its frequency, to weights [N] of the second colour.
PATTERNS = {
    "checker": _checker,
    "stripes": lambda p: _steps(_wave(p[:, 2] + 0.35 * p[:, 0])),
    "gradient": lambda p: _wave(0.5 * (p[:, 2] + 0.3 * p[:, 1])),
    "rings": lambda p: _steps(_wave(p[:, :2].norm(dim=-1) + p[:, 2])),
}


def synthetic_depth(rays: Rays, transform: SceneTransform | None = None) -> Tensor:
    """[N]: the distance along each ray to the first surface, inf where there is none.

    transform: world to the rays' coordinates (`Scene.transform` for rays of a `Scene`'s cameras); the distance
    is in the rays' units.
    """
    scale = 1.0 if transform is None else transform.scale
    rays = _to_world(rays, transform)
    return _nearest(rays.origins, rays.directions)[0] * scale


def synthetic_color(rays: Rays, transform: SceneTransform | None = None) -> tuple[Tensor, Tensor]:
    """(colour [N, 3] sRGB in [0, 1], hit [N] bool); black where nothing is hit. `transform` as for the depth."""
    rays = _to_world(rays, transform)
    t, which = _nearest(rays.origins, rays.directions)
    hit = t.isfinite()
    color = torch.zeros_like(rays.origins)
    color[hit] = _encode_srgb(_shade(rays[hit].at(t[hit]), rays.directions[hit], which[hit]))
    return color, hit


def synthetic_cameras(count: int, size: int, seed: int = 0) -> Cameras:
    """`count` cameras in world coordinates on the upper hemisphere, spread evenly and turned by the seed."""
    generator = torch.Generator().manual_seed(seed)
    turn, shift = torch.rand(2, generator=generator, dtype=torch.float64)
    i = torch.arange(count, dtype=torch.float64)
    azimuth = 2 * math.pi * (i * (math.sqrt(5) - 1) / 2 + turn)
    height = 0.08 + 0.87 * (i + shift) / max(count, 1)  # equal steps in height are equal areas of the sphere
    across = (1 - height**2).sqrt()
    origin = CAMERA_DISTANCE * torch.stack((across * azimuth.cos(), across * azimuth.sin(), height), -1)
    pose = look_at(origin, torch.zeros(3, dtype=torch.float64), origin.new_tensor((0, 0, 1)))
    focal = 0.5 * size / math.tan(0.5 * CAMERA_ANGLE)
    return Cameras(
        camera_to_world=pose.float(),
        focal=torch.full((count, 2), focal),
        principal=torch.full((count, 2), size / 2),
        size=torch.full((count, 2), size, dtype=torch.int64),
        distortion=torch.zeros(count, 6),
    )


def synthetic_image(cameras: Cameras, i: int) -> Tensor:
    """[H, W, 4] uint8 sRGB with straight alpha: view i, averaged over 4 rays per pixel."""
    fine = cameras[i].scaled(SUBPIXELS)
    width, height = cameras.size[i].tolist()
    color, hit = synthetic_color(fine.image_rays(0))
    blocks = torch.cat((color, hit[:, None].to(color)), -1).view(height, SUBPIXELS, width, SUBPIXELS, 4)
    mean = blocks.mean((1, 3))
    straight = mean[..., :3] / mean[..., 3:].clamp_min(1e-6)  # the mean is premultiplied: misses are black
    return (torch.cat((straight, mean[..., 3:]), -1) * 255).round().to(torch.uint8)


def write_synthetic_capture(
    folder: str | os.PathLike, *, views: int = 60, val_views: int = 6, size: int = 200, seed: int = 0
) -> Path:
    """Writes a capture of `views` training and `val_views` held-out images of size x size pixels; returns the folder.

    NeRF-synthetic form: transforms_train.json, transforms_val.json, RGBA images in train/ and val/.
    The same arguments give the same files; files of the same names are replaced.
    """
    if views < 1 or val_views < 0 or size < 1:
        raise BadInput(f"views, val_views, size are {views}, {val_views}, {size}; at least 1, 0, 1 are needed")
    folder = Path(folder)
    for split, count, split_seed in (("train", views, 2 * seed), ("val", val_views, 2 * seed + 1)):
        if count:
            _write_split(folder, split, synthetic_cameras(count, size, split_seed))
    return folder


def _write_split(folder: Path, split: str, cameras: Cameras) -> None:
    (folder / split).mkdir(parents=True, exist_ok=True)
    frames = []
    for i in range(len(cameras)):
        name = f"{split}/r_{i:03d}"
        write_png(folder / f"{name}.png", synthetic_image(cameras, i).numpy())
        pose = cameras.camera_to_world[i] * torch.tensor([1.0, -1.0, -1.0, 1.0])  # OpenCV to OpenGL axes
        frames.append({"file_path": f"./{name}", "transform_matrix": pose.tolist()})
    content = {"camera_angle_x": CAMERA_ANGLE, "frames": frames}
    (folder / f"transforms_{split}.json").write_text(json.dumps(content, indent=1))


def _to_world(rays: Rays, transform: SceneTransform | None) -> Rays:
    if transform is None:
        return rays
    back = transform.inverse()
    return Rays(back.points(rays.origins), back.directions(rays.directions))


def _nearest(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    # (distance [N], inf for a miss; index into SOLIDS [N])
    best = torch.full_like(origins[:, 0], torch.inf)
    which = torch.zeros_like(best, dtype=torch.int64)
    for index, solid in enumerate(SOLIDS):
        t = _intersect(solid, origins, directions)
        which = torch.where(t < best, index, which)
        best = torch.minimum(t, best)
    return best, which


def _intersect(solid: Solid, origins: Tensor, directions: Tensor) -> Tensor:
    # [N] distance to the surface from outside, inf where missed or behind.
    if isinstance(solid.half, float):
        return _intersect_sphere(solid, origins, directions)
    o, d = _to_solid(solid, origins), _turn(solid.yaw, directions)
    half = o.new_tensor(solid.half)
    inverse = 1 / torch.where(d.abs() < 1e-12, 1e-12, d)  # parallel to a face: a slab met extremely far away
    middle, reach = -o * inverse, half * inverse.abs()
    near, far = (middle - reach).amax(-1), (middle + reach).amin(-1)
    return torch.where((near <= far) & (near > 0), near, torch.inf)


def _intersect_sphere(solid: Solid, origins: Tensor, directions: Tensor) -> Tensor:
    o = origins - origins.new_tensor(solid.centre)
    b = (o * directions).sum(-1)
    # From the point of closest approach, not from |o|^2 - r^2: that difference of large numbers loses digits.
    closest = o - b[:, None] * directions
    discriminant = solid.half**2 - (closest * closest).sum(-1)
    t = -b - discriminant.clamp_min(0).sqrt()
    return torch.where((discriminant > 0) & (t > 0), t, torch.inf)


def _shade(x: Tensor, directions: Tensor, which: Tensor) -> Tensor:
    # Linear colour [N, 3] of surface points x [N, 3] seen along `directions`.
    normal, albedo = torch.zeros_like(x), torch.zeros_like(x)
    for index, solid in enumerate(SOLIDS):
        mine = (which == index).nonzero()[:, 0]
        local = _to_solid(solid, x[mine])
        normal[mine] = _normal(solid, local)
        first, second = x.new_tensor(solid.colors)
        albedo[mine] = torch.lerp(first, second, PATTERNS[solid.pattern](local * solid.frequency)[:, None])
    sun = torch.nn.functional.normalize(x.new_tensor(SUN), dim=0)
    cosine = normal @ sun
    lit = cosine > 0
    start = x[lit] + SHADOW_OFFSET * normal[lit]
    lit[lit.clone()] = _nearest(start, sun.expand_as(start))[0].isinf()
    sky = GROUND_LIGHT + (SKY_LIGHT - GROUND_LIGHT) * (0.5 + 0.5 * normal[:, 2])
    mirrored = directions - 2 * (directions * normal).sum(-1, keepdim=True) * normal
    highlight = HIGHLIGHT * (mirrored @ sun).clamp_min(0) ** SHININESS
    return albedo * (sky + SUN_LIGHT * cosine * lit)[:, None] + (highlight * lit)[:, None]


def _normal(solid: Solid, local: Tensor) -> Tensor:
    # Outward, in world axes, at surface points in the solid's axes.
    if isinstance(solid.half, float):
        return local / solid.half
    relative = local / local.new_tensor(solid.half)
    axis = relative.abs().argmax(-1, keepdim=True)
    face = torch.zeros_like(local).scatter(-1, axis, relative.gather(-1, axis).sign())
    return _turn(-solid.yaw, face)


def _to_solid(solid: Solid, x: Tensor) -> Tensor:
    return _turn(solid.yaw, x - x.new_tensor(solid.centre))


def _turn(yaw: float, v: Tensor) -> Tensor:
    # World axes to those of a solid turned by yaw about z.
    if not yaw:
        return v
    c, s = math.cos(yaw), math.sin(yaw)
    x, y, z = v.unbind(-1)
    return torch.stack((c * x + s * y, c * y - s * x, z), -1)


def _encode_srgb(linear: Tensor) -> Tensor:
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-8) ** (1 / 2.4) - 0.055)
