"""Gaussians that come and go, and the optimisers that follow: parameters (`params`), the moments in `optimizers` and
the tensors of a strategy's `state` change together, in place (the entries of the dictionaries become new tensors).

scales are logarithms and opacities logits, as trained. Random numbers are drawn by the calls, in the order and shape of
gsplat, so that a seed gives what it gives there on the same device.

Letters: N Gaussians, S of them selected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from ..checks import require
from ..projection import quat_scale_to_covar_preci, rotation
from ..relocation import compute_relocation

SHRINK = 1.6
Params = MutableMapping[str, torch.nn.Parameter]
Optimizers = Mapping[str, torch.optim.Optimizer]
_MOST_DRAWN = 1 << 24  # categories that torch.multinomial takes


def _replace(
    params: Params,
    optimizers: Optimizers,
    value: Callable[[str, Tensor], Tensor],
    moment: Callable[[Tensor], Tensor],
    names: Iterable[str] | None = None,
) -> None:
    """Replaces each parameter by `value(name, it)`, and what its optimiser remembers, but for the number of steps, by
    `moment(it)`."""
    for name in list(params) if names is None else names:
        old = params[name]
        new = torch.nn.Parameter(value(name, old.detach()), requires_grad=old.requires_grad)
        params[name] = new
        if name not in optimizers:
            require(not old.requires_grad, f"the optimizer of {name!r}", None, "there for what is trained")
            continue
        optimizer = optimizers[name]
        for group in optimizer.param_groups:
            group["params"] = [new]
        kept = optimizer.state.pop(old, None)
        if kept is not None:
            optimizer.state[new] = {k: v if k == "step" else moment(v) for k, v in kept.items()}


def _follow(state: MutableMapping[str, Any], change: Callable[[Tensor], Tensor]) -> None:
    for key, value in state.items():
        if isinstance(value, Tensor):
            state[key] = change(value)


def _rows(like: Tensor, count: int) -> Tensor:
    return like.new_zeros(count, *like.shape[1:])


@torch.no_grad()
def duplicate(params: Params, optimizers: Optimizers, state: MutableMapping[str, Any], mask: Tensor) -> None:
    """Appends a copy of the Gaussians `mask` [N]; the copies' moments are 0, their state that of the originals."""
    chosen = mask.nonzero()[:, 0]
    _replace(
        params,
        optimizers,
        lambda name, p: torch.cat((p, p[chosen])),
        lambda v: torch.cat((v, _rows(v, len(chosen)))),
    )
    _follow(state, lambda v: torch.cat((v, v[chosen])))


@torch.no_grad()
def split(
    params: Params,
    optimizers: Optimizers,
    state: MutableMapping[str, Any],
    mask: Tensor,
    revised_opacity: bool = False,
) -> None:
    """Replaces each Gaussian `mask` [N] by two, 1.6 times smaller, at random points of it; they stand at the end, the
    first of all pairs before the second. With `revised_opacity` both have 1 - sqrt(1 - o) (Rota Bulo et al. 2024)."""
    chosen, others = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
    scales = params["scales"][chosen].exp()
    local = torch.randn(2, len(scales), 3, device=mask.device) * scales
    offsets = (rotation(params["quats"][chosen]) @ local[..., None])[..., 0]

    def value(name: str, p: Tensor) -> Tensor:
        old = p[chosen]
        if name == "means":
            new = (old + offsets).flatten(0, 1)
        elif name == "scales":
            new = (scales / SHRINK).log().repeat(2, 1)
        else:
            if name == "opacities" and revised_opacity:
                old = (1 - (1 - old.sigmoid()).sqrt()).logit()
            new = old.repeat(2, *[1] * (p.ndim - 1))
        return torch.cat((p[others], new))

    _replace(params, optimizers, value, lambda v: torch.cat((v[others], _rows(v, 2 * len(chosen)))))
    _follow(state, lambda v: torch.cat((v[others], v[chosen].repeat(2, *[1] * (v.ndim - 1)))))


@torch.no_grad()
def remove(params: Params, optimizers: Optimizers, state: MutableMapping[str, Any], mask: Tensor) -> None:
    """Removes the Gaussians `mask` [N]."""
    kept = (~mask).nonzero()[:, 0]
    _replace(params, optimizers, lambda name, p: p[kept], lambda v: v[kept])
    _follow(state, lambda v: v[kept])


