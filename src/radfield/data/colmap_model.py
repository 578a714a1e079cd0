"""A COLMAP model as its files have it: cameras, images and points3D, each .bin or .txt (little-endian, no padding).

cameras.bin   u64 count; per camera u32 id, i32 model, u64 width, u64 height, double parameters (MODELS says how many)
images.bin    u64 count; per image u32 id, double qw qx qy qz tx ty tz (world to camera), u32 camera id, name ending in
              a zero byte, u64 count of keypoints, each double x, y, u64 point id
points3D.bin  u64 count; per point u64 id, double xyz, u8 rgb, double error, u64 track length, each u32 image id, u32
              index of the keypoint

The text forms have the same fields separated by blanks, `#` before comments, two lines per image. Source: COLMAP's
documentation of its output format. A count is checked against what the file can hold before anything is made of it.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadInput
from .paths import read_bytes, tidy
from .points import Points

#: id of a camera model in binary files -> (its name, number of parameters)
MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
}
_COUNTS = dict(MODELS.values())
PARTS = ("cameras", "images", "points3D")


@dataclass(frozen=True)
class ColmapCamera:
    """size: (width, height); params: in COLMAP's order for `model`."""

    model: str
    size: tuple[int, int]
    params: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """rotation: (qw, qx, qy, qz), translation: world to camera; id: what tracks refer to."""

    id: int
    name: str
    camera: int
    rotation: tuple[float, float, float, float]
    translation: tuple[float, float, float]


def read_cameras(folder: Path) -> dict[int, ColmapCamera]:
    """The cameras of a model by id."""
    return _read(folder, "cameras", _cameras_binary, _cameras_text)


def read_images(folder: Path) -> list[ColmapImage]:
    """The images of a model in the file's order; their keypoints are skipped."""
    return _read(folder, "images", _images_binary, _images_text)


def read_points(folder: Path, images: list[ColmapImage]) -> Points | None:
    """The model's points with their visibility, or None where there is no points3D."""
    if not any((folder / f"points3D.{e}").is_file() for e in ("bin", "txt")):
        return None
    rows = _read(folder, "points3D", _points_binary, _points_text)
    index = {image.id: i for i, image in enumerate(images)}
    tracks = [sorted({index[i] for i in track if i in index}) for _, _, track in rows]
    start = np.concatenate(([0], np.cumsum([len(t) for t in tracks]))).astype(np.int64)
    return Points(
        np.array([position for position, _, _ in rows], dtype=np.float64).reshape(-1, 3),
        np.array([color for _, color, _ in rows], dtype=np.uint8).reshape(-1, 3),
        start,
        np.array([i for t in tracks for i in t], dtype=np.int32),
        tuple(tidy(image.name) for image in images),
    ).finite()


