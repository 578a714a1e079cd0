"""The editor of camera paths: keyframes from the client's camera, preview, the file, and the video."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import torch

from ..apps.path_file import CameraPath
from ..errors import BadInput
from .pictures import picture_of
from .refine import refine
from .session import Session


class PathPanel:
    """The folder "Camera path" of a panel. Poses are kept in the world, as the file has them."""

    def __init__(self, session: Session):
        self.session, self.keys, self.line = session, [], None
        self.playing = threading.Event()
        gui = session.client.gui
        with gui.add_folder("Camera path", expand_by_default=False):
            self.count = gui.add_markdown("no keyframes")
            gui.add_button("add keyframe").on_click(lambda _: self._told(self.add))
            gui.add_button("remove last").on_click(lambda _: self._told(self.remove))
            self.seconds = gui.add_number("seconds", 5.0, min=0.1, max=3600.0, step=0.5)
            self.fps = gui.add_number("frames per second", 30, min=1, max=120, step=1)
            self.closed = gui.add_checkbox("return to the first", False)
            self.closed.on_update(lambda _: self._told(self.draw))
            gui.add_button("preview").on_click(lambda _: self._told(self.preview))
            gui.add_button("save path").on_click(lambda _: self._told(self.save))
            gui.add_button("render video").on_click(lambda _: self._told(self.render))
            self.bar = gui.add_progress_bar(0.0, visible=False)

    def _told(self, action) -> None:
        try:
            action()
        except BadInput as error:
            self.session.client.add_notification("Camera path", str(error), color="red")

    def path(self) -> CameraPath:
        """The path so far. Raises `BadInput` with fewer than two keyframes."""
        if len(self.keys) < 2:
            raise BadInput(f"the path has {len(self.keys)} keyframes; the rule: at least 2")
        poses, fov = (
            torch.stack([k[0] for k in self.keys]),
            torch.tensor([k[1] for k in self.keys], dtype=torch.float64),
        )
        size = tuple(max(s // 2 * 2, 8) for s in self.session.camera().size[0].tolist())
        return CameraPath(poses, fov, float(self.seconds.value), float(self.fps.value), self.closed.value, size)

    def add(self) -> None:
        """The client's camera becomes the next keyframe."""
        pose = self.session.pose()
        if pose is None:
            raise BadInput("the camera is not known yet; the rule: move it once")
        back = self.session.exhibit.transform.inverse()
        self.keys.append((_orthonormal(back.poses(pose)), float(self.session.client.camera.fov)))
        self.draw()

    def remove(self) -> None:
        """Takes the last keyframe away."""
        if self.keys:
            self.keys.pop()
        self.draw()

    def draw(self) -> None:
        """Shows the way through the keyframes in the scene."""
        count = len(self.keys)
        self.count.content = f"{count} keyframe{'s' if count != 1 else ''}" if count else "no keyframes"
        if self.line is not None:
            self.line.remove()
            self.line = None
        if count >= 2:
            place = self.path().cameras(self.session.exhibit.transform, 24 * count).camera_to_world[:, :3, 3].numpy()
            segments = np.stack([place[:-1], place[1:]], 1)
            length = float(np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1).sum())
            scene = self.session.client.scene
            self.line = scene.add_line_segments("/path", segments, (240, 180, 0), thickness=max(0.003 * length, 1e-4))

    def preview(self) -> None:
        """Moves the client's camera along the path, in time; a second click ends it."""
        if self.playing.is_set():
            self.playing.clear()
            return
        path, session = self.path(), self.session
        poses, fov = path.poses()
        poses = session.exhibit.transform.poses(poses)
        self.playing.set()
        began = time.monotonic()
        try:
            while self.playing.is_set() and not session.gone:
                frame = int((time.monotonic() - began) * path.fps)
                if frame >= len(poses):
                    break
                session.go_to(poses[frame], float(fov[frame]))
                time.sleep(1 / path.fps)
        finally:
            self.playing.clear()

    def save(self) -> None:
        """Writes the path into the run's folder, and sends it to the client."""
        import json

        path = self.path()
        if (folder := self.session.exhibit.folder) is not None:
            target = unused(folder, "camera_path", ".json")
            path.save(target)
            self.session.client.add_notification("Camera path", f"saved as {target}: `radfield render --path` reads it")
        content = json.dumps(path.to_dict()).encode()
        self.session.client.send_file_download("camera_path.json", content, save_immediately=folder is None)

    def render(self) -> None:
        """Renders the video, piece by piece while nobody waits for a picture, and sends it to the client."""
        job = Video(self.path(), self.session, self._progress)
        self.bar.visible = True
        self.session.worker.add_job(job.work())

    def _progress(self, part: float) -> None:
        self.bar.value = 100 * part
        self.bar.visible = part < 1


class Video:
    """A video in the making: the worker renders its frames, a thread encodes them."""

    def __init__(self, path: CameraPath, session: Session, progress):
        self.path, self.session, self.progress = path, session, progress
        self.frames: queue.Queue = queue.Queue()
        self.done: dict = {}

    def work(self):
        """The worker's job: yields after every piece of a frame. Ends early where the client has left."""
        session, exhibit = self.session, self.session.exhibit
        cameras = self.path.cameras(exhibit.transform)
        thread = threading.Thread(target=self._encode, daemon=True)
        thread.start()
        try:
            for i in range(len(cameras)):
                for picture in refine(exhibit.source, session.wants.look, cameras[i], 1):
                    if picture is not None and picture.whole:
                        self.frames.put(picture_of(picture.view, session.wants.look.channel, cameras[i]))
                    yield
                self.progress(i / len(cameras))
                while self.frames.qsize() > 4 and thread.is_alive():  # frames are large
                    time.sleep(0.005)
                    yield
                if session.gone:
                    return
        finally:
            self.frames.put(None)
        while thread.is_alive():
            time.sleep(0.005)
            yield
        self.progress(1.0)
        self._tell()

    def _frames(self):
        while (frame := self.frames.get()) is not None:
            yield frame

    def _encode(self) -> None:
        import tempfile

        from ..apps.video import write_video

        folder = self.session.exhibit.folder
        try:
            with tempfile.TemporaryDirectory() as scratch:
                place = Path(scratch) if folder is None else folder / "renders"
                place.mkdir(exist_ok=True)
                target = unused(place, "camera_path", ".mp4")
                write_video(target, self._frames(), self.path.fps)
                self.done = {"path": None if folder is None else target, "content": target.read_bytes()}
        except Exception as error:  # told to the client; without this thread the worker would wait for it
            if not isinstance(error, BadInput):
                traceback.print_exc()
            self.done = {"error": str(error) or repr(error)}

    def _tell(self) -> None:
        client = self.session.client
        if "error" in self.done:
            client.add_notification("Video", self.done["error"], color="red")
            return
        if self.done["path"] is not None:
            client.add_notification("Video", f"written to {self.done['path']}")
        client.send_file_download("camera_path.mp4", self.done["content"], save_immediately=True)


def unused(folder: Path, stem: str, ending: str) -> Path:
    """The first of stem.ending, stem-2.ending, ... that is not there."""
    number = 1
    while (path := folder / (f"{stem}{ending}" if number == 1 else f"{stem}-{number}{ending}")).exists():
        number += 1
    return path


def _orthonormal(pose: torch.Tensor) -> torch.Tensor:
    """The pose with its rotation made exact again: the browser's numbers have 32 bits."""
    out = pose.clone()
    u, _, v = torch.linalg.svd(pose[:3, :3])
    out[:3, :3] = u @ v
    return out
