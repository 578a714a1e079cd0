"""What an encoding does with positions outside [0, 1], NaN among them: one policy for all, set as `Encoding.outside`.

    clamp   the nearest position in [0, 1]; NaN reads as 1. The default: kernels do it by themselves, at no cost
    error   `BadInput` that names the first such position; costs a pass over the batch (and a wait, on a GPU)
    wrap    x - floor(x), as if space were periodic; NaN reads as 1
    zero    features 0, without gradient

A clamped coordinate has no gradient. Encodings without a table (one-blob, triangle wave) have no border: "clamp" leaves
their positions as they are. Letters: M samples, D dimensions, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import BadInput

POLICIES = ("clamp", "error", "wrap", "zero")


def check_policy(policy: str) -> str:
    """`policy`, if it is one."""
    if policy not in POLICIES:
        raise BadInput(f"outside is {policy!r}; the rule: {', '.join(POLICIES[:-1])} or {POLICIES[-1]}")
    return policy


def encoded(encode: Callable, x: Tensor, computed: Tensor | None, policy: str, **counted) -> Tensor:
    """`encode(x, computed, **counted)` [M, C] by the policy, `x` [M, D]."""
    if policy == "clamp":
        return encode(x, computed, **counted)
    if policy == "wrap":
        return encode(x - x.detach().floor(), computed, **counted)
    inside = ((x >= 0) & (x <= 1)).all(1)  # False for NaN
    if policy == "error":
        refuse_first(x, inside)
        return encode(x, computed, **counted)
    # NaN gradients of features that count for nothing would pass a product with 0, but not this
    features = encode(torch.where(inside[:, None], x, 0.5), computed, **counted)
    return torch.where(inside[:, None], features, 0)


def refuse_first(x: Tensor, inside: Tensor) -> None:
    """Raises `BadInput` that names the first row of `x` [M, D] where `inside` [M] is false."""
    if not inside.all():
        row = int((~inside).nonzero()[0])
        value = ", ".join(f"{v:g}" for v in x[row].tolist())
        count = int((~inside).sum())
        raise BadInput(f"x[{row}] is [{value}], one of {count} such; the rule: within [0, 1] (outside is 'error')")


def clamped(x: Tensor) -> Tensor:
    """`x` as kernels read it: clamped to [0, 1], NaN as 1; without gradient where it was outside."""
    x = torch.where(x <= 1, x, 1)
    return torch.where(x >= 0, x, 0)
