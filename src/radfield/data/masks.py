"""Masks: two things that are both called so.

- "ignore": pixels that say nothing (people, the sky, the photographer's shadow). They are not sampled and not measured.
- "transparent": pixels where the scene is empty: the background of an object. They become alpha, as in an RGBA image.

Which one a file means follows from the convention it comes from:

| found as | means | white is |
| --- | --- | --- |
| COLMAP, OpenSfM: `masks/<image name>.png` or `masks/<stem>.png` | ignore | kept |
| nerfstudio: `mask_path` of a frame | ignore | kept |
| instant-ngp: `dynamic_mask_<stem>.png` beside the image | ignore | ignored |
| IDR, NeuS: `mask/<number>.png` or `mask/<stem>.png` | transparent | kept |

`load(..., masks=...)` can say otherwise: "ignore" and "transparent" take all masks for that, "none" for nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadInput, warn

MEANINGS = ("auto", "ignore", "transparent", "none")


@dataclass(frozen=True)
class Mask:
    """A mask file. inverted: white is masked, not black. transparent: pixels masked are empty, not ignored."""

    path: Path
    transparent: bool = False
    inverted: bool = False


def find_mask(folder: Path, name: str) -> Mask | None:
    """The mask in masks/ or mask/ of the capture's folder of the image called `name` in the folder of the images."""
    stem = str(Path(name).with_suffix(""))
    for directory, transparent in (("masks", False), ("mask", True)):
        for candidate in (f"{name}.png", f"{stem}.png", name):
            path = folder / directory / candidate
            if path.is_file():
                return Mask(path, transparent)
    return None


def find_dynamic_mask(image: Path) -> Mask | None:
    """instant-ngp's mask beside an image: what is not black in it is ignored."""
    path = image.with_name(f"dynamic_mask_{image.stem}.png")
    return Mask(path, inverted=True) if path.is_file() else None


def decode_mask(mask: Mask, stored: tuple[int, int], size: tuple[int, int], turned: bool) -> np.ndarray:
    """[height, width] uint8: 255 where kept, 0 where masked; averaged over areas where reduced.

    stored: (width, height) of the image's file, of which the mask has the shape; size: as the image is decoded;
    turned: as the image, by 90 degrees, where the mask has the shape of the stored pixels.
    """
    from .images import open_image

    with open_image(mask.path) as image:
        values = np.asarray(image.convert("RGBA"))
        kept = values[..., :3].max(-1) if (values[..., 3] == 255).all() else values[..., 3]
    if mask.inverted:
        kept = np.where(kept > 0, 0, 255).astype(np.uint8)
    upright = stored[::-1] if turned else stored
    height, width = kept.shape
    if abs(width * upright[1] - height * upright[0]) > max(width, height):
        raise BadInput(
            f"{mask.path} is {width}x{height} but its image is {upright[0]}x{upright[1]}; a mask must have its shape"
        )
    from PIL import Image

    picture = Image.fromarray(kept)
    return np.asarray(picture if picture.size == size else picture.resize(size, Image.Resampling.BOX))


def spans_of(kept: np.ndarray) -> np.ndarray:
    """[S, 2] int64 (first, past the last) of the runs of True in a flat bool array."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], kept, [False])).view(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64)


def announce(with_mask: int, total: int) -> None:
    """A warning where some images have a mask and others have none."""
    if 0 < with_mask < total:
        warn(f"{total - with_mask} of {total} images have no mask; all of their pixels are used")
