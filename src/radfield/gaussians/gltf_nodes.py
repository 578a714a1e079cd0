"""Where the nodes of a glTF file put its meshes. A node's transform is a translation, a rotation (x, y, z, w) and a
scale, or a matrix by columns; Gaussians can be moved, turned and scaled alike, nothing else."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..geometry import SceneTransform
from .untrusted import is_number

_MOST_DEEP = 1000


def placed_meshes(path: Path, content: dict):
    """(mesh, SceneTransform of it) for each node with a mesh in the file's scene. Raises `BadInput` for what is no tree
    of nodes, and for a mesh that stands in two places."""
    nodes, meshes = objects(path, content, "nodes"), objects(path, content, "meshes")
    scenes, chosen = objects(path, content, "scenes"), content.get("scene", 0)
    if type(chosen) is not int or not 0 <= chosen < len(scenes):
        raise BadInput(f"{path}: scene is {chosen!r:.40}; the rule: one of {len(scenes)}")
    roots = _numbers(path, scenes[chosen].get("nodes", []), len(nodes), "nodes")
    left = deque((number, np.eye(4), 0) for number in roots)
    seen, used = set(), set()
    while left:
        number, above, depth = left.popleft()
        if number in seen or depth > _MOST_DEEP:
            raise BadInput(f"{path}: node {number} stands in two places; the rule: a tree of nodes")
        seen.add(number)
        node, matrix = nodes[number], above @ _matrix(path, nodes[number])
        if "mesh" in node:
            (mesh,) = _numbers(path, [node["mesh"]], len(meshes), "mesh")
            if mesh in used:
                raise BadInput(f"{path}: mesh {mesh} stands in two places; the rule: one node for each")
            used.add(mesh)
            yield meshes[mesh], _similarity(path, matrix)
        children = _numbers(path, node.get("children", []), len(nodes), "children")
        left.extend((child, matrix, depth + 1) for child in children)


def objects(path: Path, content: dict, key: str) -> list[dict]:
    """The list of objects at `key`, empty where there is none. Raises `BadInput` for anything else."""
    found = content.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadInput(f"{path}: {key} is {found!r:.60}; the rule: a list of objects")
    return found


def _numbers(path: Path, found, count: int, key: str) -> list[int]:
    if not isinstance(found, list) or any(type(each) is not int or not 0 <= each < count for each in found):
        raise BadInput(f"{path}: {key} is {found!r:.60}; the rule: numbers below {count}")
    return found


def _matrix(path: Path, node: dict) -> np.ndarray:
    """[4, 4] of a node."""
    whole = np.eye(4)
    if "matrix" in node:
        return _floats(path, node, "matrix", 16).reshape(4, 4).T
    x, y, z, w = _floats(path, node, "rotation", 4, (0, 0, 0, 1))
    length = (x * x + y * y + z * z + w * w) or 1.0
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + 2 / length * (w * cross + cross @ cross)
    whole[:3, :3] = turn * _floats(path, node, "scale", 3, (1, 1, 1))
    whole[:3, 3] = _floats(path, node, "translation", 3, (0, 0, 0))
    return whole


def _floats(path: Path, node: dict, key: str, count: int, default=None) -> np.ndarray:
    found = node.get(key, default)
    if not isinstance(found, list | tuple) or len(found) != count or not all(is_number(v) for v in found):
        raise BadInput(f"{path}: a node's {key} is {found!r:.60}; the rule: {count} numbers")
    return np.array(found, np.float64).clip(-1e30, 1e30)


def _similarity(path: Path, matrix: np.ndarray) -> SceneTransform:
    if np.array_equal(matrix, np.eye(4)):
        return SceneTransform()
    linear = matrix[:3, :3]
    with np.errstate(all="ignore"):
        scale = np.cbrt(np.linalg.det(linear))
        turn = linear / scale if np.isfinite(scale) and scale > 1e-12 else np.zeros((3, 3))
        sound = np.isfinite(matrix).all() and np.allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    if not sound:
        raise BadInput(
            f"{path}: a node's transform has linear part {linear.tolist()!r:.80}; the rule: a turn times one scale"
        )
    return SceneTransform(float(scale), tuple(map(tuple, turn.tolist())), tuple(matrix[:3, 3].tolist()))
