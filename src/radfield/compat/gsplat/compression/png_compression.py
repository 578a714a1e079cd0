"""`gsplat.compression.PngCompression`: a scene as a folder of PNG images of quantised parameters, in gsplat's layout.

means     sign(x) ln(1 + |x|), 16 bits in two images (means_l.png, means_u.png)
scales, quats (of length 1), opacities, sh0   8 bits, one image each
shN       shN.npz: centroids of a clustering, 6 bits, and labels of 16 bits
others    NAME.npz
meta.json shape, dtype, least and most of each

A folder may be anyone's: no name leaves it, nothing is unpickled, nothing is allocated that the files do not hold.

Letter: N Gaussians, on a grid of side^2 = N.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....atomic import filling
from ....data.array_files import read_npz
from ....data.pillow import damage
from ....errors import BadInput, warn
from ..checks import check_shape, require
from ..utils import inverse_log_transform, log_transform
from .kmeans import clusters
from .sort import sort_splats

MOST_CLUSTERS = 65536
CENTROID_BITS = 6
_BITS = {"means": 16, "scales": 8, "quats": 8, "opacities": 8, "sh0": 8}
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


@dataclass
class PngCompression:
    """Writes and reads such folders. use_sort: whether Gaussians that are alike become neighbours on the images."""

    use_sort: bool = True
    verbose: bool = True

    def compress(self, compress_dir: str | Path, splats: dict[str, Tensor]) -> None:
        """Writes `splats` (as trained: log scales, logits; each [N, ...]) into the folder `compress_dir`; they stay as
        they are. Where N is no square number the least opaque are left out, which is announced. Raises `BadInput`."""
        for name in ("means", "opacities", "quats"):
            require(name in splats, "splats", sorted(splats), f"{name} is in it")
        splats, N = {k: v.detach().cpu() for k, v in splats.items()}, len(splats["means"])
        for name, value in splats.items():
            require(_NAME.fullmatch(name) is not None, "a name in splats", repr(name), "letters, digits and _")
            check_shape(name, value, (N, *value.shape[1:]))
            require(bool(value.isfinite().all()), name, "not finite", "finite numbers")
        splats["means"] = log_transform(splats["means"])
        splats["quats"] = torch.nn.functional.normalize(splats["quats"], dim=-1)
        side = math.isqrt(N)
        if side * side != N:
            warn(f"PngCompression: {N} Gaussians are no square number: the {N - side * side} least opaque are left out")
            kept = splats["opacities"].flatten().argsort(descending=True)[: side * side]
            splats = {k: v[kept] for k, v in splats.items()}
        if self.use_sort and side:
            splats = sort_splats(splats, self.verbose)
        with filling(compress_dir, last="meta.json") as folder:
            meta = {name: _write(folder, name, value, side) for name, value in splats.items()}
            (folder / "meta.json").write_text(json.dumps(meta))

    def decompress(self, compress_dir: str | Path) -> dict[str, Tensor]:
        """The Gaussians of a folder, within their quantisation, on the CPU. Raises `BadInput` for what is none."""
        folder = Path(compress_dir)
        splats = {name: _read(folder, name, each) for name, each in _read_meta(folder / "meta.json").items()}
        if "means" in splats:
            splats["means"] = inverse_log_transform(splats["means"])
        return splats


def _write(folder: Path, name: str, value: Tensor, side: int) -> dict[str, Any]:
    meta: dict[str, Any] = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if not value.numel():
        return meta
    if name == "shN":
        return meta | _write_clusters(folder, name, value)
    if name not in _BITS:
        np.savez_compressed(folder / f"{name}.npz", arr=value.numpy())
        return meta
    grid, bits = value.reshape(side, side, -1).double(), _BITS[name]
    low, high = grid.amin((0, 1)), grid.amax((0, 1))
    codes = _quantised(grid, low, high, bits).numpy()
    for suffix, shift in (("_l", 0), ("_u", 8)) if bits == 16 else (("", 0),):
        _write_png(folder / f"{name}{suffix}.png", (codes >> shift & 255).astype(np.uint8))
    return meta | {"mins": low.tolist(), "maxs": high.tolist()}


def _quantised(values: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """int64 codes of 0 to 2^bits - 1; 0 where least and most are the same."""
    extent = high - low
    return ((values - low) / torch.where(extent > 0, extent, 1.0) * (2**bits - 1)).round().long()


def _write_png(path: Path, codes: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(codes[..., 0] if codes.shape[2] == 1 else codes)).save(path, optimize=True)


def _write_clusters(folder: Path, name: str, value: Tensor) -> dict[str, Any]:
    centers, labels = clusters(value.flatten(1).float(), min(MOST_CLUSTERS, len(value)))
    low, high = centers.min().double(), centers.max().double()
    codes = _quantised(centers.double(), low, high, CENTROID_BITS).numpy().astype(np.uint8)
    np.savez_compressed(folder / f"{name}.npz", centroids=codes, labels=labels.numpy().astype(np.uint16))
    return {"mins": low.item(), "maxs": high.item(), "quantization": CENTROID_BITS}


def _read_meta(path: Path) -> dict[str, dict]:
    try:
        with open(path, "rb") as file:
            meta = json.loads(file.read(1 << 24))
    except OSError as error:
        raise BadInput(f"{path}: could not be read: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path}: is no JSON; the rule: what PngCompression writes") from None
    if not isinstance(meta, dict):
        raise BadInput(f"{path}: is a {type(meta).__name__}; the rule: an object of parameters")
    for name, each in meta.items():
        if not _NAME.fullmatch(name) or not isinstance(each, dict):
            raise BadInput(f"{path}: has the parameter {name!r:.80}; the rule: letters, digits and _, and an object")
        shape = each.get("shape")
        whole = (
            isinstance(shape, list) and 0 < len(shape) < 8 and all(type(n) is int and 0 <= n < 1 << 31 for n in shape)
        )
        if not whole or each.get("dtype") not in _DTYPES:
            rule = f"whole numbers, and one of {', '.join(_DTYPES)}"
            raise BadInput(f"{path}: {name} has shape {str(shape)[:60]} of {each.get('dtype')!r:.20}; the rule: {rule}")
    return meta


def _read(folder: Path, name: str, meta: dict) -> Tensor:
    shape, dtype, where = meta["shape"], _DTYPES[meta["dtype"]], folder / f"{name}.npz"
    if not math.prod(shape):
        return torch.zeros(shape, dtype=dtype)
    if name in _BITS:
        values = _read_images(folder, name, meta)
    elif name == "shN":
        arrays = read_npz(where)
        low, high = _limits(where, meta, 1)
        centers, labels = (_member(where, arrays, key) for key in ("centroids", "labels"))
        if centers.ndim != 2 or labels.ndim != 1 or not ((labels >= 0) & (labels < len(centers))).all():
            raise BadInput(f"{where}: labels are not those of {len(centers)} centroids; the rule: below their number")
        bits = meta.get("quantization")
        if type(bits) is not int or not 1 <= bits <= 16:
            raise BadInput(f"{where}: quantization is {bits!r:.20}; the rule: from 1 to 16 bits")
        values = (low + (high - low) * centers / (2**bits - 1))[labels.astype(np.int64)]
    else:
        values = _member(where, read_npz(where), "arr")
    if values.size != math.prod(shape):
        raise BadInput(f"{folder}: {name} has {values.size} numbers; the rule: {math.prod(shape)}, of shape {shape}")
    return torch.from_numpy(values.reshape(shape)).to(dtype)


def _member(where: Path, arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        raise BadInput(f"{where}: has {', '.join(arrays) or 'nothing'}; the rule: {key} is in it")
    return arrays[key]


def _read_images(folder: Path, name: str, meta: dict) -> np.ndarray:
    bits, whole = _BITS[name], None
    for suffix, shift in (("_l", 0), ("_u", 8)) if bits == 16 else (("", 0),):
        codes = _read_png(folder / f"{name}{suffix}.png", math.prod(meta["shape"])).astype(np.uint16) << shift
        whole = codes if whole is None else whole | codes
    low, high = _limits(folder / f"{name}.png", meta, whole.shape[2])
    return low + (high - low) * whole / (2**bits - 1)


def _read_png(path: Path, count: int) -> np.ndarray:
    """[rows, columns, channels] uint8, of `count` values."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            channels = len(image.getbands())
            if image.width * image.height * channels != count or image.mode not in ("L", "LA", "RGB", "RGBA"):
                said = f"{image.width} x {image.height} {image.mode}"
                raise BadInput(f"{path}: is {said}; the rule: {count} values of 8 bits, as meta.json says")
            return np.asarray(image).reshape(image.height, image.width, channels)
    except BadInput:
        raise
    except damage() as error:
        raise BadInput(f"{path}: is no whole PNG file: {' '.join(str(error).split())[:100]}") from None


def _limits(where: Path, meta: dict, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(least [channels], most [channels])."""
    found = [np.atleast_1d(np.asarray(_numbers(meta.get(key)), dtype=np.float64)) for key in ("mins", "maxs")]
    if any(v.shape != (channels,) or not np.isfinite(v).all() for v in found):
        raise BadInput(f"{where}: mins and maxs are not {channels} finite numbers each; the rule: as many as channels")
    return found[0], found[1]


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    return values if all(type(v) in (int, float) for v in values) else []
