"""Values from untrusted JSON: accepted, or refused in one line."""

import pytest

from radfield.data import json_values
from radfield.errors import BadInput


def test_numbers_are_read():
    values = {"a": 2, "b": None, "c": 1.5}
    assert json_values.number(values, "a", "here") == 2.0
    assert json_values.number(values, "b", "here", 7.0) == 7.0
    assert json_values.positive(values, "absent", "here") is None
    assert json_values.numbers([1, 2], 2, "pair") == (1.0, 2.0)


@pytest.mark.parametrize(
    "value, rule",
    [
        ("3", "here: a is '3'; it must be a number"),
        (True, "here: a is True; it must be a number"),
        (float("nan"), "here: a is nan; it must be finite"),
        (10**400, "here: a is a huge integer; it must be finite"),
        ([1] * 100, r"here: a is \[1, 1, .*\.\.\.; it must be a number"),
        (0, "here: a is 0; it must be positive"),
    ],
)
def test_others_are_refused(value, rule):
    with pytest.raises(BadInput, match=rule):
        json_values.positive({"a": value}, "a", "here")


def test_deep_nesting_is_no_crash(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(BadInput, match="is not valid JSON"):
        json_values.read_object(tmp_path / "deep.json")
