"""What files of Gaussians of any format have in common: they are untrusted, and hold degenerate values.

What is degenerate and has a meaning is kept: a quaternion without length becomes (1, 0, 0, 0), a scale of 0 (logarithm
-inf) e^-30, an opacity of 0 or 1 (logit -inf or inf) 1e-6 from there. A Gaussian with another value that is not finite
is left out. Warnings count each kind.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch

from ..errors import BadInput, warn
from .scene import GaussianScene

LEAST_LOG_SCALE = -30.0
MOST_LOGIT = math.log(1e6)


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """What is in a file. Raises `BadInput` where it cannot be read, is no file, or has more than `most` bytes."""
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path}: could not be read: is no file")
        if most is not None and path.stat().st_size > most:
            raise BadInput(f"{path}: has {path.stat().st_size} bytes; the rule: at most {most}")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: could not be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:  # a name with a zero byte
        raise BadInput(f"{str(path)!r:.80}: could not be read: {error}") from None


def below(path: Path, name, rule: str) -> Path:
    """Where the file is that the one at `path` calls `name`, with / between folders: in the same folder or below.
    Raises `BadInput` with the rule for a name that leads elsewhere, on any system. Links are followed.
    """
    place = PurePosixPath(name if isinstance(name, str) else "")
    elsewhere = place.is_absolute() or ".." in place.parts or PureWindowsPath(place).drive
    if not place.parts or elsewhere or any(each in name for each in "\\\0"):
        raise BadInput(f"{path}: names the file {name!r:.60}; the rule: {rule}")
    return path.parent / place


def read_json(path: Path, content: bytes) -> dict:
    """The object that `content`, of the file at `path`, is in JSON. Raises `BadInput` where it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        name = "meta.json" if path.suffix.lower() == ".sog" else path.name
        raise BadInput(f"{path}: {name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: its JSON is {found!r:.60}; the rule: an object")
    return found


def is_number(value) -> bool:
    """Whether a value of JSON is a number that float64 holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of an integer
        return False


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
