"""What files of Gaussians of any format have in common: they are untrusted, and hold degenerate values.

What is degenerate and has a meaning is kept: a quaternion without length becomes (1, 0, 0, 0), a scale of 0 (logarithm
-inf) e^-30, an opacity of 0 or 1 (logit -inf or inf) 1e-6 from there. A Gaussian with another value that is not finite
is left out. Warnings count each kind.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import BadInput, warn
from .scene import GaussianScene

LEAST_LOG_SCALE = -30.0
MOST_LOGIT = math.log(1e6)


def read_bytes(path: Path) -> bytes:
    """What is in a file. Raises `BadInput` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: could not be read: {(error.strerror or str(error)).lower()}") from None


def sound(path: Path, scene: GaussianScene) -> GaussianScene:
    """The scene by the policy of the module."""
    for name, wrong, mend, text in _MENDED:
        value = getattr(scene, name)
        found = wrong(value)
        if bool(found.any()):
            count = int((found.any(0) if found.ndim > 1 else found).sum())
            warn(f"{path}: {count} Gaussians have {text}")
            scene = replace(scene, **{name: mend(value, found)})
    return finite(path, scene)


def finite(path: Path, scene: GaussianScene) -> GaussianScene:
    """The Gaussians whose values are all finite; a warning counts the others."""
    unsound = scene.unsound()
    if bool(unsound.any()):
        warn(f"{path}: {int(unsound.sum())} Gaussians have values that are not finite, left out")
        scene = scene.select(~unsound)
    return scene


def _unturned(quaternions: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    return torch.where(found, quaternions.new_tensor([1.0, 0, 0, 0])[:, None], quaternions)


_MENDED = (
    (
        "quaternions",
        lambda q: (q.square().sum(0) == 0).expand_as(q),
        _unturned,
        "a quaternion of length 0, read as (1, 0, 0, 0)",
    ),
    (
        "log_scales",
        lambda s: s < LEAST_LOG_SCALE,
        lambda s, found: torch.where(found, LEAST_LOG_SCALE, s),
        f"a scale of 0 (below e^{LEAST_LOG_SCALE:.0f}), read as e^{LEAST_LOG_SCALE:.0f}",
    ),
    (
        "opacity_logits",
        torch.isinf,
        lambda o, found: torch.where(found, o.clamp(-MOST_LOGIT, MOST_LOGIT), o),
        "an opacity of 0 or 1, read as 0.000001 or 0.999999",
    ),
)
