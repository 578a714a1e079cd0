"""Gaussians seen through distorted lenses and rolling shutters, by the unscented transform (Julier & Uhlmann 1997; Wu
et al. 2025, 3DGUT), in torch. As in gsplat not differentiable.

Sigma points with lambda = alpha^2 (3 + kappa) - 3 and spread d = sqrt(3 + lambda), columns r_i of the rotation:

    x_0 = mu,  x_(+-i) = mu +- d s_i r_i        w_0 = lambda / (3 + lambda),  w_i = 1 / (2 (3 + lambda))
    mean2d = sum w_i p_i        cov = sum w_i e_i e_i^T + (1 - alpha^2 + beta) e_0 e_0^T,    e_i = p_i - mean2d

p_i is where x_i reaches the image (`lenses.py`). depth is z, halfway through the exposure. The weights are large (w_0
is -99 by default), so that all is computed in float64.

Letters: B batches (any number of dimensions), C cameras, N Gaussians, S = 7 sigma points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from .checks import WrongCall, check_choice, check_shape, require
from .lenses import MODELS, Lens, RollingShutterType, Shutter
from .projection import Ellipses, outlines, rotation


@dataclass
class UnscentedTransformParameters:
    """The sigma points', and which of them have to be seen."""

    alpha: float = 0.1
    beta: float = 2.0
    kappa: float = 0.0
    in_image_margin_factor: float = 0.1  # of the image's size: how far beyond it a point counts as seen
    require_all_sigma_points_valid: bool = True


class FThetaPolynomialType(Enum):
    """Which polynomial of an f-theta lens is exact. Such lenses are refused here."""

    PIXELDIST_TO_ANGLE = 0
    ANGLE_TO_PIXELDIST = 1


@dataclass
class FThetaCameraDistortionParameters:
    """An f-theta lens, which is refused here."""

    reference_poly: FThetaPolynomialType
    pixeldist_to_angle_poly: tuple[float, ...]
    angle_to_pixeldist_poly: tuple[float, ...]
    max_angle: float
    linear_cde: tuple[float, float, float]


@dataclass(frozen=True)
class Exposure:
    """How cameras [..., C] see, beyond their matrices: gsplat's arguments by their names."""

    camera_model: str = "pinhole"
    radial_coeffs: Tensor | None = None  # [..., C, 6], or 4 of a fisheye lens
    tangential_coeffs: Tensor | None = None  # [..., C, 2]
    thin_prism_coeffs: Tensor | None = None  # [..., C, 4]
    ftheta_coeffs: object = None
    rolling_shutter: RollingShutterType = RollingShutterType.GLOBAL
    viewmats_rs: Tensor | None = None  # [..., C, 4, 4]
    ut_params: UnscentedTransformParameters = field(default_factory=UnscentedTransformParameters)

    def check(self, leading: tuple[int, ...]) -> None:
        """Raises `WrongCall` unless all fits cameras of these dimensions, and radfield has the lens."""
        if self.ftheta_coeffs is not None or self.camera_model == "ftheta":
            raise WrongCall("gsplat: the camera is ftheta; the rule: pinhole or fisheye, radfield has no f-theta lens")
        check_choice("camera_model", self.camera_model, MODELS)
        sizes = {"radial_coeffs": (6 if self.camera_model == "pinhole" else 4,)}
        sizes |= {"tangential_coeffs": (2,), "thin_prism_coeffs": (4,), "viewmats_rs": (4, 4)}
        for name, end in sizes.items():
            value = getattr(self, name)
            if value is not None:
                check_shape(name, value, (*leading, *end))
        rolling = self.rolling_shutter is not RollingShutterType.GLOBAL
        require(rolling == (self.viewmats_rs is not None), "viewmats_rs with", self.rolling_shutter.name,
                "given for a rolling shutter, and only then")  # fmt: skip

    def of(self, viewmats: Tensor, Ks: Tensor, number: int, size: tuple[int, int]) -> tuple[Lens, Shutter]:
        """Camera `number` of all, in order, without gradient, in float64."""

        def one(value: Tensor | None, dims: int) -> Tensor | None:
            return None if value is None else value.detach().double().flatten(0, value.ndim - 1 - dims)[number]

        K, coefficients = one(Ks, 2), (self.radial_coeffs, self.tangential_coeffs, self.thin_prism_coeffs)
        lens = Lens(
            self.camera_model, size, K[[0, 1], [0, 1]], K[[0, 1], [2, 2]], *(one(value, 1) for value in coefficients)
        )
        return lens, Shutter(one(viewmats, 2), one(self.viewmats_rs, 2), self.rolling_shutter)


