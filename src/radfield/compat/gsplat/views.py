"""What all cameras see of a scene, on radfield's projection, sort and rasteriser.

Letters: B batches, C cameras of each, I = B C images, N Gaussians, D channels, K coefficients per channel,
n Gaussians of an image (all of them, or packed those that are drawn; nnz those of all images).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...renderers.gaussian_color_rows import gaussian_color_rows
from ...renderers.gaussian_projection import Projected
from ...renderers.gaussian_raster import rasterise
from ...rows import take_rows
from .absgrad import fill_absgrad
from .pairs import MAX_ALPHA
from .scene import Options, Scene, project_view


class Drawn(NamedTuple):
    """The Gaussians of all images as gsplat lays them out: dense [..., C, N, ...], or packed [nnz, ...]."""

    means2d: Tensor
    forms: Tensor  # conics (e, k, c)
    depths: Tensor
    opacities: Tensor
    boxes: Tensor  # half sides of what is drawn, gsplat's radii before they are rounded up
    gaussian_ids: Tensor | None  # packed: [nnz] int64
    counts: tuple[int, ...]  # rows of each image

    def image_ids(self) -> Tensor:
        """[nnz] int64, of packed ones."""
        counts = torch.tensor(self.counts, device=self.depths.device)
        return torch.repeat_interleave(counts, output_size=len(self.depths))

    def radii(self) -> Tensor:
        """gsplat's, int32."""
        return self.boxes.ceil().int()

    def images(self) -> list[tuple[Tensor, ...]]:
        """(means2d, forms, depths, opacities, boxes) of each image."""
        parts = [self._apart(v) for v in self[:5]]
        return list(zip(*parts, strict=True))

    def rows(self) -> tuple[Tensor | None, ...]:
        """The numbers of each image's Gaussians; None for all of them."""
        return (None,) * len(self.counts) if self.gaussian_ids is None else self._apart(self.gaussian_ids)

    def _apart(self, values: Tensor) -> tuple[Tensor, ...]:
        if self.gaussian_ids is None:
            values = values.flatten(0, self.depths.ndim - 2)
            return (values.squeeze(0),) if len(values) == 1 else values.unbind(0)
        return (values,) if len(self.counts) == 1 else values.split(self.counts)


def _together(values: list[Tensor], dims: tuple[int, ...]) -> Tensor:
    """[*dims, N, ...], stored component by component as the values are."""
    if len(values) == 1:
        return values[0].view(*dims, *values[0].shape)
    whole = torch.stack(values) if values[0].ndim == 1 else torch.stack([v.T for v in values]).mT
    return whole.view(*dims, *values[0].shape)


def draw(scene: Scene, options: Options) -> Drawn:
    """What every camera sees."""
    B, C, _ = scene.counts
    intrinsics = scene.Ks.detach().double().tolist()
    found = [project_view(scene, b, c, intrinsics[b][c], options) for b in range(B) for c in range(C)]
    names = "mean2d", "conic", "depth", "opacity", "radius"
    parts = [[getattr(one.drawn, name) for one in found] for name in names]
    counts = tuple(len(one.drawn.depth) for one in found)
    if not options.packed:
        return Drawn(*(_together(part, (*scene.batch, C)) for part in parts), None, counts)
    parts.append([one.rows for one in found])
    return Drawn(*(part[0] if len(part) == 1 else torch.cat(part) for part in parts), counts)


def shade(scene: Scene, options: Options, drawn: Drawn, backgrounds: Tensor | None):
    """(colours [I, rows, columns, channels], alphas [I, rows, columns]) of what was drawn, over `backgrounds`
    [I, channels]."""
    images, alphas, sums = [], [], []
    for i, (channels, values) in enumerate(zip(channels_of(scene, options, drawn), drawn.images(), strict=True)):
        mean2d, form, depth, opacity, boxes = values
        sums.append(torch.zeros(2, len(depth), device=depth.device) if options.absgrad else None)
        projected = Projected(mean2d, form, depth, boxes, opacity)
        scenery = None if backgrounds is None else backgrounds[i]
        size = options.width, options.height
        image = rasterise(projected, channels, *size, scenery, max_alpha=MAX_ALPHA, absolute=sums[-1])
        images.append(image.color), alphas.append(image.alpha)
    if options.absgrad:
        shape = drawn.means2d.shape
        fill_absgrad(drawn.means2d, lambda grad: torch.cat([v.T for v in sums]).view(shape))
    return _stacked(images), _stacked(alphas)


def channels_of(scene: Scene, options: Options, drawn: Drawn) -> Iterator[Tensor]:
    """What is blended of each image, [n, channels]: colours, then the depth."""
    _, C, _ = scene.counts
    eyes = None if scene.degree is None else _positions(scene.viewmats, options)
    rows = drawn.rows()
    for i, (_, _, depth, _, boxes) in enumerate(drawn.images()):
        b, c = divmod(i, C)
        parts = []
        if options.with_color:
            parts.append(_colors(scene, b, c, rows[i], boxes, None if eyes is None else eyes[b, c]).T)
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
    colors = scene.colors_of(b, c)
    if scene.degree is not None:
        return gaussian_color_rows(scene.of("means", b), colors, radius, position, degree=scene.degree, rows=rows)
    return take_rows(colors, rows)
