"""A reconstruction in the pixels of the photographs, as a COLMAP model and as transforms.json.

FOLDER/images/NAME        the photographs: hard links, or where the disk refuses, symbolic links or copies
FOLDER/sparse/0/*.bin     COLMAP's binary model: cameras, images, points with colours
FOLDER/points.ply         the points once more, for readers of transforms.json
FOLDER/transforms.json    the same cameras (OpenGL axes, OPENCV lens per frame), in the same world units
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap

from .refine import opencv_parameters

# OpenCV to OpenGL: y and z of the camera change sign.
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
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


def write_model(model: pycolmap.Reconstruction, folder: Path) -> dict:
    """Writes sparse/0 and returns the content of transforms.json; photographs are named images/NAME in it."""
    (folder / SPARSE).mkdir(parents=True)
    model.write(folder / SPARSE)
    model.export_PLY(folder / POINTS)
    images = sorted((model.images[i] for i in model.reg_image_ids()), key=lambda image: image.name)
    return {
        "camera_model": "OPENCV",
        "upright": False,  # the world's axes mean nothing yet: readers turn it by its cameras
        "ply_file_path": POINTS,
        "frames": [_frame(model, image) for image in images],
    }


def _frame(model: pycolmap.Reconstruction, image: pycolmap.Image) -> dict:
    camera = model.cameras[image.camera_id]
    names = ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2")
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().inverse().matrix()
    return {
        "file_path": f"images/{image.name}",
        "w": camera.width,
        "h": camera.height,
        **dict(zip(names, map(float, opencv_parameters(camera)), strict=True)),
        "transform_matrix": (pose @ FLIP).tolist(),
    }
