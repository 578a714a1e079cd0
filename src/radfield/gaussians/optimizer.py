"""Adam over a scene whose Gaussians come and go: `training/adam.py` with moments that follow them.

*Selective* (Mallick et al. 2024, Taming 3DGS): a value whose gradient is exactly zero, such as those of a Gaussian that
the view does not show, neither moves nor forgets.

Letter: G Gaussians.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import native
from ..training.adam import STEP, adam_step_reference
from .scene import GaussianScene

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-15


class GaussianAdam:
    """The moments of each parameter of a scene, and the steps done."""

    def __init__(self, scene: GaussianScene):
        self.steps = 0
        self.m, self.v = ({k: torch.zeros_like(x) for k, x in scene.tensors().items()} for _ in range(2))

    def step(self, scene: GaussianScene, grads: dict[str, Tensor], rates: dict[str, float]) -> int:
        """One step with the gradients `grads`, which are cleared, and learning rates by name. A gradient may be that of
        a parameter's first rows alone. Returns how many values had gradients that were not finite; they stay."""
        self.steps += 1
        bad = []
        for (name, parameter), (rate, correction2) in zip(scene.tensors().items(), self.rates(rates), strict=True):
            bad.append(self._apply(name, parameter, grads[name], rate=rate, correction2=correction2))
        return int(torch.cat(bad).sum())

    def step_scheduled(self, scene: GaussianScene, grads: dict[str, Tensor], schedule: Tensor) -> None:
        """`step` without the host waiting, for a device: `schedule` [6, 3] float64 there holds what `rates` says of
        each parameter, and 0 or 1: whether anything shall move. The caller counts `steps`."""
        for i, (name, parameter) in enumerate(scene.tensors().items()):
            self._apply(name, parameter, grads[name], rate=0.0, correction2=0.0, schedule=schedule[i])

    def rates(self, rates: dict[str, float]) -> list[tuple[float, float]]:
        """Of each parameter at the present number of steps: its rate / (1 - beta1^t), and 1 / (1 - beta2^t)."""
        first, second = 1 - BETA1**self.steps, 1 - BETA2**self.steps
        return [(rates[name] / first, 1 / second) for name in self.m]

    def _apply(self, name: str, parameter: Tensor, grad: Tensor, **rates) -> Tensor:
        grad = grad.contiguous()
        rows = slice(0, len(grad))
        bad = torch.zeros(1, dtype=torch.int64, device=parameter.device)
        values = {"parameter": parameter, "m": self.m[name], "v": self.v[name]}
        fixed = {"beta1": BETA1, "beta2": BETA2, "epsilon": EPSILON, "l2": 0.0, "skip": True}
        (STEP if native(parameter) else adam_step_reference)(
            **{k: x[rows].view(-1) for k, x in values.items()},
            grad=grad.view(-1),
            shadow=None,
            bad=bad,
            **fixed,
            **rates,
        )
        return bad

    def select(self, kept: Tensor, added: int) -> None:
        """Keeps the moments of the Gaussians `kept` (numbers), and appends `added` of none."""
        for moments in (self.m, self.v):
            for name, value in moments.items():
                fresh = value.new_zeros(*value.shape[:-1], added)
                moments[name] = torch.cat((value[..., kept], fresh), -1)

    def forget(self, name: str) -> None:
        """Clears the moments of one parameter."""
        self.m[name].zero_(), self.v[name].zero_()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, but for `steps`."""
        moments = {"m": self.m, "v": self.v}
        return {f"{kind}.{name}": value for kind, each in moments.items() for name, value in each.items()}

    def load(self, tensors: dict[str, Tensor], steps: int) -> None:
        """The inverse of `tensors`."""
        self.steps = steps
        for kind, moments in (("m", self.m), ("v", self.v)):
            for name in moments:
                moments[name] = tensors[f"{kind}.{name}"]
