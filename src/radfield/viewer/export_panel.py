"""The part of the panel that makes files: a screenshot, the Gaussians, the surface as a mesh."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..errors import BadInput
from .session import Session

MESHES = (".glb", ".ply", ".obj")
RESOLUTIONS = ("128", "256", "512", "1024")


class ExportPanel:
    """Builds the folder "Export" of a session. told: of panel.py, which shows what goes wrong."""

    def __init__(self, session: Session, told):
        self.session, self.exhibit = session, session.exhibit
        self.gui, self.told = session.client.gui, told
        with self.gui.add_folder("Export", expand_by_default=False):
            self._button("screenshot", self._screenshot)
            if self.exhibit.gaussians is not None:
                self._gaussians()
            elif self.exhibit.folder is not None:
                self._meshes()

    def _button(self, name: str, action) -> None:
        self.gui.add_button(name).on_click(lambda _: self.told(action))

    def _gaussians(self) -> None:
        from ..gaussians.files import WRITERS

        self.format = self.gui.add_dropdown(
            "splat file", tuple(e for e in WRITERS if e[0] == "."), initial_value=".ply"
        )
        self._button("export splats", self._splats)

    def _meshes(self) -> None:
        self.format = self.gui.add_dropdown("mesh file", MESHES)
        self.cells = self.gui.add_dropdown("cells along a side", RESOLUTIONS, initial_value="256")
        self.largest = self.gui.add_checkbox("largest part only", False)
        self._button("export mesh", self._mesh)

    def _send(self, ending: str, content: bytes) -> None:
        name = Path(self.exhibit.title).stem + ending
        self.session.client.send_file_download(name, content, save_immediately=True)

    def _screenshot(self) -> None:
        """The picture at rest, as the server drew it, as a PNG file for the client."""
        from PIL import Image

        session = self.session
        if session.draws and session.last is not None:
            from .pictures import picture_of

            view, wish = session.last
            picture = picture_of(view, wish.look.channel, wish.camera)
        else:
            camera = session.client.camera
            picture = session.client.get_render(int(camera.image_height), int(camera.image_width), timeout=20)[..., :3]
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture)).save(out, "PNG")
        self._send(".png", out.getvalue())

    def _splats(self) -> None:
        """The Gaussians inside the crop box, in the capture's units, as a file for the client."""
        from ..gaussians.files import write_gaussians

        gaussians, box = self.exhibit.gaussians.to("cpu"), self.session.wants.look.crop
        inside = gaussians if box is None else gaussians.select(box.contains(gaussians.means.T))
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"splats{self.format.value}"
            write_gaussians(path, inside.transformed(self.exhibit.transform.inverse()))
            self._send(self.format.value, path.read_bytes())

    def _mesh(self) -> None:
        """The surface of the run as its last checkpoint has it, by `radfield export` in a process of its own: it takes
        seconds to minutes, and the field goes on being drawn."""
        ending = self.format.value
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"mesh{ending}"
            self.session.told("making the mesh")
            figures = _exported(self.exhibit.folder, path, int(self.cells.value), self.largest.value)
            self.session.told(f"mesh of {figures['triangles']} triangles")
            self._send(ending, path.read_bytes())


def _exported(run: Path, file: Path, cells: int, largest: bool) -> dict:
    """What `radfield export` says of the mesh that it wrote. Raises `BadInput` with its line where it could not."""
    command = [sys.executable, "-m", "radfield.apps.command_line", "export", str(run), str(file)]
    command += ["--resolution", str(cells), "--json", *(["--largest"] if largest else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["the program ended without a word"]
        raise BadInput(said[-1].removeprefix("radfield: "))
    return json.loads(done.stdout.splitlines()[-1])
