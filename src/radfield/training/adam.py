"""Adam (Kingma and Ba 2015) in one pass, with torch.optim.Adam's formula; for step t = 1, 2, ...

    g = scale grad + l2 p
    m = beta1 m + (1 - beta1) g
    v = beta2 v + (1 - beta2) g^2
    p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

Mode "dense" updates every entry. Mode "skip" leaves an entry whose gradient is exactly 0 as it is, moments and l2
included (instant-ngp's rule for tables, of which a step touches a part), and reads nothing but gradients where a whole
vector of them is 0. The step t counts for all entries alike (instant-ngp counts per entry; with its betas .9 and .99
an entry's first update is `lr` in both).

A gradient that is not finite, or whose square is not, is rejected: its entry stays as it is, and `step` returns how
many there were, so that training can stop while its state is good.

Letters: P parameters of a tensor, seen flat.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from ..backend import native
from ..errors import BadInput
from ..op import InOut, Op, Scalar

STEP = Op(
    "adam_step",
    InOut("p", "f32", "P"),
    InOut("grad", "f32", "P", "cleared where `clear`"),
    InOut("m", "f32", "P"),
    InOut("v", "f32", "P"),
    InOut("shadow", "bf16", "P", "takes p rounded; in mode skip only where p changes", optional=True),
    InOut("rejected", "i64", "1", "+= the number of gradients that are not finite"),
    Scalar("rate", "float", "lr / (1 - beta1^t)"),
    Scalar("root", "float", "1 / sqrt(1 - beta2^t)"),
    Scalar("beta1", "float"),
    Scalar("beta2", "float"),
    Scalar("eps", "float"),
    Scalar("l2", "float"),
    Scalar("scale", "float", "factor on the gradients"),
    Scalar("skip", "int", "1: mode skip"),
    Scalar("clear", "int", "1: sets the gradients to 0"),
)
MODES = ("dense", "skip")
_DEFAULTS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-15, "l2": 0.0, "mode": "dense"}


def adam_reference(p, grad, m, v, *, step, lr, betas, eps, l2=0.0, scale=1.0, mode="dense"):
    """The specification: tensors of one shape and any float type, `step` t >= 1 -> new p, m, v, and the number of
    rejected gradients."""
    scaled = grad * scale
    accepted = (scaled * scaled).isfinite()
    changes = accepted & (grad != 0) if mode == "skip" else accepted
    g = scaled + l2 * p
    next_m = betas[0] * m + (1 - betas[0]) * g
    next_v = betas[1] * v + (1 - betas[1]) * g * g
    denominator = next_v.sqrt() / math.sqrt(1 - betas[1] ** step) + eps
    next_p = p - lr / (1 - betas[0] ** step) * next_m / denominator
    moved = [torch.where(changes, new, old) for new, old in ((next_p, p), (next_m, m), (next_v, v))]
    return *moved, int((~accepted).sum())


class Adam:
    """The optimiser of groups of parameters, with the reach of a torch.optim one: `param_groups`, `step`, `zero_grad`,
    `state_dict`, `load_state_dict`.

    parameters  tensors, or groups: dicts with "params" and, for that group, any of the options below. A group may have
                "grads", one buffer per parameter, of its shape, that takes the gradient instead of `.grad`; and
                "shadows", a bfloat16 copy per parameter (or None) that follows it.
    lr          learning rate; a schedule sets `group["lr"]` between steps
    betas, eps  of the formulas above; the defaults are instant-ngp's
    l2          factor of the penalty's gradient
    mode        "dense" or "skip"

    Parameters, buffers and shadows are float32 (bfloat16) and contiguous. Without a shadow torch learns of the change
    (the tensor's version grows); with one it does not, so that the copy that a `HashGrid` keeps stays valid.
    """

    def __init__(self, parameters: Iterable, **options):
        groups = list(parameters)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.param_groups = [_group(group, options) for group in groups]
        self.steps = 0
        self._moments = {p: (torch.zeros(p.numel()), torch.zeros(p.numel())) for p in self._parameters()}

    def _parameters(self):
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, scale: float = 1.0, clear: bool = True) -> int:
        """Updates every parameter that has a gradient, multiplied by `scale`. Returns the number of gradients that were
        rejected. `clear` ends with buffers of zeros and `.grad` None."""
        self.steps += 1
        rejected = torch.zeros(1, dtype=torch.int64)
        for group in self.param_groups:
            for p, buffer, shadow in zip(group["params"], group["grads"], group["shadows"], strict=True):
                grad = p.grad if buffer is None else buffer
                if grad is None:
                    continue
                self._update(group, p, grad, shadow, rejected, scale, clear and buffer is not None)
                if clear:
                    p.grad = None
        return int(rejected)

    def _update(self, group, p, grad, shadow, rejected, scale, clear):
        m, v = self._moments[p]
        if not native(p):
            self._update_reference(group, p, grad, shadow, rejected, scale, clear)
            return
        beta1, beta2 = group["betas"]
        STEP(
            p=p.detach().view(-1),
            grad=grad.reshape(-1),
            m=m,
            v=v,
            shadow=None if shadow is None else shadow.view(-1),
            rejected=rejected,
            rate=group["lr"] / (1 - beta1**self.steps),
            root=1 / math.sqrt(1 - beta2**self.steps),
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            l2=group["l2"],
            scale=scale,
            skip=group["mode"] == "skip",
            clear=clear,
        )
        if shadow is None:
            torch.autograd.graph.increment_version(p)

    def _update_reference(self, group, p, grad, shadow, rejected, scale, clear):
        options = {key: group[key] for key in _DEFAULTS}
        m, v = (x.view(p.shape) for x in self._moments[p])
        *moved, count = adam_reference(p, grad, m, v, step=self.steps, scale=scale, **options)
        for old, new in zip((p, m, v), moved, strict=True):
            old.copy_(new)
        rejected += count
        if shadow is not None:
            shadow.copy_(p)
        if clear:
            grad.zero_()

    def zero_grad(self) -> None:
        """Forgets the gradients: buffers of zeros, `.grad` None."""
        for group in self.param_groups:
            for p, buffer in zip(group["params"], group["grads"], strict=True):
                p.grad = None
                if buffer is not None:
                    buffer.zero_()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Flat tensors by name, for a safetensors file: "step" [] int64, and "m.<i>", "v.<i>" [P] float32 for the i-th
        parameter over all groups. The tensors are the optimiser's own; options are not part of it."""
        state = {"step": torch.tensor(self.steps)}
        for i, p in enumerate(self._parameters()):
            state[f"m.{i}"], state[f"v.{i}"] = self._moments[p]
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Takes up where `state_dict` stood. Raises `BadInput` unless names, shapes and dtypes are the same."""
        own = self.state_dict()
        if own.keys() != state.keys():
            raise BadInput(f"adam: the state has {sorted(state)[:6]}...; the rule: the tensors {sorted(own)[:6]}...")
        for name, value in own.items():
            given = state[name]
            if given.shape != value.shape or given.dtype != value.dtype:
                found, rule = f"{given.dtype} {list(given.shape)}", f"{value.dtype} {list(value.shape)}"
                raise BadInput(f"adam: {name} of the state is {found}; the rule: {rule}")
        for name, value in own.items():
            value.copy_(state[name])
        self.steps = int(state["step"])


def _group(group: dict, options: dict) -> dict:
    """A group with every option filled in and checked."""
    unknown = {*group, *options} - {*_DEFAULTS, "params", "grads", "shadows"}
    if unknown:
        raise BadInput(f"adam: the option is {sorted(unknown)[0]!r}; the rule: one of {', '.join(_DEFAULTS)}")
    params = list(group["params"])
    full = {**_DEFAULTS, **options, **group, "params": params}
    for name in ("grads", "shadows"):
        full[name] = list(group.get(name) or [None] * len(params))
        _check_companions(name, full[name], params)
    if full["mode"] not in MODES:
        raise BadInput(f"adam: mode is {full['mode']!r}; the rule: one of {', '.join(MODES)}")
    if not (0 <= full["betas"][0] < 1 and 0 <= full["betas"][1] < 1):
        raise BadInput(f"adam: betas are {full['betas']}; the rule: from 0 to below 1")
    for p in params:
        if p.dtype != torch.float32 or not p.is_contiguous():
            raise BadInput(f"adam: a parameter is {p.dtype} {list(p.shape)}; the rule: float32, contiguous")
    return full


def _check_companions(name, given, params):
    dtype = torch.bfloat16 if name == "shadows" else torch.float32
    if len(given) != len(params):
        raise BadInput(f"adam: {name} has {len(given)} tensors; the rule: one per parameter, here {len(params)}")
    for tensor, p in zip(given, params, strict=True):
        if tensor is None:
            continue
        if tensor.shape != p.shape or tensor.dtype != dtype or not tensor.is_contiguous():
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise BadInput(f"adam: one of {name} is {found}; the rule: {dtype} {list(p.shape)}, contiguous")
