"""Stand-ins for other packages, so that code written for them runs on radfield's kernels, CPU included."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

_NAMES = ("tinycudann", "tinycudann.modules")


def install(*, replace: bool = False) -> ModuleType:
    """Makes `import tinycudann` give `radfield.compat.tinycudann`; returns the module that it gives from now on.

    A tinycudann that is really installed stays, which is announced, unless `replace` asks for radfield's. Calling it
    again changes nothing. What was imported before keeps what it has.
    """
    from ..errors import warn
    from . import tinycudann as ours

    if sys.modules.get("tinycudann") is ours:
        return ours
    installed = "tinycudann" in sys.modules or importlib.util.find_spec("tinycudann") is not None
    if installed and not replace:
        warn("tinycudann is installed and stays in use; radfield.compat.install(replace=True) takes radfield's instead")
        return importlib.import_module("tinycudann")
    sys.modules.update(dict.fromkeys(_NAMES, ours))
    return ours


def uninstall() -> None:
    """Undoes `install`: `import tinycudann` finds what is installed again, or nothing."""
    from . import tinycudann as ours

    for name in _NAMES:
        if sys.modules.get(name) is ours:
            del sys.modules[name]
