"""What a strategy of gsplat is: two calls around `loss.backward()`.

params: parameters by name, Gaussians along the first dimension (a dict or a `torch.nn.ParameterDict`); optimizers: one
for each, by the same names, with one group of that parameter alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..checks import require

REQUIRED = ("means", "scales", "quats", "opacities")


@dataclass
class Strategy:
    """Does nothing."""

    def check_sanity(
        self, params: Mapping[str, torch.nn.Parameter], optimizers: Mapping[str, torch.optim.Optimizer]
    ) -> None:
        """Raises `WrongCall` unless `params` that are trained and `optimizers` have the same names, and each optimiser
        one group."""
        trained = {name for name, value in params.items() if value.requires_grad}
        require(
            trained == set(optimizers), "optimizers' names", sorted(optimizers), f"those trained, {sorted(trained)}"
        )
        for name, optimizer in optimizers.items():
            require(len(optimizer.param_groups) == 1, f"groups of optimizer {name!r}", len(optimizer.param_groups), "1")

    def step_pre_backward(self, *args, **kwargs) -> None:
        """To be called before `loss.backward()`."""

    def step_post_backward(self, *args, **kwargs) -> None:
        """To be called after `loss.backward()`."""


def require_geometry(params: Mapping[str, torch.nn.Parameter]) -> None:
    """Raises `WrongCall` unless means, scales, quats and opacities are there."""
    for name in REQUIRED:
        require(name in params, "params", sorted(params), f"{', '.join(REQUIRED)} among them")


def empty_cache() -> None:
    """Gives torch's cached GPU memory back, where there is a GPU in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
