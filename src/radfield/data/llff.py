"""Reader of LLFF captures: poses_bounds.npy beside images/.

poses_bounds.npy is [V, 17]: per image, in order of file name, a 3x5 matrix by rows and the nearest and farthest depth.
Its first three columns are the camera's axes in the world as (down, right, backward), the fourth its position, the
fifth (height, width, focal length) in pixels of the images that were posed. Source: the README of LLFF (Mildenhall et
al. 2019), "Using your own poses". No distortion; the principal point is the middle. Where images/ holds other sizes
(images_4 renamed), intrinsics are scaled with them.
"""

from pathlib import Path

import numpy as np

from ..errors import BadInput
from .array_files import read_npy
from .capture import ALL, Capture, PosedImage, fit_to_file
from .images import read_header
from .lens import Lens
from .masks import find_mask
from .paths import images_in
from .poses import checked

LOOKS_FOR = "poses_bounds.npy (LLFF)"
_NAME = "poses_bounds.npy"
_FOLDERS = ("images", "images_4", "images_8", "images_2")


def find(path: Path) -> bool:
    """Whether this is such a file, or a folder with it."""
    return path.name == _NAME if path.is_file() else (path / _NAME).is_file()


def read(path: Path) -> Capture:
    """The capture; BadInput, in one line, for what is wrong with it."""
    folder = path.parent if path.is_file() else path
    file = folder / _NAME
    rows = read_npy(file)
    if rows.ndim != 2 or rows.shape[1] != 17 or len(rows) < 2:
        raise BadInput(f"{file} has the shape {'x'.join(map(str, rows.shape))}; it must be Vx17, two images or more")
    images = next((found for name in _FOLDERS if (found := images_in(folder / name))), [])
    if len(images) != len(rows):
        raise BadInput(f"{file} has {len(rows)} poses but images/ has {len(images)} images; they must be as many")
    posed = []
    for row, image in zip(rows, images, strict=True):
        name = f"{image.parent.name}/{image.name}"
        posed.append(_posed(row[:15].reshape(3, 5), name, image, f"{file}: {image.name}", folder))
    return Capture(folder, {ALL: posed}, None, upright=False)


def _posed(matrix: np.ndarray, name: str, image: Path, where: str, folder: Path) -> PosedImage:
    down, right, backward, position, size = matrix.T
    pose = checked(np.stack((right, down, -backward, position), 1), where)
    height, width, focal = size
    if not (np.isfinite(size).all() and focal > 0 and width == int(width) > 0 and height == int(height) > 0):
        raise BadInput(
            f"{where} states {width:g}x{height:g} pixels and the focal length {focal:g}; they must be positive"
        )
    lens = Lens((float(focal),) * 2, (width / 2, height / 2), (int(width), int(height)), (0.0,) * 6, "perspective")
    return fit_to_file(PosedImage(name, image, pose, lens, read_header(image)), find_mask(folder, image.name))
