"""The page for browsers without WebGL 2: one picture of the server after another, and the mouse turns the camera.

The page asks for a picture when it has shown the last one, so that there is never more than one request on its way.
viser's own page gets a line that sends such browsers here.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import math
import pathlib

import numpy as np

from ..errors import BadInput
from .pictures import picture_of
from .sources import Look
from .worker import Wish, Worker

PATH, FRAME = "/plain", "/plain/frame.jpg"
PATIENCE = 6.0  # seconds after which an unfinished picture is sent: the server drops a request after ten
_CHECK = """<script>
if (!document.createElement("canvas").getContext("webgl2")) location.replace("/plain");
</script>"""
_PAGE = """<!doctype html><meta charset="utf-8"><title>radfield</title>
<style>body{margin:0;background:#222;color:#ccc;font:14px sans-serif;overflow:hidden}
img{width:100vw;height:100vh;object-fit:contain;user-select:none}p{position:fixed;left:12px;bottom:0}</style>
<img id="view" draggable="false" alt="the scene"><p>server rendering: this browser has no WebGL 2. Drag to turn, wheel
to come closer, shift and drag to move.</p>
<script>
let turn = 0, tilt = 0, zoom = 0, x = 0, y = 0, drag = null, wanted = true, busy = false;
let moving = true, first = true;  // the first picture is a quick one, a whole one follows
const view = document.getElementById("view");
function ask() {
  if (busy || !wanted) return;
  busy = true; wanted = false;
  const size = `w=${Math.min(innerWidth, 1600)}&h=${Math.min(innerHeight, 1600)}`;
  view.src = `/plain/frame.jpg?turn=${turn}&tilt=${tilt}&zoom=${zoom}&x=${x}&y=${y}&moving=${+moving}&${size}`;
}
function change(fast) { wanted = true; moving = fast; ask(); }
view.onload = () => {
  busy = false; document.body.dataset.frames = 1 + +(document.body.dataset.frames || 0);
  if (first) { first = false; change(false); } else ask();
};
view.onerror = () => { busy = false; setTimeout(() => change(false), 2000); };
onpointerdown = e => { drag = [e.clientX, e.clientY]; };
onpointermove = e => {
  if (!drag) return;
  const dx = (e.clientX - drag[0]) / innerHeight, dy = (e.clientY - drag[1]) / innerHeight;
  if (e.shiftKey) { x -= dx; y -= dy; } else { turn -= 3 * dx; tilt += 3 * dy; }
  drag = [e.clientX, e.clientY]; change(true);
};
onpointerup = () => { drag = null; change(false); };
onwheel = e => { zoom += e.deltaY / 1000; change(false); };
onresize = () => change(false);
ask();
</script>"""


def checked_page() -> bytes:
    """viser's page with the line that sends browsers without WebGL 2 to ours."""
    from .server import import_viser

    page = (pathlib.Path(import_viser().__file__).parent / "client/build/index.html").read_text(encoding="utf-8")
    return page.replace("<head>", "<head>" + _CHECK, 1).encode()


class PlainPages:
    """The pages' answers, for `Guard.pages`. at: look_at(turn, tilt, zoom, x, y, width, height) -> Cameras."""

    def __init__(self, worker: Worker, source, at):
        self.worker, self.source, self.at = worker, source, at
        self._numbers = itertools.count(-1, -1)  # clients of viser are 0 and more

    def pages(self) -> dict:
        """Path -> answer."""
        page = checked_page()

        async def index(query):
            return "text/html; charset=utf-8", page

        async def plain(query):
            return "text/html; charset=utf-8", _PAGE.encode()

        return {"/": index, "/index.html": index, PATH: plain, FRAME: self.frame}

    async def frame(self, query: dict) -> tuple[str, bytes]:
        """One picture: quick where the camera moves, else whole, or what there is after `PATIENCE`. A query that is
        wrong gets no body."""
        try:
            values = {k: float(query[k][0]) for k in ("turn", "tilt", "zoom", "x", "y", "w", "h")}
            if not all(map(math.isfinite, values.values())):
                raise BadInput("a number is not finite")
            width, height = (int(min(max(values.pop(k), 16), 1600)) for k in "wh")
            camera = self.at(**values, width=width, height=height)
        except (KeyError, ValueError, BadInput):
            return "text/plain", b""
        moving = query.get("moving") == ["1"]
        loop, number = asyncio.get_running_loop(), next(self._numbers)
        done, shown = asyncio.Event(), []

        def show(view, wish, whole):
            shown[:] = [picture_of(view, wish.look.channel, wish.camera)]
            if moving or whole:
                loop.call_soon_threadsafe(done.set)

        self.worker.open(number, show)
        try:
            self.worker.ask(number, Wish(self.source, Look(), camera, moving=moving))
            await asyncio.wait_for(done.wait(), PATIENCE)
        except asyncio.TimeoutError:
            if not shown:
                return "text/plain", b""
        finally:
            self.worker.close(number)
        return "image/jpeg", await asyncio.to_thread(_jpeg, shown[0])


def _jpeg(picture: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=90)
    return out.getvalue()
