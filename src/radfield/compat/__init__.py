"""Stand-ins for other packages, so that code written for them runs on radfield's kernels, CPU included."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

_PACKAGES = ("tinycudann", "nerfacc", "gsplat")  # modules of this folder by the same names


def install(*, replace: bool = False) -> None:
    """Makes `import tinycudann`, `import nerfacc` and `import gsplat` give `radfield.compat`'s.

    A package that is really installed stays, which is announced, unless `replace` asks for radfield's. Calling it
    again changes nothing. What was imported before keeps what it has.
    """
    for name in _PACKAGES:
        _provide(name, replace)


def _provide(name: str, replace: bool) -> None:
    from ..errors import warn

    modules = _modules(name)
    if sys.modules.get(name) is modules[name]:
        return
    installed = name in sys.modules or importlib.util.find_spec(name) is not None
    if installed and not replace:
        warn(f"{name} is installed and stays in use; radfield.compat.install(replace=True) takes radfield's instead")
        return
    for stale in [key for key in sys.modules if key.startswith(f"{name}.")]:
        del sys.modules[stale]
    sys.modules.update(modules)


def _modules(name: str) -> dict[str, ModuleType]:
    """The stand-in's modules by the names that programs import."""
    ours = importlib.import_module(f"{__name__}.{name}")
    return ours.modules() if hasattr(ours, "modules") else dict.fromkeys((name, f"{name}.modules"), ours)


def uninstall() -> None:
    """Undoes `install`: imports find what is installed again, or nothing."""
    for name in _PACKAGES:
        for key, ours in _modules(name).items():
            if sys.modules.get(key) is ours:
                del sys.modules[key]
