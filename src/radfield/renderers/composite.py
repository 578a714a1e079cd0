"""Volume compositing of packed samples (Max 1995; Mildenhall et al. 2020, NeRF, eq. 3).

Sample i of a ray has density sigma_i >= 0 on the interval [t_start_i, t_end_i]:

    tau_i = sigma_i (t_end_i - t_start_i)                 optical depth
    T_i   = exp(-sum_(j < i) tau_j)                       transmittance: the light that reaches the sample
    w_i   = T_i (1 - exp(-tau_i))                         weight
    color = sum_i w_i rgb_i + (1 - opacity) background    opacity = sum_i w_i
    depth = sum_i w_i (t_start_i + t_end_i) / 2           not divided by the opacity

A ray ends where T_i < `stop`: that sample and those after it are not live, their weights and gradients are 0, and a
colour misses less than `stop` of what lies behind. A NaN shows in the outputs of its ray.

Letters: N rays, M samples (those of ray i are ray_start[i] : ray_start[i + 1]), C colour channels or features.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from ..backend import native, on_cuda
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import feature_major

FORWARD = Op(
    "composite_forward",
    Out("color", "f32", "C N"),
    Out("opacity", "f32", "N"),
    Out("depth", "f32", "N"),
    Out("weights", "f32", "M"),
    Out("live", "i32", "N", "samples that the ray reaches"),
    In("sigma", "f32", "M", "density per unit of t, or its logit"),
    In("rgb", "f32", "C M", "colours, or their logits"),
    In("t_start", "f32", "M"),
    In("t_end", "f32", "M"),
    In("ray_start", "i32", "N+1"),
    In("background", "f32", "C N", optional=True),
    Scalar("raw", "int", "1: sigma and rgb are logits"),
    Scalar("shift", "float", "subtracted from a density's logit"),
    Scalar("stop", "float", "transmittance at which a ray ends"),
)
BACKWARD = Op(
    "composite_backward",
    Out("grad_sigma", "f32", "M"),
    Out("grad_rgb", "f32", "C M", optional=True),
    Out("grad_background", "f32", "C N", optional=True),
    In("grad_color", "f32", "C N", optional=True),
    In("grad_opacity", "f32", "N", optional=True),
    In("grad_depth", "f32", "N", optional=True),
    In("grad_weights", "f32", "M", optional=True),
    In("opacity", "f32", "N", "and weights, live: results of the forward pass"),
    In("weights", "f32", "M"),
    In("live", "i32", "N"),
    In("sigma", "f32", "M"),
    In("rgb", "f32", "C M"),
    In("t_start", "f32", "M"),
    In("t_end", "f32", "M"),
    In("ray_start", "i32", "N+1"),
    In("background", "f32", "C N", optional=True),
    Scalar("raw", "int"),
    Scalar("shift", "float"),
)
_STREAM = "f32 bf16 f16 i32"
COMPACT = Op(
    "compact_streams",
    Out("packed", _STREAM, "C K", "the first new_start[N] of each row are written"),
    In("stream", _STREAM, "C M", "of the dtype of packed"),
    In("ray_start", "i32", "N+1"),
    In("new_start", "i32", "N+1"),
)


@FORWARD.cuda
def _(a):
    return Launch(f"composite_forward<{flag(a.raw)}>", blocks(32 * a.N))


@BACKWARD.cuda
def _(a):
    return Launch(f"composite_backward<{flag(a.raw)}>", blocks(32 * a.N))


@COMPACT.cuda
def _(a):
    return Launch(f"compact_streams<{'uint16_t' if 'f16' in a.cxx('packed') else 'uint32_t'}>", blocks(32 * a.N, a.C))


class Composited(NamedTuple):
    """What a ray sees."""

    color: torch.Tensor  # [N, C], the background blended in
    opacity: torch.Tensor  # [N], in [0, 1]
    depth: torch.Tensor  # [N], sum of w t: divide by the opacity for the mean distance
    weights: torch.Tensor  # [M]
    live: torch.Tensor  # [N] int32, samples that the ray reaches


def composite_reference(sigma, rgb, t_start, t_end, ray_start, background=None, *, stop: float = 1e-4) -> Composited:
    """The specification: `sigma` [M], `rgb` [M, C], `t_start`, `t_end` [M] of any float type, `ray_start` [N + 1],
    `background` [N, C]. The rays stand as rows of the longest one's length."""
    count = (ray_start[1:] - ray_start[:-1]).long()
    longest = int(count.max()) if len(count) else 0
    inside = torch.arange(longest, device=sigma.device) < count[:, None]
    tau = torch.zeros(inside.shape, dtype=sigma.dtype, device=sigma.device)
    tau = tau.masked_scatter(inside, sigma * (t_end - t_start))
    reached = torch.exp(tau - tau.cumsum(1))
    live = inside & (reached.detach() >= stop)
    weight = torch.where(live, reached * -torch.expm1(-tau), 0.0)
    weights = weight[inside]
    ray = torch.repeat_interleave(torch.arange(len(count), device=sigma.device), count)
    color = rgb.new_zeros(len(count), rgb.shape[1]).index_add(0, ray, weights[:, None] * rgb)
    depth = sigma.new_zeros(len(count)).index_add(0, ray, weights * (t_start + t_end) / 2)
    opacity = weight.sum(1)
    if background is not None:
        color = color + (1 - opacity)[:, None] * background
    return Composited(color, opacity, depth, weights, live.sum(1, dtype=torch.int32))


