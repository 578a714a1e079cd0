"""What a signed distance field with colours means for compositing (Wang et al. 2021, "NeuS", eq. 10 to 13).

A sample on [t_start, t_end], dt long, of a ray along d has the distance f (negative inside) and its gradient n:

    c = d . n                                                       the cosine, where n has the length 1
    k = relu(1/2 - c/2) (1 - a) + relu(-c) a                        how fast f falls along the ray
    alpha = max(0, 1 - Phi(f - k dt/2) / Phi(f + k dt/2)),   Phi(f) = 1 / (1 + e^(-s f))

with the sharpness s and, in the annealing, a in [0, 1] from 0 to 1. As an optical depth tau = -log(1 - alpha) that is

    tau = softplus(-s (f - k dt/2)) - softplus(-s (f + k dt/2))

which needs no guard against 0/0: deep inside it is s k dt. `composite` takes sigma = tau / dt. Colours are the sigmoid
of logits. The eikonal term is stretch = (|n| - 1)^2. All gradients are exact, that of k by c at every a included
(1 - a) / 2 + a below c = 0, (1 - a) / 2 from 0 to 1, else 0; each negated.

Letter: M samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import feature_major, streams

_SAMPLES = (
    In("directions", "f32", "3 M", "unit vectors"),
    In("t_start", "f32", "M"),
    In("t_end", "f32", "M"),
)
_SHAPE = (
    In("count", "i64", "1", "CUDA only: samples in use, the first of M", optional=True),
    In("schedule", "f64", "2", "CUDA only: sharpness and annealed, in the place of the scalars", optional=True),
    Scalar("sharpness", "float", "s"),
    Scalar("annealed", "float", "a, 0 to 1"),
)
FORWARD = Op(
    "neus_alpha_forward",
    Out("sigma", "f32", "M", "density that absorbs as much over the interval"),
    Out("rgb", "f32", "3 M"),
    Out("stretch", "f32", "M", "(|n| - 1)^2"),
    In("f", "f32", "M", "signed distance"),
    In("normal", "f32", "3 M", "its gradient"),
    In("logits", "f32", "3 M", "of the colour"),
    *_SAMPLES,
    *_SHAPE,
)
BACKWARD = Op(
    "neus_alpha_backward",
    Out("grad_f", "f32", "M"),
    Out("grad_normal", "f32", "3 M"),
    Out("grad_logits", "f32", "3 M"),
    Out("grad_sharpness", "f32", "M", "each sample's part"),
    In("grad_sigma", "f32", "M"),
    In("grad_rgb", "f32", "3 M"),
    In("grad_stretch", "f32", "M", "instead of stretch_weight", optional=True),
    In("f", "f32", "M"),
    In("normal", "f32", "3 M"),
    In("rgb", "f32", "3 M"),
    *_SAMPLES,
    *_SHAPE,
    Scalar("stretch_weight", "float", "the gradient of every stretch"),
)


@FORWARD.cuda
def _(a):
    return Launch("neus_alpha_forward", blocks(a.M))


@BACKWARD.cuda
def _(a):
    return Launch("neus_alpha_backward", blocks(a.M))


class Answers(NamedTuple):
    """What samples are for `composite`, and how far the gradient's length is from 1."""

    sigma: Tensor  # [M]
    rgb: Tensor  # [M, 3]
    stretch: Tensor  # [M]


def neus_alpha_reference(f, normal, logits, directions, t_start, t_end, *, sharpness, annealed: float = 1.0) -> Answers:
    """The specification: `f` [M], `normal`, `logits`, `directions` [M, 3] of any float type; sharpness: a number, or a
    tensor of one."""
    c = (directions * normal).sum(-1)
    k = (0.5 - 0.5 * c).relu() * (1 - annealed) + (-c).relu() * annealed
    dt = t_end - t_start
    # a plain softplus: torch's becomes linear at 20, which is no function of s f any more
    below = torch.logaddexp(-sharpness * (f - 0.5 * k * dt), torch.zeros_like(f))
    above = torch.logaddexp(-sharpness * (f + 0.5 * k * dt), torch.zeros_like(f))
    length = normal.square().sum(-1).sqrt()
    return Answers((below - above) / dt, logits.sigmoid(), (length - 1).square())


