"""Running sums and products along rays, batched or flattened."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import BadInput
from .segments import segment_scan, starts_of_indices, starts_of_packed

_TEXT = """The {kind} {what} of `inputs` along each ray, in its shape; differentiable.

    inputs: [..., n_samples], along the last dimension; or flattened [all_samples], with `packed_info` [n_rays, 2]
    (start and count of each ray) or `indices` [all_samples] (the ray of each sample, which must not fall).
    Raises `BadInput` for both of them, and where they do not fit.
    """


def inclusive_sum(inputs: Tensor, packed_info: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
    return _scan(inputs, packed_info, indices, product=False, exclusive=False)


def exclusive_sum(inputs: Tensor, packed_info: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
    return _scan(inputs, packed_info, indices, product=False, exclusive=True)


def inclusive_prod(inputs: Tensor, packed_info: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
    return _scan(inputs, packed_info, indices, product=True, exclusive=False)


def exclusive_prod(inputs: Tensor, packed_info: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
    return _scan(inputs, packed_info, indices, product=True, exclusive=True)


for _function in (inclusive_sum, exclusive_sum, inclusive_prod, exclusive_prod):
    _kind, _what = _function.__name__.split("_")
    _function.__doc__ = _TEXT.format(kind=_kind, what={"sum": "sum", "prod": "product"}[_what])


def _scan(inputs, packed_info, indices, *, product: bool, exclusive: bool) -> Tensor:
    if packed_info is not None and indices is not None:
        raise BadInput("nerfacc: packed_info and indices are both given; the rule: one of them")
    if packed_info is None and indices is None:
        return _scan_rows(inputs, product, exclusive)
    if inputs.ndim != 1:
        raise BadInput(f"nerfacc: inputs is {list(inputs.shape)}; the rule: flattened, [all_samples]")
    if indices is not None:
        ray_start = starts_of_indices(indices, None, len(inputs))
    else:
        ray_start = starts_of_packed(packed_info, len(inputs))
    return segment_scan(inputs, ray_start, product=product, exclusive=exclusive)


def _scan_rows(inputs: Tensor, product: bool, exclusive: bool) -> Tensor:
    if exclusive:
        neutral = torch.full_like(inputs[..., :1], float(product))
        inputs = torch.cat((neutral, inputs[..., :-1]), -1)
    return inputs.cumprod(-1) if product else inputs.cumsum(-1)
