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
from ..cpu.library import num_threads
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
    packed = _contents(scene, version)
    if path.name.lower().endswith(".json"):
        for name, content in packed.items():
            with replacing_file(path if name == "meta.json" else path.with_name(name)) as file:
                file.write(content)
        return
    with replacing_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in packed.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


def _contents(scene: GaussianScene, version: int) -> dict[str, bytes]:
    """The files by their names, meta.json last. What is of one key of it is made side by side with the others."""
    coders = {"means": _positions, "quats": _turns, "scales": _scales, "sh0": _colors}
    coders |= {"shN": _harmonics} if scene.degree else {}

    def made(coder) -> tuple[dict, dict[str, bytes]]:
        about, images = coder(scene, version)
        return about, {f"{name}.webp": _webp(values) for name, values in images.items()}

    with ThreadPoolExecutor(num_threads()) as pool:  # numpy and the encoder work without Python's lock
        longest_first = {key: pool.submit(made, coders[key]) for key in reversed(coders)}
        found = {key: longest_first[key].result() for key in coders}
    meta = {key: about | {"files": list(files)} for key, (about, files) in found.items()}
    meta = _described(meta, len(scene), scene.degree, version)
    packed = {name: content for _, files in found.values() for name, content in files.items()}
    return packed | {"meta.json": json.dumps(meta, separators=(",", ":")).encode()}


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


#: What follows makes of a scene, for a version: what meta.json has at a key, and the bytes of its images by name, [G, 3
#: or 4], but the palette's as its image.
_Coded = tuple[dict, dict[str, np.ndarray]]


def _positions(scene: GaussianScene, version: int) -> _Coded:
    means = rows(scene.means)
    n = np.sign(means) * np.log1p(np.abs(means))
    low, high = n.min(0), n.max(0)
    codes = np.floor(65535 * (n - low) / _extent(low, high) + 0.5).astype(np.uint16)
    return _bounds(low, high), {"means_l": (codes & 255).astype(np.uint8), "means_u": (codes >> 8).astype(np.uint8)}


def _extent(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.where(high > low, high - low, 1)


def _turns(scene: GaussianScene, version: int) -> _Coded:
    left_out, three = smallest_three(unit_quaternions(scene))
    left_out = (252 + left_out[:, None]).astype(np.uint8)
    return {}, {"quats": np.concatenate([to_bytes(255 * (three / 2**0.5 + 0.5)), left_out], 1)}


def _scales(scene: GaussianScene, version: int) -> _Coded:
    scales = rows(scene.log_scales)
    if version == 2:
        codes, book = _by_codebook(scales)
        return {"codebook": book}, {"scales": codes}
    codes, bounds = _by_bounds(scales)
    return bounds, {"scales": codes}


def _colors(scene: GaussianScene, version: int) -> _Coded:
    colors, logits = rows(scene.base), rows(scene.opacity_logits[None])
    if version == 2:
        codes, book = _by_codebook(colors)
        return {"codebook": book}, {"sh0": np.concatenate([codes, to_bytes(255 / (1 + np.exp(-logits)))], 1)}
    codes, bounds = _by_bounds(np.concatenate([colors, logits], 1))
    return bounds, {"sh0": codes}


def _by_codebook(values: np.ndarray) -> tuple[np.ndarray, list[float]]:
    book = codebook(values)
    return nearest_codes(values, book), book.tolist()


def _by_bounds(values: np.ndarray) -> tuple[np.ndarray, dict]:
    low, high = values.min(0), values.max(0)
    return to_bytes(255 * (values - low) / _extent(low, high)), _bounds(low, high)


def _bounds(low: np.ndarray, high: np.ndarray) -> dict:
    return {"mins": low.tolist(), "maxs": high.tolist()}


def _harmonics(scene: GaussianScene, version: int) -> _Coded:
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
    return about, {"shN_centroids": image.reshape(-1, _PALETTE_ROW * each, 3), "shN_labels": bytes_of}


def palette_size(count: int) -> int:
    """Entries of the palette of so many Gaussians: about an eighth, 1024 or its doubles, at most 65,536. (Those of
    splat-transform, eight times as many up to there, are most of the file.)"""
    return 1024 * min(64, 1 << max(0, int(math.log2(count / 8192)))) if count > 1024 else count


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
