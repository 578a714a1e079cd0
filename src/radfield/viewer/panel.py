"""The controls of one client, built when it connects: each changes its session's wants, or what stands in its scene."""

from __future__ import annotations

import functools
import threading
import traceback

import torch

from ..errors import BadInput
from . import crop, overlays
from .export_panel import ExportPanel
from .path_panel import PathPanel
from .session import BROWSER, SERVER, Session
from .sources import COLOR, PhotographSource

_BACKGROUNDS = {"the run's": None, "white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "grey": (0.5, 0.5, 0.5)}


def told(function):
    """A callback whose `BadInput` the client reads as a notification; anything else is a defect, told on both sides.
    Of one client's callbacks, which come from a pool of threads, one runs at a time: two clicks on a checkbox end with
    what the second one says."""

    @functools.wraps(function)
    def run(self, *arguments, **options):
        try:
            with self.acting:
                return function(self, *arguments, **options)
        except BadInput as error:
            self.session.client.add_notification("Cannot do that", str(error), color="red")
        except Exception as error:
            if self.session.gone:
                return None
            traceback.print_exc()
            self.session.client.add_notification("A defect of radfield", repr(error)[:200], color="red")

    return run


class Panel:
    """Builds the panel of a session."""

    def __init__(self, session: Session):
        self.session, self.exhibit = session, session.exhibit
        self.gui, self.scene = session.client.gui, session.client.scene
        self.shown: dict[str, list] = {}  # what stands in the scene, by the control that shows it
        self.splats = None
        self.acting = threading.RLock()
        exhibit = self.exhibit
        self.gui.add_markdown(f"**{exhibit.title}**, {exhibit.about}")
        session.status = self.gui.add_markdown(session.text)
        if exhibit.source is not None:
            self._view()
            self._crop()
        if exhibit.cameras is not None or exhibit.points is not None:
            self._capture()
        if exhibit.mesh is not None:
            self.scene.add_mesh_trimesh("/mesh", exhibit.mesh)
        if exhibit.source is not None:
            self.path = PathPanel(session)
            ExportPanel(session, self.act)
        if exhibit.gaussians is not None:
            self._drawn_by()

    def _view(self) -> None:
        gui, session, exhibit = self.gui, self.session, self.exhibit
        with gui.add_folder("View"):
            if exhibit.gaussians is not None:
                self.drawn_by = gui.add_dropdown("drawn by", (BROWSER, SERVER), initial_value=session.wants.drawn_by)
                self.drawn_by.on_update(lambda _: self._drawn_by(self.drawn_by.value))
            channel = gui.add_dropdown("show", exhibit.source.channels, initial_value=COLOR)
            channel.on_update(lambda _: session.change(channel=channel.value))
            background = gui.add_dropdown("background", tuple(_BACKGROUNDS))
            background.on_update(lambda _: session.change(background=_BACKGROUNDS[background.value]))
            size = gui.add_slider("resolution", 100, 1600, 20, session.wants.resolution, hint="of the picture at rest")
            size.on_update(lambda _: session.change(resolution=int(size.value)))
            budget = gui.add_slider("ms per frame", 20, 500, 5, round(1000 * session.wants.budget))
            budget.on_update(lambda _: session.change(budget=budget.value / 1000))
            if reach := getattr(exhibit.source, "levels", None):
                level = gui.add_slider("level", -reach, reach, reach / 100, 0.0, hint="distance that is the surface")
                level.on_update(lambda _: session.change(level=float(level.value)))
            if (frames := getattr(exhibit.source, "frames", 1)) > 1:
                frame = gui.add_slider("frame", 0, frames - 1, 1, 0, hint="of the sequence")
                frame.on_update(lambda _: session.change(frame=int(frame.value)))
            if exhibit.other is not None:
                split = gui.add_slider("split", 0.0, 1.0, 0.01, 0.5, hint=f"right: {exhibit.other_title}")
                split.on_update(lambda _: session.change(split=split.value))

    @told
    def _drawn_by(self, who: str | None = None) -> None:
        """Shows Gaussians by the browser's own primitive, or takes them away and lets the server draw."""
        session, gaussians = self.session, self.exhibit.gaussians
        if who is not None:
            session.wants.drawn_by = who
        if session.draws:
            if self.splats is not None:
                self.splats.remove()
                self.splats = None
            session.told(f"drawn by the server: colours by direction, degree {gaussians.degree}")
            return session.ask()
        session.show_nothing()
        box = session.wants.look.crop
        inside = gaussians if box is None else gaussians.select(box.contains(gaussians.means.T))
        if self.splats is not None:
            self.splats.remove()
        self.splats = self.scene.add_gaussian_splats("/gaussians", **overlays.splat_arrays(inside))
        lost = "" if gaussians.degree == 0 else f"; degree 0 of {gaussians.degree}: the same from all sides"
        session.told(f"{len(inside)} Gaussians drawn by the browser, fixed colours{lost}")

    def _crop(self) -> None:
        gui, exhibit = self.gui, self.exhibit
        low, high = exhibit.bounds() if exhibit.gaussians is not None else (torch.zeros(3), torch.ones(3))
        box = exhibit.box or crop.Box(tuple(low.tolist()), tuple(high.tolist()))
        with gui.add_folder("Crop box", expand_by_default=False):
            self.cropping = gui.add_checkbox("crop", exhibit.box is not None)
            self.low = gui.add_vector3("low", box.low, step=0.01)
            self.high = gui.add_vector3("high", box.high, step=0.01)
            for each in (self.cropping, self.low, self.high):
                each.on_update(lambda _: self._cropped())
            if exhibit.folder is not None:
                gui.add_button("save for export").on_click(lambda _: self._save_crop())

    def _box(self) -> crop.Box | None:
        return crop.Box(tuple(self.low.value), tuple(self.high.value)) if self.cropping.value else None

    @told
    def _cropped(self) -> None:
        box = self._box()
        self._replace("crop", [] if box is None else [overlays.add_box(self.scene, box, "/crop", (220, 60, 60))])
        self.session.change(crop=box)
        if not self.session.draws:
            self._drawn_by()

    @told
    def _save_crop(self) -> None:
        box = self._box()
        crop.save(self.exhibit.folder, box, self.exhibit.transform)
        what = "removed: everything is exported" if box is None else "saved: export takes what is inside"
        self.session.client.add_notification("Crop box", what, auto_close_seconds=4)

    def _capture(self) -> None:
        gui, exhibit = self.gui, self.exhibit
        alone = exhibit.source is None
        with gui.add_folder("Capture", expand_by_default=alone):
            if exhibit.cameras is not None:
                self.cameras = gui.add_checkbox("cameras", alone)
                self.cameras.on_update(lambda _: self._show_cameras())
                self.photographs = gui.add_checkbox("photographs", alone)
                self.photographs.on_update(lambda _: self._show_cameras())
            points = exhibit.points if exhibit.scene is None else exhibit.scene.points
            if points is not None:
                self.points = gui.add_checkbox("sparse points", alone)
                self.points.on_update(lambda _: self._show_points(points))
                self._show_points(points)
            if exhibit.scene is not None:
                box = gui.add_checkbox("scene box", False)
                box.on_update(lambda _: self._show_box(box))
            if exhibit.cameras is not None:
                last = max(len(exhibit.cameras) - 1, 1)
                self.camera = gui.add_slider("camera", 0, last, 1, 0, disabled=len(exhibit.cameras) < 2)
                self.name = gui.add_markdown(exhibit.name_of(0))
                self.camera.on_update(lambda _: setattr(self.name, "content", exhibit.name_of(self.camera.value)))
                gui.add_button("go to camera").on_click(lambda _: self._go())
                if exhibit.source is not None:
                    self.compare = gui.add_checkbox("compare with photograph", False)
                    self.compare.on_update(lambda _: self._compare())
                    split = gui.add_slider("photograph | render", 0.0, 1.0, 0.01, 0.5)
                    split.on_update(lambda _: self.session.change(split=split.value))
        if alone and exhibit.cameras is not None:
            self._show_cameras()

    def _replace(self, name: str, handles: list) -> None:
        for each in self.shown.pop(name, []):
            each.remove()
        self.shown[name] = handles

    @told
    def _show_cameras(self) -> None:
        wanted = self.cameras.value or self.photographs.value
        self._replace("cameras", [])
        if wanted:
            self.shown["cameras"] = overlays.add_cameras(self.scene, self.exhibit, self.photographs.value)

    @told
    def _show_points(self, points) -> None:
        self._replace("points", [overlays.add_points(self.scene, points)] if self.points.value else [])

    @told
    def _show_box(self, wanted) -> None:
        boxes = overlays.scene_box(self.exhibit.scene.cascades) if wanted.value else []
        lines = [overlays.add_box(self.scene, b, f"/scene_box/{i}", (90, 90, 90)) for i, b in enumerate(boxes)]
        self._replace("box", lines)

    @told
    def _go(self) -> None:
        cameras, i = self.exhibit.cameras, int(self.camera.value)
        fov = 2 * float(torch.atan(0.5 * cameras.size[i, 1] / cameras.focal[i, 1]))
        self.session.go_to(cameras.camera_to_world[i], min(max(fov, 0.2), 2.0))
        if self.exhibit.source is not None:
            self._compare()

    @told
    def _compare(self) -> None:
        session = self.session
        session.photograph = None
        if self.compare.value:
            session.told("reading the photographs")
            session.photograph = PhotographSource(*self.exhibit.photograph(int(self.camera.value)))
        session.ask()

    @told
    def act(self, action) -> None:
        """Does what a button of another part of the panel asks for."""
        action()
