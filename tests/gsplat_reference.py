"""The published formulas of gsplat 1.5.3, in float64, written from its documentation alone: nothing here is radfield's;
and a scene to compare on.

One camera. means [N, 3], quats [N, 4] (w, x, y, z), scales [N, 3], opacities [N], view [4, 4], K [3, 3]."""

import math

import torch


def rotations(quats):
    w, x, y, z = (quats / quats.norm(dim=1, keepdim=True)).unbind(1)
    return torch.stack(
        [
            torch.stack([w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
            torch.stack([2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)], 1),
            torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z], 1),
        ],
        1,
    )


def covariances(quats, scales):
    R = rotations(quats)
    return R @ torch.diag_embed(scales**2) @ R.mT


def pinhole(local, K, width, height):
    """(pixels [N, 2], their derivatives [N, 2, 3]) of points [N, 3]."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x, y, z = local.unbind(1)
    tan_x, tan_y = 0.5 * width / fx, 0.5 * height / fy
    tx = (x / z).clamp(-(cx / fx + 0.3 * tan_x), (width - cx) / fx + 0.3 * tan_x)
    ty = (y / z).clamp(-(cy / fy + 0.3 * tan_y), (height - cy) / fy + 0.3 * tan_y)
    zero = torch.zeros_like(z)
    J = torch.stack([torch.stack([fx / z, zero, -fx * tx / z], 1), torch.stack([zero, fy / z, -fy * ty / z], 1)], 1)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], 1), J


def exact_map(local, K, model):
    """Pixels of points [N, 3]."""
    x, y, z = local.unbind(1)
    if model == "ortho":
        slope = torch.stack([x, y], 1)
    else:
        r = (x * x + y * y).sqrt()
        slope = torch.stack([x, y], 1) * (torch.atan2(r, z) / r)[:, None]
    return slope * K[[0, 1], [0, 1]] + K[[0, 1], [2, 2]]


def project(means, covars, view, K, width, height, model="pinhole", eps2d=0.3):
    """(means2d [N, 2], conics [N, 2, 2], depths [N], compensations [N])."""
    R = view[:3, :3]
    local = means @ R.T + view[:3, 3]
    if model == "pinhole":
        at, J = pinhole(local, K, width, height)
    else:
        at = exact_map(local, K, model)
        each = [
            torch.autograd.functional.jacobian(lambda p: exact_map(p[None], K, model)[0], p, create_graph=True)
            for p in local
        ]
        J = torch.stack(each)
    cov = J @ (R @ covars @ R.T) @ J.mT
    blurred = cov + eps2d * torch.eye(2, dtype=cov.dtype)
    compensation = (torch.linalg.det(cov) / torch.linalg.det(blurred)).clamp_min(0).sqrt()
    return at, torch.linalg.inv(blurred), local[:, 2], compensation


def blend(at, conics, depths, opacities, colors, width, height, background=None):
    """(colours [H, W, D], alpha [H, W]): nearest first, alpha from 1/255 to 0.999, to a transmittance of 1e-4."""
    order = depths.detach().argsort(stable=True)
    y, x = torch.meshgrid(*(torch.arange(n, dtype=at.dtype) + 0.5 for n in (height, width)), indexing="ij")
    pixels = torch.stack([x, y], -1)
    T = torch.ones_like(x)
    going = torch.ones_like(x, dtype=torch.bool)
    total = torch.zeros(height, width, colors.shape[1], dtype=at.dtype)
    for i in order.tolist():
        d = pixels - at[i]
        sigma = 0.5 * torch.einsum("hwi,ij,hwj->hw", d, conics[i], d)
        alpha = (opacities[i] * torch.exp(-sigma)).clamp_max(0.999)
        drawn = going & (alpha >= 1 / 255)
        going = going & ~(drawn & (T * (1 - alpha) <= 1e-4))
        alpha = torch.where(drawn & going, alpha, 0.0)
        total = total + (alpha * T)[..., None] * colors[i]
        T = T * (1 - alpha)
    if background is not None:
        total = total + T[..., None] * background
    return total, 1 - T


def harmonics(directions, coefficients):
    """Degree 1 and 2 by their formulas: directions [N, 3] of length 1, coefficients [N, 9, 3]."""
    x, y, z = directions.unbind(1)
    basis = [
        torch.full_like(x, 0.5 / math.sqrt(math.pi)),
        *(math.sqrt(3 / (4 * math.pi)) * v for v in (-y, z, -x)),
        0.5 * math.sqrt(15 / math.pi) * x * y,
        -0.5 * math.sqrt(15 / math.pi) * y * z,
        0.25 * math.sqrt(5 / math.pi) * (2 * z * z - x * x - y * y),
        -0.5 * math.sqrt(15 / math.pi) * x * z,
        0.25 * math.sqrt(15 / math.pi) * (x * x - y * y),
    ]
    return torch.einsum("kn,nkc->nc", torch.stack(basis), coefficients)


WIDTH, HEIGHT = 41, 30
NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats")


def scene(N=40, C=2, seed=0, channels=3):
    """float64: the reference's; sizes, distances and opacities are moderate, so that few values lie at a threshold."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    angle = torch.tensor([0.2, -0.3], dtype=torch.float64)
    views = torch.eye(4, dtype=torch.float64).repeat(C, 1, 1)
    for c in range(C):
        cos, sin = angle[c].cos(), angle[c].sin()
        views[c, 0, 0], views[c, 0, 2], views[c, 2, 0], views[c, 2, 2] = cos, sin, -sin, cos
        views[c, :3, 3] = torch.tensor([0.1 * c, -0.05, 2.5 + c], dtype=torch.float64)
    K = torch.tensor([[40.0, 0, 21], [0, 38.0, 14], [0, 0, 1]], dtype=torch.float64).repeat(C, 1, 1)
    return {
        "means": 0.6 * torch.randn(N, 3, **options),
        "quats": torch.randn(N, 4, **options),
        "scales": 0.02 + 0.15 * torch.rand(N, 3, **options),
        "opacities": 0.1 + 0.8 * torch.rand(N, **options),
        "colors": torch.rand(N, channels, **options),
        "viewmats": views,
        "Ks": K,
    }


def leaves(values, dtype):
    return {k: v.detach().to(dtype, copy=True).requires_grad_(k in NAMES) for k, v in values.items()}
