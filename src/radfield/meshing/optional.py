"""Packages that only some meshes need: the extra `meshes`."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import BadInput


def optional(module: str, what: str) -> ModuleType:
    """The module. BadInput, which says how to install it, where it cannot be imported; what: what needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = (str(error).splitlines() or [module])[0]
        raise BadInput(f"{what} needs {module} ({reason}); the rule: pip install 'radfield[meshes]'") from None
