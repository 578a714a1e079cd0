"""One client: where its camera is, what it wants to see, and what it was sent.

The client's camera becomes a `Wish` of the worker whenever it moves or a control changes; pictures come back through
`show` and go out as the scene's background. viser keeps only the newest background that was not sent yet, so that a
slow connection gets fewer pictures, not later ones.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass

import numpy as np
import torch

from ..cameras import Cameras
from ..renderers.volume import View
from .exhibit import Exhibit, perspective
from .pictures import picture_of
from .refine import Split
from .sources import COLOR, Look, PhotographSource
from .worker import Wish, Worker

BROWSER, SERVER = "browser (fixed colours)", "server (colours by direction)"
QUICK_QUALITY, WHOLE_QUALITY = 80, 95  # of JPEG
#: the longer side of whole pictures, in pixels: by default, and while the scene trains
FULL, FULL_TRAINING = 800, 400


@dataclass
class Wants:
    """What the controls of one client say."""

    look: Look = dataclasses.field(default_factory=Look)
    resolution: int = FULL
    budget: float = 1 / 15
    split: float = 0.5  # where two runs, or photograph and render, meet
    compare: int | None = None  # the camera whose photograph is compared
    drawn_by: str = SERVER  # Gaussians


class Session:
    """A connected client. Its camera's callback comes from viser's event loop, its controls' from a pool of threads,
    its pictures from the worker."""

    def __init__(self, client, exhibit: Exhibit, worker: Worker, training: bool = False):
        self.client, self.exhibit, self.worker = client, exhibit, worker
        self.wants = Wants(resolution=FULL_TRAINING if training else FULL)
        self.wants.look = dataclasses.replace(self.wants.look, crop=exhibit.box)
        if exhibit.gaussians is not None and not training:
            self.wants.drawn_by = BROWSER
        self.photograph: PhotographSource | None = None
        self.status = None  # the panel's line about what was drawn
        self.text = ""
        self.began = 0.0  # when the camera last moved
        self.sent = 0
        self.last: tuple[View, Wish] | None = None
        self.sized = (0, 0)
        self.gone, self.lock = False, threading.Lock()
        self.slot = worker.open(client.client_id, self.show)
        camera = client.camera
        self.stood = (*camera.position, *camera.wxyz, camera.fov, camera.image_width, camera.image_height)
        camera.on_update(self._moved)

    def told(self, text: str) -> None:
        """Shows a line in the panel, at once or when it is built."""
        self.text = text
        if self.status is not None and not self.gone:
            self.status.content = text

    async def _moved(self, camera) -> None:
        now = (*camera.position, *camera.wxyz, camera.fov, camera.image_width, camera.image_height)
        if now != self.stood:  # browsers tell their camera again when nothing has changed
            self.stood = now
            self.ask(moving=True)

    @property
    def draws(self) -> bool:
        """Whether the server draws for this client."""
        by_browser = self.exhibit.gaussians is not None and self.wants.drawn_by == BROWSER
        return self.exhibit.source is not None and not by_browser

    def camera(self) -> Cameras | None:
        """The client's camera at full size; None before it has told one."""
        given = self.client.camera
        width, height = int(given.image_width), int(given.image_height)
        if not (0 < width < 1 << 15 and 0 < height < 1 << 15):
            return None
        pose = torch.eye(4, dtype=torch.float64)
        w, x, y, z = (float(v) for v in given.wxyz)
        pose[:3, :3] = torch.tensor(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        pose[:3, 3] = torch.tensor(np.asarray(given.position, dtype=np.float64))
        fov = float(given.fov)
        if not (bool(pose.isfinite().all()) and 0.01 < fov < 3.1):
            return None  # a client may send anything
        scale = min(self.wants.resolution / max(width, height), 1.0)
        return perspective(pose, fov, max(round(width * scale), 8), max(round(height * scale), 8))

    def source(self, camera: Cameras):
        """What is drawn for the camera: the run, or the run beside another or a photograph."""
        exhibit, wants = self.exhibit, self.wants
        if self.photograph is not None and wants.look.channel == COLOR and self.photograph.here(camera):
            return Split(self.photograph, exhibit.source, wants.split, exhibit.transform)
        if exhibit.other is not None:
            return Split(exhibit.source, exhibit.other, wants.split, exhibit.transform)
        return exhibit.source

    def ask(self, moving: bool = False) -> None:
        """Asks for a picture of what the client now wants to see."""
        if self.gone or not self.draws:
            return
        with self.lock:  # of two threads the later one must not be overtaken by what the earlier one saw
            camera = self.camera()
            if camera is None:
                return
            self.began = time.monotonic()
            wish = Wish(self.source(camera), self.wants.look, camera, self.wants.budget, moving)
            self.worker.ask(self.client.client_id, wish)

    def change(self, **wants) -> None:
        """Changes what is wanted (fields of `Wants`, or of its `look`), and asks for the picture."""
        of_look = {k: v for k, v in wants.items() if k in Look.__dataclass_fields__}
        others = {k: v for k, v in wants.items() if k not in of_look}
        with self.lock:
            look = dataclasses.replace(self.wants.look, **of_look)
            self.wants = dataclasses.replace(self.wants, look=look, **others)
        self.ask()

    def show(self, view: View, wish: Wish, whole: bool) -> None:
        """Sends a picture."""
        if self.gone or not self.draws:
            return
        picture = picture_of(view, wish.look.channel, wish.camera)
        quality = WHOLE_QUALITY if whole else QUICK_QUALITY
        self.client.scene.set_background_image(picture, format="jpeg", jpeg_quality=quality)
        self.sent += 1
        self.last = (view, wish)
        if whole:
            self.client.flush()
            height, width = picture.shape[:2]
            since = time.monotonic() - self.began
            # one line of the panel, or what stands below would jump
            self.told(f"{width} x {height} after {since:.1f} s; moving: {self.slot.side} pixels")

    def show_nothing(self) -> None:
        """Takes the server's picture away: the browser draws, or there is nothing to draw."""
        self.client.scene.set_background_image(None)

    def go_to(self, pose: torch.Tensor, fov: float) -> None:
        """Moves the client's camera to `pose` [4, 4] (scene coordinates), which looks at a point as far as before."""
        camera, pose = self.client.camera, pose.double().numpy()
        distance = max(float(np.linalg.norm(np.asarray(camera.look_at) - np.asarray(camera.position))), 0.05)
        with self.client.atomic():
            camera.fov = fov
            camera.up_direction = -pose[:3, 1]
            camera.position = pose[:3, 3]
            camera.look_at = pose[:3, 3] + pose[:3, 2] * distance
            camera.up_direction = -pose[:3, 1]
        self.client.flush()

    def pose(self) -> torch.Tensor | None:
        """The client's camera-to-world [4, 4], float64, in scene coordinates."""
        camera = self.camera()
        return None if camera is None else camera.camera_to_world[0].double()

    def close(self) -> None:
        """The client has left."""
        self.gone, self.last, self.photograph = True, None, None
        self.worker.close(self.client.client_id)
