"""Reader of Middlebury multi-view captures: NAME_par.txt beside the images.

Its first line is the number of images; every other line `image k11 k12 ... k33 r11 ... r33 t1 t2 t3`, where K [R t]
projects world points to pixels, x to the right and y down from the top left corner. Source: the README of the data
(Seitz et al. 2006). Whether the first pixel's centre is (0, 0) or (0.5, 0.5) it does not say: (0, 0) is taken, as the
authors of its time did. Images that do not exist are skipped with one warning.
"""

import math
from pathlib import Path

import numpy as np

from ..errors import BadInput
from .capture import ALL, Capture, PosedImage, fit_to_file
from .images import read_header
from .lens import Lens
from .masks import find_mask
from .neus import SKEW
from .paths import Missing, read_bytes, tidy
from .poses import checked, rigid_inverse

LOOKS_FOR = "NAME_par.txt (Middlebury)"


def find(path: Path) -> bool:
    """Whether this is such a file, or a folder with it."""
    return path.name.endswith("_par.txt") if path.is_file() else bool(_files(path))


def read(path: Path) -> Capture:
    """The capture; BadInput, in one line, for what is wrong with it."""
    file = path if path.is_file() else _files(path)[0]
    folder = file.parent
    lines = [line.split() for line in read_bytes(file).decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines or len(lines[0]) != 1 or not lines[0][0].isdigit() or int(lines[0][0]) != len(lines) - 1:
        stated = " ".join(lines[0])[:40] if lines else ""
        raise BadInput(
            f"{file} begins with {stated!r} and has {max(len(lines) - 1, 0)} cameras; it must state how many"
        )
    missing, posed = Missing(), []
    for words in lines[1:]:
        if image := _posed(words, folder, file, missing):
            posed.append(image)
    missing.refuse_all(file.name)
    missing.announce()
    return Capture(folder, {ALL: posed}, None, upright=False)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*_par.txt")) if folder.is_dir() else []


def _posed(words: list[str], folder: Path, file: Path, missing: Missing) -> PosedImage | None:
    # The name may hold blanks; the numbers are the last 21 words.
    name, where = " ".join(words[:-21]), f"{file}: {' '.join(words[:-21])}"
    try:
        values = np.array([float(word) for word in words[-21:]])
    except ValueError:
        values = np.array([])
    if not name or values.shape != (21,) or not all(map(math.isfinite, values)):
        raise BadInput(f"{file}: {' '.join(words)[:60]!r} is no camera; it must be an image's name and 21 numbers")
    k, rotation, translation = values[:9].reshape(3, 3), values[9:18].reshape(3, 3), values[18:]
    pose = checked(rigid_inverse(rotation, translation), where)
    if not (k[0, 0] > 0 and k[1, 1] > 0 and abs(k[0, 1]) <= SKEW * k[0, 0]):
        raise BadInput(f"{where}: its intrinsics are {k.tolist()}; focal lengths must be positive, without skew")
    image = missing.find(folder, name, where)
    if image is None:
        return None
    header = read_header(image)
    lens = Lens((k[0, 0], k[1, 1]), (k[0, 2] + 0.5, k[1, 2] + 0.5), header.size, (0.0,) * 6, "perspective")
    return fit_to_file(PosedImage(tidy(name), image, pose, lens, header), find_mask(folder, image.name))
