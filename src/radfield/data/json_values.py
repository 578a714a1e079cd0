"""Reading values from JSON that anyone may have written: each getter checks, or says in one line what is wrong.

`where` names the place for the message: the file, and the frame inside it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from ..errors import BadInput


def read_object(path: Path) -> dict:
    """The JSON object in a file."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise BadInput(f"{path} holds a {type(values).__name__}; it must be a JSON object with frames")
    return values


def read_json(path: Path):
    """What a JSON file holds."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def number(values: Mapping, key: str, where: str, default: float | None = None) -> float | None:
    """A finite number, or `default` where the key is absent or null."""
    value = values.get(key)
    return default if value is None else finite(value, f"{where}: {key}")


def finite(value, what: str) -> float:
    """`value` as a float; BadInput unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{what} is {_short(value)}; it must be a number")
    try:
        result = float(value)
    except OverflowError:  # JSON integers have no limit
        result = math.inf
    if not math.isfinite(result):
        raise BadInput(f"{what} is {_short(value)}; it must be finite")
    return result


def positive(values: Mapping, key: str, where: str) -> float | None:
    """A number above 0, or None where the key is absent."""
    value = number(values, key, where)
    if value is not None and value <= 0:
        raise BadInput(f"{where}: {key} is {value:g}; it must be positive")
    return value


def numbers(value, count: int, what: str) -> tuple[float, ...]:
    """A list of `count` finite numbers."""
    if not isinstance(value, list) or len(value) != count:
        raise BadInput(f"{what} is {_short(value)}; it must be a list of {count} numbers")
    return tuple(finite(v, what) for v in value)


def file_path(values: Mapping, key: str, where: str) -> str:
    """The name of a file: a string that is not empty."""
    value = values.get(key)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{where}: {key} is {_short(value)}; it must be a file path")
    return value


def _short(value) -> str:
    shown = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a huge integer"
    return shown if len(shown) <= 60 else shown[:57] + "..."
