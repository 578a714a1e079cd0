"""Files that a capture names: found inside its folder, never outside, and what is missing told once."""

import os
import posixpath
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadInput, warn

#: endings of image files, in lower case
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Tried in this order after names without one; cameras write capitals.
_TRIED = (*IMAGE_SUFFIXES[:3], ".PNG", ".JPG", ".JPEG", *IMAGE_SUFFIXES[3:])
#: what is left of a COLMAP model, where it is no whole one
REMNANTS = ("sparse", "colmap", "cameras.bin", "cameras.txt")


@dataclass
class Missing:
    """Counts the images that a capture lists, and keeps the names of those that do not exist."""

    listed: int = 0
    names: list[str] = field(default_factory=list)

    def find(self, folder: Path, name: str, where: str) -> Path | None:
        """The image `name` below `folder`, counted; None, and noted, where there is none."""
        self.listed += 1
        path = find_image(folder, name, where)
        if path is None:
            self.names.append(name)
        return path

    def announce(self) -> None:
        """One warning for all of them."""
        if self.names:
            names = ", ".join(self.names[:3]) + (", ..." if len(self.names) > 3 else "")
            warn(f"{len(self.names)} of {self.listed} images do not exist and are skipped: {names}")

    def refuse_all(self, source: str) -> None:
        """BadInput where none of the listed images exists."""
        if self.listed and len(self.names) == self.listed:
            raise BadInput(f"none of the {self.listed} images in {source} exists (first: {self.names[0]})")


def tidy(name: str) -> str:
    """A relative path in one form: forward slashes, no `.` and no `a/..`."""
    return posixpath.normpath(name.replace("\\", "/"))


def find_image(folder: Path, name: str, where: str) -> Path | None:
    """The file that a capture calls `name`, with or without extension, or None where there is none.

    BadInput for a name that leaves the folder: a downloaded capture must not reach the user's other files.
    """
    name = tidy(name)
    if posixpath.isabs(name) or os.path.isabs(name) or name == ".." or name.startswith("../"):
        raise BadInput(f"{where}: file_path leaves the capture's folder; images must lie inside it")
    for extension in ("", *_TRIED):
        path = os.path.join(folder, name + extension)
        if os.path.isfile(path):
            return Path(path)
    return None


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def read_bytes(path: Path) -> bytes:
    """A file's content; BadInput where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