class Shape(NamedTuple):
    """How distances become densities: s and a. On a device that the host does not wait for `schedule` [2] float64 has
    both instead, and `count` [1] int64 the samples in use; others are neither read nor written."""

    sharpness: float = 0.0
    annealed: float = 1.0
    schedule: Tensor | None = None
    count: Tensor | None = None


def answers(f: Tensor, normal: Tensor, logits: Tensor, samples: dict, shape: Shape) -> dict:
    """The forward op on streams: f [M], normal and logits [3, M], `samples` with directions [3, M], t_start and t_end
    [M]. Returns sigma [M], rgb [3, M] and stretch [M]."""
    found = {"sigma": torch.empty_like(f), "rgb": streams(f, 3), "stretch": torch.empty_like(f)}
    FORWARD(**found, f=f, normal=normal, logits=logits, **samples, **shape._asdict())
    return found


def gradients(
    grad_sigma: Tensor,
    grad_rgb: Tensor,
    stretch: float | Tensor,
    f: Tensor,
    normal: Tensor,
    rgb: Tensor,
    samples: dict,
    shape: Shape,
) -> dict:
    """The backward op on streams, as in `answers`; stretch: the gradient of each sample's, or of all. Returns grad_f,
    grad_normal, grad_logits and, sample by sample, grad_sharpness."""
    found = {"grad_f": torch.empty_like(f), "grad_normal": streams(f, 3), "grad_logits": streams(f, 3)}
    found["grad_sharpness"] = torch.empty_like(f)
    each = isinstance(stretch, Tensor)
    BACKWARD(
        **found,
        grad_sigma=grad_sigma,
        grad_rgb=grad_rgb,
        grad_stretch=stretch if each else None,
        f=f,
        normal=normal,
        rgb=rgb,
        **samples,
        stretch_weight=0.0 if each else stretch,
        **shape._asdict(),
    )
    return found


class _NeusAlpha(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f, normal, logits, sharpness, samples, annealed):
        shape = Shape(float(sharpness), annealed)
        found = answers(f, normal, logits, samples, shape)
        ctx.save_for_backward(f, normal, found["rgb"], sharpness)
        ctx.samples, ctx.shape = samples, shape
        return found["sigma"], found["rgb"], found["stretch"]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_sigma, grad_rgb, grad_stretch):
        f, normal, rgb, sharpness = ctx.saved_tensors
        given = grad_sigma.contiguous(), grad_rgb.contiguous(), grad_stretch.contiguous()
        found = gradients(*given, f, normal, rgb, ctx.samples, ctx.shape)
        by_sharpness = found["grad_sharpness"].sum().view_as(sharpness)
        return found["grad_f"], found["grad_normal"], found["grad_logits"], by_sharpness, None, None


def neus_alpha(
    f: Tensor,
    normal: Tensor,
    logits: Tensor,
    directions: Tensor,
    t_start: Tensor,
    t_end: Tensor,
    *,
    sharpness: Tensor,
    annealed: float = 1.0,
) -> Answers:
    """Densities [M], colours [M, 3] and (|n| - 1)^2 [M] of samples: `f` [M], `normal` (the gradient of f), `logits`,
    unit `directions` [M, 3], `t_start` < `t_end` [M], all float32; sharpness: a tensor of one number above 0.

    Gradients, once, to f, normal, logits and sharpness. Raises `BadInput` on another dtype or shape, and for `annealed`
    outside [0, 1].
    """
    if not 0 <= annealed <= 1:
        raise BadInput(f"neus_alpha: annealed is {annealed}; the rule: from 0 to 1")
    if not native(f):
        return neus_alpha_reference(
            f, normal, logits, directions, t_start, t_end, sharpness=sharpness, annealed=annealed
        )
    samples = {
        "directions": feature_major(directions),
        "t_start": t_start.contiguous(),
        "t_end": t_end.contiguous(),
    }
    turned = (each.T.contiguous() for each in (normal, logits))
    sigma, rgb, stretch = _NeusAlpha.apply(f.contiguous(), *turned, sharpness, samples, annealed)
    return Answers(sigma, rgb.T, stretch)
