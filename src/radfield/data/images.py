"""Image files to 8-bit sRGB pixels.

Every mode that Pillow reads becomes RGB, or RGBA where alpha is wanted: palette, greyscale (with alpha),
CMYK, 1-bit. 16 bits per channel are reduced to 8. Embedded colour profiles are not applied.
The orientation in a photograph's EXIF data does not turn it by itself, since poses and intrinsics belong to
the pixels they were computed from: whoever knows the intended size decides (`Header.upright`).
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import BadInput
from .masks import Mask, decode_mask, spans_of
from .pillow import damage, eight_bit, exif_of, has_alpha
from .scene import Images

# More threads gain little, since files of a capture come from one disk, and each holds a decoded image.
DECODING_THREADS = 2
# The EXIF tag, and its values that swap width and height.
_ORIENTATION, _SWAPPED = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What a file says about its image before it is decoded.

    size: (width, height) as stored. alpha: whether it carries any. deep: more than 8 bits per channel.
    upright: (width, height) after turning by EXIF where that swaps the two, else None.
    """

    size: tuple[int, int]
    alpha: bool
    deep: bool
    upright: tuple[int, int] | None


@dataclass(frozen=True)
class Decode:
    """One image to decode: from `path`, turned by its EXIF orientation or not, to (width, height) `size`; mask: what
    becomes its alpha, or is ignored in it."""

    path: Path
    size: tuple[int, int]
    turned: bool = False
    mask: Mask | None = None


@contextlib.contextmanager
def open_image(path: Path) -> Iterator:
    """Pillow's image of a file; BadInput where it is none, is cut or damaged, on opening and in the block."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except BadInput:
        raise
    except damage() as error:
        raise _unreadable(path, error) from None


def read_header(path: Path) -> Header:
    """The header of an image file; BadInput where it is none."""
    with open_image(path) as image:
        upright = image.size[::-1] if exif_of(image).get(_ORIENTATION) in _SWAPPED else None
        return Header(image.size, has_alpha(image), _is_deep(image, path), upright)


def decode(job: Decode, channels: int) -> np.ndarray:
    """[height, width, channels] uint8; BadInput where the file is truncated or damaged.

    A `size` below the file's averages over areas, with alpha premultiplied.
    """
    from PIL import Image, ImageOps

    with open_image(job.path) as image:
        stored = image.size
        # A JPEG is decoded at the eighths of its size that still suffice; a quarter of the pixels, a third of the time.
        image.draft(None, job.size[::-1] if job.turned else job.size)
        if job.turned:
            image = ImageOps.exif_transpose(image)
        image = eight_bit(image)
        image = image.convert("RGBA" if channels == 4 or "transparency" in image.info else "RGB")
        if image.size != job.size:
            image = image.resize(job.size, Image.Resampling.BOX)
        pixels = np.asarray(image.convert("RGBA" if channels == 4 else "RGB"))
    if channels == 4 and job.mask is not None and job.mask.transparent:
        pixels = pixels.copy()
        pixels[..., 3] = np.minimum(pixels[..., 3], decode_mask(job.mask, stored, job.size, job.turned))
    return pixels


def kept_spans(job: Decode) -> np.ndarray:
    """[S, 2] int64: the runs (first, past the last) of pixels, counted row by row, that the image's mask does not have
    ignored. A pixel is kept where three quarters of it are."""
    if job.mask is None or job.mask.transparent:
        return np.array([[0, job.size[0] * job.size[1]]], dtype=np.int64)
    with open_image(job.path) as image:
        stored = image.size
    return spans_of(decode_mask(job.mask, stored, job.size, job.turned).ravel() >= 192)


def decode_all(jobs: Sequence[Decode], channels: int) -> Images:
    """All images into one buffer. BadInput, with a way out, where it would not fit into memory."""
    _check_memory([job.size for job in jobs], channels)
    images = Images.allocate([job.size for job in jobs], channels)

    def fill(i: int) -> np.ndarray:
        images[i].numpy()[:] = decode(jobs[i], channels)
        return kept_spans(jobs[i]) + int(images.offset[i])

    with ThreadPoolExecutor(min(DECODING_THREADS, os.cpu_count() or 1)) as pool:
        spans = list(pool.map(fill, range(len(jobs))))  # iterating raises what a thread raised
    if all(job.mask is None or job.mask.transparent for job in jobs):
        return images
    return replace(images, spans=torch.from_numpy(np.concatenate(spans)))


def write_png(path: Path, image: np.ndarray | torch.Tensor) -> None:
    """Writes [height, width, 3 or 4] uint8 as PNG."""
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(image)).save(path, "PNG")


def _is_deep(image, path: Path) -> bool:
    if image.format == "PNG":  # Pillow's mode does not tell: 16-bit RGB files open as 8-bit RGB
        with open(path, "rb") as file:
            return file.read(25)[24] == 16
    return image.mode.startswith(("I", "F"))


def machine_memory() -> int | None:
    """Bytes of memory that this machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _check_memory(sizes: Sequence[tuple[int, int]], channels: int) -> None:
    memory = machine_memory()
    if memory is None:
        return
    need = channels * sum(w * h for w, h in sizes)
    if need > 0.8 * memory:
        raise BadInput(
            f"the decoded images need {need / 2**30:.1f} GiB and this machine has {memory / 2**30:.1f} GiB; "
            "load them smaller (max_size)"
        )


def _unreadable(path: Path, error: Exception) -> BadInput:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadInput(f"{path} cannot be read as an image: {reason}")
