"""A reconstruction in the pixels of the photographs, as a COLMAP model and as transforms.json.

FOLDER/images/NAME        the photographs: hard links, or where the disk refuses, symbolic links or copies
FOLDER/sparse/0/*.bin     COLMAP's binary model: cameras, images, points with colours
FOLDER/points.ply         the points once more, for readers of transforms.json
FOLDER/transforms.json    the same cameras (OpenGL axes, OPENCV lens), in the same world units
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap

from ..lens import Lens
from ..transforms_writer import NAME as TRANSFORMS
from ..transforms_writer import Frame, lens_entries, write_transforms
from .refine import opencv_parameters

SPARSE = Path("sparse") / "0"
POINTS = "points.ply"


def enlarge(model: pycolmap.Reconstruction, sizes: dict[str, tuple[int, int]], names: dict[str, str]) -> None:
    """From the pixels and names of the working copies to those of the photographs; both keyed by copy."""
    scales = {}
    for image in model.images.values():
        camera = model.cameras[image.camera_id]
        if image.camera_id not in scales:
            width, height = sizes[image.name]
            scales[image.camera_id] = (width / camera.width, height / camera.height)
            camera.rescale(width, height)
        scale = np.array(scales[image.camera_id])
        for point in image.points2D:
            point.xy = point.xy * scale
    for image in model.images.values():
        image.name = names[image.name]
    model.update_point_3d_errors()


def write_model(model: pycolmap.Reconstruction, folder: Path) -> None:
    """Writes all but the photographs, which are named images/NAME in it."""
    (folder / SPARSE).mkdir(parents=True)
    model.write(folder / SPARSE)
    model.export_PLY(folder / POINTS)
    images = sorted((model.images[i] for i in model.reg_image_ids()), key=lambda image: image.name)
    frames = [_frame(model, image) for image in images]
    # The world's axes mean nothing yet: readers turn it by its cameras.
    write_transforms(folder / TRANSFORMS, frames, upright=False, ply_file_path=POINTS)


def _frame(model: pycolmap.Reconstruction, image: pycolmap.Image) -> Frame:
    camera = model.cameras[image.camera_id]
    fx, fy, cx, cy, k1, k2, p1, p2 = map(float, opencv_parameters(camera))
    lens = Lens((fx, fy), (cx, cy), (camera.width, camera.height), (k1, k2, 0.0, 0.0, p1, p2), "perspective")
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().inverse().matrix()
    return Frame(f"images/{image.name}", pose, lens_entries(lens))
