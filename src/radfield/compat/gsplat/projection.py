"""Gaussians in the camera's axes and on the image, as gsplat's documentation defines them, in torch of any float type
(Zwicker et al. 2001, EWA splatting; Kerbl et al. 2023). `rasterization` takes the native op of
`renderers/gaussian_projection.py` instead wherever that has the camera.

    Sigma = R diag(s)^2 R^T          (x, y, z) = R_c mu + t          Sigma_c = R_c Sigma R_c^T
    cov = J Sigma_c J^T + eps2d I    conic = cov^-1 as (xx, xy, yy)  depth = z
    compensation = sqrt(max(0, det(cov - eps2d I) / det cov))

- pinhole: mean2d = K (x, y, z) / z; J = [[fx/z, 0, -fx tx/z], [0, fy/z, -fy ty/z]] with tx = x/z kept within the image
  and 0.3 of its half width beyond;
- ortho: mean2d = f (x, y) + c; J = diag(fx, fy);
- fisheye (equidistant): mean2d = f (x, y) theta / |(x, y)| + c, theta = atan2(|(x, y)|, z); J its derivative.

A Gaussian is left out (radii 0, all else 0) where z is outside of [near, far], the opacity (with the compensation
where that is asked for) is below 1/255, both radii are at most `radius_clip`, its box misses the image, or a value is
not finite. radii = ceil(min(3.33, sqrt(2 ln(255 o))) sqrt(cov_xx, cov_yy)), 3.33 where no opacity is given.

Letters: B batches (any number of dimensions), C cameras, N Gaussians.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_choice, check_shape, require

MIN_ALPHA = 1 / 255
EXTENT = 3.33  # standard deviations
LINEAR_MODELS = ("pinhole", "ortho", "fisheye")
_UPPER = ([0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2])
_WHOLE = [0, 1, 2, 1, 3, 4, 2, 4, 5]


class Ellipses(NamedTuple):
    """Gaussians on the image: [..., C, N, ...] (see the module)."""

    radii: Tensor  # [..., 2] int32, 0: left out
    means2d: Tensor  # [..., 2]
    depths: Tensor
    conics: Tensor  # [..., 3]
    compensations: Tensor


def upper(matrices: Tensor) -> Tensor:
    """[..., 6], the upper triangles of symmetric [..., 3, 3]."""
    return matrices[..., _UPPER[0], _UPPER[1]]


def symmetric(triangles: Tensor) -> Tensor:
    """[..., 3, 3] of upper triangles [..., 6]."""
    return triangles[..., _WHOLE].unflatten(-1, (3, 3))


def rotation(quats: Tensor) -> Tensor:
    """[..., 3, 3] of quaternions [..., 4] (w, x, y, z) of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def quat_scale_to_covar_preci(
    quats: Tensor, scales: Tensor, compute_covar: bool = True, compute_preci: bool = True, triu: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    """Covariances and their inverses of `quats` [..., 4] (w, x, y, z; any length) and `scales` [..., 3]: [..., 3, 3],
    with `triu` their upper triangles [..., 6]; None for what is not asked for. Differentiable."""
    batch = tuple(quats.shape[:-1])
    check_shape("quats", quats, (*batch, 4))
    check_shape("scales", scales, (*batch, 3))
    turn, found = rotation(quats), []
    for asked, sizes in ((compute_covar, scales), (compute_preci, 1 / scales if compute_preci else scales)):
        axes = turn * sizes[..., None, :]
        matrix = axes @ axes.mT if asked else None
        found.append(upper(matrix) if asked and triu else matrix)
    return tuple(found)


def _to_camera(means: Tensor, covars: Tensor, viewmats: Tensor) -> tuple[Tensor, Tensor]:
    turn = viewmats[..., :3, :3]
    local = means[..., None, :, :] @ turn.mT + viewmats[..., None, :3, 3]
    turn = turn[..., None, :, :]
    return local, turn @ covars[..., None, :, :, :] @ turn.mT


def world_to_cam(means: Tensor, covars: Tensor, viewmats: Tensor) -> tuple[Tensor, Tensor]:
    """`means` [..., N, 3] and `covars` [..., N, 3, 3] in the axes of the cameras `viewmats` [..., C, 4, 4]:
    [..., C, N, 3] and [..., C, N, 3, 3]. Deprecated, as in gsplat."""
    warnings.warn("gsplat: world_to_cam() will be removed in a future release", DeprecationWarning, stacklevel=2)
    batch, N, C = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    check_shape("means", means, (*batch, N, 3))
    check_shape("covars", covars, (*batch, N, 3, 3))
    check_shape("viewmats", viewmats, (*batch, C, 4, 4))
    return _to_camera(means, covars, viewmats)


def proj(
    means: Tensor, covars: Tensor, Ks: Tensor, width: int, height: int, camera_model: str = "pinhole"
) -> tuple[Tensor, Tensor]:
    """Means [..., C, N, 2] and covariances [..., C, N, 2, 2] on the image, without eps2d, of `means` [..., C, N, 3] and
    `covars` [..., C, N, 3, 3] in the cameras' axes; `Ks` [..., C, 3, 3]. Differentiable by means and covars."""
    check_choice("camera_model", camera_model, LINEAR_MODELS)
    batch, (C, N) = tuple(means.shape[:-3]), means.shape[-3:-1]
    check_shape("means", means, (*batch, C, N, 3))
    check_shape("covars", covars, (*batch, C, N, 3, 3))
    check_shape("Ks", Ks, (*batch, C, 3, 3))
    focal, center = _intrinsics(Ks)
    at, jacobian = _MAPS[camera_model](means, focal, center, width, height)
    return at, jacobian @ covars @ jacobian.mT


def persp_proj(means: Tensor, covars: Tensor, Ks: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """`proj` of a pinhole camera. Deprecated, as in gsplat."""
    warnings.warn("gsplat: persp_proj() is deprecated; proj() does the same", DeprecationWarning, stacklevel=2)
    return proj(means, covars, Ks, width, height)


def _intrinsics(Ks: Tensor) -> tuple[Tensor, Tensor]:
    """(focal, center), each [..., C, 1, 2], without gradient, as in gsplat."""
    Ks = Ks.detach()[..., None, :, :]
    return Ks[..., [0, 1], [0, 1]], Ks[..., [0, 1], [2, 2]]


def _pinhole(local: Tensor, focal: Tensor, center: Tensor, width: int, height: int):
    z = local[..., 2:]
    slope, size = local[..., :2] / z, focal.new_tensor([width, height])
    margin = 0.3 * 0.5 * size / focal
    kept = torch.minimum(torch.maximum(slope, -center / focal - margin), (size - center) / focal + margin)
    scale = torch.diag_embed((focal / z).expand(local[..., :2].shape))
    return focal * slope + center, torch.cat((scale, -(focal * kept / z)[..., None]), -1)


def _ortho(local: Tensor, focal: Tensor, center: Tensor, width: int, height: int):
    scale = torch.diag_embed(focal.expand(local[..., :2].shape))
    return focal * local[..., :2] + center, torch.nn.functional.pad(scale, (0, 1))


def _fisheye(local: Tensor, focal: Tensor, center: Tensor, width: int, height: int):
    xy, z = local[..., :2], local[..., 2]
    squared = xy.square().sum(-1)
    off = squared > 1e-14 * local.detach().square().sum(-1)  # on the axis the map is that of a pinhole camera
    r = torch.where(off, squared, 1.0).sqrt()
    theta = torch.atan2(r, z)
    safe = torch.where(off, 1.0, z)
    ratio = torch.where(off, theta / r, 1 / torch.where(safe == 0, 1.0, safe))  # mean2d = f xy ratio + c
    length2 = squared + z * z
    # d theta / d r = z / length2, d theta / d z = -r / length2
    slope = torch.where(off, (z / length2 - ratio) / torch.where(off, squared, 1.0), 0.0)
    outer = xy[..., :, None] * xy[..., None, :]
    by_xy = ratio[..., None, None] * torch.eye(2).to(local) + slope[..., None, None] * outer
    by_z = -xy / torch.where(length2 > 0, length2, 1.0)[..., None]
    jacobian = torch.cat((by_xy, by_z[..., None]), -1) * focal[..., None]
    return focal * xy * ratio[..., None] + center, jacobian


_MAPS = {"pinhole": _pinhole, "ortho": _ortho, "fisheye": _fisheye}


def ellipses(
    means: Tensor,
    covars: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    opacities: Tensor | None,
    size: tuple[int, int],
    *,
    eps2d: float = 0.3,
    depths: tuple[float, float] = (0.01, 1e10),
    radius_clip: float = 0.0,
    compensated: bool = False,
    camera_model: str = "pinhole",
) -> Ellipses:
    """`means` [..., N, 3], `covars` [..., N, 3, 3], `opacities` [..., N] seen by `viewmats` [..., C, 4, 4] and `Ks`
    [..., C, 3, 3] on (width, height) pixels, with depths from near to far. compensated: whether what is drawn has the
    opacity times the compensation. Gradients to means, covars and viewmats."""
    local, turned = _to_camera(means, covars, viewmats)
    focal, center = _intrinsics(Ks)
    z = local[..., 2].detach()
    kept = (z >= depths[0]) & (z <= depths[1]) & local.detach().isfinite().all(-1)
    kept = kept & turned.detach().isfinite().all(-1).all(-1)
    # what is left out takes harmless values, so that no NaN enters a gradient
    local = torch.where(kept[..., None], local, local.new_tensor([0.0, 0.0, 1.0]))
    turned = torch.where(kept[..., None, None], turned, torch.eye(3).to(turned))
    at, jacobian = _MAPS[camera_model](local, focal, center, *size)
    cov = jacobian @ turned @ jacobian.mT
    opacities = None if opacities is None else opacities.detach()[..., None, :]
    return outlines(at, cov, local[..., 2], kept, opacities, size, eps2d, radius_clip, compensated)


def outlines(at, cov, z, kept, opacities, size, eps2d: float, radius_clip: float, compensated: bool) -> Ellipses:
    """What is drawn of Gaussians with means `at` [..., 2] and covariances `cov` [..., 2, 2] (without eps2d), depths `z`
    and `opacities` [...] or None; `kept` [...] says which may be."""
    xx, xy, yy = cov[..., 0, 0], (cov[..., 0, 1] + cov[..., 1, 0]) / 2, cov[..., 1, 1]
    before = xx * yy - xy * xy
    xx, yy = xx + eps2d, yy + eps2d
    det = xx * yy - xy * xy
    kept = kept & (det.detach() > 0) & det.detach().isfinite()
    det = torch.where(kept, det, 1.0)
    ratio = before / det
    compensation = torch.where(ratio > 0, torch.where(ratio > 0, ratio, 1.0).sqrt(), 0.0)
    with torch.no_grad():
        extent = torch.full_like(det, EXTENT)
        if opacities is not None:
            drawn = opacities * compensation if compensated else opacities.expand(det.shape)
            kept = kept & (drawn >= MIN_ALPHA)
            extent = extent.minimum((2 * (255 * drawn.clamp_min(MIN_ALPHA)).log()).sqrt())
        radii = (extent[..., None] * torch.stack((xx, yy), -1).clamp_min(0).sqrt()).ceil()
        on_image = (at + radii > 0) & (at - radii < at.new_tensor(size))
        kept = kept & on_image.all(-1) & (radii > radius_clip).any(-1)
        radii = torch.where(kept[..., None], radii, 0.0).int()
    conics = torch.stack((yy / det, -xy / det, xx / det), -1)
    wide = kept[..., None]
    return Ellipses(
        radii,
        torch.where(wide, at, 0.0),
        torch.where(kept, z, 0.0),
        torch.where(wide, conics, 0.0),
        torch.where(kept, compensation, 0.0),
    )


def pack(found: Ellipses, batch_dims: int) -> tuple[tuple[Tensor, Tensor, Tensor], Ellipses]:
    """((batch, camera, Gaussian) numbers [nnz] int64, the drawn ones alone) of dense `found`."""
    drawn = (found.radii > 0).all(-1).flatten(0, batch_dims - 1) if batch_dims else (found.radii > 0).all(-1)[None]
    numbers = drawn.nonzero(as_tuple=True)
    values = (v.flatten(0, batch_dims - 1) if batch_dims else v[None] for v in found)
    return numbers, Ellipses(*(v[numbers] for v in values))


def fully_fused_projection(
    means: Tensor,
    covars: Tensor | None,
    quats: Tensor | None,
    scales: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float = 0.3,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    packed: bool = False,
    sparse_grad: bool = False,
    calc_compensations: bool = False,
    camera_model: str = "pinhole",
    opacities: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Gaussians on the images (see the module), in torch.

    `means` [..., N, 3]; `covars` [..., N, 6], or `quats` [..., N, 4] and `scales` [..., N, 3]; `opacities` [..., N] or
    None. Returns (radii [..., C, N, 2] int32, means2d [..., C, N, 2], depths [..., C, N], conics [..., C, N, 3],
    compensations [..., C, N] or None); packed: (batch_ids, camera_ids, gaussian_ids, each [nnz] int64, and the five
    with [nnz] in place of [..., C, N]). With sparse_grad gradients of the Gaussians are sparse tensors (COO).
    """
    batch, N, C = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    check_choice("camera_model", camera_model, LINEAR_MODELS)
    check_shape("means", means, (*batch, N, 3))
    check_shape("viewmats", viewmats, (*batch, C, 4, 4))
    check_shape("Ks", Ks, (*batch, C, 3, 3))
    if covars is not None:
        check_shape("covars", covars, (*batch, N, 6))
    else:
        check_shape("quats", quats, (*batch, N, 4))
        check_shape("scales", scales, (*batch, N, 3))
    if opacities is not None:
        check_shape("opacities", opacities, (*batch, N))
    require(not sparse_grad or packed, "sparse_grad", sparse_grad, "only where packed is True")
    require(not sparse_grad or not batch, "sparse_grad with batch dimensions", batch, "none")
    if sparse_grad:
        means, covars, quats, scales = (
            None if v is None else SparseGradient.apply(v) for v in (means, covars, quats, scales)
        )
    whole = symmetric(covars) if covars is not None else quat_scale_to_covar_preci(quats, scales, True, False)[0]
    options = {"eps2d": eps2d, "depths": (near_plane, far_plane), "radius_clip": radius_clip}
    options |= {"compensated": calc_compensations, "camera_model": camera_model}
    found = ellipses(means, whole, viewmats, Ks, opacities, (width, height), **options)
    numbers, found = pack(found, len(batch)) if packed else ((), found)
    return (*numbers, *found[:4], found.compensations if calc_compensations else None)


class SparseGradient(torch.autograd.Function):
    """A tensor [N, ...] whose gradient becomes sparse (COO): its rows that are not zero."""

    @staticmethod
    def forward(ctx, values):
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad):
        rows = (grad != 0).flatten(1).any(1).nonzero()[:, 0]
        return torch.sparse_coo_tensor(rows[None], grad[rows], grad.shape, is_coalesced=True, check_invariants=False)
