"""Levels of detail of SOG files (PlayCanvas's streamed sets), read: a lod-meta.json, and a folder with a meta.json per
file that it names. Each leaf of its tree has some Gaussians at several levels, 0 the finest: a range of one file each.

What is read is, of each leaf, the finest level whose file is there; a warning says which are not. Untrusted: only files
below the folder are read, each once, and no Gaussian of a file is taken twice.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import BadInput, warn
from .scene import GaussianScene, joined
from .sog import read_sog
from .untrusted import below, read_bytes, read_json

_LARGEST = 1 << 24  # bytes of a lod-meta.json


def read_sog_levels(path: Path) -> GaussianScene:
    """The Gaussians of the finest levels of a lod-meta.json. Raises `BadInput` for what is none."""
    content = read_json(path, read_bytes(path, _LARGEST))
    names, ranges = content.get("filenames"), {}
    if not isinstance(names, list):
        raise BadInput(f"{path}: has filenames {names!r:.60}; the rule: a list of meta.json files")
    files = [_file(path, name) for name in names]
    there = [file.is_file() for file in files]
    if not all(there):
        absent = [str(name) for name, found in zip(names, there, strict=True) if not found]
        warn(f"{path}: {', '.join(absent):.60} not there: what they have is read from coarser levels")
    for leaf in _leaves(path, content.get("tree")):
        number, offset, count = _finest(path, leaf, there)
        ranges.setdefault(number, []).append((offset, count))
    if not ranges:
        raise BadInput(f"{path}: its tree has no Gaussian; the rule: leaves with lods")
    return joined([_taken(path, files[number], sorted(found)) for number, found in ranges.items()])


def _leaves(path: Path, tree):
    """The lods of each leaf: level -> its range."""
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        lods, children = (node.get("lods"), node.get("children", [])) if isinstance(node, dict) else (None, None)
        if not isinstance(children, list) or not isinstance(lods, dict | None):
            raise BadInput(f"{path}: its tree has {node!r:.60}; the rule: nodes with children, leaves with lods")
        nodes.extend(reversed(children))
        if lods:
            yield lods


def _finest(path: Path, lods: dict, there: list[bool]) -> tuple[int, int, int]:
    """(file, offset, count) of the finest level whose file is there."""
    for level in sorted(lods, key=lambda level: (len(level), level)):  # as numbers
        lod = lods[level]
        found = [lod.get(key) if isinstance(lod, dict) else None for key in ("file", "offset", "count")]
        if any(type(value) is not int or value < 0 for value in found) or found[0] >= len(there):
            raise BadInput(f"{path}: a leaf has {lod!r:.60}; the rule: file, offset and count, of {len(there)} files")
        if there[found[0]]:
            return tuple(found)
    raise BadInput(f"{path}: the files of a leaf's levels {', '.join(lods):.40} are not there; the rule: one of them")


def _file(path: Path, name) -> Path:
    """Where a file of the set is. Raises `BadInput` where that is outside of its folder."""
    rule = "a meta.json below the same folder"
    found = below(path, name, rule)
    if found.name != "meta.json":
        raise BadInput(f"{path}: names the file {name!r:.60}; the rule: {rule}")
    return found


def _taken(path: Path, file: Path, ranges: list[tuple[int, int]]) -> GaussianScene:
    """The Gaussians of those ranges of a file, in order."""
    scene, end = read_sog(file), 0
    for offset, count in ranges:
        if offset < end or offset + count > len(scene):
            raise BadInput(
                f"{path}: takes {count} Gaussians of {file.parent.name} from {offset} on; "
                f"the rule: none twice, of {len(scene)}"
            )
        end = offset + count
    return scene.select(torch.cat([torch.arange(offset, offset + count) for offset, count in ranges]))
