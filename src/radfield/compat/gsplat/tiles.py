"""Which Gaussians each tile draws, in gsplat's lists, in torch. The native rasteriser makes lists of its own
(`renderers/gaussian_tiles.py`); these are for programs that ask for gsplat's, and for `pixels.py` and `pairs.py`.

An intersection of a Gaussian and a tile has the key image | tile | depth: image in the highest bits, then
tile_bits = bit length of the number of tiles, then the 32 bits of the depth as a float. Sorted by it, the lists of all
tiles of all images follow each other, each nearest first.

Letters: I images (the product of the leading dimensions), N Gaussians, K intersections, T tiles of an image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import check_shape, require


def tile_bits(tile_width: int, tile_height: int) -> int:
    """How many bits of a key are the tile's."""
    return (tile_width * tile_height).bit_length()


@torch.no_grad()
def isect_tiles(
    means2d: Tensor,
    radii: Tensor,
    depths: Tensor,
    tile_size: int,
    tile_width: int,
    tile_height: int,
    sort: bool = True,
    segmented: bool = False,
    packed: bool = False,
    n_images: int | None = None,
    image_ids: Tensor | None = None,
    gaussian_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The intersections of boxes `means2d` +- `radii` ([..., N, 2], or packed [nnz, 2] with `image_ids` [nnz] and
    `n_images`) with tiles: (tiles_per_gauss int32 [..., N] or [nnz], isect_ids int64 [K], flatten_ids int32 [K], the
    numbers in [I * N] or [nnz]). `segmented` changes nothing. Equal keys stay in the order of the numbers."""
    leading = tuple(means2d.shape[:-1])
    for name, value, shape in (("means2d", means2d, (*leading, 2)), ("radii", radii, (*leading, 2))):
        check_shape(name, value, shape)
    check_shape("depths", depths, leading)
    if packed:
        require(image_ids is not None and n_images is not None, "image_ids or n_images", None, "given when packed")
        require(gaussian_ids is not None, "gaussian_ids", None, "given when packed")
        images, count = image_ids.long(), n_images
    else:
        count = math.prod(leading[:-1])
        images = torch.arange(count, device=means2d.device).repeat_interleave(leading[-1])
    bits = tile_bits(tile_width, tile_height)
    require(count.bit_length() + bits <= 31, "the number of images and tiles", (count, tile_width * tile_height),
            "together at most 31 bits")  # fmt: skip
    low, high = _boxes(means2d.reshape(-1, 2), radii.reshape(-1, 2), tile_size, tile_width, tile_height)
    across, down = (high - low).unbind(1)
    per_gauss = across * down
    owner = torch.repeat_interleave(per_gauss)
    inside = torch.arange(len(owner), device=owner.device) - (per_gauss.cumsum(0) - per_gauss)[owner]
    tile = (low[owner, 1] + inside // across[owner]) * tile_width + low[owner, 0] + inside % across[owner]
    depth = depths.reshape(-1).float().contiguous().view(torch.int32).long() & 0xFFFFFFFF
    keys = (images[owner] << (32 + bits)) | (tile << 32) | depth[owner]
    if sort:
        keys, order = keys.sort(stable=True)
        owner = owner[order]
    return per_gauss.int().view(leading), keys, owner.int()


def _boxes(means2d: Tensor, radii: Tensor, tile_size: int, tile_width: int, tile_height: int):
    """(first [n, 2], end [n, 2]) columns and rows of tiles, int64; empty where a radius is 0."""
    at, half = means2d / tile_size, radii.to(means2d) / tile_size
    last = torch.tensor([tile_width, tile_height], device=means2d.device)
    low, high = ((at - half).floor(), (at + half).ceil())
    low, high = (v.clamp(-1, 1 << 30).long().clamp_min(0).minimum(last) for v in (low, high))
    return low, torch.where((radii > 0).all(1, keepdim=True), high, low)


@torch.no_grad()
def isect_offset_encode(isect_ids: Tensor, n_images: int, tile_width: int, tile_height: int) -> Tensor:
    """[I, tile_height, tile_width] int32: where each tile's list begins in sorted `isect_ids` [K]."""
    bits = tile_bits(tile_width, tile_height)
    image, tile = isect_ids >> (32 + bits), (isect_ids >> 32) & ((1 << bits) - 1)
    number = image * (tile_width * tile_height) + tile
    starts = torch.arange(n_images * tile_width * tile_height, device=isect_ids.device)
    return torch.searchsorted(number, starts).int().view(n_images, tile_height, tile_width)


def tile_lists(isect_offsets: Tensor, flatten_ids: Tensor) -> Tensor:
    """[I T + 1] int64: the list of tile t is flatten_ids[result[t] : result[t + 1]]."""
    return torch.cat((isect_offsets.flatten().long(), isect_offsets.new_tensor([len(flatten_ids)]).long()))


def check_tiles(isect_offsets: Tensor, width: int, height: int, tile_size: int) -> None:
    """Raises `WrongCall` where the tiles do not cover the image."""
    rows, columns = isect_offsets.shape[-2:]
    covered = rows * tile_size >= height and columns * tile_size >= width
    require(
        covered, f"isect_offsets: {columns} x {rows} tiles of", f"{tile_size} pixels", f"{width} x {height} covered"
    )
