"""Single pictures of any depth as arrays, read strip by strip, and written: PNG, JPEG, TIFF, WebP, GIF by libvips, EXR
by OpenEXR. Captures are read elsewhere (images.py): their images are small and of 8 bits.

Values are those of the file: uint8 and uint16 sRGB, float32 linear. Letters: H x W pixels, C channels: 1 or 3, and one
more for straight alpha.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..atomic import replacing
from ..errors import BadInput, warn
from ..srgb import decode_srgb, encode_srgb

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".exr")
WRITTEN = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr")
PYRAMID_TILE = 512
LARGEST = {np.uint8: 255, np.uint16: 65535}
_STRIP_BYTES = 1 << 25
#: an EXR file is decoded at once: one that claims to be this much larger than it is, is refused
_EXR_RATIO, _EXR_FREE = 1000, 1 << 26


@dataclass(frozen=True)
class Picture:
    """values: [H, W, C] uint8, uint16 or float32, in memory or in a file (np.memmap)."""

    values: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(W, H)."""
        return self.values.shape[1], self.values.shape[0]

    @property
    def channels(self) -> int:
        return self.values.shape[2]

    @property
    def kind(self) -> str:
        """uint8, uint16 or float32."""
        return self.values.dtype.name

    @property
    def color_space(self) -> str:
        return "linear" if self.kind == "float32" else "sRGB"

    def peak(self) -> float:
        """What 1 stands for: the largest value that integers have, of floats the largest there is (1 where none is
        positive)."""
        if self.kind != "float32":
            return float(LARGEST[self.values.dtype.type])
        return max(float(part.max()) for part in _strips(self.values)) or 1.0


def read_picture(path: Path, cache: Path, memory: int, disk: int) -> Picture:
    """The picture of a file, upright; of several frames the first. What takes more than `memory` bytes is decoded into
    the file `cache`, of at most `disk` bytes. Raises `BadInput` for what is no picture, cut short, or not finite."""
    if path.suffix.lower() not in ENDINGS:
        raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: {', '.join(ENDINGS)}")
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file")
    values = _read_exr(path, memory) if path.suffix.lower() == ".exr" else _read_vips(path, cache, memory, disk)
    if values.dtype == np.float32:
        wrong = sum(int((~np.isfinite(part)).sum()) for part in _strips(values))
        if wrong:
            raise BadInput(f"{path}: {wrong} of its {values.size} values are not finite; the rule: finite ones")
        if min(float(part.min()) for part in _strips(values)) < 0:
            warn(f"{path}: has negative values, which are kept")
    return Picture(_without_opaque_alpha(values))


def _without_opaque_alpha(values: np.ndarray) -> np.ndarray:
    """The values without an alpha that says nothing; as they are where they lie on the disk."""
    opaque = LARGEST.get(values.dtype.type, 1)
    if values.shape[2] not in (2, 4) or isinstance(values, np.memmap):
        return values
    if any(bool((part[..., -1] != opaque).any()) for part in _strips(values)):
        return values
    return np.ascontiguousarray(values[..., :-1])


