"""Volume rendering of samples, batched (a row per ray) or flattened (all rays one after another).

A sample with density sigma on [t_start, t_end] has the opacity alpha = 1 - exp(-sigma (t_end - t_start)). The light
that reaches sample i is the transmittance T_i = prod_(j < i) (1 - alpha_j); its weight is w_i = T_i alpha_i.

Everywhere: batched tensors are [n_rays, n_samples]; flattened ones [all_samples], with `packed_info` [n_rays, 2] (start
and count of each ray), or `ray_indices` [all_samples] (never falling) and `n_rays` (None: one more than the last).
`prefix_trans`, of the samples' shape, multiplies the transmittance. What does not fit raises `BadInput`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...backend import native
from ...errors import BadInput
from ...renderers.composite import composite
from ..lazy import LazyDict
from .segments import check_indices, segment_scan, starts_of_indices, starts_of_packed


def rendering(
    t_starts: Tensor,
    t_ends: Tensor,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    rgb_sigma_fn: Callable | None = None,
    rgb_alpha_fn: Callable | None = None,
    render_bkgd: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, dict]:
    """(colours [n_rays, 3], opacities [n_rays, 1], depths [n_rays, 1], a dictionary of the samples' values).

    rgb_sigma_fn, or rgb_alpha_fn: (t_starts, t_ends, ray_indices) -> colours [..., 3] and densities, or opacities,
    [...]; not called without samples. render_bkgd: [3] or [n_rays, 3], behind everything. Depths are mean distances.
    The dictionary has weights, trans, alphas, rgbs and, of densities, sigmas; trans and alphas are made when they are
    first read, where the native op composites. Differentiable by what the function gives.
    """
    if ray_indices is not None and not t_starts.shape == t_ends.shape == ray_indices.shape:
        shapes = [list(value.shape) for value in (t_starts, t_ends, ray_indices)]
        raise BadInput(f"nerfacc: t_starts, t_ends, ray_indices are {shapes}; the rule: all [all_samples]")
    if ray_indices is not None and n_rays is None:
        raise BadInput("nerfacc: ray_indices is given without n_rays; the rule: both or none")
    function = rgb_sigma_fn or rgb_alpha_fn
    if function is None:
        raise BadInput("nerfacc: neither rgb_sigma_fn nor rgb_alpha_fn is given; the rule: one of them")
    rgbs, values = _asked(function, t_starts, t_ends, ray_indices)
    if rgb_sigma_fn is not None:
        fused = ray_indices is not None and _can_fuse(t_starts, t_ends, rgbs, values)
        found = (_composited if fused else _rendered)(t_starts, t_ends, ray_indices, n_rays, rgbs, values)
        extras = found.pop("extras")
    else:
        weights, trans = render_weight_from_alpha(values, ray_indices=ray_indices, n_rays=n_rays)
        found = _accumulated(weights, t_starts, t_ends, ray_indices, n_rays, rgbs)
        extras = {"weights": weights, "trans": trans, "rgbs": rgbs, "alphas": values}
    colors, opacities = found["colors"], found["opacities"]
    depths = found["depths"] / opacities.clamp_min(torch.finfo(rgbs.dtype).eps)
    if render_bkgd is not None:
        colors = colors + render_bkgd * (1.0 - opacities)
    return colors, opacities, depths, extras


def _asked(function: Callable, t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    if not len(t_starts):
        return t_starts.new_empty(*t_starts.shape, 3), t_starts.new_empty(t_starts.shape)
    rgbs, values = function(t_starts, t_ends, ray_indices)
    if rgbs.shape != (*t_starts.shape, 3) or values.shape != t_starts.shape:
        found = f"{list(rgbs.shape)} and {list(values.shape)}"
        rule = f"{[*t_starts.shape, 3]} and {list(t_starts.shape)}"
        raise BadInput(f"nerfacc: the radiance field gave {found}; the rule: {rule}")
    return rgbs, values


def _can_fuse(*values: Tensor) -> bool:
    t_starts, t_ends, *_ = values
    plain = all(value.dtype == torch.float32 for value in values) and native(t_starts)
    return plain and not t_starts.requires_grad and not t_ends.requires_grad


def _composited(t_starts, t_ends, ray_indices, n_rays, rgbs, sigmas) -> dict:
    """By the native op that composites: colours and gradients in one pass each."""
    ray_start = starts_of_indices(ray_indices, n_rays, len(t_starts))
    found = composite(sigmas, rgbs, t_starts, t_ends, ray_start.int(), stop=0.0)
    differentiate = torch.is_grad_enabled()

    def transmittance() -> Tensor:
        with torch.set_grad_enabled(differentiate):
            return segment_scan(sigmas * (t_starts - t_ends), ray_start, product=False, exclusive=True).exp()

    def alphas() -> Tensor:
        with torch.set_grad_enabled(differentiate):
            return -torch.expm1(sigmas * (t_starts - t_ends))

    known = {"weights": found.weights, "trans": None, "alphas": None, "sigmas": sigmas, "rgbs": rgbs}
    extras = LazyDict(known, {"trans": transmittance, "alphas": alphas})
    opacities, depths = found.opacity[:, None], found.depth[:, None]
    return {"colors": found.color, "opacities": opacities, "depths": depths, "extras": extras}


def _rendered(t_starts, t_ends, ray_indices, n_rays, rgbs, sigmas) -> dict:
    found = render_weight_from_density(t_starts, t_ends, sigmas, ray_indices=ray_indices, n_rays=n_rays)
    extras = dict(zip(("weights", "trans", "alphas"), found, strict=True)) | {"sigmas": sigmas, "rgbs": rgbs}
    return _accumulated(found[0], t_starts, t_ends, ray_indices, n_rays, rgbs) | {"extras": extras}


def _accumulated(weights, t_starts, t_ends, ray_indices, n_rays, rgbs) -> dict:
    middles = (t_starts + t_ends)[..., None] / 2.0
    values = {"colors": rgbs, "opacities": None, "depths": middles}
    return {name: accumulate_along_rays(weights, value, ray_indices, n_rays) for name, value in values.items()}


def render_transmittance_from_alpha(
    alphas: Tensor,
    packed_info: Tensor | None = None,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    prefix_trans: Tensor | None = None,
) -> Tensor:
    """The transmittance, in the shape of `alphas`."""
    trans = _before(1 - alphas, packed_info, ray_indices, n_rays, product=True)
    return trans if prefix_trans is None else trans * prefix_trans


def render_transmittance_from_density(
    t_starts: Tensor,
    t_ends: Tensor,
    sigmas: Tensor,
    packed_info: Tensor | None = None,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    prefix_trans: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(transmittance, opacities), in the shape of `sigmas`."""
    if not t_starts.shape == t_ends.shape == sigmas.shape:
        shapes = [list(value.shape) for value in (t_starts, t_ends, sigmas)]
        raise BadInput(f"nerfacc: t_starts, t_ends, sigmas are {shapes}; the rule: all alike")
    depth = sigmas * (t_ends - t_starts)
    trans = torch.exp(-_before(depth, packed_info, ray_indices, n_rays, product=False))
    return trans if prefix_trans is None else trans * prefix_trans, -torch.expm1(-depth)


def render_weight_from_alpha(
    alphas: Tensor,
    packed_info: Tensor | None = None,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    prefix_trans: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(weights, transmittance), in the shape of `alphas`."""
    trans = render_transmittance_from_alpha(alphas, packed_info, ray_indices, n_rays, prefix_trans)
    return trans * alphas, trans


def render_weight_from_density(
    t_starts: Tensor,
    t_ends: Tensor,
    sigmas: Tensor,
    packed_info: Tensor | None = None,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    prefix_trans: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(weights, transmittance, opacities), in the shape of `sigmas`."""
    trans, alphas = render_transmittance_from_density(
        t_starts, t_ends, sigmas, packed_info, ray_indices, n_rays, prefix_trans
    )
    return trans * alphas, trans, alphas


@torch.no_grad()
def render_visibility_from_alpha(
    alphas: Tensor,
    packed_info: Tensor | None = None,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    early_stop_eps: float = 1e-4,
    alpha_thre: float = 0.0,
    prefix_trans: Tensor | None = None,
) -> Tensor:
    """Bool, in the shape of `alphas`: transmittance of at least `early_stop_eps`, opacity of at least `alpha_thre`."""
    trans = render_transmittance_from_alpha(alphas, packed_info, ray_indices, n_rays, prefix_trans)
    return _visible(trans, alphas, early_stop_eps, alpha_thre)


@torch.no_grad()
def render_visibility_from_density(
    t_starts: Tensor,
    t_ends: Tensor,
    sigmas: Tensor,
    packed_info: Tensor | None = None,
    ray_indices: Tensor | None = None,
    n_rays: int | None = None,
    early_stop_eps: float = 1e-4,
    alpha_thre: float = 0.0,
    prefix_trans: Tensor | None = None,
) -> Tensor:
    """As `render_visibility_from_alpha`, in the shape of `sigmas`."""
    trans, alphas = render_transmittance_from_density(
        t_starts, t_ends, sigmas, packed_info, ray_indices, n_rays, prefix_trans
    )
    return _visible(trans, alphas, early_stop_eps, alpha_thre)


def _visible(trans: Tensor, alphas: Tensor, early_stop_eps: float, alpha_thre: float) -> Tensor:
    reached = trans >= early_stop_eps
    return reached & (alphas >= alpha_thre) if alpha_thre > 0 else reached


def _before(values: Tensor, packed_info, ray_indices, n_rays, *, product: bool) -> Tensor:
    """The product or sum of the values before each, along its ray."""
    if packed_info is None and ray_indices is None:
        neutral = torch.full_like(values[..., :1], float(product))
        rows = torch.cat((neutral, values[..., :-1]), -1)
        return rows.cumprod(-1) if product else rows.cumsum(-1)
    if values.ndim != 1:
        raise BadInput(f"nerfacc: the samples are {list(values.shape)}; the rule: flattened, [all_samples]")
    if packed_info is not None:
        ray_start = starts_of_packed(packed_info, len(values))
    else:
        ray_start = starts_of_indices(ray_indices, n_rays, len(values))
    return segment_scan(values, ray_start, product=product, exclusive=True)


def accumulate_along_rays(
    weights: Tensor, values: Tensor | None = None, ray_indices: Tensor | None = None, n_rays: int | None = None
) -> Tensor:
    """[n_rays, D], the sum of weights times values of each ray; without values of the weights, D = 1.

    weights: [n_rays, n_samples] and values [n_rays, n_samples, D]; or flattened [all_samples] and [all_samples, D],
    with `ray_indices` in any order and `n_rays`. Differentiable by weights and values.
    """
    source = _weighted(weights, values)
    if ray_indices is None:
        return source.sum(-2)
    if n_rays is None:
        raise BadInput("nerfacc: ray_indices is given without n_rays; the rule: both or none")
    return _add_to(source.new_zeros(n_rays, source.shape[-1]), ray_indices, source)


def accumulate_along_rays_(
    weights: Tensor, values: Tensor | None = None, ray_indices: Tensor | None = None, outputs: Tensor | None = None
) -> None:
    """Adds what `accumulate_along_rays` gives to `outputs` [n_rays, D]."""
    source = _weighted(weights, values)
    rows = None if outputs is None else list(outputs.shape)
    if outputs is None or (ray_indices is not None and (outputs.ndim != 2 or rows[-1] != source.shape[-1])):
        raise BadInput(f"nerfacc: outputs is {rows}; the rule: [n_rays, {source.shape[-1]}]")
    if ray_indices is None:
        outputs.add_(source.sum(-2))
    else:
        outputs.add_(_add_to(torch.zeros_like(outputs), ray_indices, source))


def _weighted(weights: Tensor, values: Tensor | None) -> Tensor:
    if values is None:
        return weights[..., None]
    if values.shape[:-1] != weights.shape or values.ndim != weights.ndim + 1:
        found = f"{list(weights.shape)} and {list(values.shape)}"
        raise BadInput(f"nerfacc: weights and values are {found}; the rule: [...] and [..., D]")
    return weights[..., None] * values


def _add_to(zeros: Tensor, ray_indices: Tensor, source: Tensor) -> Tensor:
    if source.ndim != 2:
        raise BadInput(f"nerfacc: weights is {list(source.shape[:-1])}; the rule: flattened, [all_samples]")
    check_indices(ray_indices, len(source))
    if len(source) and not 0 <= int(ray_indices.min()) <= int(ray_indices.max()) < len(zeros):
        found = f"from {int(ray_indices.min())} to {int(ray_indices.max())}"
        raise BadInput(f"nerfacc: ray_indices goes {found}; the rule: from 0 to below n_rays, {len(zeros)}")
    return zeros.index_add(0, ray_indices, source)