class _BoundedExp(torch.autograd.Function):
    """e^x, with a gradient taken at x clamped to +-15 (instant-ngp)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x.clamp(-15, 15).exp()


def composite_raw_reference(
    logit, color_logits, t_start, t_end, ray_start, background=None, *, shift: float = 0.0, stop: float = 1e-4
) -> Composited:
    """The specification of `composite_raw`: `logit` [M], `color_logits` [M, C] of any float type."""
    sigma = _BoundedExp.apply(logit - shift)
    return composite_reference(sigma, color_logits.sigmoid(), t_start, t_end, ray_start, background, stop=stop)


class _Composite(torch.autograd.Function):
    """Of the streams `sigma` [M] and `rgb` [C, M], which are logits where `raw`."""

    @staticmethod
    def forward(ctx, sigma, rgb, background, raw, fixed, shift, stop):
        M, N = len(sigma), len(fixed["ray_start"]) - 1
        options = {"background": background, "raw": raw, "shift": shift, **fixed}
        new = functools.partial(torch.empty, device=sigma.device)
        color, opacity, depth, weights = new(len(rgb), N), new(N), new(N), new(M)
        live = new(N, dtype=torch.int32)
        results = {"opacity": opacity, "weights": weights, "live": live}
        FORWARD(color=color, depth=depth, sigma=sigma, rgb=rgb, stop=stop, **results, **options)
        ctx.save_for_backward(sigma, rgb, background, opacity, weights, live)
        ctx.fixed, ctx.raw, ctx.shift = fixed, raw, shift
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(live)
        return color, opacity, depth, weights, live

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_color, grad_opacity, grad_depth, grad_weights, _):
        sigma, rgb, background, opacity, weights, live = ctx.saved_tensors
        need_sigma, need_rgb, need_background = ctx.needs_input_grad[:3]
        grad_sigma = torch.empty_like(sigma)
        grad_rgb = torch.empty_like(rgb) if need_rgb else None
        grad_background = torch.empty_like(background) if need_background else None
        BACKWARD(
            grad_sigma=grad_sigma,
            grad_rgb=grad_rgb,
            grad_background=grad_background,
            grad_color=_contiguous(grad_color),
            grad_opacity=_contiguous(grad_opacity),
            grad_depth=_contiguous(grad_depth),
            grad_weights=_contiguous(grad_weights),
            opacity=opacity,
            weights=weights,
            live=live,
            sigma=sigma,
            rgb=rgb,
            background=background,
            raw=ctx.raw,
            shift=ctx.shift,
            **ctx.fixed,
        )
        return grad_sigma if need_sigma else None, grad_rgb, grad_background, None, None, None, None


def _contiguous(grad):
    return None if grad is None else grad.contiguous()


def _streams(x):
    """[M, C] -> [C, M] contiguous, seen by autograd."""
    return None if x is None else x.T.contiguous()


def _intervals(t_start, t_end, ray_start) -> dict:
    """The inputs without gradient, checked."""
    for name, value in (("t_start", t_start), ("t_end", t_end)):
        if value.requires_grad:
            raise BadInput(f"composite: {name} requires a gradient; the rule: intervals have none, detach them")
    # kernels on a device clamp what ray_start says: looking at it would have the host wait
    wrong = ray_start.ndim != 1 or len(ray_start) == 0
    if wrong or (not on_cuda(t_start) and int(ray_start[-1]) != len(t_start)):
        raise BadInput(
            f"composite: ray_start has shape {list(ray_start.shape)} and ends {ray_start[-1:].tolist()}; "
            f"the rule: [N + 1], ending in the number of samples, here {len(t_start)}"
        )
    return {"t_start": t_start.contiguous(), "t_end": t_end.contiguous(), "ray_start": ray_start.contiguous()}


def composite(
    sigma: torch.Tensor,
    rgb: torch.Tensor,
    t_start: torch.Tensor,
    t_end: torch.Tensor,
    ray_start: torch.Tensor,
    background: torch.Tensor | None = None,
    *,
    stop: float = 1e-4,
) -> Composited:
    """Composites densities `sigma` [M] >= 0 and colours `rgb` [M, C] (any C >= 0; a view with stride (1, M) is not
    copied) of packed samples; all float32, `ray_start` [N + 1] int32 from 0 to M, `background` [N, C].

    Gradients, once: to sigma, rgb and background, from colour, opacity, depth and weights. Raises `BadInput` on
    another dtype or shape, and where t_start or t_end require a gradient.
    """
    if not native(sigma):
        return composite_reference(sigma, rgb, t_start, t_end, ray_start, background, stop=stop)
    fixed = _intervals(t_start, t_end, ray_start)
    found = _Composite.apply(sigma.contiguous(), _streams(rgb), _streams(background), False, fixed, 0.0, stop)
    return Composited(found[0].T, *found[1:])


def composite_raw(
    logit: torch.Tensor,
    color_logits: torch.Tensor | None,
    t_start: torch.Tensor,
    t_end: torch.Tensor,
    ray_start: torch.Tensor,
    background: torch.Tensor | None = None,
    *,
    shift: float = 0.0,
    stop: float = 1e-4,
) -> Composited:
    """`composite` of a network's outputs: sigma = exp(logit - shift), rgb = sigmoid(color_logits), with `logit` [M] and
    `color_logits` [M, C]. The gradient to the logit is that of the exponential clamped to e^+-15, as in instant-ngp.
    Without colours (None) it finds which samples are live. Arguments and errors otherwise as in `composite`."""
    color_logits = logit.new_empty(len(logit), 0) if color_logits is None else color_logits
    if not native(logit):
        arguments = (t_start, t_end, ray_start, background)
        return composite_raw_reference(logit, color_logits, *arguments, shift=shift, stop=stop)
    for name, value in (("logit", logit), ("color_logits", color_logits)):
        if value.dtype != torch.float32:
            raise BadInput(f"composite_raw: {name} is {value.dtype}; the rule: torch.float32")
    fixed = _intervals(t_start, t_end, ray_start)
    streams = logit.contiguous(), _streams(color_logits)
    found = _Composite.apply(*streams, _streams(background), True, fixed, shift, stop)
    return Composited(found[0].T, *found[1:])


def live_start(live: torch.Tensor) -> torch.Tensor:
    """The `ray_start` [N + 1] int32 of the live samples alone, from their counts `live` [N] int32."""
    start = live.new_zeros(len(live) + 1)
    torch.cumsum(live, 0, dtype=torch.int32, out=start[1:])
    return start


def compact_streams(ray_start: torch.Tensor, live: torch.Tensor, *values: torch.Tensor, capacity: int | None = None):
    """Keeps the first `live[i]` samples of each ray i: returns the new `ray_start` [N + 1] and each of `values` ([M] or
    [M, C]; float32, bfloat16 or int32; views with stride (1, M) are not copied first) with those samples alone.

    capacity: on a device, the rows of what is returned, of which the first new `ray_start[N]` are written; what does
    not fit is left out. Without it the host waits for their number.
    No gradient passes: raises `BadInput` where a value requires one. Compact first, then run the network again.
    """
    new_start = live_start(live)
    kept = int(new_start[-1]) if capacity is None else capacity
    return new_start, *[_compact(value, ray_start, new_start, kept) for value in values]


def _compact(value, ray_start, new_start, kept: int):
    if value.requires_grad and torch.is_grad_enabled():
        raise BadInput("compact_streams: a value requires a gradient; the rule: none does, detach it")
    if not native(value):
        count = new_start[1:] - new_start[:-1]
        moved = torch.repeat_interleave(ray_start[:-1] - new_start[:-1], count)
        return value[(moved + torch.arange(kept, device=value.device)).long()]
    stream = feature_major(value[:, None] if value.ndim == 1 else value)
    packed = stream.new_empty(len(stream), kept)
    COMPACT(packed=packed, stream=stream, ray_start=ray_start.contiguous(), new_start=new_start)
    return packed[0] if value.ndim == 1 else packed.T
