"""The errors of `radfield.compat.gsplat`: one line with the argument, its value and the rule."""

from __future__ import annotations

from torch import Tensor

from ...errors import BadInput


class WrongCall(BadInput, AssertionError):
    """An argument breaks a rule; also an `AssertionError`, which is what gsplat raises there."""


def require(holds: bool, what: str, value: object, rule: str) -> None:
    """Raises `WrongCall` where `holds` is false."""
    if not holds:
        raise WrongCall(f"gsplat: {what} is {value}; the rule: {rule}")


def check_shape(name: str, tensor: Tensor | None, *shapes: tuple[int, ...]) -> None:
    """Raises `WrongCall` where `tensor` has none of the `shapes`, or is not there."""
    if not isinstance(tensor, Tensor):
        raise WrongCall(f"gsplat: {name} is {type(tensor).__name__}; the rule: a tensor of shape {_text(shapes)}")
    if tuple(tensor.shape) not in shapes:
        raise WrongCall(f"gsplat: {name} has shape {list(tensor.shape)}; the rule: {_text(shapes)}")


def check_choice(name: str, value: object, choices: tuple) -> None:
    """Raises `WrongCall` where `value` is none of `choices`."""
    require(value in choices, name, repr(value), f"one of {', '.join(map(str, choices))}")


def _text(shapes) -> str:
    return " or ".join(str(list(shape)) for shape in shapes)
