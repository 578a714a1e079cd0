"""What two fields are compared on, at the same samples (PVD, Fang et al. 2023, sec. 3.3).

    L_k = || a_k - b_k ||_F    of the whole batch, not squared

with k the features where a field's first block hands over to its second (the density's logit among them), the log
density, the colour of each sample, and the rendered colour of each ray. A field's `comparable` states which of them it
has, and of how many channels; what two fields have alike is used.
Letters: N rays, M samples, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..renderers.composite import Composited
from ..renderers.volume import LiveSamples

#: log densities are compared within these: beyond them more or less density makes no difference to a picture, but would
#: be most of the loss
CLAMP = (-2.0, 7.0)


class Answers(NamedTuple):
    """A field's answers at shared samples, by name; `seen` is what rays see of them, where they were rendered."""

    values: dict[str, Tensor]
    seen: Composited | None


def in_common(teacher, student) -> list[str]:
    """The names that both fields can be compared on."""
    ours = student.comparable
    return [name for name, channels in teacher.comparable.items() if ours.get(name) == channels]


def answers(
    field, samples: LiveSamples, names: list[str], background: Tensor, *, rendered: bool = False, encoded=None
) -> Answers:
    """What `field` answers at the samples under `names`; `background` [N, 3] is behind the rays, `encoded` are the
    features of the samples where they are known. rendered: composite them in any case."""
    logit, features = field.geometry(samples.x, encoded)
    values, seen = {"density": logit}, None
    if "features" in names:
        values["features"] = features
    if rendered or "color" in names or "rendered" in names:
        color_logits = field.color_logits(features, samples.directions)
        values["color"] = color_logits.sigmoid()
    if rendered or "rendered" in names:
        values["rendered"], _, seen = samples.composited(logit, color_logits, background)
    return Answers(values, seen)


def differences(
    teacher: dict[str, Tensor],
    student: dict[str, Tensor],
    names: list[str],
    *,
    clamp: tuple[float, float] | None = CLAMP,
    rows: Tensor | None = None,
) -> dict[str, Tensor]:
    """L_k of each name; `rows` [M] bool are the samples that count, all without it."""
    return {name: _distance(name, teacher[name], student[name], clamp, rows) for name in names}


def _distance(name: str, ours: Tensor, theirs: Tensor, clamp, rows: Tensor | None) -> Tensor:
    pair = [each.float() for each in (ours, theirs)]
    if clamp is not None and name == "density":
        pair = [clamped(each, clamp) for each in pair]
    if clamp is not None and name == "features":
        pair = [torch.cat([clamped(each[:, :1], clamp), each[:, 1:]], 1) for each in pair]
    difference = pair[0] - pair[1]
    if rows is not None and name != "rendered":
        difference = difference[rows]
    return torch.linalg.vector_norm(difference)


class _Clamped(torch.autograd.Function):
    """The gradient passes: in the published code it ends at the clamp, and a student that starts outside stays there.
    Where both fields are beyond the same end, the loss and so its gradient is 0."""

    @staticmethod
    def forward(ctx, x, low, high):
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, grad):
        return grad, None, None


def clamped(x: Tensor, clamp: tuple[float, float]) -> Tensor:
    """`x` within `clamp`, with the gradient of `x`."""
    return _Clamped.apply(x, *clamp)
