"""What cameras see of Gaussians: colour or any features, alpha, depth, expected depth and normals, for many views.

With T_i alpha_i the weight of Gaussian i at a pixel (`gaussian_raster.py`), w_i:

    color = sum w_i color_i + T background          depth  = sum w_i depth_i         expected_depth = depth / alpha
    alpha = sum w_i = 1 - T                         normal = sum w_i n_i

n_i is the axis of the smallest scale, in the world, turned towards the camera; the sum is not normalised. depth_i is
that of the centre (z; the distance for a fisheye lens). Where alpha is 0 all but the colour are 0.

*Dense*, every Gaussian has a row in what each view is projected to; *packed*, those that a view draws alone, so that
memory follows what is seen. Images and gradients are the same bits either way.

Letters: G Gaussians, V views, K Gaussians seen (of all views together), C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from .gaussian_camera import Camera
from .gaussian_color import MOST_DEGREE, gaussian_color, rest_rows
from .gaussian_projection import Projected, project, rotation_matrices
from .gaussian_raster import rasterise

OUTPUTS = ("color", "depth", "expected_depth", "normal")
LEAST_ALPHA = 1e-10


@dataclass(frozen=True)
class Gaussians:
    """G Gaussians, float32: `means` [G, 3], `quaternions` [G, 4] (w, x, y, z), `scales` [G, 3], `opacities` [G], and as
    `colors` either features [G, C], or (base [3, G], rest [R, G]) of `gaussian_color.py`."""

    means: Tensor
    quaternions: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor | tuple[Tensor, Tensor]

    def select(self, index: Tensor) -> Gaussians:
        """The Gaussians `index`."""
        pick = self.colors
        pick = pick[index] if isinstance(pick, Tensor) else tuple(v[:, index] for v in pick)
        return Gaussians(*(v[index] for v in (self.means, self.quaternions, self.scales, self.opacities)), pick)


@dataclass(frozen=True)
class Views:
    """What V cameras see; what was not asked for is None.

    projected: dense [V, G, ...], or packed [K, ...] with the numbers of view and Gaussian in `view`, `gaussian` [K].
    absolute: of each view [2, G] (packed: [2, its part of K]), which the backward pass fills (see `rasterise`).
    """

    color: Tensor | None  # [V, rows, columns, C]
    alpha: Tensor  # [V, rows, columns]
    depth: Tensor | None  # [V, rows, columns]
    expected_depth: Tensor | None  # [V, rows, columns]
    normal: Tensor | None  # [V, rows, columns, 3], in the world
    projected: Projected
    view: Tensor | None
    gaussian: Tensor | None
    absolute: tuple[Tensor, ...]


def gaussian_normals(means: Tensor, quaternions: Tensor, scales: Tensor, position: Tensor) -> Tensor:
    """[G, 3] unit normals: the axis of the smallest scale (the first of equals), towards `position` [3]. Gradients to
    the quaternions. Where the quaternion has no length: 0."""
    sound = (quaternions.detach().square().sum(1) > 0) & quaternions.detach().isfinite().all(1)
    axes = rotation_matrices(torch.where(sound[:, None], quaternions, quaternions.new_tensor([1.0, 0, 0, 0])))
    smallest = scales.detach().argmin(1)
    normal = axes.gather(2, smallest[:, None, None].expand(-1, 3, 1))[:, :, 0]
    away = (normal.detach() * (means.detach() - position.detach().to(means))).sum(1) > 0
    return torch.where(sound[:, None], torch.where(away[:, None], -normal, normal), 0.0)


def render_views(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    outputs: Sequence[str] = ("color",),
    background: Tensor | None = None,
    *,
    packed: bool = False,
    antialiased: bool = False,
    max_alpha: float = 0.99,
    absolute: bool = False,
) -> Views:
    """Renders views of one size, over `background` [C] (black by default). Gradients: see `project`, `gaussian_color`
    and `rasterise`. Raises `BadInput` for unknown outputs, and cameras of different sizes."""
    _check(gaussians, cameras, outputs)
    options = {"max_alpha": max_alpha}
    geometry = gaussians.means, gaussians.quaternions, gaussians.scales, gaussians.opacities
    images, found, numbers, sums = [], [], [], []
    for camera in cameras:
        seen, drawn = gaussians, project(*geometry, camera, antialiased=antialiased)
        if packed:
            index = (drawn.radius > 0).all(1).nonzero()[:, 0]
            seen, drawn = gaussians.select(index), Projected(*(v[index] for v in drawn))
            numbers.append(index)
        channels, behind = _channels(seen, drawn, camera, outputs, background)
        sums.append(channels.new_zeros(2, len(channels)) if absolute else None)
        size = camera.width, camera.height
        images.append(rasterise(drawn, channels, *size, behind, absolute=sums[-1], **options))
        found.append(drawn)
    view = [torch.full_like(index, v) for v, index in enumerate(numbers)]
    join = torch.cat if packed else torch.stack
    return Views(
        **_parts(torch.stack([i.color for i in images]), torch.stack([i.alpha for i in images]), outputs),
        projected=Projected(*(join(values) for values in zip(*found, strict=True))),
        view=torch.cat(view) if packed else None,
        gaussian=torch.cat(numbers) if packed else None,
        absolute=tuple(sums) if absolute else (),
    )


def _channels(seen: Gaussians, drawn: Projected, camera: Camera, outputs, background):
    """What is blended, [G, channels], and what is behind it."""
    parts, behind = [], []
    if "color" in outputs:
        color = seen.colors
        if not isinstance(color, Tensor):
            base, rest = color
            degree = _degree(rest)
            color = gaussian_color(seen.means, base, rest, drawn.radius, camera.position, degree=degree)
        parts.append(color)
        behind.append(color.new_zeros(color.shape[1]) if background is None else background)
    if "depth" in outputs or "expected_depth" in outputs:
        parts.append(drawn.depth[:, None])
    if "normal" in outputs:
        parts.append(gaussian_normals(seen.means, seen.quaternions, seen.scales, camera.position))
    channels = torch.cat([part.T for part in parts]).T if len(parts) > 1 else parts[0]
    if background is None or not behind:
        return channels, None
    behind.append(channels.new_zeros(channels.shape[1] - len(background)))
    return channels, torch.cat(behind)


def _parts(image: Tensor, alpha: Tensor, outputs) -> dict:
    """The outputs by name, of an image [V, rows, columns, channels]."""
    with_depth, with_normal = "depth" in outputs or "expected_depth" in outputs, "normal" in outputs
    count = image.shape[-1] - with_depth - 3 * with_normal
    depth = image[..., count] if with_depth else None
    return {
        "color": image[..., :count] if "color" in outputs else None,
        "alpha": alpha,
        "depth": depth if "depth" in outputs else None,
        "expected_depth": depth / alpha.clamp_min(LEAST_ALPHA) if "expected_depth" in outputs else None,
        "normal": image[..., -3:] if with_normal else None,
    }


def _degree(rest: Tensor) -> int:
    degrees = {rest_rows(degree): degree for degree in range(MOST_DEGREE + 1)}
    if len(rest) not in degrees:
        rule = f"one of {', '.join(map(str, degrees))}"
        raise BadInput(f"render_views: rest has {len(rest)} rows; the rule: {rule}")
    return degrees[len(rest)]


def _check(gaussians: Gaussians, cameras: Sequence[Camera], outputs: Sequence[str]) -> None:
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        raise BadInput(f"render_views: outputs are {list(outputs)}; the rule: some of {', '.join(OUTPUTS)}")
    sizes = {(camera.width, camera.height) for camera in cameras}
    if len(sizes) != 1:
        raise BadInput(f"render_views: {len(cameras)} cameras of {len(sizes)} sizes; the rule: some, all of one size")
