"""Gaussians in a checkpoint: `gaussians.NAME` per parameter. Letter: G Gaussians."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import BadInput
from ..renderers.gaussian_color import rest_rows
from .scene import ROWS, GaussianScene


def stored_gaussians(path: Path, tensors: dict[str, Tensor], degree: int) -> GaussianScene:
    """The Gaussians among the tensors of the checkpoint at `path`. Raises `BadInput` where one is missing or of another
    shape."""
    logits = tensors.get("gaussians.opacity_logits")
    count = logits.shape[0] if logits is not None and logits.ndim == 1 else 0
    shapes = {name: (*rows, count) for name, rows in ROWS.items()} | {"rest": (rest_rows(degree), count)}
    return GaussianScene(**{k: stored(path, tensors, f"gaussians.{k}", shape) for k, shape in shapes.items()})


def stored(path: Path, tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype=torch.float32) -> Tensor:
    """One tensor. Raises `BadInput` where it is missing or of another shape or dtype."""
    value = tensors.get(name)
    if value is None or value.shape != tuple(shape) or value.dtype != dtype:
        what = "is missing" if value is None else f"is {value.dtype} {list(value.shape)}"
        raise BadInput(f"{path}: {name} {what}; the rule: {dtype} {list(shape)}")
    return value
