"""Where the cameras of a synthetic capture stand, and their lenses.

Letters: V views. They spread evenly over the upper hemisphere, as NeRF-synthetic's, or walk: a round about the scene
and a higher one with half as many, as one takes photographs: neighbours overlap, and the distance varies a little.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...cameras import Cameras, look_at
from ...errors import BadInput
from .scene import SyntheticScene

#: name -> (model, distortion k1..k4, p1, p2)
LENSES = {
    "pinhole": ("perspective", (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    "distorted": ("perspective", (-0.11, 0.03, 0.0, 0.0, 1.5e-3, -8e-4)),
    "fisheye": ("fisheye", (0.02, -0.01, 0.002, 0.0, 0.0, 0.0)),
}
FISHEYE_ANGLE, FISHEYE_CLOSER = 1.9, 0.5  # field of view (radians), and how much nearer the cameras go for it
MOST_VIEWS, MOST_PIXELS = 100_000, 16_384


def synthetic_cameras(
    scene: SyntheticScene,
    count: int,
    size: int | tuple[int, int],
    *,
    seed: int = 0,
    lens: str = "pinhole",
    walk: bool = False,
) -> Cameras:
    """`count` cameras in world coordinates that look at the scene. size: (width, height), or one number for both."""
    size = (size, size) if isinstance(size, int) else size
    if lens not in LENSES:
        raise BadInput(f"lens is {lens!r}; the rule: one of {', '.join(LENSES)}")
    if not 0 <= count <= MOST_VIEWS:
        raise BadInput(f"views are {count}; the rule: from 0 to {MOST_VIEWS}")
    if not all(1 <= s <= MOST_PIXELS for s in size):
        raise BadInput(f"size is {size[0]}x{size[1]}; the rule: from 1 to {MOST_PIXELS} pixels along each side")
    model, distortion = LENSES[lens]
    target = torch.tensor(scene.target, dtype=torch.float64)
    reach = scene.distance * (FISHEYE_CLOSER if model == "fisheye" else 1)
    origin = target + reach * (_walk if walk else _hemisphere)(scene, count, seed)
    pose = look_at(origin, target, origin.new_tensor((0, 0, 1)))
    half = 0.5 * (FISHEYE_ANGLE if model == "fisheye" else scene.angle)
    focal = 0.5 * size[0] / (half if model == "fisheye" else math.tan(half))
    return Cameras(
        camera_to_world=pose.float(),
        focal=torch.full((count, 2), focal),
        principal=torch.tensor([[size[0] / 2, size[1] / 2]]).repeat(count, 1),
        size=torch.tensor([size], dtype=torch.int64).repeat(count, 1),
        distortion=torch.tensor([distortion]).repeat(count, 1),
        model=model,
    )


def _hemisphere(scene: SyntheticScene, count: int, seed: int) -> Tensor:
    # [V, 3] unit vectors: equal steps in height are equal areas of the sphere
    generator = torch.Generator().manual_seed(seed)
    turn, shift = torch.rand(2, generator=generator, dtype=torch.float64)
    i = torch.arange(count, dtype=torch.float64)
    low, high = scene.heights
    height = low + (high - low) * (i + shift) / max(count, 1)
    return _on_sphere(2 * math.pi * (i * (math.sqrt(5) - 1) / 2 + turn), height)


def _walk(scene: SyntheticScene, count: int, seed: int) -> Tensor:
    # [V, 3] about unit vectors, with the unsteadiness of a hand
    generator = torch.Generator().manual_seed(seed)
    unsteady = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    first = max(1, round(count * 2 / 3))
    i = torch.arange(count)
    low = i < first
    height = torch.where(low, 0.26, 0.48) + 0.02 * unsteady[:, 0]
    turn = torch.where(low, i / first, (i - first + 0.25) / max(count - first, 1))
    azimuth = 2 * math.pi * turn.double() + 0.03 * unsteady[:, 1]
    return _on_sphere(azimuth, height) * (1 + 0.03 * unsteady[:, 2:])


def _on_sphere(azimuth: Tensor, height: Tensor) -> Tensor:
    across = (1 - height**2).sqrt()
    return torch.stack((across * azimuth.cos(), across * azimuth.sin(), height), -1)
