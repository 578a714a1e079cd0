"""`gsplat.relocation`: what becomes of a Gaussian whose place several shall take (Kheradmand et al. 2024, eq. 9)."""

from __future__ import annotations

from torch import Tensor

from ...gaussians.mcmc import MOST_COPIES, divided
from .checks import check_shape, require


def compute_relocation(opacities: Tensor, scales: Tensor, ratios: Tensor, binoms: Tensor) -> tuple[Tensor, Tensor]:
    """(opacities [N], scales [N, 3]) with which `ratios` [N] copies have together the image of one of `opacities` [N]
    and `scales` [N, 3]:

        o_new = 1 - (1 - o)^(1/n)
        s_new = s o / sum_(i=1..n) sum_(k=0..i-1) C(i-1, k) (-1)^k o_new^(k+1) / sqrt(k+1)

    `binoms` [n_max, n_max] says how many copies there can be, at most 51; as in gsplat `ratios` are clamped to that in
    place. The sum is that of `gaussians/mcmc.py`, in float64 (there, float32 with the coefficients in `binoms`).
    """
    N, most = len(opacities), len(binoms)
    check_shape("opacities", opacities, (N,))
    check_shape("scales", scales, (N, 3))
    check_shape("ratios", ratios, (N,))
    check_shape("binoms", binoms, (most, most))
    require(most <= MOST_COPIES, "n_max of binoms", most, f"at most {MOST_COPIES}")
    new, shrink = divided(opacities, ratios.clamp_(min=1, max=most))
    return new.to(opacities), (shrink[:, None] * scales).to(scales)
