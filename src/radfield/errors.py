"""What radfield says when something is wrong: one error for bad input, one warning category."""

import warnings


class BadInput(ValueError):
    """The user's input breaks a rule. The message is one line: what, its value, the rule.

    The programs print it as `radfield: <message>` on standard error and exit with code 2.
    """


class RadfieldWarning(UserWarning):
    """Something the user should know that does not stop the work."""


# Python's record of what was already shown; ours, so that a text is announced once whoever says it.
_announced: dict = {}


def warn(message: str) -> None:
    """Announces `message` once per process as `radfield: warning: <message>` on standard error.

    It goes through Python's `warnings` with category `RadfieldWarning`, so filters apply as usual.
    """
    warnings.warn_explicit(message, RadfieldWarning, filename="radfield", lineno=1, registry=_announced)


_format_other = warnings.formatwarning


def _format(message, category, filename, lineno, line=None) -> str:
    # Only the layout of our own category changes: file and line of a caller mean nothing to a user.
    if issubclass(category, RadfieldWarning):
        return f"radfield: warning: {message}\n"
    return _format_other(message, category, filename, lineno, line)


warnings.formatwarning = _format
