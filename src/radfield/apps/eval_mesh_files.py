"""The files that the protocols of `radfield eval-mesh` read: scans, DTU's masks and planes, crop volumes, alignments.
Each is checked before it is believed; `BadInput` in one line where it is not what it should be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..meshing.optional import optional
from ..meshing.protocols import Crop, Observed, points_on

MOST_POINTS = 50_000_000  # of a mesh, before they are thinned


def mesh_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(vertices [P, 3] float64, triangles [T, 3]) of a mesh, with triangles and finite coordinates."""
    import torch

    from ..data.synthetic.mesh import read_mesh

    vertices, triangles = (each.numpy() for each in read_mesh(path, torch.float64)[:2])
    if not len(triangles):
        raise BadInput(f"{path}: it has no triangles; the rule: at least one")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise BadInput(f"{path}: triangles name points that there are not; the rule: from 0 to {len(vertices) - 1}")
    if not np.isfinite(vertices).all():
        raise BadInput(f"{path}: a point is not finite; the rule: finite coordinates")
    return vertices, triangles


def mesh_points(path: Path, spacing: float, align: np.ndarray | None) -> np.ndarray:
    """[N, 3] points on a mesh about `spacing` apart, after the matrix `align` [4, 4] if given."""
    vertices, triangles = mesh_arrays(path)
    if align is not None:
        vertices = vertices @ align[:3, :3].T + align[:3, 3]
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    expected = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1).sum() / spacing**2 + len(vertices)
    if expected > MOST_POINTS:
        raise BadInput(f"{path}: points {spacing:g} apart on it are {expected:.3g}; the rule: at most {MOST_POINTS}")
    return points_on(vertices, triangles, spacing)


def scan_points(path: Path, spacing: float) -> np.ndarray:
    """[N, 3]: the points of a .ply that has no triangles, else points on the mesh."""
    from ..data.ply_points import read_points

    if path.suffix.lower() == ".ply" and path.is_file():
        with open(path, "rb") as file:
            head = file.read(1 << 16).split(b"end_header")[0]
        faces = [line.split()[2:] for line in head.splitlines() if line.startswith(b"element face")]
        if not faces or faces[0] == [b"0"]:
            points = read_points(path).position
            if not len(points):
                raise BadInput(f"{path}: it has no points; the rule: at least one")
            return points
    return mesh_points(path, spacing, None)


def observed(path: Path) -> Observed:
    """DTU's ObsMask*.mat: ObsMask, BB and Res."""
    found = _matlab(path, ("ObsMask", "BB", "Res"))
    seen, box, size = found["ObsMask"], found["BB"].astype(np.float64), found["Res"].astype(np.float64).reshape(-1)
    if seen.ndim != 3 or box.shape != (2, 3) or size.shape != (1,) or not size[0] > 0 or not np.isfinite(box).all():
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in found.items())
        raise BadInput(f"{path}: has {shapes}; the rule: ObsMask [X, Y, Z], BB [2, 3], Res one positive number")
    return Observed(seen != 0, box[0], box[1], float(size[0]))


def plane(path: Path) -> np.ndarray:
    """[4]: DTU's Plane*.mat: P."""
    found = _matlab(path, ("P",))["P"].astype(np.float64).reshape(-1)
    if found.shape != (4,) or not np.isfinite(found).all():
        raise BadInput(f"{path}: P has shape {list(found.shape)}; the rule: 4 finite numbers")
    return found


def crop(path: Path) -> Crop:
    """A crop volume as Open3D and Tanks and Temples write it: SelectionPolygonVolume in JSON."""
    try:
        values = json.loads(path.read_text())
        axis = "XYZ".index(values["orthogonal_axis"])
        polygon = np.delete(np.array(values["bounding_polygon"], np.float64), axis, 1)
        low, high = float(values["axis_min"]), float(values["axis_max"])
        if len(polygon) < 3 or polygon.shape[1] != 2 or not np.isfinite([*polygon.reshape(-1), low, high]).all():
            raise ValueError("its polygon needs three corners or more, and finite numbers")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"{path}: is no crop volume ({type(error).__name__}: {reason:.80}); the rule: JSON with "
            "orthogonal_axis, axis_min, axis_max and bounding_polygon"
        ) from None
    return Crop(axis, low, high, polygon)


def alignment(path: Path) -> np.ndarray:
    """[4, 4] of a text file: the matrix that takes the mesh to the truth, row by row."""
    try:
        numbers = [float(word) for word in path.read_text().replace(",", " ").split()]
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise BadInput(f"{path}: {error}; the rule: 16 numbers, a 4x4 matrix by rows") from None
    matrix = np.array(numbers).reshape(4, 4) if len(numbers) == 16 else None
    if matrix is None or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise BadInput(f"{path}: has {len(numbers)} numbers; the rule: a finite 4x4 matrix with last row 0 0 0 1")
    return matrix


def _matlab(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    loadmat = optional("scipy.io", "--protocol dtu").loadmat
    if not path.is_file():
        raise BadInput(f"{path} does not exist; the rule: a MATLAB file with {', '.join(names)}")
    try:
        found = {name: np.asarray(value) for name, value in loadmat(path, variable_names=names).items()}
    except Exception as error:  # scipy's parser raises whatever a damaged file leads it to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path}: cannot be read as a MATLAB file: {reason:.80}") from None
    for name in names:
        if name not in found or found[name].dtype.kind not in "biuf":
            raise BadInput(f"{path}: has no numbers {name}; the rule: {', '.join(names)}")
    return {name: found[name] for name in names}
