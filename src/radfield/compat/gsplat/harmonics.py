"""Spherical harmonics with coefficients in gsplat's layout, [..., K, 3]: order and signs are those of 3DGS files
(`encodings/spherical_harmonics.py`).

Letters: N Gaussians, K coefficients per channel, n = (degree + 1)^2 of them in use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...encodings.spherical_harmonics import spherical_harmonics_reference
from .checks import check_shape, require

MOST_DEGREE = 4


def check_degree(degree: int, coefficients: int) -> int:
    """n. Raises `WrongCall` for a degree out of range, or too few coefficients."""
    known = isinstance(degree, int) and 0 <= degree <= MOST_DEGREE
    require(known, "the degree of spherical harmonics", degree, f"a whole number from 0 to {MOST_DEGREE}")
    used = (degree + 1) ** 2
    require(used <= coefficients, "the number of coefficients K", coefficients, f"at least {used} for degree {degree}")
    return used


def spherical_harmonics(degrees_to_use: int, dirs: Tensor, coeffs: Tensor, masks: Tensor | None = None) -> Tensor:
    """[..., 3]: sum_k coeffs_k Y_k(dirs / |dirs|) of `dirs` [..., 3] and `coeffs` [..., K, 3], 0 where `masks` [...] is
    false. In torch, of any float type; differentiable by dirs and coeffs. Raises `WrongCall` (see `check_degree`)."""
    batch = tuple(dirs.shape[:-1])
    check_shape("dirs", dirs, (*batch, 3))
    check_shape("coeffs", coeffs, (*batch, coeffs.shape[-2] if coeffs.ndim > 1 else 0, 3))
    used = check_degree(degrees_to_use, coeffs.shape[-2])
    if masks is not None:
        check_shape("masks", masks, batch)
        dirs = torch.where(masks[..., None], dirs, dirs.new_tensor([0.0, 0.0, 1.0]))
    unit = torch.nn.functional.normalize(dirs, dim=-1).reshape(-1, 3)
    values = spherical_harmonics_reference(unit, degrees_to_use + 1).view(*batch, used, 1)
    found = (values * coeffs[..., :used, :]).sum(-2)
    return found if masks is None else torch.where(masks[..., None], found, 0.0)