@torch.no_grad()
def unscented_ellipses(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor | None,
    lens: Lens,
    shutter: Shutter,
    ut: UnscentedTransformParameters,
    *,
    eps2d: float,
    depths: tuple[float, float],
    radius_clip: float,
) -> Ellipses:
    """What one camera sees of `means` [N, 3], `quats` [N, 4], `scales` [N, 3], `opacities` [N] or None, float32. As in
    gsplat boxes are those of the opacity times the compensation, whether or not that is drawn."""
    lift = ut.alpha**2 * (3 + ut.kappa)
    axes = rotation(quats.double()) * scales.double()[:, None]
    shifts = math.sqrt(lift) * torch.cat((axes, -axes), -1).mT
    points = torch.cat((means.double()[:, None], means.double()[:, None] + shifts), 1)  # [N, S, 3]
    pixels, seen = shutter.seen(points, lens, ut.in_image_margin_factor)
    kept = seen.all(1) if ut.require_all_sigma_points_valid else seen.any(1)
    turn, shift = shutter.poses(torch.full((), 0.5, dtype=torch.float64, device=means.device))
    z = means.double() @ turn[2] + shift[2]
    kept = kept & (z >= depths[0]) & (z <= depths[1]) & pixels.isfinite().flatten(1).all(1)
    pixels = torch.where(kept[:, None, None], pixels, 0.0)
    weights = pixels.new_tensor([(lift - 3) / lift] + [1 / (2 * lift)] * 6)
    at = (weights[:, None] * pixels).sum(1)
    off = pixels - at[:, None]
    weights = weights + weights.new_tensor([1 - ut.alpha**2 + ut.beta] + [0.0] * 6)
    cov = (weights[:, None, None] * off[..., :, None] * off[..., None, :]).sum(1)
    opacities = None if opacities is None else opacities.double()
    found = outlines(at, cov, z, kept, opacities, lens.size, eps2d, radius_clip, True)
    return Ellipses(found.radii, *(v.float() for v in found[1:]))


def fully_fused_projection_with_ut(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    eps2d: float = 0.3,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    calc_compensations: bool = False,
    camera_model: str = "pinhole",
    ut_params: UnscentedTransformParameters = UnscentedTransformParameters(),  # noqa: B008 (gsplat's own default)
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: FThetaCameraDistortionParameters | None = None,
    rolling_shutter: RollingShutterType = RollingShutterType.GLOBAL,
    viewmats_rs: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """As `fully_fused_projection` without packing, through a lens and a shutter (see the module and `lenses.py`):
    `radial_coeffs` [..., C, 6] (fisheye: 4), `tangential_coeffs` [..., C, 2], `thin_prism_coeffs` [..., C, 4],
    `viewmats_rs` [..., C, 4, 4] the poses at the end. No gradients. Raises `WrongCall`, for f-theta lenses too."""
    batch, N, C = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    check_shape("means", means, (*batch, N, 3))
    check_shape("quats", quats, (*batch, N, 4))
    check_shape("scales", scales, (*batch, N, 3))
    check_shape("viewmats", viewmats, (*batch, C, 4, 4))
    check_shape("Ks", Ks, (*batch, C, 3, 3))
    if opacities is not None:
        check_shape("opacities", opacities, (*batch, N))
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
    options = {"eps2d": eps2d, "depths": (near_plane, far_plane), "radius_clip": radius_clip}
    flat = [v.reshape(-1, N, v.shape[-1]) for v in (means, quats, scales)]
    opacity = None if opacities is None else opacities.reshape(-1, N)
    found = []
    for number in range(math.prod(batch) * C):
        b = number // C
        seen = exposure.of(viewmats, Ks, number, (width, height))
        values = (v[b].detach() for v in flat)
        found.append(unscented_ellipses(*values, None if opacity is None else opacity[b], *seen, ut_params, **options))
    parts = [torch.stack(part).view(*batch, C, *part[0].shape) for part in zip(*found, strict=True)]
    return (*parts[:4], parts[4] if calc_compensations else None)
