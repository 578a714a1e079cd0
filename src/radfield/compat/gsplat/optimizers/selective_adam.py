"""`gsplat.optimizers.SelectiveAdam` (Mallick et al. 2024, Taming 3DGS): Adam for the Gaussians that a step has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_shape, require


class SelectiveAdam(torch.optim.Adam):
    """Adam without bias correction, as gsplat's: where a Gaussian is seen

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2        p -= rate m / (sqrt(v) + eps)

    and nothing changes elsewhere. Each group has one parameter [N, ...]."""

    def __init__(self, params, eps: float, betas: tuple[float, float]):
        super().__init__(params=params, eps=eps, betas=betas)

    @torch.no_grad()
    def step(self, visibility: Tensor) -> None:
        """One step where `visibility` [N] (bool, or numbers: not 0) is true. Raises `WrongCall`."""
        for group in self.param_groups:
            require(len(group["params"]) == 1, "the number of tensors in a group", len(group["params"]), "1")
            parameter = group["params"][0]
            if parameter.grad is None:
                continue
            check_shape("visibility", visibility, (len(parameter),))
            adam(
                parameter,
                parameter.grad,
                *self._moments(parameter),
                visibility,
                group["lr"],
                *group["betas"],
                group["eps"],
            )

    def _moments(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state["exp_avg"], state["exp_avg_sq"]


@torch.no_grad()
def adam(
    param: Tensor,
    param_grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    valid: Tensor | None,
    lr: float,
    b1: float,
    b2: float,
    eps: float,
) -> None:
    """Steps rows `valid` [N] (all: None) of `param` [N, ...] and its moments in place (see `SelectiveAdam`)."""
    rows = slice(None) if valid is None else valid.bool().nonzero()[:, 0]
    grad = param_grad[rows].to(param)
    first = exp_avg[rows].mul(b1).add_(grad, alpha=1 - b1)
    second = exp_avg_sq[rows].mul(b2).addcmul_(grad, grad, value=1 - b2)
    exp_avg[rows], exp_avg_sq[rows] = first, second
    param[rows] -= lr * first / second.sqrt().add_(eps)
