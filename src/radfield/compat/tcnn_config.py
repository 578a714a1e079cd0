"""How a configuration of tiny-cuda-nn (a dict, as from its JSON) is read.

Names of types and values are compared without regard to case; keys that nobody asks for are ignored; absent ones take
tiny-cuda-nn's defaults: all as there.
"""

from __future__ import annotations

from typing import Any

from ..errors import BadInput


def check_dict(what: str, config: Any) -> None:
    """Raises `BadInput` where `config` is no dict."""
    if not isinstance(config, dict):
        raise BadInput(f"tinycudann: the {what} configuration is {config!r}; the rule: a dict")


def integer(config: dict, name: str, default: int, low: int, high: int) -> int:
    """An option that is a whole number from `low` to `high`."""
    value = config.get(name, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value != value // 1
        or not low <= value <= high
    ):
        raise BadInput(f"tinycudann: {name} is {value!r}; the rule: a whole number from {low} to {high}")
    return int(value)


def number(config: dict, name: str, default: float, low: float, high: float) -> float:
    """An option that is a number from `low` to `high`."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadInput(f"tinycudann: {name} is {value!r}; the rule: a number from {low:g} to {high:g}")
    return float(value)


def choice(config: dict, name: str, default: str, choices: tuple[str, ...]) -> str:
    """An option that is one of `choices`, as it is spelt there."""
    value = config.get(name, default)
    for known in choices:
        if isinstance(value, str) and value.lower() == known.lower():
            return known
    raise BadInput(f"tinycudann: {name} is {value!r}; the rule: one of {', '.join(choices)}")


def refuse(config: dict, *names: str) -> None:
    """Raises `BadInput` where an option that radfield has not is switched on."""
    for name in names:
        if config.get(name):
            raise BadInput(f"tinycudann: {name} is {config[name]!r}; the rule: radfield has it switched off only")
