"""2D Gaussians on the image, as gsplat has them (Huang et al. 2024, 2DGS), in torch of any float type.

A surfel's point (u, v) lies at R (u s_1, v s_2, 0) + mu. Its homogeneous pixel is M (u, v, 1)^T with

    M = K [R_c R e_1 s_1, R_c R e_2 s_2, mean_c]    [3, 3], rows M_1, M_2, M_3, mean_c = R_c mu + t

and with f = (1, 1, -1) / (M_3 . (1, 1, -1) M_3):  mean2d = (sum f M_1 M_3, sum f M_2 M_3), the middle of the image of
the unit disc, whose half width is h = sqrt(max(1e-4, mean2d^2 - sum f M_k^2)). radii = ceil(3.33 h). The normal
R_c R e_3 is turned towards the camera.

Letters: B batches (any number of dimensions), C cameras, N Gaussians.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_shape, require
from .projection import EXTENT, SparseGradient, rotation


def fully_fused_projection_2dgs(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
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
) -> tuple[Tensor, ...]:
    """(radii [..., C, N, 2] int32, means2d [..., C, N, 2], depths [..., C, N], ray_transforms M [..., C, N, 3, 3],
    normals [..., C, N, 3] in the camera's axes) of `means` [..., N, 3], `quats` [..., N, 4], `scales` [..., N, 3] (the
    first two count); packed: (batch_ids, camera_ids, gaussian_ids, each [nnz] int64, and the five with [nnz]).

    Left out (radii 0, all else 0) are those not between near and far, edge-on, off the image, not finite, or with both
    radii at most `radius_clip`. `eps2d` changes nothing, as in gsplat. Gradients to all but Ks. Raises `WrongCall`.
    """
    batch, N, C = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    for name, value, shape in (
        ("means", means, (*batch, N, 3)),
        ("quats", quats, (*batch, N, 4)),
        ("scales", scales, (*batch, N, 3)),
        ("viewmats", viewmats, (*batch, C, 4, 4)),
        ("Ks", Ks, (*batch, C, 3, 3)),
    ):
        check_shape(name, value, shape)
    require(not sparse_grad or (packed and not batch), "sparse_grad", True, "only packed, without batch dimensions")
    if sparse_grad:
        means, quats, scales = (SparseGradient.apply(v) for v in (means, quats, scales))
    turn = viewmats[..., :3, :3]
    local = means[..., None, :, :] @ turn.mT + viewmats[..., None, :3, 3]
    axes = turn[..., None, :, :] @ rotation(quats)[..., None, :, :, :]
    finite = local.detach().isfinite().all(-1) & axes.detach().isfinite().all(-1).all(-1)
    z = local[..., 2].detach()
    kept = finite & (z > near_plane) & (z < far_plane)
    # what is left out takes harmless values, so that no NaN enters a gradient
    local = torch.where(kept[..., None], local, local.new_tensor([0.0, 0.0, 1.0]))
    axes = torch.where(kept[..., None, None], axes, torch.eye(3).to(axes))
    tangents = axes[..., :2] * scales[..., None, :, None, :2]
    M = _pixels(Ks)[..., None, :, :] @ torch.cat((tangents, local[..., None]), -1)
    found = _boxes(M, kept, (width, height), radius_clip)
    away = (axes[..., 2].detach() * local.detach()).sum(-1, keepdim=True) >= 0
    normals = torch.where(away, -axes[..., 2], axes[..., 2])
    radii, at = found
    drawn = (radii > 0).all(-1)
    wide = drawn[..., None]
    values = (
        radii,
        torch.where(wide, at, 0.0),
        torch.where(drawn, local[..., 2], 0.0),
        torch.where(wide[..., None], M, 0.0),
        torch.where(wide, normals, 0.0),
    )
    if not packed:
        return values
    flat = [v.flatten(0, len(batch) - 1) if batch else v[None] for v in (drawn, *values)]
    numbers = flat[0].nonzero(as_tuple=True)
    return (*numbers, *(v[numbers] for v in flat[1:]))


def _pixels(Ks: Tensor) -> Tensor:
    """[..., 3, 3]: focal lengths and principal point alone, without gradient."""
    clean = torch.zeros_like(Ks.detach())
    for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)):
        clean[..., i, j] = Ks.detach()[..., i, j]
    clean[..., 2, 2] = 1
    return clean


def _boxes(M: Tensor, kept: Tensor, size: tuple[int, int], radius_clip: float) -> tuple[Tensor, Tensor]:
    """(radii [..., 2] int32, means2d [..., 2])."""
    signs = M.new_tensor([1.0, 1.0, -1.0])
    length = (signs * M[..., 2, :].square()).sum(-1)
    kept = kept & (length.detach() != 0)
    f = (signs / torch.where(kept, length, 1.0)[..., None])[..., None, :]
    at = (f * M[..., :2, :] * M[..., 2:, :]).sum(-1)
    with torch.no_grad():
        half = (at.square() - (f * M[..., :2, :].square()).sum(-1)).clamp_min(1e-4).sqrt()
        radii = (EXTENT * half).ceil()
        on_image = ((at + radii > 0) & (at - radii < at.new_tensor(size))).all(-1)
        kept = kept & on_image & (radii > radius_clip).any(-1) & radii.isfinite().all(-1)
        return torch.where(kept[..., None], radii.clamp_max(1 << 24), 0.0).int(), at
