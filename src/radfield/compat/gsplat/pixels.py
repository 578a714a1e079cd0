"""`rasterize_to_pixels`: gsplat's lists of tiles, drawn by the native rasteriser (`renderers/gaussian_raster.py`).

Its tiles have 16 pixels; other sizes, and float types other than float32, are blended in torch (`pairs.py`),
slowly. A conic (xx, xy, yy) becomes (e, k, c) = (xx - xy^2 / yy, xy / yy, yy), so that the density is
exp(-(e dx^2 + c (dy + k dx)^2) / 2).

Letters: I images, N Gaussians, D channels, K entries of the lists, G Gaussians of one image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...backend import native
from ...renderers.gaussian_projection import Projected
from ...renderers.gaussian_raster import _Rasterise
from ...renderers.gaussian_tiles import MOST_CHANNELS, TILE, Tiles, pack
from .absgrad import fill_absgrad
from .checks import check_shape, require
from .pairs import MAX_ALPHA, accumulate, rasterize_to_indices_in_range
from .tiles import check_tiles, tile_lists

EVERYWHERE = 1e6  # pixels: a radius that leaves nothing out
ALL_BLOCKS = 15
MOST = 513  # channels


def rasterize_to_pixels(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    image_width: int,
    image_height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    backgrounds: Tensor | None = None,
    masks: Tensor | None = None,
    packed: bool = False,
    absgrad: bool = False,
) -> tuple[Tensor, Tensor]:
    """(colours [..., image_height, image_width, D], alphas [..., image_height, image_width, 1]) of `means2d`
    [..., N, 2], `conics` [..., N, 3], `colors` [..., N, D], `opacities` [..., N] (packed: [nnz, ...]) over
    `backgrounds` [..., D].

    `isect_offsets` [..., tile_height, tile_width] and `flatten_ids` [K] are the lists; where `masks` [..., tile_height,
    tile_width] is false there is only background. Gradients to the first four and the backgrounds. With absgrad
    `means2d.absgrad` is filled by the backward pass (at most 4 channels). Raises `WrongCall`.
    """
    rows, channels = tuple(means2d.shape[:-1]), colors.shape[-1]
    images = tuple(isect_offsets.shape[:-2])
    check_shape("means2d", means2d, (*rows, 2))
    check_shape("conics", conics, (*rows, 3))
    check_shape("colors", colors, (*rows, channels))
    check_shape("opacities", opacities, rows)
    require(1 <= channels <= MOST, "the number of channels", channels, f"from 1 to {MOST}")
    require(
        packed or rows[:-1] == images, "isect_offsets of images", list(images), f"those of means2d, {list(rows[:-1])}"
    )
    if backgrounds is not None:
        check_shape("backgrounds", backgrounds, (*images, channels))
    if masks is not None:
        check_shape("masks", masks, tuple(isect_offsets.shape))
    check_tiles(isect_offsets, image_width, image_height, tile_size)
    tiles = (-(-image_height // TILE), -(-image_width // TILE))
    fits = tile_size == TILE and isect_offsets.shape[-2:] == tiles and colors.dtype == torch.float32
    values = means2d, conics, colors, opacities
    lists = _Lists(isect_offsets, flatten_ids, masks, (image_width, image_height))
    if fits and native(colors):
        image, alpha = _native(values, lists, backgrounds, absgrad)
    else:
        require(not absgrad, "absgrad", absgrad, "for tiles of 16 pixels and float32 only")
        image, alpha = _plain(values, lists, backgrounds, tile_size, isect_offsets.shape)
    size = (*images, image_height, image_width)
    return image.view(*size, channels), alpha.view(*size, 1)


class _Lists:
    """The lists of all images: `ends` [I T + 1] and `ids` [K], rows of the flattened Gaussians."""

    def __init__(self, isect_offsets, flatten_ids, masks, size: tuple[int, int]):
        self.ids, self.ends = flatten_ids.long(), tile_lists(isect_offsets, flatten_ids)
        self.images, (self.width, self.height) = math.prod(isect_offsets.shape[:-2]), size
        if masks is not None:
            lengths = self.ends.diff()
            self.ids = self.ids[masks.flatten().bool().repeat_interleave(lengths)]
            lengths = lengths * masks.flatten().bool()
            self.ends = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))

    def image(self, number: int, count: int) -> tuple[slice, Tensor, Tensor]:
        """(rows of the Gaussians, ids within these rows, ends of the tiles' lists) of one image, of `count` rows."""
        tiles = (len(self.ends) - 1) // self.images
        ends = self.ends[number * tiles : (number + 1) * tiles + 1]
        ids = self.ids[ends[0] : ends[-1]]
        first, end = (int(ids.min()), int(ids.max()) + 1) if len(ids) else (0, 0)
        require(first >= 0 and end <= count, "flatten_ids: an id", end - 1, f"below {count}, the number of Gaussians")
        return slice(first, end), ids - first, ends - ends[0]


def _native(values, lists: _Lists, backgrounds, absgrad: bool) -> tuple[Tensor, Tensor]:
    channels = values[2].shape[-1]
    require(not absgrad or channels <= MOST_CHANNELS, "absgrad with channels", channels, f"at most {MOST_CHANNELS}")
    flat = [v.reshape(-1, *v.shape[values[3].ndim :]) for v in values]
    behind = [None] * lists.images if backgrounds is None else backgrounds.reshape(lists.images, channels)
    drawn, parts = [], []
    for number in range(lists.images):
        rows, ids, ends = lists.image(number, len(flat[0]))
        part = flat[0].new_zeros(2, rows.stop - rows.start) if absgrad else None
        drawn.append(_image([v[rows] for v in flat], behind[number], lists, ids, ends, part))
        parts.append((rows, part))
    if absgrad:
        shape = values[0].shape
        fill_absgrad(values[0], lambda grad: _joined(parts, shape))
    return torch.stack([image for image, _ in drawn]), torch.stack([alpha for _, alpha in drawn])


def _joined(parts, shape) -> Tensor:
    whole = torch.zeros(shape.numel() // 2, 2, device=parts[0][1].device)
    for rows, part in parts:
        whole[rows] += part.T
    return whole.view(shape)


def _image(values, behind, lists: _Lists, ids: Tensor, ends: Tensor, absolute: Tensor | None) -> tuple[Tensor, Tensor]:
    """(colours [rows, columns, D], alpha [rows, columns]) of Gaussians `values`, with `ids` [K] in the tiles' lists."""
    means2d, (xx, xy, yy), colors, opacities = values[0], values[1].unbind(1), values[2], values[3]
    safe = torch.where(yy > 0, yy, 1.0)
    forms = torch.stack((xx - xy * xy / safe, xy / safe, yy), 1)
    radius = torch.full_like(means2d, EVERYWHERE)
    projected = Projected(means2d, forms, torch.zeros_like(opacities), radius, opacities)
    count = torch.bincount(ids, minlength=len(means2d))
    tiles = Tiles(
        entries=(16 * ids + ALL_BLOCKS).int(),
        tile_start=ends.int(),
        position=ids.argsort(stable=True).int(),
        slot_start=torch.cat((count.new_zeros(1), count.cumsum(0))).int(),
        boxes=radius.int(),
        width=lists.width,
        height=lists.height,
    )
    groups = colors.T.contiguous().split(MOST_CHANNELS)
    backgrounds = [None] * len(groups) if behind is None else behind.contiguous().split(MOST_CHANNELS)
    drawn = []
    for group, background in zip(groups, backgrounds, strict=True):
        records, _ = pack(projected, group.detach().contiguous(), lists.width, lists.height)
        drawn.append(
            _Rasterise.apply(means2d, forms, opacities, group, background, tiles, records, MAX_ALPHA, absolute)
        )
    return torch.cat([image for image, _ in drawn], -1), drawn[0][1]


def _plain(values, lists: _Lists, backgrounds, tile_size: int, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """As `_native`, in torch; `shape` is that of the tiles."""
    flat = [v.reshape(1, -1, *v.shape[values[3].ndim :]) for v in values]
    size, offsets = (lists.height, lists.width), lists.ends[:-1].view(lists.images, *shape[-2:]).int()
    images, totals = [], []
    for number in range(lists.images):
        rows, ids, ends = lists.image(number, flat[0].shape[1])
        part = [v[:, rows] for v in flat]
        light = part[0].new_ones(1, *size)
        lists_of = (ends[:-1].view(1, *offsets.shape[1:]), ids)
        geometry = part[0], part[1], part[3]
        pairs = rasterize_to_indices_in_range(0, 1 << 40, light, *geometry, *size[::-1], tile_size, *lists_of)
        image, total = accumulate(part[0], part[1], part[3], part[2], *pairs, *size[::-1])
        if backgrounds is not None:
            image = image + (1 - total) * backgrounds.reshape(lists.images, -1)[number]
        images.append(image[0]), totals.append(total[0, ..., 0])
    return torch.stack(images), torch.stack(totals)
