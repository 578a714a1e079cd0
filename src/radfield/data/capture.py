"""A capture between its files and a `Scene`: posed images in splits, not yet decoded.

Every reader of a format returns a `Capture`; what follows (`data/loading.py`) is the same for all.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import BadInput
from .images import Header
from .lens import Lens
from .masks import Mask
from .points import Points
from .scene_box import SceneBox

# The split name of a capture that leaves it to us what to hold out.
ALL = "all"


@dataclass(frozen=True)
class PosedImage:
    """One view. camera_to_world: [4, 4] float64, OpenCV axes, world units; lens: in pixels of the image as
    it will be decoded; turned: by its EXIF orientation; mask: its mask's file, of either kind (`masks.py`)."""

    name: str
    path: Path
    camera_to_world: np.ndarray
    lens: Lens
    header: Header
    turned: bool = False
    mask: Mask | None = None


@dataclass(frozen=True)
class Capture:
    """splits: {"train": [...], "val": ..., "test": ...} or {ALL: [...]}; box: None where it must be found.

    points: sparse points in the world, where the capture has any. upright: whether the world's z axis is known to
    point up, or its axes mean something else worth keeping; where not, the scene is turned so that z does.
    """

    path: Path
    splits: dict[str, list[PosedImage]]
    box: SceneBox | None
    points: Points | None = None
    upright: bool = True


def fit_to_file(image: PosedImage, mask: Mask | None = None) -> PosedImage:
    """Gives an image its mask, and makes its lens, which has the declared size, agree with its file.

    The file's size is the declared one, as stored or after turning by EXIF, or a uniform scaling of it (each
    side within a pixel), by which the intrinsics are scaled. BadInput otherwise.
    """
    image = replace(image, mask=mask)
    declared, header = image.lens.size, image.header
    sizes = [(header.size, False)] + ([(header.upright, True)] if header.upright else [])
    for size, turned in sizes:
        if size == declared:
            return replace(image, turned=turned)
    for size, turned in sizes:
        if _same_shape(declared, size):
            return replace(image, turned=turned, lens=image.lens.resized(size))
    raise BadInput(
        f"{image.path} is {header.size[0]}x{header.size[1]} but {declared[0]}x{declared[1]} is declared; "
        "an image must have the declared size or be a uniform scaling of it"
    )


def _same_shape(declared: tuple[int, int], size: tuple[int, int]) -> bool:
    by_width, by_height = size[0] / declared[0], size[1] / declared[1]
    return abs(declared[1] * by_width - size[1]) <= 1 or abs(declared[0] * by_height - size[0]) <= 1
