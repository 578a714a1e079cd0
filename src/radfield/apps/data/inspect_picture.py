"""The picture of `radfield data inspect`: a capture from above and from the side, and thumbnails of its views.

Everything is in scene coordinates: the unit cube is where detail is finest, each cascade twice as large. Letters: V
views, P points. Pixels are Pillow's, y down; scene axes are drawn to the right and up.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ...data.scene import Scene, Views
from ...geometry import cascade_box

WIDTH, PANEL, MARGIN, HEAD = 1600, 780, 10, 96
COLORS = {"train": (38, 96, 200), "val": (222, 100, 12), "test": (20, 140, 80)}
INK, FAINT, PAPER = (30, 30, 34), (196, 196, 204), (255, 255, 255)
THUMBNAIL, MOST_THUMBNAILS, MOST_POINTS = 150, 40, 100_000
#: share of cameras and points that must be inside the picture: single far ones would shrink all others
SHOWN = 0.97


def draw(scene: Scene, title: str, lines: list[str]) -> Image.Image:
    """The whole picture; `scene` may have its images of every split or of none."""
    splits = {name: views for name in COLORS if (views := getattr(scene, name)) is not None}
    thumbnails = _thumbnails(splits, scene.background)
    rows = math.ceil(len(thumbnails) / ((WIDTH - MARGIN) // (THUMBNAIL + MARGIN)))
    height = HEAD + PANEL + 2 * MARGIN + rows * (THUMBNAIL + 24 + MARGIN)
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, 8), title, INK, _font(26))
    for i, line in enumerate(lines[:3]):
        pen.text((MARGIN, 40 + 18 * i), line, INK, _font(14))
    _legend(pen, splits)
    half = _half_side(scene, splits)
    for left, axes, label in (
        (MARGIN, (0, 1), "from above: x, y"),
        (WIDTH - PANEL - MARGIN, (0, 2), "from the side: x, z"),
    ):
        picture.paste(_panel(scene, splits, axes, half, label), (left, HEAD))
    _paste_thumbnails(picture, pen, thumbnails)
    return picture


def _half_side(scene: Scene, splits: dict[str, Views]) -> float:
    # Half the side, in scene units, of the square that the panels show around the unit cube's centre.
    centres = torch.cat([views.cameras.camera_to_world[:, :3, 3] for views in splits.values()])
    reach = (centres.double() - 0.5).abs().amax(-1)
    half = float(reach.quantile(SHOWN)) + 0.3
    if scene.points is not None and len(scene.points):
        half = max(half, min(float(np.quantile(np.abs(scene.points.position - 0.5).max(1), 0.8)), 3 * half))
    return max(half, 0.75)


def _panel(scene: Scene, splits: dict[str, Views], axes: tuple[int, int], half: float, label: str) -> Image.Image:
    panel = Image.new("RGB", (PANEL, PANEL), PAPER)
    _draw_points(panel, scene, axes, half)
    pen = ImageDraw.Draw(panel)

    def place(x) -> tuple[float, float]:
        u, v = ((float(x[a]) - 0.5) / half for a in axes)
        return (u + 1) * PANEL / 2, (1 - v) * PANEL / 2

    for cascade in reversed(range(scene.cascades)):
        low, high = cascade_box(cascade)
        (left, bottom), (right, top) = place([low] * 3), place([high] * 3)
        pen.rectangle(
            (left, top, right, bottom), outline=INK if cascade == 0 else FAINT, width=2 if cascade == 0 else 1
        )
    for name, views in splits.items():
        for i in range(len(views)):
            _draw_camera(pen, views, i, place, half, COLORS[name])
    pen.rectangle((0, 0, PANEL - 1, PANEL - 1), outline=FAINT)
    pen.text((8, 6), label, INK, _font(16))
    pen.text(
        (8, PANEL - 24),
        f"{2 * half:.2f} scene units = {2 * half / scene.transform.scale:.3g} of the capture's",
        INK,
        _font(14),
    )
    return panel


def _draw_points(panel: Image.Image, scene: Scene, axes: tuple[int, int], half: float) -> None:
    if scene.points is None or not len(scene.points):
        return
    step = math.ceil(len(scene.points) / MOST_POINTS)
    position, color = scene.points.position[::step], scene.points.color[::step]
    # What lies towards the viewer is drawn last.
    toward = 2 if axes == (0, 1) else 1
    order = np.argsort(position[:, toward] * (1 if toward == 2 else -1))
    u, v = ((position[order][:, a] - 0.5) / half for a in axes)
    column, row = ((u + 1) * PANEL / 2).astype(np.int64), ((1 - v) * PANEL / 2).astype(np.int64)
    inside = (column >= 0) & (column < PANEL - 1) & (row >= 0) & (row < PANEL - 1)
    pixels = np.array(panel)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixels[row[inside] + down, column[inside] + right] = color[order][inside]
    panel.paste(Image.fromarray(pixels))


def _draw_camera(pen: ImageDraw.ImageDraw, views: Views, i: int, place, half: float, color) -> None:
    # The four edges of what the camera sees, and its border; its upper edge is twice as thick.
    cameras = views.cameras
    width, height = cameras.size[i].tolist()
    corner = torch.tensor([[0, 0], [width, 0], [width, height], [0, height]], dtype=torch.float32)
    rays = cameras.rays(torch.full((4,), i), corner)
    centre = cameras.camera_to_world[i, :3, 3]
    length = 0.09 * half
    if cameras.model_of(i) == "equirectangular":
        x, y = place(centre)
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), outline=color, width=2)
        return
    # At one depth, so that the border is the image's rectangle.
    depth = (rays.directions @ cameras.camera_to_world[i, :3, 2]).clamp_min(0.2)
    corners = [place(p) for p in (centre + length * rays.directions / depth[:, None])]
    for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
        pen.line((*place(centre), *a), color, 1)
        pen.line((*a, *b), color, 1)
    pen.line((*corners[0], *corners[1]), color, 3)


def _legend(pen: ImageDraw.ImageDraw, splits: dict[str, Views]) -> None:
    x = WIDTH - 420
    for name, views in splits.items():
        pen.rectangle((x, 14, x + 14, 28), fill=COLORS[name])
        text = f"{name}: {len(views)}"
        pen.text((x + 20, 12), text, INK, _font(16))
        x += 40 + int(pen.textlength(text, _font(16)))
    pen.rectangle((WIDTH - 420, 40, WIDTH - 406, 54), outline=INK, width=2)
    pen.text((WIDTH - 400, 38), "unit cube; grey: the cascades around it", INK, _font(16))


def _thumbnails(splits: dict[str, Views], background: str) -> list[tuple[str, str, Image.Image]]:
    # (split, name, picture): views spread over the splits, the held-out ones first
    total = sum(len(views) for views in splits.values() if views.images is not None)
    chosen = []
    for split in sorted(splits, key=lambda name: name == "train"):
        views = splits[split]
        if views.images is None:
            continue
        share = max(1, min(len(views), MOST_THUMBNAILS * len(views) // max(total, 1)))
        for i in np.unique(np.linspace(0, len(views) - 1, share).round().astype(int)).tolist():
            chosen.append((split, views.names[i], _thumbnail(views, i, background)))
    return chosen[:MOST_THUMBNAILS]


def _thumbnail(views: Views, i: int, background: str) -> Image.Image:
    color = views.images.composited(i, [1.0 if background == "white" else 0.0] * 3)
    kept = views.images.kept(i)
    if kept is not None:  # ignored pixels are tinted red
        color = torch.where(kept[..., None], color, 0.5 * color + torch.tensor([0.5, 0, 0]))
    image = Image.fromarray((color * 255).round().byte().numpy())
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def _paste_thumbnails(picture: Image.Image, pen: ImageDraw.ImageDraw, thumbnails) -> None:
    columns = (WIDTH - MARGIN) // (THUMBNAIL + MARGIN)
    for i, (split, name, image) in enumerate(thumbnails):
        x = MARGIN + (i % columns) * (THUMBNAIL + MARGIN)
        y = HEAD + PANEL + 2 * MARGIN + (i // columns) * (THUMBNAIL + 24 + MARGIN)
        left, top = x + (THUMBNAIL - image.width) // 2, y + (THUMBNAIL - image.height) // 2
        picture.paste(image, (left, top))
        box = (left - 3, top - 3, left + image.width + 2, top + image.height + 2)
        pen.rectangle(box, outline=COLORS[split], width=3)
        pen.text((x, y + THUMBNAIL + 4), name if len(name) <= 22 else "..." + name[-19:], COLORS[split], _font(13))


def _font(size: int):
    return ImageFont.load_default(size)
