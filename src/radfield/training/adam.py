"""Adam (Kingma and Ba 2015), fused: moments, step, the 16-bit copy and the cleared gradient in one pass over memory.

    g' = g + l2 p,   m += (1 - beta1) (g' - m),   v += (1 - beta2) (g'^2 - v)
    p -= lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + epsilon)

Mode "skip" leaves entries whose gradient is exactly zero as they are (instant-ngp's rule for grids: an entry that no
sample of the batch touched neither moves nor forgets). A gradient is bad, and its entry stays as it is, where its
square is not finite. Letter: P parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import native
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar

STEP = Op(
    "adam_step",
    InOut("parameter", "f32", "P"),
    InOut("m", "f32", "P", "mean of the gradients"),
    InOut("v", "f32", "P", "mean of their squares"),
    InOut("grad", "f32", "P", "is cleared"),
    InOut("shadow", "bf16", "P", "= the parameters rounded; mode skip writes only what moves", optional=True),
    Out("bad", "i64", "1", "gradients whose square is not finite: their entries stay as they were"),
    In("schedule", "f64", "3", "CUDA only: rate, correction2, and 0 where nothing shall move", optional=True),
    Scalar("rate", "float", "lr / (1 - beta1^t)"),
    Scalar("beta1", "float"),
    Scalar("beta2", "float"),
    Scalar("epsilon", "float"),
    Scalar("correction2", "float", "1 / (1 - beta2^t)"),
    Scalar("l2", "float"),
    Scalar("skip", "int", "whether entries with zero gradient are left untouched"),
)


@STEP.cuda
def _(a):
    return Launch("adam_clear", (1,), (1,)), Launch(f"adam_step<{flag(a.skip)}>", blocks(a.P))


def adam_step_reference(
    parameter, m, v, grad, shadow, bad, *, rate, beta1, beta2, epsilon, correction2, l2, skip
) -> None:
    """The specification, with the arguments of the native op."""
    accepted = (grad * grad).isfinite()
    bad.fill_((~accepted).sum())
    apply = accepted & (grad != 0) if skip else accepted
    g = grad + l2 * parameter
    new_m = m + (1 - beta1) * (g - m)
    new_v = v + (1 - beta2) * (g * g - v)
    new = parameter - rate * new_m / ((new_v * correction2).sqrt() + epsilon)
    for old, value in ((parameter, new), (m, new_m), (v, new_v)):
        old.copy_(torch.where(apply, value, old))
    grad.zero_()
    if shadow is not None:
        shadow.copy_(parameter)


class Adam:
    """The optimiser. groups: dicts of `parameter` and `grad` (float32 tensors of one shape; `grad` is read and cleared
    by each step; instead of a tensor `grad` may be what steps by itself, like `hash_grid_adam.SampleGradients`), and
    optionally `shadow` (bfloat16, equal to the rounded parameter, and kept so), `rounded` (such a copy of another type,
    made anew after each step), `l2` (0), `mode` ("dense" or "skip"), `scale` (1: factor on the learning rate).
    """

    def __init__(self, groups: list[dict], *, betas: tuple[float, float] = (0.9, 0.99), epsilon: float = 1e-15):
        self.betas, self.epsilon, self.steps = betas, epsilon, 0
        self.groups = [{**_DEFAULTS, **group} for group in groups]
        for group in self.groups:
            if group["mode"] not in ("dense", "skip"):
                raise BadInput(f"Adam: mode is {group['mode']!r}; the rule: dense or skip")
            group["m"], group["v"] = (torch.zeros_like(group["parameter"]) for _ in range(2))

    def step(self, lr: float) -> int:
        """One step; returns the number of gradients that were not finite (their entries stay as they were)."""
        self.steps += 1
        bad = torch.zeros(len(self.groups), dtype=torch.int64, device=self.groups[0]["parameter"].device)
        for i, (group, (rate, correction2)) in enumerate(zip(self.groups, self.rates(lr), strict=True)):
            self._apply(group, bad[i : i + 1], rate=rate, correction2=correction2)
        return int(bad.sum())

    def step_scheduled(self, schedule: Tensor) -> Tensor:
        """`step` without the host waiting, for a device: `schedule` [groups, 3] float64 there holds what `rates` says
        of each group, and 0 or 1: whether anything shall move (gradients are cleared in any case). Returns [groups],
        the gradients that were not finite. The caller counts `steps`."""
        bad = torch.zeros(len(self.groups), dtype=torch.int64, device=schedule.device)
        for i, group in enumerate(self.groups):
            self._apply(group, bad[i : i + 1], rate=0.0, correction2=0.0, schedule=schedule[i])
        return bad

    def rates(self, lr: float) -> list[tuple[float, float]]:
        """Of each group at the present number of steps: lr / (1 - beta1^t), and 1 / (1 - beta2^t)."""
        beta1, beta2 = self.betas
        first, second = 1 - beta1**self.steps, 1 - beta2**self.steps
        return [(lr * group["scale"] / first, 1 / second) for group in self.groups]

    def _apply(self, group: dict, bad: Tensor, **rates) -> None:
        fixed = {"l2": group["l2"], "skip": group["mode"] == "skip", "epsilon": self.epsilon}
        rates |= fixed | {"beta1": self.betas[0], "beta2": self.betas[1]}
        if not isinstance(group["grad"], Tensor):
            group["grad"].adam_step(**{k: group[k] for k in _STATE}, bad=bad, **rates)
        else:
            tensors = {k: group[k] if group[k] is None else group[k].view(-1) for k in (*_STATE, "grad")}
            (STEP if native(group["parameter"]) else adam_step_reference)(**tensors, bad=bad, **rates)
        if group["rounded"] is not None:
            group["rounded"].copy_(group["parameter"])

    def state_dict(self) -> dict[str, Tensor]:
        """Flat: `steps`, and `m` and `v` of each group."""
        state = {"steps": torch.tensor([self.steps])}
        for i, group in enumerate(self.groups):
            state |= {f"{i}.m": group["m"], f"{i}.v": group["v"]}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`, into the tensors at hand."""
        self.steps = int(state["steps"])
        for i, group in enumerate(self.groups):
            group["m"].copy_(state[f"{i}.m"])
            group["v"].copy_(state[f"{i}.v"])


_STATE = ("parameter", "m", "v", "shadow")
_DEFAULTS = {"shadow": None, "rounded": None, "l2": 0.0, "mode": "dense", "scale": 1.0}
