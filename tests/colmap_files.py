"""COLMAP models written by hand, field by field, for tests of what reads them."""

import struct

import numpy as np
from PIL import Image

from radfield.data.colmap_model import MODELS

#: parameters of each COLMAP model for images of 16 x 12
PARAMS = {
    "SIMPLE_PINHOLE": (20, 8, 6),
    "PINHOLE": (20, 21, 8, 6),
    "SIMPLE_RADIAL": (20, 8, 6, 0.1),
    "RADIAL": (20, 8, 6, 0.1, -0.05),
    "OPENCV": (20, 21, 8, 6, 0.1, -0.05, 0.001, -0.002),
    "OPENCV_FISHEYE": (20, 21, 8, 6, 0.1, -0.05, 0.01, -0.002),
    "FULL_OPENCV": (20, 21, 8, 6, 0.1, -0.05, 0.001, -0.002, 0.02, 0.15, -0.04, 0.01),
    "SIMPLE_RADIAL_FISHEYE": (20, 8, 6, 0.1),
    "RADIAL_FISHEYE": (20, 8, 6, 0.1, -0.05),
}
NAMES = ["a view.png", "Übersicht_ü.png", "sub/c.png"]


def world_to_camera(i):
    """(quaternion, rotation, translation) of a camera turned by 0.4 i about y, on a circle around the origin."""
    half = 0.2 * i + 0.1
    w, y = np.cos(half), np.sin(half)
    rotation = np.array([[1 - 2 * y * y, 0, 2 * w * y], [0, 1, 0], [-2 * w * y, 0, 1 - 2 * y * y]])
    return (w, 0.0, y, 0.0), rotation, np.array([0.0, 0.1, 4.0])


def cameras_bin(model="PINHOLE", size=(16, 12), count=1):
    code = next(i for i, (name, _) in MODELS.items() if name == model)
    params = PARAMS.get(model, (1,) * MODELS[code][1])
    return struct.pack(f"<QIiQQ{len(params)}d", count, 7, code, *size, *params)


def images_bin(names=NAMES, count=None, camera=7):
    parts = [struct.pack("<Q", len(names) if count is None else count)]
    for i, name in enumerate(names):
        quaternion, _, translation = world_to_camera(i)
        parts.append(struct.pack("<I7dI", 10 + i, *quaternion, *translation, camera) + name.encode() + b"\0")
        parts.append(struct.pack("<Q", 1) + struct.pack("<ddq", 3.5, 4.5, -1))
    return b"".join(parts)


def points_bin(count=2):
    first = struct.pack("<Q3d3BdQ", 1, 0.1, 0.2, 0.3, 255, 128, 0, 0.5, 2) + struct.pack("<4I", 12, 0, 10, 0)
    second = struct.pack("<Q3d3BdQ", 9, -0.1, 0.0, 0.5, 1, 2, 3, 0.5, 0)
    return struct.pack("<Q", count) + first + second


def colmap(folder, model="PINHOLE", **files):
    content = {"cameras": cameras_bin(model), "images": images_bin(), "points3D": points_bin(), **files}
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    for name, data in content.items():
        if data is not None:
            (sparse / f"{name}.bin").write_bytes(data)
    for i, name in enumerate(NAMES):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (10 * i, 0, 0)).save(path)
    return folder


def as_text(folder, params=PARAMS["PINHOLE"], model="PINHOLE"):
    sparse = folder / "sparse" / "0"
    for file in sparse.iterdir():
        file.unlink()
    numbers = " ".join(map(str, params))
    (sparse / "cameras.txt").write_text(f"# a comment\n7 {model} 16 12 {numbers}\n")
    lines = ["# another"]
    for i, name in enumerate(NAMES):
        quaternion, _, translation = world_to_camera(i)
        lines += [" ".join(map(repr, map(float, (*quaternion, *translation)))), "3.5 4.5 -1" if i else ""]
        lines[-2] = f"{10 + i} {lines[-2]} 7 {name}"
    (sparse / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (sparse / "points3D.txt").write_text("1 0.1 0.2 0.3 255 128 0 0.5 12 0 10 0\n9 -0.1 0.0 0.5 1 2 3 0.5\n")
    return folder
