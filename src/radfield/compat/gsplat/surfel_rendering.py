"""`rasterization_2dgs`: 2D Gaussians to images, normals and depths, in torch.

Letters: C cameras, N Gaussians, D channels, K coefficients per channel, nnz Gaussians drawn (packed).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...backend import by_gsplat
from .. import gsplat_backend
from .checks import check_choice, require
from .harmonics import spherical_harmonics
from .scene import MODES, Scene, checked
from .surfel_pixels import rasterize_to_pixels_2dgs
from .surfel_projection import fully_fused_projection_2dgs
from .tiles import isect_offset_encode, isect_tiles
from .utils import depth_to_normal

LEAST_ALPHA = 1e-10


def rasterization_2dgs(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = False,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    distloss: bool = False,
    depth_mode: str = "expected",
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, dict]:
    """(colours [..., C, height, width, X], alphas [..., 1], normals in the world [..., 3], normals of the depth's
    surface [..., 3] or None, distortion [..., 1], median depth [..., 1], meta) of surfels; arguments as those of
    `rasterization`.

    Slow: plain torch, every pair of pixel and Gaussian in memory (`surfel_pixels.py`); for small scenes and checks. As
    in gsplat: the normals of the depth (of `depth_mode` "expected" or "median") are there for RGB+D and RGB+ED and lose
    a first dimension of 1; the median is a depth only where the mode draws depths; distloss asks for such a mode.
    meta["gradient_2dgs"] receives the gradient that DefaultStrategy takes. Raises `WrongCall`.
    """
    if by_gsplat():
        return gsplat_backend.package().rasterization_2dgs(**locals())
    check_choice("render_mode", render_mode, MODES)
    check_choice("depth_mode", depth_mode, ("expected", "median"))
    require(not distloss or render_mode != "RGB", "render_mode with distloss", render_mode, "one with a depth")
    scene = checked(means, quats, scales, opacities, colors, viewmats, Ks, None, sh_degree)
    cut = width, height, eps2d, near_plane, far_plane, radius_clip, packed, sparse_grad
    found = fully_fused_projection_2dgs(means, quats, scales, viewmats, Ks, *cut)
    numbers, seen = (found[:3] if packed else None), _Seen(*found[-5:])
    opacities, colors = _of_views(scene, numbers, seen.radii)
    channels, backgrounds = _channels(colors, seen.depths, backgrounds, render_mode)
    densify = torch.zeros_like(seen.means2d, requires_grad=True)
    lists = _lists(scene, seen, (width, height), tile_size, numbers)
    options = {"backgrounds": backgrounds, "packed": packed, "absgrad": absgrad, "distloss": distloss}
    where = width, height, tile_size, lists["isect_offsets"], lists["flatten_ids"]
    values = seen.means2d, seen.ray_transforms, channels, opacities, seen.normals, densify
    color, alpha, normal, distortion, median = rasterize_to_pixels_2dgs(*values, *where, **options)
    if render_mode.endswith("ED"):
        color = torch.cat((color[..., :-1], color[..., -1:] / alpha.clamp_min(LEAST_ALPHA)), -1)
    poses, surface = torch.linalg.inv(viewmats), None
    if render_mode.startswith("RGB+"):
        surface = depth_to_normal(median if depth_mode == "median" else color[..., -1:], poses, Ks).squeeze(0)
    meta = {
        "camera_ids": numbers[1] if packed else None,
        "gaussian_ids": numbers[2] if packed else None,
        **seen._asdict(),
        "opacities": opacities,
        **lists,
        "width": width,
        "height": height,
        "tile_size": tile_size,
        "n_cameras": scene.counts[1],
        "render_distort": distortion,
        "gradient_2dgs": densify,
    }
    normal = normal @ poses[..., None, :3, :3].mT
    return color, alpha, normal, surface, distortion, median, meta


class _Seen(NamedTuple):
    """What `fully_fused_projection_2dgs` gives."""

    radii: Tensor
    means2d: Tensor
    depths: Tensor
    ray_transforms: Tensor
    normals: Tensor


def _of_views(scene: Scene, numbers: tuple[Tensor, ...] | None, radii: Tensor) -> tuple[Tensor, Tensor]:
    """(opacities, colours [..., D]) of each camera's Gaussians, [..., C, N] or packed [nnz]."""
    B, C, N = scene.counts
    colors = scene.colors if scene.per_view else scene.colors[:, None].expand(B, C, *scene.colors.shape[1:])
    opacities = scene.opacities[:, None].expand(B, C, N)
    means = scene.means[:, None].expand(B, C, N, 3)
    if numbers is not None:
        colors, opacities, means = (v[numbers] for v in (colors, opacities, means))
    else:
        colors, opacities, means = (v.reshape(*scene.batch, *v.shape[1:]) for v in (colors, opacities, means))
    if scene.degree is None:
        return opacities, colors
    eyes = torch.linalg.inv(scene.viewmats)[..., :3, 3]
    eyes = eyes[numbers[:2]] if numbers is not None else eyes.view(*scene.batch, C, 1, 3)
    colors = spherical_harmonics(scene.degree, means - eyes, colors, masks=(radii > 0).all(-1))
    return opacities, (colors + 0.5).clamp_min(0)


def _channels(colors: Tensor, depths: Tensor, backgrounds: Tensor | None, mode: str) -> tuple[Tensor, Tensor | None]:
    """What is blended [..., channels], and what is behind it: nothing behind depths."""
    if mode == "RGB":
        return colors, backgrounds
    depths = depths[..., None]
    nothing = None if backgrounds is None else torch.zeros_like(backgrounds[..., :1])
    if not mode.startswith("RGB"):
        return depths, nothing
    behind = None if backgrounds is None else torch.cat((backgrounds, nothing), -1)
    return torch.cat((colors, depths), -1), behind


def _lists(scene: Scene, seen: _Seen, size: tuple[int, int], tile_size: int, numbers) -> dict:
    """The lists of tiles, by gsplat's keys."""
    B, C, _ = scene.counts
    width, height = (-(-side // tile_size) for side in size)
    packed = {}
    if numbers is not None:
        packed = {"packed": True, "n_images": B * C, "image_ids": numbers[0] * C + numbers[1]}
        packed["gaussian_ids"] = numbers[2]
    per_gauss, keys, ids = isect_tiles(
        seen.means2d.detach(), seen.radii, seen.depths.detach(), tile_size, width, height, **packed
    )
    return {
        "tile_width": width,
        "tile_height": height,
        "tiles_per_gauss": per_gauss,
        "isect_ids": keys,
        "flatten_ids": ids,
        "isect_offsets": isect_offset_encode(keys, B * C, width, height).view(*scene.batch, C, height, width),
    }
