"""The page of pictures: what is sent when a picture takes long."""

import asyncio
import io

import torch

from radfield.renderers.volume import View
from radfield.viewer import plain

QUERY = {"turn": ["0"], "tilt": ["0"], "zoom": ["0"], "x": ["0"], "y": ["0"], "moving": ["0"], "w": ["32"], "h": ["24"]}


class _Worker:
    """Shows the pictures it is given, none of them whole."""

    def __init__(self, views):
        self.views, self.show = views, None

    def open(self, client, show):
        self.show = show

    def ask(self, client, wish):
        for view in self.views:
            self.show(view, wish, False)

    def close(self, client):
        self.show = None


def _gray(value: float) -> View:
    return View(torch.full((24, 32, 3), value), torch.ones(24, 32), torch.ones(24, 32))


def _answer(*views):
    worker = _Worker(views)
    pages = plain.PlainPages(worker, None, lambda **values: None)
    kind, body = asyncio.run(pages.frame(QUERY))
    assert worker.show is None  # forgotten, whatever came
    return kind, body


def test_the_last_unfinished_picture_is_sent_when_patience_ends(monkeypatch):
    from PIL import Image

    monkeypatch.setattr(plain, "PATIENCE", 0.05)
    kind, body = _answer(_gray(0.2), _gray(0.8))
    assert kind == "image/jpeg"
    assert abs(Image.open(io.BytesIO(body)).convert("L").getpixel((16, 12)) - 204) <= 2
    assert _answer() == ("text/plain", b"")
