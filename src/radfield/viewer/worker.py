"""Whose picture is drawn next. Every client has one slot with one pending wish: a new one replaces it.

`Worker.work()` does one piece of work (tens of milliseconds) and says whether there was any: first a quick picture for
the camera that moved longest ago, else a piece of a picture that is being refined, in turns. In `radfield view` a
thread of its own calls it; in a training the training's thread does, between two steps, so that a field is never asked
while it changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..cameras import Cameras
from ..renderers.volume import View
from .refine import Picture, refine
from .sources import Look

#: a camera rests when it has not moved for so many seconds
REST = 0.12
#: the longer side of a quick picture, in pixels: the least, and the first guess of rays per second
LEAST_SIDE, FIRST_RATE = 96, 200_000.0


@dataclass(frozen=True)
class Wish:
    """What a client wants to see. camera: V = 1, at full size; side: pixels of the quick picture's longer side at most;
    budget: seconds that one may take."""

    source: object
    look: Look
    camera: Cameras
    budget: float = 1 / 15
    moving: bool = True


class Slot:
    """The pending wish of one client and the picture in the making. show(view, wish, final): sends a picture."""

    def __init__(self, show: Callable[[View, Wish, bool], None]):
        self.show = show
        self.pending: Wish | None = None
        self.current: Wish | None = None
        self.passes: Iterator[Picture | None] | None = None
        self.moved = 0.0  # when the last wish came
        self.rate = FIRST_RATE  # rays per second of quick pictures, measured
        self.side = 0  # of the last quick picture
        self.quiet = False  # a picture of a scene that trains on replaces the last one only when it is whole
        self.whole_at = 0.0  # when the last whole picture was done

    def quick_camera(self, wish: Wish) -> Cameras:
        """The wish's camera at the size that its budget allows."""
        width, height = wish.camera.size[0].tolist()
        pixels = max(wish.budget * self.rate, 1.0)
        side = (pixels * max(width, height) / min(width, height)) ** 0.5
        side = min(max(side // 16 * 16, LEAST_SIDE), max(width, height))
        return wish.camera.scaled(side / max(width, height))


class Worker:
    """The slots of all clients, and background jobs (`jobs`: iterators, advanced when nobody waits for a picture)."""

    def __init__(self):
        self._slots: dict[int, Slot] = {}
        self._lock, self._news = threading.Lock(), threading.Event()
        self._turn = 0
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.jobs: list[Iterator] = []
        self.failed: Callable[[Exception], None] = _raise
        self.moved = 0.0  # when anybody's camera last moved
        self.busy = 0.0  # seconds of work in all

    def open(self, client: int, show: Callable[[View, Wish, bool], None]) -> Slot:
        """A slot for a client."""
        with self._lock:
            slot = self._slots[client] = Slot(show)
        return slot

    def close(self, client: int) -> None:
        """Forgets a client, and what was being drawn for it."""
        with self._lock:
            self._slots.pop(client, None)

    def ask(self, client: int, wish: Wish) -> None:
        """Replaces what the client wants to see."""
        with self._lock:
            slot = self._slots.get(client)
            if slot is None:
                return
            slot.pending, slot.quiet = wish, False
            if wish.moving:
                slot.moved = self.moved = time.monotonic()
        self._news.set()

    def add_job(self, job: Iterator) -> None:
        """Adds work that goes on while nobody waits for a picture; an iterator, a piece of work per step."""
        with self._lock:
            self.jobs.append(job)
        self._news.set()

    def refresh(self, older: float) -> None:
        """Draws anew, without showing anything before it is whole, what was finished longer than `older` seconds ago:
        the scene trains on."""
        now = time.monotonic()
        with self._lock:
            for slot in self._slots.values():
                idle = slot.pending is None and slot.passes is None and slot.current is not None
                if idle and now - slot.whole_at > older:
                    wish = slot.current
                    slot.quiet, slot.passes = True, refine(wish.source, wish.look, wish.camera, 1)

    def waiting(self) -> bool:
        """Whether somebody's camera moved and its picture is not whole yet."""
        with self._lock:
            return any(s.pending is not None or (s.passes is not None and not s.quiet) for s in self._slots.values())

    def clients(self) -> int:
        """How many have a slot."""
        return len(self._slots)

    def work(self) -> bool:
        """Does one piece of work; False where there is none to do now."""
        began = time.monotonic()
        try:
            return self._quick() or self._piece() or self._job()
        except Exception as error:
            self.failed(error)
            return True
        finally:
            self.busy += time.monotonic() - began

    def _quick(self) -> bool:
        with self._lock:
            asking = [s for s in self._slots.values() if s.pending is not None]
            if not asking:
                return False
            slot = min(asking, key=lambda each: each.moved)
            wish, slot.pending = slot.pending, None
            slot.current, slot.passes, slot.quiet = wish, None, False
        camera = slot.quick_camera(wish)
        began = time.monotonic()
        *_, last = refine(wish.source, replace(wish.look, hasty=True), camera, 1)
        took = time.monotonic() - began
        slot.rate = 0.5 * slot.rate + 0.5 * camera.size.prod().item() / max(took, 1e-4)
        slot.side = int(camera.size.max())
        slot.show(last.view, wish, False)
        with self._lock:
            if slot.pending is None:
                slot.passes = refine(wish.source, wish.look, wish.camera, 2)
        return True

    def _piece(self) -> bool:
        now = time.monotonic()
        with self._lock:
            at_rest = [s for s in self._slots.values() if s.passes is not None and now - s.moved >= REST]
            if not at_rest:
                return False
            self._turn += 1
            slot = at_rest[self._turn % len(at_rest)]
            passes, wish, quiet = slot.passes, slot.current, slot.quiet
        try:
            picture = next(passes, _END)
        except Exception:
            self._forget(slot, passes)
            raise
        if isinstance(picture, Picture) and (picture.whole or not quiet):
            with self._lock:
                current = slot.passes is passes and slot.pending is None
            if current:
                slot.show(picture.view, wish, picture.whole)
        if picture is _END or (picture is not None and picture.whole):
            self._forget(slot, passes)
        return True

    def _forget(self, slot: Slot, passes) -> None:
        """The picture is whole, or cannot be drawn."""
        with self._lock:
            if slot.passes is passes:
                slot.passes, slot.whole_at = None, time.monotonic()

    def _job(self) -> bool:
        with self._lock:
            job = self.jobs[0] if self.jobs else None
        if job is None:
            return False
        try:
            next(job)
        except StopIteration:
            self.jobs.remove(job)
        except Exception:
            self.jobs.remove(job)
            raise
        return True

    def start(self) -> None:
        """Works in a thread of its own until `stop`."""
        self._thread = threading.Thread(target=self._loop, name="radfield-viewer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(5)

    def _loop(self) -> None:
        import torch

        torch.set_num_threads(1)  # a setting of the thread: ours would wait for torch's otherwise
        while not self._stopped:
            if not self.work():
                self._news.wait(0.02 if any(s.passes is not None for s in list(self._slots.values())) else 0.5)
                self._news.clear()


_END = object()


def _raise(error: Exception) -> None:
    raise error
