"""Whole training views, one after the other: from memory, or from disk, where the next one is read ahead.

Letters: H rows, W columns, C channels.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from .decoded_cache import CachedImages
from .scene import Images


class ViewReader:
    """Hands out the views of `images` on `device`, where those that are in memory stay."""

    def __init__(self, images: Images | CachedImages, device: torch.device | str = "cpu"):
        self.images, self.device = images, device
        if isinstance(images, Images):
            self.images = replace(images, pixels=images.pixels.to(device))
        self._pool = ThreadPoolExecutor(1, "radfield-views") if isinstance(images, CachedImages) else None
        self._next: tuple[int, Future] | None = None

    def __call__(self, view: int, next_view: int) -> tuple[Tensor, Tensor | None]:
        """(pixels [H, W, C] uint8, mask [H, W] uint8 or None) of `view`; mask is 0 where a pixel is ignored. After it
        `next_view` will be wanted, most likely."""
        if self._pool is None:
            return self._view(self.images, view)
        if self._next is not None and self._next[0] == view:
            images = self._next[1].result()
        else:
            images = self.images.only(view)
        self._next = next_view, self._pool.submit(self.images.only, next_view)
        return self._view(images, 0)

    def _view(self, images: Images, view: int) -> tuple[Tensor, Tensor | None]:
        kept = images.kept(view)
        return images[view].to(self.device), None if kept is None else kept.view(torch.uint8).to(self.device)
