"""What a folder of bare photographs holds. Sizes are (width, height) in pixels of the upright photograph.

Photographs lie in the folder itself, or in its `images` or `input` folder. Everything else in it is left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ...errors import BadInput, warn
from ..paths import IMAGE_SUFFIXES, REMNANTS
from ..pillow import damage, exif_of

VIDEOS = (".mp4", ".mov", ".m4v")
HEIC = (".heic", ".heif")
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw")
SUBFOLDERS = ("images", "input")
LEAST = 3
# CIPA DC-008: a focal length "in 35 mm film" has the same diagonal field of view on a 36 x 24 mm frame.
FILM_DIAGONAL = math.hypot(36, 24)
_EXIF_FOLDER, _MAKE, _MODEL, _FOCAL, _FOCAL_35MM = 0x8769, 0x010F, 0x0110, 0x920A, 0xA405


@dataclass(frozen=True)
class Photograph:
    """name: of the file. size: upright. turned: by its EXIF orientation. focal: pixels by EXIF, None where it does not
    say. camera: photographs of one camera at one zoom have the same text."""

    name: str
    path: Path
    size: tuple[int, int]
    turned: bool
    focal: float | None
    camera: str


def is_bare(path: Path) -> bool:
    """Whether `path` is a video, or a folder with photographs or videos but no cameras."""
    if path.is_file():
        return path.suffix.lower() in (*VIDEOS, *HEIC, *RAW)
    from ..formats import is_capture  # brings torch, which the child that finds cameras does without

    # Remnants of a COLMAP model are told (`formats.py`) rather than replaced.
    if not path.is_dir() or is_capture(path) or any((path / name).exists() for name in REMNANTS):
        return False
    return any(_files(folder, (*IMAGE_SUFFIXES, *VIDEOS, *HEIC, *RAW)) for folder in _folders(path))


def collect(path: Path) -> tuple[list[Path], list[Path]]:
    """(photographs, videos) that cameras are found for, in order of name: never both. `BadInput` where there are too
    few, or only such as cannot be read."""
    if path.is_file():
        if path.suffix.lower() in VIDEOS:
            return [], [path]
        raise BadInput(
            f"{path} is no folder of photographs and no video; the rule: a folder, or one of {_show(VIDEOS)}"
        )
    if not path.is_dir():
        raise BadInput(f"{path} does not exist; the rule: a folder of photographs, or a video")
    for folder in _folders(path):
        photographs, videos = _files(folder, IMAGE_SUFFIXES), _files(folder, VIDEOS)
        undecodable = _files(folder, (*HEIC, *RAW))
        if not (photographs or videos or undecodable):
            continue
        if undecodable and not videos and len(photographs) < LEAST:
            raise BadInput(_why_not(folder, undecodable))
        if undecodable:
            warn(f"{folder}: {len(undecodable)} HEIC or raw files are left out (first: {undecodable[0].name})")
        return _either(folder, photographs, videos)
    raise BadInput(f"{path} has no photographs; the rule: at least {LEAST} of {_show(IMAGE_SUFFIXES)}")


def describe(files: list[Path]) -> list[Photograph]:
    """The photographs that can be read, with what their headers say; the others are announced and left out."""
    found, damaged = [], []
    for file in files:
        try:
            found.append(_describe(file))
        except BadInput:
            damaged.append(file.name)
    if damaged:
        warn(f"{len(damaged)} of {len(files)} photographs cannot be read and are left out (first: {damaged[0]})")
    if len(found) < LEAST:
        folder = files[0].parent
        raise BadInput(
            f"{folder} has {len(found)} photograph{'s' if len(found) > 1 else ''} that can be read; the rule: at least "
            f"{LEAST} from different places (20 to 100 make a scene)"
        )
    return found


def _either(folder: Path, photographs: list[Path], videos: list[Path]) -> tuple[list[Path], list[Path]]:
    if not photographs:
        return [], videos
    if videos:
        warn(f"{folder}: {len(videos)} videos beside the photographs are left out (first: {videos[0].name})")
    return photographs, []


def _folders(path: Path) -> list[Path]:
    return [path] + [path / name for name in SUBFOLDERS if (path / name).is_dir()]


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    files = [f for f in folder.iterdir() if f.suffix.lower() in endings and not f.name.startswith(".")]
    return sorted(f for f in files if f.is_file())


def _why_not(folder: Path, files: list[Path]) -> str:
    heic = files[0].suffix.lower() in HEIC
    what = "HEIC photographs" if heic else "a camera's raw files"
    how = "export them as JPEG (phones: Settings, Camera, Formats, Most Compatible)" if heic else "develop them to JPEG"
    return f"{folder} has {what} (first: {files[0].name}), which are not read; {how}"


def _describe(path: Path) -> Photograph:
    from ..images import read_header

    header = read_header(path)
    # As the reader of transforms.json decides: turned where that changes the size.
    turned = header.upright is not None and header.upright != header.size
    size = header.upright if turned else header.size
    exif = _exif(path)
    focal_35mm = _positive(exif.get(_FOCAL_35MM))
    focal = focal_35mm * math.hypot(*size) / FILM_DIAGONAL if focal_35mm else None
    zoom = _positive(exif.get(_FOCAL)) or focal_35mm or 0.0
    # Turned photographs are another camera: their principal point has moved with them.
    camera = f"{size} {turned} {exif.get(_MAKE, '')} {exif.get(_MODEL, '')} {zoom:.3f}"
    return Photograph(path.name, path, size, turned, focal, camera)


def _exif(path: Path) -> dict:
    from PIL import Image

    try:
        with Image.open(path) as image:
            exif = exif_of(image)
            return {**exif, **exif.get_ifd(_EXIF_FOLDER)}
    except damage():  # EXIF data are broken in every way; without them the focal length is found from the views
        return {}


def _positive(value) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if 0 < number < math.inf else None


def _show(endings: tuple[str, ...]) -> str:
    return ", ".join(endings)
