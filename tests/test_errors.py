"""BadInput and announcements."""

import subprocess
import sys

import pytest

from radfield.errors import BadInput, RadfieldWarning, warn


def test_bad_input_is_a_value_error():
    assert issubclass(BadInput, ValueError)


def test_warn_has_its_own_category():
    with pytest.warns(RadfieldWarning, match="^three images are missing$"):
        warn("three images are missing")


def test_a_text_is_announced_once_and_without_code_positions():
    code = "from radfield.errors import warn\nfor text in 'aab': warn(text)\n"
    code += "import warnings; warnings.warn('other')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = result.stderr.splitlines()
    assert lines[:2] == ["radfield: warning: a", "radfield: warning: b"]
    assert "UserWarning: other" in lines[2], "other people's warnings keep their layout"
