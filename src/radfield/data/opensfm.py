"""Reader of OpenSfM's reconstruction.json beside images/.

The file is a list of reconstructions, each with cameras, shots and points; the one with most shots is taken, with a
warning where there are others. A shot's rotation is an angle-axis vector and leads, with its translation, from the
world to the camera (OpenCV axes). Focal lengths and principal points are in units of the longer side, from the image's
middle. Source: OpenSfM's documentation, "Geometric Models" and "Dataset Structure". Its world has z up.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import BadInput, warn
from . import json_values
from .capture import ALL, Capture, PosedImage, fit_to_file
from .images import read_header
from .lens import Lens, whole_sphere
from .masks import find_mask
from .paths import Missing, tidy
from .points import Points
from .poses import rigid_inverse

LOOKS_FOR = "reconstruction.json (OpenSfM)"
_NAME = "reconstruction.json"
_PERSPECTIVE, _FISHEYE, _SPHERE = (
    ("perspective", "brown"),
    ("fisheye", "fisheye_opencv"),
    ("spherical", "equirectangular"),
)


def find(path: Path) -> bool:
    """Whether this is such a file, or a folder with it."""
    if path.is_file():
        return path.name.startswith("reconstruction") and path.suffix == ".json"
    return (path / _NAME).is_file()


def read(path: Path) -> Capture:
    """The capture; BadInput, in one line, for what is wrong with it."""
    file = path if path.is_file() else path / _NAME
    best = _largest(json_values.read_json(file), file)
    cameras = {
        name: _lens(_object(value, file), f"{file}: camera {name}") for name, value in _part(best, "cameras", file)
    }
    missing, posed = Missing(), []
    for name, value in sorted(_part(best, "shots", file)):
        shot, where = _object(value, file), f"{file}: shot {name}"
        lens = cameras.get(shot.get("camera"))
        if lens is None:
            raise BadInput(f"{where} has the camera {str(shot.get('camera'))[:60]!r}, which the file lacks")
        turn, shift = (json_values.numbers(shot.get(k), 3, f"{where}: {k}") for k in ("rotation", "translation"))
        image = missing.find(file.parent / "images", name, where)
        if image is not None:
            pose = rigid_inverse(rotation_of(np.array(turn)), np.array(shift))
            posed_image = PosedImage(tidy(name), image, pose, lens, read_header(image))
            posed.append(fit_to_file(posed_image, find_mask(file.parent, tidy(name))))
    missing.refuse_all(file.name)
    missing.announce()
    return Capture(file.parent, {ALL: posed}, None, _points(best, file))


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """[3, 3] rotation by |vector| radians about it (Rodrigues' formula)."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-30)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)


def _largest(content, file: Path) -> dict:
    if not isinstance(content, list) or not content or not all(isinstance(r, dict) for r in content):
        raise BadInput(f"{file} must be a list of reconstructions, each with cameras and shots")
    counts = [len(r["shots"]) if isinstance(r.get("shots"), dict) else 0 for r in content]
    if len(content) > 1:
        rest = sum(counts) - max(counts)
        warn(f"of {len(content)} reconstructions the largest is taken: {max(counts)} images ({rest} in the others)")
    return content[counts.index(max(counts))]


def _part(values: dict, name: str, file: Path):
    part = values.get(name)
    if not isinstance(part, dict) or not part:
        raise BadInput(f"{file} has no {name}; a reconstruction must have cameras and shots")
    return part.items()


def _object(value, file: Path) -> dict:
    if not isinstance(value, dict):
        raise BadInput(f"{file} holds {str(value)[:40]!r} for a camera or shot; it must be an object")
    return value


def _lens(values: Mapping, where: str) -> Lens:
    size = tuple(json_values.positive(values, key, where) for key in ("width", "height"))
    if None in size or any(side != int(side) for side in size):
        raise BadInput(f"{where} has the size {size}; width and height must be whole numbers")
    width, height = map(int, size)
    kind, longer = values.get("projection_type"), max(width, height)
    if kind in _SPHERE:
        return whole_sphere((width, height))
    if kind not in (*_PERSPECTIVE, *_FISHEYE):
        known = ", ".join((*_PERSPECTIVE, *_FISHEYE, *_SPHERE))
        raise BadInput(f"{where} has the projection_type {kind!r}; it must be one of {known}")
    both = json_values.positive(values, "focal", where)
    focal = [json_values.positive(values, key, where) or both for key in ("focal_x", "focal_y")]
    if None in focal:
        raise BadInput(f"{where} has no focal length; it must have focal, or focal_x and focal_y")
    centre = [json_values.number(values, key, where, 0.0) for key in ("c_x", "c_y")]
    distortion = tuple(json_values.number(values, key, where, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    model = "fisheye" if kind in _FISHEYE else "perspective"
    focal = (focal[0] * longer, focal[1] * longer)
    principal = (width / 2 + centre[0] * longer, height / 2 + centre[1] * longer)
    return Lens(focal, principal, (width, height), distortion, model)


def _points(values: dict, file: Path) -> Points | None:
    points = values.get("points")
    if not isinstance(points, dict) or not points:
        return None
    where = f"{file}: a point's"
    rows = [_object(point, file) for point in points.values()]
    position = [json_values.numbers(row.get("coordinates"), 3, f"{where} coordinates") for row in rows]
    color = [json_values.numbers(row.get("color", [128, 128, 128]), 3, f"{where} color") for row in rows]
    return Points(np.array(position), np.clip(np.array(color), 0, 255).astype(np.uint8))
