"""What all cameras see of a scene, on radfield's projection, sort and rasteriser.

Letters: B batches, C cameras of each, I = B C images, N Gaussians, D channels, K coefficients per channel,
n Gaussians of an image (all of them, or packed those that are drawn; nnz those of all images).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...renderers.gaussian_projection import Projected
from ...renderers.gaussian_raster import rasterise
from .harmonics import seen_colors
from .meta import fill_absgrad
from .pairs import MAX_ALPHA
from .scene import Options, Scene, project_view


class Drawn(NamedTuple):
    """The Gaussians of all images as gsplat lays them out: dense [..., C, N, ...], or packed [nnz, ...]."""

    means2d: Tensor
    forms: Tensor  # conics (e, k, c)
    depths: Tensor
    opacities: Tensor
    radii: Tensor  # int32
    numbers: tuple[Tensor, Tensor, Tensor] | None  # packed: batch, camera, Gaussian [nnz]

    def images(self, counts: list[int]) -> list[tuple[Tensor, ...]]:
        """(means2d, forms, depths, opacities, radii) of each image; packed, of so many rows each."""
        parts = [v.split(counts) if self.numbers else _apart(v, self.depths.ndim - 1) for v in self[:5]]
        return list(zip(*parts, strict=True))


def _apart(values: Tensor, dims: int) -> tuple[Tensor, ...]:
    """The images of [..., C, N, ...], whose first `dims` dimensions are those of the images."""
    values = values.flatten(0, dims - 1)
    return (values.squeeze(0),) if len(values) == 1 else values.unbind(0)


def _together(values: list[Tensor], dims: tuple[int, ...]) -> Tensor:
    """[*dims, N, ...], stored component by component as the values are."""
    if len(values) == 1:
        return values[0].view(*dims, *values[0].shape)
    whole = torch.stack(values) if values[0].ndim == 1 else torch.stack([v.T for v in values]).mT
    return whole.view(*dims, *values[0].shape)


def draw(scene: Scene, options: Options) -> tuple[Drawn, list[int]]:
    """What every camera sees, and how many rows each image has."""
    B, C, _ = scene.counts
    intrinsics = scene.Ks.detach().double().tolist()
    found, radii, numbers = [], [], []
    for b in range(B):
        for c in range(C):
            one, radius = project_view(scene, b, c, intrinsics[b][c], options)
            if options.packed:
                rows = (radius > 0).all(1).nonzero()[:, 0]
                one, radius = Projected(*(v[rows] for v in one)), radius[rows]
                numbers.append((torch.full_like(rows, b), torch.full_like(rows, c), rows))
            found.append(one), radii.append(radius)
    parts = [[getattr(one, name) for one in found] for name in ("mean2d", "conic", "depth", "opacity")] + [radii]
    if options.packed:
        values = [part[0] if len(part) == 1 else torch.cat(part) for part in parts]
        packed = tuple(torch.cat(part) for part in zip(*numbers, strict=True))
    else:
        values, packed = [_together(part, (*scene.batch, C)) for part in parts], None
    return Drawn(*values, packed), [len(one.depth) for one in found]


def shade(scene: Scene, options: Options, drawn: Drawn, counts: list[int], backgrounds: Tensor | None):
    """(colours [I, rows, columns, channels], alphas [I, rows, columns]) of what was drawn, over `backgrounds`
    [I, channels]."""
    images, alphas, sums = [], [], []
    for i, (channels, values) in enumerate(
        zip(channels_of(scene, options, drawn, counts), drawn.images(counts), strict=True)
    ):
        mean2d, form, depth, opacity, radii = values
        sums.append(torch.zeros(2, len(depth), device=depth.device) if options.absgrad else None)
        projected = Projected(mean2d, form, depth, radii.float(), opacity)
        scenery = None if backgrounds is None else backgrounds[i]
        size = options.width, options.height
        image = rasterise(projected, channels, *size, scenery, max_alpha=MAX_ALPHA, absolute=sums[-1])
        images.append(image.color), alphas.append(image.alpha)
    if options.absgrad:
        shape = drawn.means2d.shape
        fill_absgrad(drawn.means2d, lambda grad: torch.cat([v.T for v in sums]).view(shape))
    return _stacked(images), _stacked(alphas)


def channels_of(scene: Scene, options: Options, drawn: Drawn, counts: list[int]) -> Iterator[Tensor]:
    """What is blended of each image, [n, channels]: colours, then the depth."""
    _, C, _ = scene.counts
    eyes = None if scene.degree is None else _positions(scene.viewmats, options)
    rows = drawn.numbers[2].split(counts) if drawn.numbers else [None] * len(counts)
    for i, (_, _, depth, _, radii) in enumerate(drawn.images(counts)):
        b, c = divmod(i, C)
        parts = []
        if options.with_color:
            parts.append(_colors(scene, b, c, rows[i], radii.float(), None if eyes is None else eyes[b, c]).T)
        if options.with_depth:
            parts.append(depth[None])
        yield parts[0].T if len(parts) == 1 else torch.cat(parts).T


def _positions(viewmats: Tensor, options: Options) -> Tensor:
    """[B, C, 3] of the cameras; of a moving one halfway."""
    positions = torch.linalg.inv_ex(viewmats)[0][..., :3, 3]
    end = None if options.exposure is None else options.exposure.viewmats_rs
    if end is None:
        return positions
    return (positions + torch.linalg.inv_ex(end)[0][..., :3, 3].view(positions.shape)) / 2


def behind(backgrounds: Tensor | None, options: Options) -> Tensor | None:
    """[..., channels]: a depth has nothing behind it."""
    if backgrounds is None or options.render_mode == "RGB":
        return backgrounds
    nothing = torch.zeros_like(backgrounds[..., :1])
    return torch.cat((backgrounds, nothing), -1) if options.with_color else nothing


def _stacked(images: list[Tensor]) -> Tensor:
    return images[0][None] if len(images) == 1 else torch.stack(images)


def _colors(scene: Scene, b: int, c: int, rows: Tensor | None, radius: Tensor, position: Tensor | None) -> Tensor:
    colors, means = scene.colors_of(b, c), scene.means[b]
    if rows is not None:
        colors, means = colors[rows], means[rows]
    if scene.degree is None:
        return colors
    return seen_colors(means, colors, radius, position, scene.degree)