def _strips(values: np.ndarray):
    rows = max(1, _STRIP_BYTES // max(values[:1].nbytes, 1))
    for y in range(0, len(values), rows):
        yield values[y : y + rows]


def vips():
    """The library that reads and writes pictures, without its readers of formats that are not for files of strangers.
    Raises `BadInput` where it is not installed."""
    try:
        import pyvips
    except ImportError:
        raise BadInput("pyvips is not installed; the rule: pip install 'radfield[images]'") from None
    pyvips.block_untrusted_set(True)
    return pyvips


def _read_vips(path: Path, cache: Path, memory: int, disk: int) -> np.ndarray:
    pyvips = vips()
    try:
        image = pyvips.Image.new_from_file(str(path), access="sequential", fail_on="error")
        frames = image.get("n-pages") if image.get_typeof("n-pages") else 1
        if frames > 1:
            warn(f"{path}: has {frames} frames or pages; the first is taken")
        if image.get_typeof("orientation") and image.get("orientation") != 1:
            image = pyvips.Image.new_from_file(str(path), fail_on="error").autorot()
        return _decoded(path, _in_known_form(path, image), cache, memory, disk)
    except pyvips.Error as error:
        raise BadInput(f"{path}: cannot be read as a picture: {_line(error)}") from None


def _line(error: Exception) -> str:
    """A library's message in one line."""
    return " ".join(str(getattr(error, "detail", "") or error).split())[:160]


def _in_known_form(path: Path, image):
    """Grey or RGB, of 8 or 16 bits or float."""
    if image.interpretation in ("cmyk", "lab", "labs", "hsv", "xyz"):
        image = image.colourspace("srgb")
    if image.format not in ("uchar", "ushort", "float"):
        if image.format not in ("double", "uint", "int"):
            raise BadInput(f"{path}: its values are {image.format}; the rule: 8 or 16 bits, or 32-bit floats")
        image = image.cast("float")
    if image.bands not in (1, 2, 3, 4):
        raise BadInput(f"{path}: has {image.bands} channels; the rule: grey or RGB, with or without alpha")
    return image


def _decoded(path: Path, image, cache: Path, memory: int, disk: int) -> np.ndarray:
    """All pixels, decoded before memory or disk is taken for what follows them: a header may claim anything."""
    width, height, bands = image.width, image.height, image.bands
    dtype = np.dtype({"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}[image.format])
    row = width * bands * dtype.itemsize
    if height * row > max(disk, memory):
        raise BadInput(f"{path}: {width} x {height} pixels take {height * row} bytes; the rule: --cache-gb has room")
    rows = max(1, _STRIP_BYTES // row)
    region = vips().Region.new(image)  # one thread that asks in order, as a sequential reader wants it
    strips = (region.fetch(0, y, width, min(rows, height - y)) for y in range(0, height, rows))
    if height * row <= memory:
        return np.frombuffer(bytearray().join(strips), dtype).reshape(height, width, bands)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cache) as temporary, open(temporary, "wb") as file:
        for strip in strips:
            file.write(strip)
    return np.memmap(cache, dtype, "c", shape=(height, width, bands))


def _exr():
    try:
        import OpenEXR
    except ImportError:
        raise BadInput("OpenEXR is not installed; the rule: pip install 'radfield[images]'") from None
    return OpenEXR


def _read_exr(path: Path, memory: int) -> np.ndarray:
    exr, size = _exr(), path.stat().st_size
    try:
        header = exr.File(str(path), header_only=True).header()
        low, high = header["dataWindow"]
        claimed = 4 * math.prod(int(b) - int(a) + 1 for a, b in zip(low, high, strict=True)) * len(header["channels"])
        if not 0 < claimed <= min(memory, max(_EXR_RATIO * size, _EXR_FREE)):
            raise BadInput(f"{path}: claims {claimed} bytes of pixels in {size} of its own; the rule: fewer")
        channels = exr.File(str(path)).channels()
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read as an EXR picture: {_line(error)}") from None
    for name in ("RGBA", "RGB", "Y"):
        if name in channels:
            values = np.asarray(channels[name].pixels, dtype=np.float32)
            values = values[..., None] if values.ndim == 2 else values
            if name != "Y" or "A" not in channels:
                return values
            return np.concatenate([values, np.asarray(channels["A"].pixels, np.float32)[..., None]], -1)
    raise BadInput(f"{path}: its channels are {', '.join(channels)!s:.80}; the rule: RGB, RGBA or Y")


def encoded(values: np.ndarray) -> np.ndarray:
    """Linear values as sRGB in [0, 1], alpha as it is."""
    return _converted(values, encode_srgb)


def write_pyramid(path: Path, values: np.ndarray) -> None:
    """[H, W, 3] uint8 as JPEG tiles, each level half of the next ("deep zoom"): path_files/LEVEL/COLUMN_ROW.jpg."""
    options = {"suffix": ".jpg[Q=90]", "tile_size": PYRAMID_TILE, "overlap": 0, "depth": "onepixel"}
    pyvips = vips()
    shutil.rmtree(f"{path}_files", ignore_errors=True)
    try:
        _vips_image(pyvips, values).dzsave(str(path), **options)
    except pyvips.Error as error:
        raise BadInput(f"{path}: could not be written: {_line(error)}") from None


def check_written(path: Path) -> None:
    """Raises `BadInput` for an ending that `write_picture` does not know."""
    if path.suffix.lower() not in WRITTEN:
        raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: {', '.join(WRITTEN)}")


def write_picture(path: Path, values: np.ndarray) -> None:
    """Writes [H, W, C] uint8, uint16 or float32 in the format of the ending, atomically: JPEG in 8 bits and without
    alpha, PNG in 8 or 16, TIFF as it is, EXR in floats. Linear and sRGB values are converted where the format wants the
    other, clipped to [0, 1]."""
    check_written(path)
    ending = path.suffix.lower()
    if ending == ".exr":
        return _write_exr(path, values)
    if values.dtype == np.float32 and ending in (".png", ".jpg", ".jpeg"):
        values = integers(encoded(values), np.uint16 if ending == ".png" else np.uint8)
    if ending in (".jpg", ".jpeg"):
        values = values[..., : 3 if values.shape[2] > 2 else 1]
        values = values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)
    options = {"Q": 92} if ending in (".jpg", ".jpeg") else {}
    if ending in (".tif", ".tiff"):
        options = {"compression": "deflate", "bigtiff": values.nbytes > 1 << 31}
    pyvips = vips()
    with replacing(path) as temporary:
        try:
            _vips_image(pyvips, values).write_to_file(str(temporary), **options)
        except pyvips.Error as error:
            raise BadInput(f"{path}: could not be written: {_line(error)}") from None


def jpeg_bytes(values: np.ndarray, quality: int) -> bytes:
    """A JPEG of [H, W, C] uint8 without its alpha, colours at half resolution as JPEG does by default."""
    values = values[..., : 3 if values.shape[2] > 2 else 1]
    return _vips_image(vips(), values).jpegsave_buffer(Q=quality, optimize_coding=True)


def decoded_jpeg(content: bytes) -> np.ndarray:
    """[H, W, C] uint8 of a JPEG of our own."""
    image = vips().Image.new_from_buffer(content, "")
    return np.frombuffer(image.write_to_memory(), np.uint8).reshape(image.height, image.width, image.bands)


def _vips_image(pyvips, values: np.ndarray):
    height, width, bands = values.shape
    form = {np.uint8: "uchar", np.uint16: "ushort", np.float32: "float"}[values.dtype.type]
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(values).data, width, height, bands, form)
    if values.dtype == np.float32:
        return image
    wide = values.dtype == np.uint16
    return image.copy(interpretation=("grey16" if wide else "b-w") if bands < 3 else ("rgb16" if wide else "srgb"))


def integers(values: np.ndarray, kind: type) -> np.ndarray:
    """Values in [0, 1] as integers of all the range of `kind`."""
    return (values.clip(0, 1) * LARGEST[kind] + 0.5).astype(kind)


def _converted(values: np.ndarray, convert) -> np.ndarray:
    """The colours converted, alpha as it is."""
    out = np.array(values, np.float32)
    colors = out[..., : 3 if out.shape[2] > 2 else 1]
    colors[...] = convert(torch.from_numpy(colors.clip(0, 1))).numpy()
    return out


def _write_exr(path: Path, values: np.ndarray) -> None:
    exr = _exr()
    if values.dtype != np.float32:
        values = _converted(values.astype(np.float32) / LARGEST[values.dtype.type], decode_srgb)
    channels = {1: "Y", 2: "Y", 3: "RGB", 4: "RGBA"}[values.shape[2]]
    planes = {channels: np.ascontiguousarray(values if values.shape[2] > 2 else values[..., 0])}
    if values.shape[2] == 2:
        planes["A"] = np.ascontiguousarray(values[..., 1])
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with replacing(path) as temporary:
        exr.File(header, planes).write(str(temporary))
