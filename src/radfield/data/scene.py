"""What a capture becomes: images in one buffer, views by split, and the scene they stand in.

Letters: V views, P pixels of all images together, C channels (3: RGB; 4: RGB and straight alpha).
Colours are sRGB.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import BadInput
from ..geometry import SceneTransform
from .points import Points

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Images:
    """V images of any sizes, decoded once into one flat buffer, so that a batch of pixels is one gather.

    pixels: [P, C] uint8, image after image, each row by row. offset: [V + 1] int64, where each image
    starts in `pixels` (the last entry is P). size: [V, 2] int64 (width, height). spans: [S, 2] int64, the runs (first,
    past the last) of `pixels` that count, in rising order; the others are ignored. None where all count.
    """

    pixels: Tensor
    offset: Tensor
    size: Tensor
    spans: Tensor | None = None

    @staticmethod
    def allocate(sizes: Sequence[tuple[int, int]], channels: int) -> "Images":
        """Images of the given (width, height)s, not yet filled in."""
        size = torch.tensor(sizes, dtype=torch.int64).view(-1, 2)
        offset = torch.cat((torch.zeros(1, dtype=torch.int64), size.prod(-1).cumsum(0)))
        return Images(torch.empty(int(offset[-1]), channels, dtype=torch.uint8), offset, size)

    @property
    def channels(self) -> int:
        """C: 3, or 4 with alpha."""
        return self.pixels.shape[1]

    def to(self, device: torch.device | str) -> "Images":
        """The same images on `device`; themselves where they are there already."""
        if self.pixels.device == self.offset.device == torch.device(device):
            return self
        spans = None if self.spans is None else self.spans.to(device)
        return replace(
            self, pixels=self.pixels.to(device), offset=self.offset.to(device), size=self.size.to(device), spans=spans
        )

    def __len__(self) -> int:
        return self.size.shape[0]

    def __getitem__(self, i: int) -> Tensor:
        """[H, W, C] uint8, a view of the buffer."""
        i = range(len(self))[i]
        width, height = self.size[i].tolist()
        return self.pixels[self.offset[i] : self.offset[i + 1]].view(height, width, self.channels)

    def kept(self, i: int) -> Tensor | None:
        """[H, W] bool: the pixels of image i that are not ignored; None where all count."""
        if self.spans is None:
            return None
        i = range(len(self))[i]
        begin, end = self.offset[i : i + 2].tolist()
        edges = torch.zeros(end - begin + 1, dtype=torch.int32)
        inside = self.spans[(self.spans[:, 0] < end) & (self.spans[:, 1] > begin)].clamp(begin, end) - begin
        edges.index_add_(0, inside[:, 0], torch.ones(len(inside), dtype=torch.int32))
        edges.index_add_(0, inside[:, 1], -torch.ones(len(inside), dtype=torch.int32))
        width, height = self.size[i].tolist()
        return edges.cumsum(0)[:-1].view(height, width) > 0

    def composited(self, i: int, background: Sequence[float] | Tensor) -> Tensor:
        """[H, W, 3] float32 in [0, 1]: image i over a background colour [3], blended in sRGB."""
        image = self[i].float() / 255
        if self.channels == 3:
            return image
        alpha = image[..., 3:]
        background = torch.as_tensor(background, dtype=torch.float32, device=image.device)
        return image[..., :3] * alpha + background * (1 - alpha)


@dataclass(frozen=True)
class Views:
    """One split: cameras in scene coordinates, their images, and their names (file paths in the capture).

    images is None where `load` was asked for other splits only, and `CachedImages` (`decoded_cache.py`), which answers
    the same questions, where they are on disk.
    """

    cameras: Cameras
    images: Images | None
    names: list[str]

    def __len__(self) -> int:
        return len(self.cameras)


@dataclass(frozen=True)
class Scene:
    """A capture made ready: its splits in scene coordinates, and what to know about them.

    transform: world (the capture's own units) to scene. cascades: how many nested cubes, of sides 1, 2,
    4, ..., hold the scene; 1 for an object in the unit cube. background: what stands behind the
    images, "white" for images with alpha and "black" without. val and test are None where the capture has
    no such split. points: sparse points in scene coordinates, where the capture has any.
    max_size: the longer side that larger images were reduced to.
    """

    name: str
    train: Views
    val: Views | None
    test: Views | None
    transform: SceneTransform
    cascades: int
    background: str
    has_alpha: bool
    path: Path
    points: Points | None = None
    max_size: int | None = None

    def split(self, name: str) -> Views:
        """The split "train", "val" or "test"; BadInput where there is none of that name."""
        if name not in SPLITS:
            raise BadInput(f"split {name!r} does not exist; it must be one of {', '.join(SPLITS)}")
        views = getattr(self, name)
        if views is None:
            has = ", ".join(s for s in SPLITS if getattr(self, s) is not None)
            raise BadInput(f"{self.path} has no {name} views; it has {has}")
        return views
