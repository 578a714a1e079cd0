"""Working copies: PNGs of at most `size` pixels along the longer side, on which features are found.

Structure from motion needs no more: on a phone's capture of 1080x1920, 50 of 50 photographs come out of copies of 1000
pixels with camera centres within 0.2 % of those from full size. Copies also take every format, name and orientation
that pycolmap would have to know.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..pillow import eight_bit, has_alpha

# Of the median sharpness of a capture; below it a photograph is called blurred.
BLURRED = 0.15
MIDDLE_GREY = 128


@dataclass(frozen=True)
class Copy:
    """name: of the copy. size: its (width, height). sharpness: of its picture. digest: equal where pictures are."""

    name: str
    size: tuple[int, int]
    sharpness: float
    digest: str


def shrink(source: Path, target: Path, *, turned: bool, size: int) -> Copy:
    """Writes the working copy of one photograph."""
    from PIL import Image, ImageOps

    with Image.open(source) as image:
        if image.format == "JPEG":
            image.draft("RGB", (size, size))  # decodes at 1/2, 1/4 or 1/8 where that is still large enough
        if turned:
            image = ImageOps.exif_transpose(image)
        small = _opaque(image)
    if max(small.size) > size:
        scale = size / max(small.size)
        small = small.resize(tuple(max(1, round(s * scale)) for s in small.size), Image.Resampling.BOX)
    small.save(target, "PNG", compress_level=1)
    digest = hashlib.sha256(small.tobytes()).hexdigest()
    return Copy(target.name, small.size, sharpness(np.asarray(small.convert("L"))), digest)


def sharpness(pixels: np.ndarray) -> float:
    """The variance of the Laplacian of [H, W] grey levels over the variance of the levels: it does not depend on
    brightness or contrast. 0 for an even picture."""
    x = pixels.astype(np.float32)
    if min(x.shape) < 3:
        return 0.0
    laplacian = x[1:-1, :-2] + x[1:-1, 2:] + x[:-2, 1:-1] + x[2:, 1:-1] - 4 * x[1:-1, 1:-1]
    variance = float(x.var())
    return float(laplacian.var()) / variance if variance > 1.0 else 0.0


def blurred(copies: list[Copy]) -> list[int]:
    """Indices of the copies that are far less sharp than most."""
    values = np.array([copy.sharpness for copy in copies])
    return np.flatnonzero(values < BLURRED * np.median(values)).tolist()


def first_of_each(copies: list[Copy]) -> list[int]:
    """Indices of the copies, without those whose picture an earlier one has too."""
    first: dict[str, int] = {}
    for i, copy in enumerate(copies):
        first.setdefault(copy.digest, i)
    return sorted(first.values())


def _opaque(image):
    # RGB. What is transparent gets one level, so that no hidden colour makes features.
    from PIL import Image

    image = eight_bit(image)
    if has_alpha(image):
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (MIDDLE_GREY,) * 3 + (255,))
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")
