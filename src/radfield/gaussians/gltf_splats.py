"""glTF files of Gaussians (with KHR_gaussian_splatting), written and read: points whose attributes are

    POSITION   ROTATION (x, y, z, w) of length 1   SCALE, linear   OPACITY, 0 to 1   SH_DEGREE_l_COEF_n

as float32, so that what is written loses nothing but rounding, and COLOR_0 (linear light and opacity, in bytes) for
programs that know points alone. A .glb file is one file; a .gltf file is a text, and its numbers are in a .bin beside
it. The axes of glTF are left, up, front; a scene's are right, down, front: half a turn. Harmonics above degree 3 are
left out.

What is read may also be bytes and 16-bit numbers, moved by nodes, and the text may have its numbers inside, in base64.
Untrusted: nothing is read outside of the file's own numbers (gltf_buffers.py), each mesh stands in one place at most,
and there are no more Gaussians than positions of their own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch

from .. import glb
from ..atomic import replacing_file
from ..errors import BadInput, warn
from ..geometry import SceneTransform
from ..renderers.gaussian_color import rest_rows
from ..srgb import decode_srgb
from .gltf_buffers import Buffers
from .gltf_nodes import placed_meshes
from .packing import C0, harmonic_signs, to_bytes, turn_signs
from .scene import DEGREES, GaussianScene, joined
from .untrusted import finite, read_bytes, read_json, sound

EXTENSION = "KHR_gaussian_splatting"
SIGNS = np.array([-1, -1, 1])
_COLOR_SPACES = ("srgb_rec709_display", "lin_rec709_display")
_MOST_BANDS = 3
_LEAST_BYTES = 12  # of a Gaussian: its position
_XYZW = [1, 2, 3, 0]  # of (w, x, y, z)


def _harmonic_names(degree: int) -> list[str]:
    """Attributes of the harmonics of degree 1 and more, in the order of a scene's rows."""
    return [f"{EXTENSION}:SH_DEGREE_{band}_COEF_{n}" for band in range(1, degree + 1) for n in range(2 * band + 1)]


