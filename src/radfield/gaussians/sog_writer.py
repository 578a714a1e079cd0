"""SOG files (sog.py says what they hold) written, of version 2 or 1: a .sog zip, or a meta.json with images beside it.

Pixel i of each image is Gaussian i, so that images compress as well as neighbours in the order of the scene are alike:
order.py sorts along a Morton curve, plas.py on the grid of the images itself.

Exact to half a step: n = sign(p) ln(1 + |p|) of positions 1 / 65535 of its extent, quaternions 1/255 / sqrt(2),
opacities 1/255. Version 2: log scales and colours are the nearest of a codebook of 256, harmonics those of a palette of
at most 65,536 entries, with numbers of another codebook. Version 1: log scales, colours and opacities' logits in 255
equal steps over their extent, as are the palette's numbers. Harmonics above degree 3 are left out.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..atomic import replacing_file
from ..errors import BadInput, warn
from ..renderers.gaussian_color import rest_rows
from .order import grid_width
from .packing import rows, smallest_three, to_bytes, unit_quaternions
from .palette import codebook, nearest_codes, palette
from .scene import GaussianScene
from .untrusted import finite

VERSIONS = (1, 2)
_PALETTE_ROW = 64  # entries of a palette side by side
_MOST_BANDS = 3
_EFFORT = {"method": 4, "quality": 60}  # of WebP without loss: how long it searches
_QUICK_EFFORT, _MANY = {"method": 1, "quality": 20}, 1 << 19  # and for images of more pixels than these


def write_sog(path: Path, scene: GaussianScene, version: int = 2) -> None:
    """Writes a .sog file, or the files of a meta.json, each atomically and meta.json last. Raises `BadInput` for
    another version than 1 and 2, and for a scene without Gaussians."""
    if version not in VERSIONS:
        raise BadInput(f"{path}: the version is {version}; the rule: 1 or 2 for SOG")
    scene = finite(path, scene)
    if not len(scene):
        raise BadInput(f"{path}: there is no Gaussian to write; the rule: a SOG file has at least one")
    if scene.degree > _MOST_BANDS:
        warn(f"{path}: SOG holds harmonics up to degree {_MOST_BANDS}; those of degree {scene.degree} are left out")
        scene = replace(scene, rest=scene.rest[: rest_rows(_MOST_BANDS)])
    meta, images = _contents(scene, version)
    packed = _compressed(images)
    packed["meta.json"] = json.dumps(meta, separators=(",", ":")).encode()
    if path.name.lower().endswith(".json"):
        for name, content in packed.items():
            with replacing_file(path if name == "meta.json" else path.with_name(name)) as file:
                file.write(content)
        return
    with replacing_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in packed.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


def _contents(scene: GaussianScene, version: int) -> tuple[dict, dict[str, np.ndarray]]:
    """(meta.json, the images' bytes by name: [G, 3 or 4], but the palette's as its image)."""
    codes, low, high = _position_codes(rows(scene.means))
    images = {"means_l": (codes & 255).astype(np.uint8), "means_u": (codes >> 8).astype(np.uint8)}
    images["quats"] = _turn_codes(unit_quaternions(scene))
    scales, colors, logits = rows(scene.log_scales), rows(scene.base), rows(scene.opacity_logits[None])
    meta = {"means": _bounds(low, high), "quats": {}, "scales": {}, "sh0": {}}
    if version == 2:
        images["scales"], meta["scales"]["codebook"] = _by_codebook(scales)
        color_codes, meta["sh0"]["codebook"] = _by_codebook(colors)
        images["sh0"] = np.concatenate([color_codes, to_bytes(255 / (1 + np.exp(-logits)))], 1)
    else:
        images["scales"], meta["scales"] = _by_bounds(scales)
        images["sh0"], meta["sh0"] = _by_bounds(np.concatenate([colors, logits], 1))
    if scene.degree:
        meta["shN"], images["shN_centroids"], images["shN_labels"] = _harmonics(scene, version)
    for key, names in _files(images).items():
        meta[key]["files"] = [f"{name}.webp" for name in names]
    return _described(meta, len(scene), scene.degree, version), images


def _files(images) -> dict[str, list[str]]:
    """The images of each key of meta.json: means_l belongs to means."""
    found: dict[str, list[str]] = {}
    for name in images:
        found.setdefault(name.partition("_")[0], []).append(name)
    return found


def _described(meta: dict, count: int, degree: int, version: int) -> dict:
    from .. import __version__

    if version == 2:
        if degree:
            meta["shN"]["bands"] = degree
        return {"version": 2, "asset": {"generator": f"radfield {__version__}"}, "count": count, **meta}
    for key, shape in (("means", [3]), ("quats", [4]), ("scales", [3]), ("sh0", [1, 4]), ("shN", [rest_rows(degree)])):
        if key in meta:
            meta[key] |= {"shape": [count, *shape], "dtype": "float32"}
    meta["quats"] |= {"dtype": "uint8", "encoding": "quaternion_packed"}
    return meta


def _position_codes(means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([G, 3] of 16 bits, least and most n [3])."""
    n = np.sign(means) * np.log1p(np.abs(means))
    low, high = n.min(0), n.max(0)
    return np.floor(65535 * (n - low) / _extent(low, high) + 0.5).astype(np.uint16), low, high


