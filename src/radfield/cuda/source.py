"""The text of a kernel file with everything that it includes, as it is compiled and as it is hashed."""

from __future__ import annotations

import functools
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"[^\n]*$', re.MULTILINE)
_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once[^\n]*$", re.MULTILINE)
# The SIMD vectors of the CPU are included where RADFIELD_CPU is defined, which no device compiler does.
_OTHERS = ("cpu/simd.h",)


@functools.cache
def flat_source(path: Path) -> str:
    """The file with each `#include "..."` replaced by the file's text, once; `#line` keeps the places of errors.

    One text to compile means that what is hashed for the cache is what was compiled, whatever happens to the files.
    Raises `FileNotFoundError` where an included file is missing.
    """
    return _flatten(path.resolve(), set())


def _flatten(path: Path, seen: set[Path]) -> str:
    seen.add(path)
    text = path.read_text(encoding="utf-8")

    def expand(match: re.Match) -> str:
        target = (path.parent / match[1]).resolve()
        line = text.count("\n", 0, match.start()) + 2
        if target in seen or place(target) in _OTHERS:
            return ""
        return f'{_flatten(target, seen)}\n#line {line} "{place(path)}"'

    body = _INCLUDE.sub(expand, _ONCE.sub("", text))
    return f'#line 1 "{place(path)}"\n{body}'


def place(path: Path) -> str:
    """How errors name a file: relative to the package, or its own name outside of it."""
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