def write_gltf(path: Path, scene: GaussianScene) -> None:
    """Writes a .glb file, or a .gltf file and the .bin beside it, each atomically and that of the name last. Raises
    `BadInput` for a scene without Gaussians, which glTF cannot hold."""
    scene = finite(path, scene)
    if not len(scene):
        raise BadInput(f"{path}: there is no Gaussian to write; the rule: a glTF file has at least one")
    if scene.degree > _MOST_BANDS:
        warn(f"{path}: glTF holds harmonics up to degree {_MOST_BANDS}; those of degree {scene.degree} are left out")
        scene = replace(scene, rest=scene.rest[: rest_rows(_MOST_BANDS)])
    buffer = glb.Buffer()
    about = {"kernel": "ellipse", "colorSpace": _COLOR_SPACES[0], "projection": "perspective"}
    primitive = {"mode": 0, "attributes": _attributes(buffer, scene)}
    primitive["extensions"] = {EXTENSION: about | {"sortingMethod": "cameraDistance"}}
    content = {
        "asset": {"version": "2.0", "generator": "radfield"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
    }
    if path.suffix.lower() != ".gltf":
        with replacing_file(path) as file:
            file.write(glb.packed(content, buffer))
        return
    numbers = path.with_suffix(".bin")
    with replacing_file(numbers) as file:
        file.writelines(buffer.parts)
    with replacing_file(path) as file:
        file.write(glb.described(content, buffer, uri=quote(numbers.name)))


def _attributes(buffer: glb.Buffer, scene: GaussianScene) -> dict[str, int]:
    scene = scene.map(lambda value: value.detach())
    points = _vectors(scene.means, SIGNS)
    turns = torch.nn.functional.normalize(scene.quaternions.double(), dim=0)
    opacity = scene.opacity_logits.double().sigmoid().numpy()
    light = decode_srgb((0.5 + C0 * scene.base).clamp(0, 1)).T.numpy()
    color = to_bytes(255 * np.concatenate([light, opacity[:, None]], 1))
    found = {
        "POSITION": buffer.accessor(points, "VEC3", min=points.min(0).tolist(), max=points.max(0).tolist()),
        "COLOR_0": buffer.accessor(color, "VEC4", normalized=True),
        f"{EXTENSION}:ROTATION": buffer.accessor(_vectors(turns, turn_signs(SIGNS))[:, _XYZW].copy(), "VEC4"),
        f"{EXTENSION}:SCALE": buffer.accessor(_vectors(scene.log_scales.double().exp()), "VEC3"),
        f"{EXTENSION}:OPACITY": buffer.accessor(opacity.astype("<f4"), "SCALAR"),
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": buffer.accessor(_vectors(scene.base), "VEC3"),
    }
    signs = harmonic_signs(len(scene.rest), SIGNS)
    for k, name in enumerate(_harmonic_names(scene.degree)):
        rows = slice(3 * k, 3 * k + 3)
        found[name] = buffer.accessor(_vectors(scene.rest[rows], signs[rows]), "VEC3")
    return found


def _vectors(values: torch.Tensor, signs=None) -> np.ndarray:
    """[n, G] times `signs` [n] -> [G, n] float32."""
    signs = np.ones(len(values)) if signs is None else signs
    return np.ascontiguousarray(values.T.numpy() * signs.astype(values.numpy().dtype), "<f4")


def read_gltf(path: Path) -> GaussianScene:
    """The Gaussians of a .glb or .gltf file, of all its nodes. Raises `BadInput` for what has none, and where an
    attribute is missing or has another type than the extension allows."""
    is_text = path.suffix.lower() == ".gltf"
    content, binary = (read_json(path, read_bytes(path)), None) if is_text else glb.unpacked(path, read_bytes(path))
    asset = content.get("asset")
    version = asset.get("version") if isinstance(asset, dict) else None
    if not isinstance(version, str) or version.partition(".")[0] != "2":
        raise BadInput(f"{path}: asset.version is {version!r:.40}; the rule: 2.0")
    found, buffers = [], Buffers(path, content, binary)
    for mesh, transform in placed_meshes(path, content):
        for primitive in _list(path, mesh, "primitives"):
            about = primitive.get("extensions") if isinstance(primitive, dict) else None
            if isinstance(about, dict) and isinstance(about.get(EXTENSION), dict):
                scene = _Primitive(path, content, buffers, primitive).scene(about[EXTENSION])
                found.append(scene if transform == SceneTransform() else scene.transformed(transform))
                if (count := sum(map(len, found))) * _LEAST_BYTES > buffers.size:  # as primitives may share numbers
                    raise BadInput(f"{path}: has {count} Gaussians in {buffers.size} bytes; the rule: each its own")
    if not found:
        raise BadInput(f"{path}: has no Gaussians; the rule: a glTF file with {EXTENSION}")
    return sound(path, _turned(joined(found)))


def _turned(scene: GaussianScene) -> GaussianScene:
    """Half a turn about z, which leads from glTF's axes to a scene's and back."""

    def signed(values: torch.Tensor, signs: np.ndarray) -> torch.Tensor:
        return values * torch.from_numpy(signs.astype(np.float32))[:, None]

    return replace(
        scene,
        means=signed(scene.means, SIGNS),
        quaternions=signed(scene.quaternions, turn_signs(SIGNS)),
        rest=signed(scene.rest, harmonic_signs(len(scene.rest), SIGNS)),
    )


def _list(path: Path, of: dict, key: str) -> list:
    found = of.get(key, [])
    if not isinstance(found, list):
        raise BadInput(f"{path}: {key} is {found!r:.60}; the rule: a list")
    return found


class _Primitive:
    """A primitive's attributes."""

    def __init__(self, path: Path, content: dict, buffers: Buffers, primitive: dict):
        self.path, self.buffers = path, buffers
        self.accessors, self.views = _list(path, content, "accessors"), _list(path, content, "bufferViews")
        self.attributes = primitive.get("attributes")
        if not isinstance(self.attributes, dict):
            raise self.bad(f"attributes are {self.attributes!r:.60}; the rule: an object")

    def bad(self, text: str) -> BadInput:
        return BadInput(f"{self.path}: {text}")

    def scene(self, about: dict) -> GaussianScene:
        """The Gaussians, in glTF's axes."""
        if (
            about.get("kernel", "ellipse") != "ellipse"
            or about.get("colorSpace", _COLOR_SPACES[0]) not in _COLOR_SPACES
        ):
            said = f"kernel {about.get('kernel')!r:.40}, colorSpace {about.get('colorSpace')!r:.40}"
            raise self.bad(f"has {said}; the rule: ellipse, and {' or '.join(_COLOR_SPACES)}")
        if about.get("colorSpace") == _COLOR_SPACES[1]:
            warn(f"{self.path}: its colours are linear light, read as they are: they will look dark")
        named = lambda name: f"{EXTENSION}:{name}"  # noqa: E731
        means = self.values("POSITION", 3, "f4")
        turns = self.values(named("ROTATION"), 4, "f4", "i1n", "i2n", count=len(means))
        scales = self.values(named("SCALE"), 3, "f4", "u1", "u2", "u1n", "u2n", count=len(means))
        opacity = self.values(named("OPACITY"), 1, "f4", "u1n", "u2n", count=len(means))
        if bool((scales < 0).any()):
            raise self.bad(f"SCALE has {np.nanmin(scales):g}; the rule: not negative")
        with np.errstate(divide="ignore", invalid="ignore"):
            log_scales = np.log(scales)
        return GaussianScene(
            means=_stream(means),
            quaternions=_stream(turns)[[3, 0, 1, 2]],
            log_scales=_stream(log_scales),
            opacity_logits=_stream(opacity)[0].clamp(0, 1).logit(),
            base=_stream(self.values(named("SH_DEGREE_0_COEF_0"), 3, "f4", count=len(means))),
            rest=self.harmonics(len(means)),
        )

    def harmonics(self, count: int) -> torch.Tensor:
        degree = max((d for d in DEGREES.values() if d and _harmonic_names(d)[-1] in self.attributes), default=0)
        values = [_stream(self.values(name, 3, "f4", count=count)) for name in _harmonic_names(degree)]
        return torch.cat(values) if values else torch.zeros(0, count)

    def values(self, name: str, width: int, *types: str, count: int | None = None) -> np.ndarray:
        """[G, width] float32 of an attribute, whose numbers are of one of `types` ("n": normalised)."""
        number = self.attributes.get(name)
        accessor = self.item(name, self.accessors, number)
        code, shape, many = (accessor.get(key) for key in ("componentType", "type", "count"))
        kind = glb.NUMBER_TYPES.get(code) if type(code) is int else None
        form = f"{kind.str[1:] if kind else '?'}{'n' if accessor.get('normalized') is True else ''}"
        if form not in types or shape != glb.SHAPES[width] or "sparse" in accessor:
            said = {key: accessor.get(key) for key in ("componentType", "type", "normalized")}
            raise self.bad(f"{name} has {said!r:.90}; the rule: {width} numbers of {', '.join(types)}, not sparse")
        if type(many) is not int or many < 1 or (count is not None and many != count):
            raise self.bad(f"{name} has count {many!r:.40}; the rule: {'at least 1' if count is None else count}")
        view = self.item(name, self.views, accessor.get("bufferView"))
        values = self.strided(name, view, accessor, kind, many, width).astype(np.float32)
        return np.maximum(values / np.iinfo(kind).max, -1) if form.endswith("n") else values

    def item(self, name: str, items: list, number) -> dict:
        if type(number) is not int or not 0 <= number < len(items) or not isinstance(items[number], dict):
            raise self.bad(f"{name} names {number!r:.40}; the rule: one of {len(items)} accessors or views")
        return items[number]

    def strided(self, name: str, view: dict, accessor: dict, kind: np.dtype, count: int, width: int) -> np.ndarray:
        """[count, width] of a buffer's numbers, which are not copied."""
        number = view.get("buffer")
        start, length = view.get("byteOffset", 0), view.get("byteLength")
        inside, step = accessor.get("byteOffset", 0), view.get("byteStride", kind.itemsize * width)
        whole = all(type(value) is int and 0 <= value < 1 << 40 for value in (start, length, inside, step))
        known = type(number) is int and 0 <= number < len(self.buffers)
        if not known or not whole or step < kind.itemsize * width:
            rule = f"a part of one of {len(self.buffers)} buffers"
            raise self.bad(f"the view of {name} is {view!r:.90}; the rule: {rule}")
        numbers = self.buffers.of(number)
        end = inside + (count - 1) * step + kind.itemsize * width
        if end > length or start + length > len(numbers):
            raise self.bad(f"{name} ends at byte {start + end}; the rule: within its view and {len(numbers)} bytes")
        return np.ndarray((count, width), kind, numbers, start + inside, (step, kind.itemsize))


def _stream(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values.T))