def _read(folder: Path, part: str, binary: Callable, text: Callable):
    for extension, parse in (("bin", binary), ("txt", text)):
        path = folder / f"{part}.{extension}"
        if not path.is_file():
            continue
        try:
            content = _Bytes(read_bytes(path), str(path)) if extension == "bin" else _lines(path)
            return parse(content)
        except (ValueError, IndexError, OverflowError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{path} is damaged: {error}") from None
    raise BadInput(f"{folder} lacks {part}.bin (or {part}.txt); a COLMAP model is cameras, images and points3D")


class _Bytes:
    """Fields one after the other; BadInput where the file ends before them."""

    def __init__(self, data: bytes, where: str):
        self.data, self.where, self.at = data, where, 0

    def take(self, form: str) -> tuple:
        layout = struct.Struct("<" + form)
        return layout.unpack_from(self.data, self.skip(layout.size))

    def skip(self, count: int) -> int:
        """Where the next `count` bytes begin, which are passed over."""
        begin = self.at
        if count > len(self.data) - begin:
            raise BadInput(f"{self.where} ends at byte {len(self.data)}, in the middle of an entry; the file is cut")
        self.at += count
        return begin

    def count(self, least: int, what: str) -> int:
        """A u64 count of entries that take at least so many bytes each."""
        (count,) = self.take("Q")
        left = len(self.data) - self.at
        if count * least > left:
            rule = f"{count} need at least {count * least} bytes and {left} are left"
            raise BadInput(f"{self.where} states {count} {what}; {rule}")
        return count

    def name(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise BadInput(f"{self.where} ends within an image's name; the file is cut")
        return self.data[self.skip(end - self.at + 1) : end].decode("utf-8", "surrogateescape")


def _cameras_binary(file: _Bytes) -> dict[int, ColmapCamera]:
    found = {}
    for _ in range(file.count(24, "cameras")):
        number, model, width, height = file.take("IiQQ")
        if model not in MODELS:
            raise BadInput(f"{file.where}: camera {number} has the model {model}; known are 0 to {max(MODELS)}")
        name, count = MODELS[model]
        found[number] = ColmapCamera(name, (width, height), file.take(f"{count}d"))
    return found


def _images_binary(file: _Bytes) -> list[ColmapImage]:
    found = []
    for _ in range(file.count(73, "images")):
        number, *pose, camera = file.take("I7dI")
        name = file.name()
        file.skip(24 * file.count(24, "keypoints"))
        found.append(ColmapImage(number, name, camera, tuple(pose[:4]), tuple(pose[4:])))
    return found


def _points_binary(file: _Bytes) -> list[tuple]:
    found = []
    for _ in range(file.count(51, "points")):
        _, x, y, z, r, g, b, _ = file.take("Q3d3Bd")
        track = file.count(8, "observations of a point")
        images = np.frombuffer(file.data, "<u4", 2 * track, file.skip(8 * track))[::2]
        found.append(((x, y, z), (r, g, b), images.tolist()))
    return found


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    # (place for messages, line without its end) of every line that is no comment, empty ones included
    text = read_bytes(path).decode("utf-8", "surrogateescape")
    return ((f"{path}: line {i}", line) for i, line in enumerate(text.split("\n"), 1) if not line.startswith("#"))


def _cameras_text(lines) -> dict[int, ColmapCamera]:
    found = {}
    for where, line in lines:
        words = line.split()
        if not words:
            continue
        if len(words) < 4 or words[1] not in _COUNTS or len(words) != 4 + _COUNTS[words[1]]:
            rule = "id, model, width, height and the model's parameters"
            raise BadInput(f"{where} is {line.strip()[:60]!r}; it must have {rule}")
        number, width, height = _numbers(where, int, [words[0], *words[2:4]])
        found[number] = ColmapCamera(words[1], (width, height), tuple(_numbers(where, float, words[4:])))
    return found


def _images_text(lines) -> list[ColmapImage]:
    found = []
    for where, line in lines:
        words = line.strip().split(maxsplit=9)
        if not words:
            continue
        if len(words) != 10:
            raise BadInput(f"{where} is {line.strip()[:60]!r}; it must have id, qw qx qy qz, tx ty tz, camera id, name")
        number, camera = _numbers(where, int, [words[0], words[8]])
        pose = _numbers(where, float, words[1:8])
        found.append(ColmapImage(number, words[9], camera, tuple(pose[:4]), tuple(pose[4:])))
        next(lines, None)  # its keypoints
    return found


def _points_text(lines) -> list[tuple]:
    found = []
    for where, line in lines:
        words = line.split()
        if not words:
            continue
        if len(words) < 8:
            raise BadInput(f"{where} is {line.strip()[:60]!r}; it must have id, x y z, r g b, error and a track")
        color = _numbers(where, int, words[4:7])
        if not all(0 <= c <= 255 for c in color):
            raise BadInput(f"{where} has the colour {color}; it must be from 0 to 255")
        found.append((_numbers(where, float, words[1:4]), color, _numbers(where, int, words[8::2])))
    return found


def _numbers(where: str, kind: type, words: list[str]) -> list:
    try:
        return [kind(word) for word in words]
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None