def _extent(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.where(high > low, high - low, 1)


def _turn_codes(turns: np.ndarray) -> np.ndarray:
    """[G, 4] bytes of quaternions [G, 4] (w, x, y, z) of length 1."""
    left_out, three = smallest_three(turns)
    return np.concatenate([to_bytes(255 * (three / 2**0.5 + 0.5)), (252 + left_out[:, None]).astype(np.uint8)], 1)


def _by_codebook(values: np.ndarray) -> tuple[np.ndarray, list[float]]:
    book = codebook(values)
    return nearest_codes(values, book), book.tolist()


def _by_bounds(values: np.ndarray) -> tuple[np.ndarray, dict]:
    low, high = values.min(0), values.max(0)
    return to_bytes(255 * (values - low) / _extent(low, high)), _bounds(low, high)


def _bounds(low: np.ndarray, high: np.ndarray) -> dict:
    return {"mins": low.tolist(), "maxs": high.tolist()}


def _harmonics(scene: GaussianScene, version: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """(shN of meta.json, the palette's image [rows, columns, 3], labels [G, 3])."""
    entries, labels = palette(scene.rest.detach().T.contiguous(), palette_size(len(scene)))
    each = len(scene.rest) // 3
    values = entries.numpy()
    if version == 2:
        codes, book = _by_codebook(values)
        about = {"count": len(entries), "codebook": book}
    else:
        codes, bounds = _by_bounds(values.reshape(-1, 1).astype(np.float64))
        about = {key: value[0] for key, value in bounds.items()} | {"quantization": 8}
    image = np.zeros((-(-len(entries) // _PALETTE_ROW) * _PALETTE_ROW, each, 3), np.uint8)
    image[: len(entries)] = codes.reshape(-1, each, 3)
    labels = labels.numpy()
    bytes_of = np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], 1).astype(np.uint8)
    return about, image.reshape(-1, _PALETTE_ROW * each, 3), bytes_of


def palette_size(count: int) -> int:
    """Entries of the palette of so many Gaussians: about an eighth, 1024 or its doubles, at most 65,536. (Those of
    splat-transform, eight times as many up to there, are most of the file.)"""
    return 1024 * min(64, 1 << max(0, int(math.log2(count / 8192)))) if count > 1024 else count


def _compressed(images: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The images as files, by their names."""
    with ThreadPoolExecutor(2) as pool:  # the encoder works without Python's lock
        return dict(zip((f"{name}.webp" for name in images), pool.map(_webp, images.values()), strict=True))


def _webp(values: np.ndarray) -> bytes:
    """A WebP file without loss of [G, n] bytes, row by row, or of an image [rows, columns, n]."""
    from PIL import Image

    if values.ndim == 2:
        width = grid_width(len(values))
        image = np.zeros((-(-len(values) // width) * width, values.shape[1]), np.uint8)
        image[: len(values)] = values
        values = image.reshape(-1, width, values.shape[1])
    if max(values.shape[:2]) > 16383:
        raise BadInput(f"an image has {values.shape[1]} x {values.shape[0]} pixels; the rule: at most 16383 a side")
    out, effort = io.BytesIO(), _QUICK_EFFORT if values.shape[0] * values.shape[1] > _MANY else _EFFORT
    Image.fromarray(values).save(out, "WEBP", lossless=True, exact=True, **effort)
    return out.getvalue()
