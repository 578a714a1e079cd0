"""Gaussians whose response is evaluated in space, along each pixel's ray (Wu et al. 2025, 3DGUT), in torch: slow, tile
by tile, with every pair of pixel and Gaussian in memory.

With the ray o + t d, and its image in the axes of the Gaussian, o_g = diag(1/s) R^T (o - mu), d_g likewise of length 1:

    sigma = |d_g x o_g|^2 / 2

at the point of the largest density. alpha and blending are those of `pairs.py`, in the order of the lists.

Letters: C cameras, N Gaussians, D channels, I = B C images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import check_shape
from .lenses import Lens, RollingShutterType, Shutter
from .pairs import MAX_ALPHA, Blend, find_pairs, limited
from .projection import rotation
from .unscented import Exposure, FThetaCameraDistortionParameters, UnscentedTransformParameters


def world_rays(lens: Lens, shutter: Shutter) -> tuple[Tensor, Tensor, Tensor]:
    """(origins [pixels, 3], unit directions [pixels, 3], whether the lens has one [pixels]), in the world, by rows."""
    width, height = lens.size
    options = {"dtype": torch.float64, "device": lens.focal.device}
    y, x = torch.meshgrid(*(torch.arange(n, **options) + 0.5 for n in (height, width)), indexing="ij")
    pixels = torch.stack((x, y), -1).reshape(-1, 2)
    local, seen = lens.rays(pixels)
    turn, shift = shutter.poses(shutter.times(pixels, lens.size))
    origins = -(turn.mT @ shift[..., None])[..., 0]
    return origins, (turn.mT @ local[..., None])[..., 0], seen


def ray_sigma(means: Tensor, axes: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """sigma [...] of `means` [..., 3] and `axes` diag(1/s) R^T [..., 3, 3] along rays [..., 3]."""
    near = (axes @ (origins - means)[..., None])[..., 0]
    along = torch.nn.functional.normalize((axes @ directions[..., None])[..., 0], dim=-1)
    return 0.5 * torch.linalg.cross(along, near).square().sum(-1)


def rasterize_to_pixels_eval3d(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    colors: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    image_width: int,
    image_height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    backgrounds: Tensor | None = None,
    masks: Tensor | None = None,
    camera_model: str = "pinhole",
    ut_params: UnscentedTransformParameters = UnscentedTransformParameters(),  # noqa: B008 (gsplat's own default)
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: FThetaCameraDistortionParameters | None = None,
    rolling_shutter: RollingShutterType = RollingShutterType.GLOBAL,
    viewmats_rs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(colours [..., C, image_height, image_width, D], alphas [..., C, image_height, image_width, 1]) of `means`
    [..., N, 3], `quats` [..., N, 4], `scales` [..., N, 3], `colors` [..., C, N, D], `opacities` [..., C, N] over
    `backgrounds` [..., C, D]; the lists are those of `isect_tiles`, the lens as for `fully_fused_projection_with_ut`.

    Gradients to the first five and the backgrounds; none to cameras, as in gsplat. Raises `WrongCall`.
    """
    batch, N, C, D = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3], colors.shape[-1]
    for name, value, shape in (
        ("means", means, (*batch, N, 3)),
        ("quats", quats, (*batch, N, 4)),
        ("scales", scales, (*batch, N, 3)),
        ("colors", colors, (*batch, C, N, D)),
        ("opacities", opacities, (*batch, C, N)),
        ("viewmats", viewmats, (*batch, C, 4, 4)),
        ("Ks", Ks, (*batch, C, 3, 3)),
    ):
        check_shape(name, value, shape)
    exposure = Exposure(
        camera_model,
        radial_coeffs,
        tangential_coeffs,
        thin_prism_coeffs,
        ftheta_coeffs,
        rolling_shutter,
        viewmats_rs,
        ut_params,
    )
    exposure.check((*batch, C))
    count, size = math.prod(batch) * C, (image_width, image_height)
    rays = [world_rays(*exposure.of(viewmats, Ks, i, size)) for i in range(count)]
    origins, directions, seen = (torch.stack(part) for part in zip(*rays, strict=True))
    rays = origins.flatten(0, 1).to(means), directions.flatten(0, 1).to(means)
    axes = rotation(quats).mT / scales[..., None]
    values = means.reshape(-1, 3), axes.reshape(-1, 3, 3), opacities.reshape(-1)
    light = seen.view(count, image_height, image_width).to(means)
    if masks is not None:
        check_shape("masks", masks, tuple(isect_offsets.shape))
        wide = masks.repeat_interleave(tile_size, -2).repeat_interleave(tile_size, -1)
        light = light * wide[..., :image_height, :image_width].reshape(light.shape)
    blend, ids = _blend(values, rays, light, C, N, tile_size, isect_offsets, flatten_ids)
    image, total = blend.sums(colors.reshape(-1, D)[ids]), blend.total()
    if backgrounds is not None:
        check_shape("backgrounds", backgrounds, (*batch, C, D))
        image = image + (1 - total) * backgrounds.reshape(count, D).repeat_interleave(image_width * image_height, 0)
    shape = *batch, C, image_height, image_width
    return image.view(*shape, D), total.view(*shape, 1)


def _blend(values, rays, light: Tensor, C: int, N: int, tile_size: int, offsets: Tensor, flatten_ids: Tensor):
    """(the weights of all pairs, their rows among images and Gaussians [M])."""
    means, axes, opacities = values
    _, height, width = light.shape

    def gaussians(rows: Tensor) -> Tensor:
        return rows // (C * N) * N + rows % N

    def alpha_of(rows, x, y, image):
        place = image * height * width + y.floor().long() * width + x.floor().long()
        which = gaussians(rows)
        sigma = ray_sigma(means[which].detach(), axes[which].detach(), rays[0][place][None], rays[1][place][None])
        return limited(opacities[rows].detach(), sigma)

    ids, place = find_pairs(alpha_of, light, (0, 1 << 40), tile_size, offsets, flatten_ids)
    which = gaussians(ids)
    sigma = ray_sigma(means[which], axes[which], rays[0][place], rays[1][place])
    alpha = (opacities[ids] * (-sigma).exp()).clamp_max(MAX_ALPHA)
    return Blend(alpha, place, light.numel()), ids
