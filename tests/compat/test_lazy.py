"""Dictionaries whose values are made when they are read."""

import copy

import pytest

from radfield.compat.lazy import LazyDict


@pytest.fixture
def made():
    """What was made so far."""
    return []


@pytest.fixture
def lazy(made):
    """{"a": 1, "b": 2, "c": 3, "d": 4}, of which b and d are made when they are read."""
    known = {"a": 1, "b": None, "c": 3}
    return LazyDict(known, {"b": lambda: made.append("b") or 2, "d": lambda: made.append("d") or 4})


WHOLE = {"a": 1, "b": 2, "c": 3, "d": 4}


def test_a_value_is_made_once_when_it_is_read(lazy, made):
    assert list(lazy) == list(WHOLE) and len(lazy) == 4 and "b" in lazy and lazy["a"] == 1 and not made
    assert lazy["b"] == lazy["b"] == lazy.get("b") == 2 and made == ["b"]
    assert lazy.get("e", 5) == 5 and lazy.setdefault("d", 6) == 4 and made == ["b", "d"]


@pytest.mark.parametrize(
    "read",
    [
        dict,
        copy.copy,
        LazyDict.copy,
        lambda d: {**d},
        lambda d: dict(**d),
        lambda d: dict(d.items()),
        lambda d: dict(zip(d, d.values(), strict=True)),
        lambda d: d | {},
        lambda d: {} | d,
        lambda d: eval(repr(d)),
        lambda d: dict(reversed([d.popitem() for _ in range(4)])),
    ],
)
def test_every_way_of_reading_all_makes_all(read, lazy, made):
    found = read(lazy)
    assert found == WHOLE and list(found) == list(WHOLE) and sorted(made) == ["b", "d"]


def test_it_equals_the_dictionary_of_its_values(lazy):
    other = {"a": 1}
    assert lazy == WHOLE
    assert lazy != other and not lazy == other  # noqa: SIM201 (both comparisons)


def test_what_is_written_is_not_made(lazy, made):
    lazy["b"] = 7
    lazy.update({"d": 8}, e=9)
    lazy |= {"a": 0}
    assert lazy == {"a": 0, "b": 7, "c": 3, "d": 8, "e": 9} and not made


def test_what_is_removed_is_gone(lazy, made):
    del lazy["b"]
    assert lazy.pop("d") == 4 and lazy.pop("d", None) is None and made == ["d"]
    with pytest.raises(KeyError):
        lazy["b"]
    lazy.clear()
    assert len(lazy) == 0 and lazy == {}