@torch.no_grad()
def reset_opa(params: Params, optimizers: Optimizers, state: MutableMapping[str, Any], value: float) -> None:
    """Makes no Gaussian more opaque than `value`; the moments of the opacities become 0."""
    most = math.log(value / (1 - value))
    _replace(params, optimizers, lambda name, p: p.clamp(max=most), torch.zeros_like, ["opacities"])


def _drawn(weights: Tensor, count: int) -> Tensor:
    """[count] numbers in proportion to `weights` [N], with replacement."""
    if len(weights) <= _MOST_DRAWN:
        return torch.multinomial(weights, count, replacement=True)
    ends = weights.double().cumsum(0)
    places = torch.rand(count, dtype=torch.float64, device=weights.device) * ends[-1]
    return torch.searchsorted(ends, places, right=True).clamp_max(len(weights) - 1)


def _shared(params: Params, sources: Tensor, binoms: Tensor, min_opacity: float) -> Callable[[str, Tensor], Tensor]:
    """What makes of a parameter the one in which each Gaussian has made place for those that `sources` [S] draws."""
    opacity = params["opacities"].sigmoid()
    copies = torch.bincount(sources, minlength=len(opacity))[sources] + 1
    scales = params["scales"].exp()[sources]
    opacities, scales = compute_relocation(opacity.flatten()[sources], scales, copies, binoms)
    most = 1 - torch.finfo(torch.float32).eps
    logits = opacities.clamp(min_opacity, most).logit()

    def value(name: str, p: Tensor) -> Tensor:
        p = p.clone()
        if name == "opacities":
            p[sources] = logits.view(-1, *p.shape[1:])
        elif name == "scales":
            p[sources] = scales.log()
        return p

    return value


@torch.no_grad()
def relocate(
    params: Params,
    optimizers: Optimizers,
    state: MutableMapping[str, Any],
    mask: Tensor,
    binoms: Tensor,
    min_opacity: float = 0.005,
) -> None:
    """Moves the dead Gaussians `mask` [N] to where live ones are, drawn in proportion to opacity, which share their
    image with them (`compute_relocation`). The live ones' moments become 0; as in gsplat the dead ones' stay."""
    dead, alive = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
    require(len(alive) > 0, "live Gaussians", 0, "at least 1")
    weights = params["opacities"].sigmoid().flatten()[alive]
    sources = alive[_drawn(weights, len(dead))]
    shared = _shared(params, sources, binoms, min_opacity)

    def value(name: str, p: Tensor) -> Tensor:
        p = shared(name, p)
        p[dead] = p[sources]
        return p

    def cleared(v: Tensor) -> Tensor:
        v = v.clone()
        v[sources] = 0
        return v

    _replace(params, optimizers, value, cleared)
    _follow(state, cleared)


@torch.no_grad()
def sample_add(
    params: Params,
    optimizers: Optimizers,
    state: MutableMapping[str, Any],
    n: int,
    binoms: Tensor,
    min_opacity: float = 0.005,
) -> None:
    """Appends `n` Gaussians where others are, drawn in proportion to opacity, which share their image with them."""
    sources = _drawn(params["opacities"].sigmoid().flatten(), n)
    shared = _shared(params, sources, binoms, min_opacity)

    def value(name: str, p: Tensor) -> Tensor:
        p = shared(name, p)
        return torch.cat((p, p[sources]))

    def longer(v: Tensor) -> Tensor:
        return torch.cat((v, _rows(v, n)))

    _replace(params, optimizers, value, longer)
    _follow(state, longer)


@torch.no_grad()
def inject_noise_to_position(
    params: Params, optimizers: Optimizers, state: MutableMapping[str, Any], scaler: float
) -> None:
    """Moves every centre by scaler Sigma z / (1 + exp(-100 (0.005 - o))), z normal: the less opaque, the more."""
    opacities = params["opacities"].flatten().sigmoid()
    covars, _ = quat_scale_to_covar_preci(params["quats"], params["scales"].exp(), True, False)
    gate = torch.sigmoid(100 * ((1 - opacities) - 0.995))
    noise = torch.randn_like(params["means"]) * gate[:, None] * scaler
    params["means"].add_((covars @ noise[..., None])[..., 0])
