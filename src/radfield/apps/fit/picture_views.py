"""What is measured and shown of a fitted picture: PSNR over all pixels, the time of decoding, bytes beside those of a
JPEG of the same quality, the decoded file, a page to zoom into, the report."""

from __future__ import annotations

import math
import time
from importlib import resources

import numpy as np

from ...atomic import write_text
from ...data import picture_files
from ...data.picture_files import Picture
from ...training.run_folder import RunFolder
from ..report.page import write_report
from .picture import Model
from .picture_compact import write_compact

COMPACT = "compact.safetensors"
_STRIP_PIXELS = 1 << 22
_TILE, _SHOWN_TILES = 256, 4
_LARGEST_JPEG = 1 << 26  # pixels of a picture that is compared with JPEGs


def decode(model: Model, size: tuple[int, int], part: tuple[int, int, int, int], out: np.ndarray | None = None):
    """[h, w, C] in the kind of the model's picture: the pixels (x, y, w, h) of the picture at `size`, into `out` where
    one is given."""
    x, y, width, height = part
    rows = max(1, _STRIP_PIXELS // width)
    for begin in range(0, height, rows):
        strip = model.stored(size, (x, y + begin, width, min(rows, height - begin)))
        if out is None:
            out = np.empty((height, width, strip.shape[2]), strip.dtype)
        out[begin : begin + rows] = strip
    return out


def evaluate(folder: RunFolder, model: Model, picture: Picture, figures: dict, stages: dict) -> dict:
    """Decodes and measures, writes picture, page and report, and returns what was found."""
    on_disk = isinstance(picture.values, np.memmap)
    place = folder.cache / "decoded.raw"
    out = np.memmap(place, picture.values.dtype, "w+", shape=picture.values.shape) if on_disk else None
    began = time.perf_counter()
    decoded = decode(model, picture.size, (0, 0, *picture.size), out)
    found = {"decode_seconds": time.perf_counter() - began}
    errors = _errors(decoded, picture, model.peak)
    found["psnr"] = -10 * math.log10(max(_mean(errors, picture.size), 1e-12))
    width, height = picture.size
    found |= {"resolution": f"{width} x {height}", "color_space": model.color_space, "peak": model.peak}
    found |= _bytes(folder, model, picture, found["psnr"])
    ending = ".exr" if picture.kind == "float32" else ".png"
    target = folder.renders / f"decoded{ending}"
    picture_files.write_picture(target, decoded)
    _write_zoom(folder, {"fit": decoded, "truth": picture.values})
    views = _report_views(model, decoded, picture, errors)
    summary = {"name": folder.path.resolve().name, **figures, **found}
    report = write_report(folder, folder.read_metrics(), views, summary, stages)
    if on_disk:
        del decoded, out
        place.unlink()
    return {**found, "decoded": str(target), "report": str(report), "zoom": str(folder.path / "zoom.html")}


def _errors(decoded: np.ndarray, picture: Picture, peak: float) -> np.ndarray:
    """[rows, columns] float64: sums over pixels, of tiles of the picture, of the squared error's mean over channels, in
    parts of the peak."""
    width, height = picture.size
    sums = np.zeros((-(-height // _TILE), -(-width // _TILE)))
    edges = np.arange(0, width, _TILE)
    for row, y in enumerate(range(0, height, _TILE)):
        ours, truth = (np.asarray(v[y : y + _TILE], np.float32) for v in (decoded, picture.values))
        error = (np.square((ours - truth) / np.float32(peak)).mean(2)).sum(0, dtype=np.float64)
        sums[row] = np.add.reduceat(error, edges)
    return sums


def _mean(errors: np.ndarray, size: tuple[int, int]) -> float:
    return float(errors.sum()) / (size[0] * size[1])


def _bytes(folder: RunFolder, model: Model, picture: Picture, psnr: float) -> dict:
    """What the field takes as a file, beside the pixels and a JPEG of the same PSNR (None where none is compared)."""
    found = {"raw_bytes": picture.values.nbytes, "compact_bytes": None, "jpeg_bytes": None}
    if model.config.precision == "bf16":
        path = folder.path / COMPACT
        write_compact(path, model)
        found["compact_bytes"] = path.stat().st_size
    comparable = picture.kind == "uint8" and picture.channels in (1, 3)
    if comparable and picture.values.size <= 3 * _LARGEST_JPEG:
        found["jpeg_bytes"] = _jpeg_of(picture.values, psnr)
    return found


def _jpeg_of(values: np.ndarray, psnr: float) -> int | None:
    """Bytes of the smallest JPEG with at least this PSNR, None where no quality reaches it."""
    low, high, best = 1, 100, None
    while low <= high:
        quality = (low + high) // 2
        content = picture_files.jpeg_bytes(values, quality)
        whole = Picture(picture_files.decoded_jpeg(content))
        error = _mean(_errors(values, whole, 255.0), whole.size)
        if -10 * math.log10(max(error, 1e-12)) >= psnr:
            best, high = len(content), quality - 1
        else:
            low = quality + 1
    return best


def _report_views(model: Model, decoded: np.ndarray, picture: Picture, errors: np.ndarray) -> list:
    """(name, ours, truth) of the whole, and of the tiles with the largest errors."""

    def shown(values: np.ndarray) -> np.ndarray:
        return eight_bit(Picture(values)).astype(np.float32) / 255

    step = max(1, max(picture.size) // 1600)
    views = [("the whole picture", shown(decoded[::step, ::step]), shown(picture.values[::step, ::step]))]
    for index in np.argsort(-errors, axis=None)[:_SHOWN_TILES]:
        row, column = np.unravel_index(index, errors.shape)
        y, x = int(row) * _TILE, int(column) * _TILE
        tile = np.s_[y : y + _TILE, x : x + _TILE]
        views.append((f"from ({x}, {y}), among the largest errors", shown(decoded[tile]), shown(picture.values[tile])))
    return views


def eight_bit(picture: Picture) -> np.ndarray:
    """[H, W, 3] uint8 sRGB on white: what a screen shows of a picture."""
    values = picture.values
    if values.dtype == np.uint16:
        values = (values >> 8).astype(np.uint8)
    elif values.dtype == np.float32:
        values = picture_files.integers(picture_files.encoded(values), np.uint8)
    colors = values[..., : 3 if values.shape[2] > 2 else 1]
    if values.shape[2] in (2, 4):
        alpha = values[..., -1:].astype(np.uint16)
        colors = ((colors * alpha + 255 * (255 - alpha)) // 255).astype(np.uint8)
    return np.repeat(colors, 3, 2) if colors.shape[2] == 1 else colors


def _write_zoom(folder: RunFolder, pictures: dict[str, np.ndarray]) -> None:
    """zoom.html: fit and truth side by side at any magnification, from tiles below renders/."""
    for name, values in pictures.items():
        picture_files.write_pyramid(folder.renders / f"zoom_{name}", eight_bit(Picture(values)))
    height, width = next(iter(pictures.values())).shape[:2]
    page = resources.files(__package__).joinpath("zoom.html").read_text(encoding="utf-8")
    page = page.replace("{width}", str(width)).replace("{height}", str(height))
    write_text(folder.path / "zoom.html", page.replace("{tile}", str(picture_files.PYRAMID_TILE)))
