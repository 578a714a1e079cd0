"""`means2d.absgrad`, which the backward pass fills for strategies (Ye et al. 2024, AbsGS)."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import Tensor


def fill_absgrad(means2d: Tensor, make: Callable[[Tensor], Tensor]) -> None:
    """Once the gradient of `means2d` is known, `means2d.absgrad` is what `make` makes of it."""
    if not means2d.requires_grad:
        return
    found = weakref.ref(means2d)  # a hook that held its own tensor would keep every step's graph until the next gc

    def hook(grad):
        if (tensor := found()) is not None:
            tensor.absgrad = make(grad.detach())

    means2d.register_hook(hook)
