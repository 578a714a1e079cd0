"""The third result of `rasterization`: gsplat's dictionary. What our kernels do not need is made when it is read."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import Tensor


class Meta(dict):
    """A dictionary some of whose values are functions of nothing until they are first read."""

    def __init__(self, known: dict, pending: dict[str, Callable]):
        super().__init__(known | dict.fromkeys(pending))
        self._pending = pending

    def __getitem__(self, key):
        if key in self._pending:
            make = self._pending.pop(key)
            self[key] = make()
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        self._pending.pop(key, None)
        super().__setitem__(key, value)

    def __iter__(self):  # stated, so that dict(meta) and {**meta} read the values by __getitem__
        return super().__iter__()

    def get(self, key, default=None):
        """The value of `key`, or `default`."""
        if key not in self:
            return default
        return self[key]

    def pop(self, key, *default):
        """Removes `key` and returns its value, or `default`."""
        if key in self:
            self[key]
        return super().pop(key, *default)

    def _all(self) -> Meta:
        for key in list(self._pending):
            self[key]
        return self

    def items(self):
        """All (key, value)."""
        return super(Meta, self._all()).items()

    def values(self):
        """All values."""
        return super(Meta, self._all()).values()

    def copy(self) -> dict:
        """A plain dictionary with every value."""
        return dict(self.items())

    def __reduce__(self):
        return dict, (self.copy(),)


def fill_absgrad(means2d: Tensor, make: Callable[[Tensor], Tensor]) -> None:
    """Once the gradient of `means2d` is known, `means2d.absgrad` is what `make` makes of it."""
    if not means2d.requires_grad:
        return
    found = weakref.ref(means2d)  # a hook that held its own tensor would keep every step's graph until the next gc

    def hook(grad):
        if (tensor := found()) is not None:
            tensor.absgrad = make(grad.detach())

    means2d.register_hook(hook)
