"""What the readers of images and the process that finds cameras both know of Pillow's images. It needs no torch."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
# What Pillow raises on damaged files, besides its own error (a subclass of OSError).
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, IndexError, struct.error, zlib.error)
# Asking a PNG for its EXIF data would decode all of it; Pillow turns TIFF files itself.
_PHOTOGRAPHS = ("JPEG", "MPO", "WEBP")


def damage() -> tuple[type[Exception], ...]:
    """What opening and decoding a damaged file, or one that claims to be huge, raises."""
    from PIL import Image

    return (*_DAMAGE, Image.DecompressionBombError)


def has_alpha(image) -> bool:
    """Whether the image carries any transparency."""
    return image.mode in _WITH_ALPHA or "transparency" in image.info


def exif_of(image):
    """The EXIF data of a photograph; empty for formats that have none to speak of."""
    from PIL import Image

    return image.getexif() if image.format in _PHOTOGRAPHS else Image.Exif()


def eight_bit(image):
    """The image with at most 8 bits per channel; ValueError for floating point and 32 bits."""
    # 16-bit greyscale reaches us as integers of up to 65535; Pillow's own conversion would clip them at 255.
    from PIL import Image

    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(f"its mode is {image.mode}; 8 and 16 bits per channel are supported")
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
