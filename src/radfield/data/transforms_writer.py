"""Writing transforms.json: the one place that knows its keys. Reading it is `transforms_json.py`.

Frames have OpenGL axes; what is given here has OpenCV's. What is the same for all frames stands once, above them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadInput
from .lens import Lens

NAME = "transforms.json"
#: names of `Lens.distortion`, in order
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2", "d1", "d2", "d3")
# d1, d2, d3 are what COLMAP's FULL_OPENCV calls k4, k5, k6.
_RATIONAL = {"k1": "k1", "k2": "k2", "k3": "k3", "p1": "p1", "p2": "p2", "d1": "k4", "d2": "k5", "d3": "k6"}
_FLIP = np.array([1.0, -1.0, -1.0, 1.0])  # OpenCV to OpenGL: y and z of the camera change sign


@dataclass(frozen=True)
class Frame:
    """file_path: of the image, relative to the file. camera_to_world: [4, 4], OpenCV axes. lens: its entries
    (`lens_entries`). mask_path: of a mask of pixels to ignore."""

    file_path: str
    camera_to_world: np.ndarray
    lens: dict
    mask_path: str | None = None


def lens_entries(lens: Lens) -> dict:
    """The entries that say what a lens is; coefficients that are 0 are left out."""
    (width, height), (fx, fy), (cx, cy) = lens.size, lens.focal, lens.principal
    size = {"w": int(width), "h": int(height)}
    if lens.model == "equirectangular":
        place = {"fl_x": width / 2, "fl_y": height, "cx": float(cx), "cy": float(cy)}
        return {"camera_model": "EQUIRECTANGULAR", **size, **place}
    shared = {**size, "fl_x": float(fx), "fl_y": float(fy), "cx": float(cx), "cy": float(cy)}
    values = {key: float(v) for key, v in zip(DISTORTION, lens.distortion, strict=False) if v}
    if lens.model == "fisheye":
        # is_fisheye is instant-ngp's, camera_model nerfstudio's.
        return {"camera_model": "OPENCV_FISHEYE", "is_fisheye": True, **shared, **values}
    if not {"d1", "d2", "d3"} & values.keys():
        return {"camera_model": "OPENCV", **shared, **values}
    if "k4" in values:
        raise BadInput(f"a lens with k4 = {values['k4']:g} of nerfstudio's cannot be written as {NAME}")
    rational = {name: values.get(key, 0.0) for key, name in _RATIONAL.items()}
    return {"camera_model": "FULL_OPENCV", **shared, **rational}


def transforms(frames: Sequence[Frame], **shared) -> dict:
    """The content of a transforms.json. shared: further entries above the frames."""
    one = frames[0].lens if all(frame.lens == frames[0].lens for frame in frames) else {}
    listed = []
    for frame in frames:
        entry = {"file_path": frame.file_path, "transform_matrix": (frame.camera_to_world * _FLIP).tolist()}
        if frame.mask_path is not None:
            entry["mask_path"] = frame.mask_path
        listed.append(entry | ({} if one else frame.lens))
    return {**one, **shared, "frames": listed}


def write_transforms(path: Path, frames: Sequence[Frame], **shared) -> None:
    """Writes the file, into a folder that is not yet anyone's (`atomic.filling`)."""
    path.write_text(json.dumps(transforms(frames, **shared), indent=1), encoding="utf-8")
