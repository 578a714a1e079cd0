"""A dictionary some of whose values are made when they are first read."""

from __future__ import annotations

from collections.abc import Callable


class LazyDict(dict):
    """A dictionary in every way, of which `pending` says by functions of nothing what is not yet made.

    The keys stand in the order of `known`, where a key of `pending` may hold its place with any value; those that are
    missing there come last. Reading a value makes it; what reads all values (items, ==, repr, dict(...)) makes all.
    """

    def __init__(self, known: dict, pending: dict[str, Callable[[], object]]):
        super().__init__(known | dict.fromkeys(pending))
        self._pending = dict(pending)

    def _all(self) -> LazyDict:
        for key in list(self._pending):
            self[key]
        return self

    def __getitem__(self, key):
        if key in self._pending:
            self[key] = self._pending[key]()
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        self._pending.pop(key, None)
        super().__setitem__(key, value)

    def __delitem__(self, key):
        self._pending.pop(key, None)
        super().__delitem__(key)

    def __iter__(self):  # stated, so that dict(this) and {**this} read the values by __getitem__
        return super().__iter__()

    def get(self, key, default=None):
        """The value of `key`, or `default`."""
        return self[key] if key in self else default  # noqa: SIM401 (this is `get`)

    def setdefault(self, key, default=None):
        """The value of `key`, which is `default` from now on where there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key, *default):
        """Removes `key` and returns its value, or `default`."""
        if key in self:
            self[key]
        return super().pop(key, *default)

    def popitem(self):
        """Removes the last key and returns it with its value."""
        return super(LazyDict, self._all()).popitem()

    def clear(self):
        """Removes everything."""
        self._pending.clear()
        super().clear()

    def update(self, *other, **values):
        """Sets what `dict(*other, **values)` has."""
        for key, value in dict(*other, **values).items():
            self[key] = value

    def items(self):
        """All (key, value)."""
        return super(LazyDict, self._all()).items()

    def values(self):
        """All values."""
        return super(LazyDict, self._all()).values()

    def copy(self) -> dict:
        """A plain dictionary with every value."""
        return dict(self.items())

    def __or__(self, other):
        return self.copy() | other

    def __ror__(self, other):
        return other | self.copy()

    def __ior__(self, other):
        self.update(other)
        return self

    def __eq__(self, other):
        return dict.__eq__(self._all(), other)

    def __ne__(self, other):
        return dict.__ne__(self._all(), other)

    __hash__ = None

    def __repr__(self):
        return repr(self.copy())

    def __reduce__(self):
        return dict, (self.copy(),)
