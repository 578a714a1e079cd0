"""A rotating subset of a capture's images in memory, for captures that are larger than it.

S slots, each as large as the largest image, hold S of the V images of a `CachedImages`. Every `interval` steps the
image that has been there longest gives way to the next one of a random order, in which every image comes once per
round; a thread reads it ahead of its time. Which images are there at which step depends on the seed and the step alone:
a resumed run draws the pixels that an uninterrupted one would. Pixels are drawn by `data/pixels.py` from the slots as
from any images, those between an image's end and its slot's being spans that do not count.

Letters: V images, S slots.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .decoded_cache import CachedImages
from .pixels import Pixels, sample_pixels
from .scene import Images


class ResidentImages:
    """S of the V images in memory. `images` are those that are there, on `device`; `view` [S] int64, on the
    CPU, says which they are."""

    def __init__(
        self,
        cache: CachedImages,
        slots: int,
        *,
        seed: int,
        interval: int = 1,
        device: torch.device | str = "cpu",
    ):
        self.cache, self.interval, self.seed = cache, interval, seed
        self.slots = max(1, min(slots, len(cache)))
        self.room = int(cache.size.prod(-1).max())
        self.pixels = torch.zeros(self.slots * self.room, cache.channels, dtype=torch.uint8, device=device)
        self.view = torch.full((self.slots,), -1, dtype=torch.int64)
        self._swaps = -1  # images that have come since the first S
        self._pool = ThreadPoolExecutor(1, "radfield-images")
        self._next: tuple[int, np.ndarray, Future] | None = None
        self._orders: dict[int, Tensor] = {}
        self.images = self._images()

    def at(self, step: int) -> Images:
        """The images that are there at a step; reads what has to come."""
        wanted = step // self.interval if self.slots < len(self.cache) else 0
        if self._swaps != wanted:
            if self._swaps == wanted - 1 and wanted > 0:
                self._take(wanted)
            else:
                self._fill(wanted)
            self._swaps = wanted
            self.images = self._images()
            self._read_ahead(wanted + 1)
        return self.images

    def close(self) -> None:
        """Ends the reading thread."""
        self._pool.shutdown(cancel_futures=True)

    def _fill(self, swaps: int) -> None:
        # All slots as they are after so many swaps: slot s has the last image that came to it.
        for number in range(swaps, swaps + self.slots):
            self._put(number % self.slots, self._at(number))

    def _take(self, swaps: int) -> None:
        number = swaps + self.slots - 1
        slot, image = number % self.slots, self._at(number)
        if self._next is not None and self._next[0] == number:
            _, buffer, reading = self._next
            reading.result()
            self._slot(slot)[: self._count(image)].copy_(torch.from_numpy(buffer[: self._count(image)]))
            self.view[slot] = image
        else:
            self._put(slot, image)

    def _read_ahead(self, swaps: int) -> None:
        if self.slots == len(self.cache):
            return
        buffer = self._next[1] if self._next is not None else np.empty((self.room, self.cache.channels), np.uint8)
        number = swaps + self.slots - 1
        self._next = (number, buffer, self._pool.submit(self.cache.read_into, self._at(number), buffer))

    def _put(self, slot: int, image: int) -> None:
        if int(self.view[slot]) != image:
            there = self._slot(slot)[: self._count(image)]
            read = there if there.device.type == "cpu" else torch.empty_like(there, device="cpu")
            self.cache.read_into(image, read.numpy())
            if read is not there:
                there.copy_(read)
            self.view[slot] = image

    def _slot(self, slot: int) -> Tensor:
        return self.pixels[slot * self.room : (slot + 1) * self.room]

    def _count(self, image: int) -> int:
        return int(self.cache.size[image].prod())

    def _at(self, number: int) -> int:
        """The image that is the number-th to come: round after round, each in a random order of its own."""
        total = len(self.cache)
        turn, place = divmod(number, total)
        if turn not in self._orders:
            generator = torch.Generator().manual_seed((self.seed << 20) + turn)
            self._orders = {k: v for k, v in self._orders.items() if k >= turn - 1}
            self._orders[turn] = torch.randperm(total, generator=generator)
        return int(self._orders[turn][place])

    def _images(self) -> Images:
        offset = torch.arange(self.slots + 1) * self.room
        size = self.cache.size[self.view.clamp_min(0)]
        count = size.prod(-1)
        if self.cache.spans is None and bool((count == self.room).all()):
            return Images(self.pixels, offset, size).to(self.pixels.device)
        if self.cache.spans is None:
            spans = torch.stack((offset[:-1], offset[:-1] + count), 1)
        else:
            parts = [self.cache.spans[i] + s * self.room for s, i in enumerate(self.view.clamp_min(0).tolist())]
            spans = torch.from_numpy(np.concatenate(parts))
        return Images(self.pixels, offset, size, spans).to(self.pixels.device)


def draw_pixels(source: Images | ResidentImages, n: int, *, seed: int, step: int, background: Tensor | None) -> Pixels:
    """`sample_pixels` from all images or from those that are resident at the step; views are the capture's."""
    if isinstance(source, Images):
        return sample_pixels(source, n, seed=seed, step=step, background=background)
    pixels = sample_pixels(source.at(step), n, seed=seed, step=step, background=background)
    return replace(pixels, view=source.view.to(pixels.view.device)[pixels.view.long()].int())


def source_of(
    images: Images | CachedImages, *, seed: int, memory: int | None, device: torch.device | str = "cpu"
) -> Images | ResidentImages:
    """What training pixels are drawn from: `images`, or as many of cached ones as take `memory` bytes, on `device`."""
    if isinstance(images, Images):
        return images.to(device)
    largest = int(images.size.prod(-1).max()) * images.channels
    return ResidentImages(images, max(1, (memory or 0) // largest), seed=seed, device=device)
