"""A small capture to break in every way: `capture()` writes one, its JSON changed as the test wants."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class CaptureMaker:
    """Writes captures of flat images into a folder; the red channel of image i is 10 i."""

    def __init__(self, folder: Path):
        self.folder = folder

    @staticmethod
    def pose(azimuth: float, distance: float = 4.0) -> list[list[float]]:
        """Camera-to-world with OpenGL axes, on the circle z = 0, looking at the origin, z up."""
        c, s = np.cos(azimuth), np.sin(azimuth)
        return [[-s, 0, c, distance * c], [c, 0, s, distance * s], [0, 1, 0, 0], [0, 0, 0, 1]]

    def content(self, count: int = 6, prefix: str = "images/", **keys) -> dict:
        frames = [{"file_path": f"{prefix}{i:03d}.png", "transform_matrix": self.pose(i)} for i in range(count)]
        return {"fl_x": 20.0, **keys, "frames": frames}

    def image(self, name: str, size=(16, 12), mode="RGB", red=0) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        color = (red, 100, 200, 128)[: len(Image.new(mode, (1, 1)).getbands())]
        Image.new(mode, size, color if len(color) > 1 else red).save(path)
        return path

    def json(self, content, name: str = "transforms.json") -> Path:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.folder / name).write_text(text)
        return self.folder

    def __call__(self, count: int = 6, change=None, *, mode="RGB", size=(16, 12), **keys) -> Path:
        """A capture of `count` images; change(content) edits the JSON; keys are added to it."""
        content = copy.deepcopy(self.content(count, **keys))
        for i in range(count):
            self.image(f"images/{i:03d}.png", size=size, mode=mode, red=10 * i)
        if change is not None:
            change(content)
        return self.json(content)


@pytest.fixture
def capture(tmp_path) -> CaptureMaker:
    folder = tmp_path / "capture"
    folder.mkdir()
    return CaptureMaker(folder)
