"""`gsplat.utils`: small functions that training scripts import."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import check_shape
from .projection import rotation


def normalized_quat_to_rotmat(quat: Tensor) -> Tensor:
    """[..., 3, 3] of unit quaternions [..., 4] (w, x, y, z)."""
    check_shape("quat", quat, (*quat.shape[:-1], 4))
    return rotation(quat)


def log_transform(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def inverse_log_transform(y: Tensor) -> Tensor:
    """The inverse of `log_transform`."""
    return y.sign() * y.abs().expm1()


def depth_to_points(depths: Tensor, camtoworlds: Tensor, Ks: Tensor, z_depth: bool = True) -> Tensor:
    """Points in the world [..., H, W, 3] of `depths` [..., H, W, 1], z or (z_depth false) distances along the rays;
    `camtoworlds` [..., 4, 4], `Ks` [..., 3, 3]."""
    batch, (height, width) = tuple(depths.shape[:-3]), depths.shape[-3:-1]
    check_shape("depths", depths, (*batch, height, width, 1))
    check_shape("camtoworlds", camtoworlds, (*batch, 4, 4))
    check_shape("Ks", Ks, (*batch, 3, 3))
    y, x = torch.meshgrid(*(torch.arange(n, device=depths.device) + 0.5 for n in (height, width)), indexing="ij")
    focal, center = Ks[..., [0, 1], [0, 1]], Ks[..., [0, 1], [2, 2]]
    slopes = (torch.stack((x, y), -1) - center[..., None, None, :]) / focal[..., None, None, :]
    directions = torch.nn.functional.pad(slopes, (0, 1), value=1.0)
    directions = directions @ camtoworlds[..., None, :3, :3].mT
    if not z_depth:
        directions = torch.nn.functional.normalize(directions, dim=-1)
    return camtoworlds[..., None, None, :3, 3] + depths * directions


def depth_to_normal(depths: Tensor, camtoworlds: Tensor, Ks: Tensor, z_depth: bool = True) -> Tensor:
    """Unit normals in the world [..., H, W, 3] of the surface that `depth_to_points` gives, by central differences; 0
    on the border of one pixel."""
    points = depth_to_points(depths, camtoworlds, Ks, z_depth=z_depth)
    down = points[..., 2:, 1:-1, :] - points[..., :-2, 1:-1, :]
    right = points[..., 1:-1, 2:, :] - points[..., 1:-1, :-2, :]
    normals = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
    return torch.nn.functional.pad(normals, (0, 0, 1, 1, 1, 1))


def get_projection_matrix(
    znear: float, zfar: float, fovX: float, fovY: float, device: torch.device | str = "cpu"
) -> Tensor:
    """[4, 4] of OpenGL's style for a symmetric frustum with angles in radians; z from 0 to 1, looking along +z. On the
    CPU unless asked otherwise (gsplat: CUDA)."""
    matrix = torch.zeros(4, 4, device=device)
    matrix[0, 0], matrix[1, 1] = 1 / math.tan(fovX / 2), 1 / math.tan(fovY / 2)
    matrix[2, 2], matrix[2, 3] = zfar / (zfar - znear), -zfar * znear / (zfar - znear)
    matrix[3, 2] = 1.0
    return matrix


def save_ply(splats: dict[str, Tensor], dir: str, colors: Tensor | None = None) -> None:
    """Writes `splats` (means, scales, quats, opacities, sh0, shN) as the 3DGS file `dir`; `colors` [N, 3] in [0, 1]
    take the place of the harmonics. Deprecated, as in gsplat: `export_splats` does the same."""
    import warnings

    from .exporter import C0, export_splats

    warnings.warn("gsplat: save_ply() is deprecated; export_splats() does the same", DeprecationWarning, stacklevel=2)
    sh0, shN = splats["sh0"], splats["shN"]
    if colors is not None:
        sh0, shN = ((colors - 0.5) / C0)[:, None], shN[:, :0]
    values = [splats[name].detach() for name in ("means", "scales", "quats", "opacities")]
    export_splats(*values, sh0.detach(), shN.detach(), save_to=dir)
