"""The scenes by name. Each shows what makes capturing hard in its own way; all fit into the ball of radius 1.5.

World: z up. Colours are linear light.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...errors import BadInput
from ...tracing.solids import Shape
from ...tracing.texture import Color, Material
from .mesh import ENDINGS, load_mesh
from .scene import Medium, SyntheticScene

Point = tuple[float, float, float]

CREAM, RED, TEAL, NAVY = (0.80, 0.74, 0.62), (0.66, 0.07, 0.04), (0.05, 0.42, 0.42), (0.03, 0.06, 0.28)
AMBER, RUST, LEAF, MOSS = (0.90, 0.52, 0.06), (0.50, 0.14, 0.03), (0.45, 0.62, 0.14), (0.05, 0.20, 0.06)
SLATE, STONE, COAL, ROSE = (0.16, 0.19, 0.23), (0.62, 0.58, 0.52), (0.04, 0.045, 0.05), (0.80, 0.35, 0.42)
VIOLET, WHITE, GOLD = (0.28, 0.08, 0.45), (0.85, 0.85, 0.82), (0.85, 0.58, 0.18)

PAVING = Material("tiles", ((0.36, 0.30, 0.24), (0.70, 0.64, 0.54)), 2.6, 0.55, 9.0, 0.0)


def look(pattern: str, first: Color, second: Color, frequency: float = 1.0, detail: float = 0.35, **others) -> Material:
    """A material with some detail on it."""
    return Material(pattern, (first, second), frequency, detail, **others)


def turned(yaw: float, pitch: float = 0.0) -> tuple[Point, ...]:
    """The rotation by `pitch` about x, then by `yaw` about z (radians)."""
    c, s, d, t = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    return ((c, -s * d, s * t), (s, c * d, -c * t), (0.0, t, d))


def rod(a: Point, b: Point, radius: float, material: Material) -> Shape:
    """A capsule between two points."""
    along = [q - p for p, q in zip(a, b, strict=True)]
    length = math.hypot(*along)
    z = [v / length for v in along]
    side = (0.0, 0.0, 1.0) if abs(z[2]) < 0.9 else (1.0, 0.0, 0.0)
    x = [side[1] * z[2] - side[2] * z[1], side[2] * z[0] - side[0] * z[2], side[0] * z[1] - side[1] * z[0]]
    x = [v / math.hypot(*x) for v in x]
    y = [z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]]
    centre = tuple(0.5 * (p + q) for p, q in zip(a, b, strict=True))
    rotation = tuple((x[i], y[i], z[i]) for i in range(3))
    return Shape("capsule", (radius, 0.5 * length), centre, rotation, material=material)


def around(count: int, radius: float, height: float, phase: float = 0.0) -> list[Point]:
    """Points evenly on a circle about the z axis."""
    angles = [2 * math.pi * (i + phase) / count for i in range(count)]
    return [(radius * math.cos(a), radius * math.sin(a), height) for a in angles]


def solids() -> SyntheticScene:
    """Textured spheres and boxes on a slab: the plain case."""
    slab = look("checker", (0.75, 0.73, 0.68), (0.08, 0.11, 0.15), 2.72, 0.25, highlight=0.2)
    stripes = look("stripes", (0.80, 0.06, 0.04), (0.90, 0.82, 0.70), 4.6, 0.15, highlight=0.3, shininess=40.0)
    rings = look("rings", (0.40, 0.05, 0.45), (0.90, 0.65, 0.85), 7.0, 0.15, highlight=0.3, shininess=40.0)
    water = look("gradient", (0.02, 0.06, 0.45), (0.06, 0.70, 0.65), 1.9, 0.3, highlight=0.3, shininess=40.0)
    shapes = (
        Shape("box", (0.90, 0.90, 0.08), (0, 0, -0.40), material=slab),
        Shape("sphere", (0.43,), (-0.28, 0.26, 0.11), material=stripes),
        Shape("box", (0.22, 0.22, 0.30), (0.48, 0.36, -0.02), turned(0.5), material=look("tiles", AMBER, RUST, 4.5)),
        Shape("sphere", (0.28,), (0.31, -0.36, -0.04), material=water),
        Shape("box", (0.17,) * 3, (-0.44, -0.47, -0.15), turned(0.8), material=look("rings", MOSS, LEAF, 5.9)),
        Shape("sphere", (0.17,), (0.48, 0.36, 0.45), material=rings),
        Shape("sphere", (0.12,), (-0.44, -0.47, 0.14), material=look("gradient", RUST, AMBER, 3.5)),
        Shape("box", (0.07, 0.07, 0.26), (0.74, -0.74, -0.06), material=look("stripes", WHITE, NAVY, 7.0)),
    )
    return SyntheticScene("solids", shapes, floor=-0.48)


def carved() -> SyntheticScene:
    """Solids cut, joined and blended: holes, rounded edges, a lattice of saddles."""
    marble, inner = look("noise", WHITE, SLATE, 5.0, 0.5), look("stripes", RED, AMBER, 6.0)
    at = (-0.30, 0.22, 0.06)
    cube = [Shape("box", (0.42, 0.42, 0.42, 0.03), at, turned(0.4), material=marble)]
    cube.append(Shape("sphere", (0.54,), at, operation="intersect", material=look("spots", TEAL, CREAM, 7.0)))
    for rotation in (turned(0.4), turned(0.4, math.pi / 2), turned(0.4 + math.pi / 2, math.pi / 2)):
        cube.append(Shape("cylinder", (0.24, 0.6), at, rotation, "subtract", material=inner))
    ball = (0.48, 0.42, -0.02)
    lattice = [
        Shape("gyroid", (2.6, 0.030), ball, material=look("gradient", GOLD, RUST, 2.0)),
        Shape("sphere", (0.34,), ball, operation="intersect", material=look("noise", GOLD, CREAM, 6.0)),
    ]
    blob_look = look("rings", VIOLET, ROSE, 5.0, highlight=0.35, shininess=50.0)
    blob = [Shape("sphere", (0.22,), (0.34, -0.44, -0.14), material=blob_look)]
    for radius, centre in ((0.17, (0.60, -0.36, 0.04)), (0.13, (0.44, -0.58, 0.17)), (0.15, (0.14, -0.58, 0.0))):
        blob.append(Shape("sphere", (radius,), centre, blend=0.16, material=blob_look))
    base = Shape("cylinder", (1.0, 0.07, 0.03), (0, 0, -0.43), material=look("tiles", (0.20, 0.24, 0.26), STONE, 5.0))
    ring = Shape("torus", (0.20, 0.07), (-0.52, -0.52, -0.29), material=look("checker", TEAL, CREAM, 9.0))
    return SyntheticScene("carved", (base, cube, lattice, blob, ring), floor=-0.50)


def wires() -> SyntheticScene:
    """Thin structures: a cage of rods about a ball, a spoked wheel, and blades of grass."""
    brass = look("stripes", GOLD, RUST, 3.0, 0.2, highlight=0.4, shininess=40.0)
    green = look("gradient", MOSS, LEAF, 3.0, 0.3)
    shapes: list = [
        Shape("cylinder", (1.0, 0.06, 0.02), (0, 0, -0.56), material=look("noise", SLATE, STONE, 3.0, 0.6)),
        Shape("sphere", (0.20,), (0, 0, -0.10), material=look("checker", RED, CREAM, 7.0)),
    ]
    low, middle, high = around(18, 0.46, -0.50), around(18, 0.46, 0.22), around(18, 0.10, 0.66)
    shapes += [rod(a, b, 0.013, brass) for a, b in (*zip(low, middle, strict=True), *zip(middle, high, strict=True))]
    for radius, height in ((0.46, -0.36), (0.46, -0.06), (0.46, 0.22), (0.10, 0.66)):
        shapes.append(Shape("torus", (radius, 0.018), (0, 0, height), material=brass))
    wheel, hub = turned(0.8, math.pi / 2), (-0.62, -0.36, -0.22)
    shapes.append(Shape("torus", (0.27, 0.02), hub, wheel, material=look("stripes", NAVY, WHITE, 8.0)))
    for x, y, _ in around(10, 0.27, 0.0):
        end = tuple(hub[i] + wheel[i][0] * x + wheel[i][1] * y for i in range(3))
        shapes.append(rod(hub, end, 0.008, look("plain", WHITE, WHITE)))
    for i, (x, y, z) in enumerate(around(26, 0.75, -0.50, 0.3)):
        lean, grow = 0.10 * math.sin(5.1 * i), 0.22 + 0.12 * math.sin(3.7 * i)
        if math.hypot(x + 0.62, y + 0.36) > 0.36:
            shapes.append(rod((x, y, z), (1.12 * x + lean, 1.12 * y - lean, z + grow), 0.011, green))
    return SyntheticScene("wires", tuple(shapes), floor=-0.62)


def glossy() -> SyntheticScene:
    """View-dependent light: highlights, and surfaces that mirror the sky."""
    lacquer = dict(highlight=0.7, shininess=60.0, reflection=0.06)
    metal = dict(highlight=0.5, shininess=90.0, reflection=0.30)
    slab = look("tiles", COAL, (0.12, 0.11, 0.13), 3.0, 0.3, highlight=0.35, shininess=60.0, reflection=0.05)
    gold, teal = look("plain", GOLD, GOLD, **metal), look("plain", TEAL, TEAL, **lacquer)
    red, rose = look("noise", RED, (0.30, 0.01, 0.01), 3.0, 0.3, **lacquer), look("rings", CREAM, ROSE, 7.0, **lacquer)
    shapes = (
        Shape("box", (0.95, 0.95, 0.05, 0.03), (0, 0, -0.45), material=slab),
        Shape("sphere", (0.40,), (-0.32, 0.22, 0.0), material=red),
        Shape("torus", (0.30, 0.12), (0.34, 0.34, -0.02), turned(0.4, 1.1), material=gold),
        Shape("box", (0.2, 0.2, 0.2, 0.06), (0.30, -0.44, -0.20), turned(0.6), material=teal),
        Shape("sphere", (0.19,), (-0.34, -0.50, -0.21), material=look("stripes", NAVY, TEAL, 6.0, **lacquer)),
        Shape("cylinder", (0.12, 0.22, 0.04), (-0.74, -0.22, -0.18), material=rose),
        Shape("sphere", (0.11,), (0.72, -0.12, -0.29), material=look("plain", STONE, STONE, **metal)),
    )
    return SyntheticScene("glossy", shapes, floor=-0.50)


def glass() -> SyntheticScene:
    """Transparent things: coloured glass with something inside, and something behind."""
    shapes = (
        Shape("cylinder", (1.0, 0.06, 0.02), (0, 0, -0.44), material=look("checker", CREAM, (0.20, 0.13, 0.10), 3.3)),
        Shape("torus", (0.19, 0.06), (-0.26, 0.20, 0.0), turned(0.5, 1.0), material=look("stripes", RED, CREAM, 9.0)),
        Shape("sphere", (0.12,), (0.42, -0.30, -0.20), material=look("spots", AMBER, NAVY, 9.0)),
        Shape("box", (0.13, 0.13, 0.26), (0.52, 0.44, -0.12), turned(0.3), material=look("tiles", RUST, CREAM, 7.0)),
        Shape("sphere", (0.14,), (-0.46, -0.52, -0.24), material=look("rings", MOSS, LEAF, 7.0)),
    )
    blue = Medium((0.30, 0.58, 0.85), 0.9)
    green = Medium((0.35, 0.75, 0.50), 1.8)
    clear = (
        Shape("sphere", (0.40,), (-0.26, 0.20, 0.02), material=blue),
        Shape("box", (0.22, 0.22, 0.22, 0.03), (0.42, -0.30, -0.15), turned(0.35), material=green),
    )
    return SyntheticScene("glass", shapes, clear, floor=-0.50)


def courtyard() -> SyntheticScene:
    """Without bounds: endless paving below an open sky, a fountain between columns, walls further out."""
    stone = look("noise", STONE, (0.42, 0.39, 0.35), 4.0, 0.25)
    paving = Material("tiles", ((0.42, 0.36, 0.30), (0.58, 0.52, 0.43)), 2.2, 0.30, 7.0, 0.0)
    shapes: list = [Shape("plane", (), (0, 0, -0.5), material=paving)]
    basin = [
        Shape("cylinder", (0.62, 0.12, 0.03), (0, 0, -0.38), material=stone),
        Shape("cylinder", (0.52, 0.12), (0, 0, -0.28), operation="subtract", material=look("tiles", TEAL, NAVY, 8.0)),
    ]
    shapes += [basin, Shape("cylinder", (0.09, 0.26, 0.02), (0, 0, -0.22), material=look("stripes", CREAM, RUST, 5.0))]
    ball = (0, 0, 0.28)
    shapes.append(
        [
            Shape("gyroid", (2.2, 0.034), ball, material=look("gradient", GOLD, RED, 2.0)),
            Shape("sphere", (0.30,), ball, operation="intersect", material=look("noise", GOLD, CREAM, 6.0)),
        ]
    )
    for i, (x, y, _) in enumerate(around(6, 1.1, 0.0, 0.5)):
        pattern = ("rings", "stripes", "spots")[i % 3]
        colors = ((RED, ROSE), (TEAL, CREAM), (VIOLET, ROSE))[i // 2]
        shapes.append(Shape("cylinder", (0.09, 0.36, 0.01), (x, y, -0.14), material=look(pattern, *colors, 3.5, 0.2)))
        shapes.append(Shape("box", (0.12, 0.12, 0.035), (x, y, 0.25), material=stone))
    brick = look("tiles", RUST, (0.62, 0.36, 0.22), 1.6, 0.3, detail_frequency=3.0)
    for i, (x, y, _) in enumerate(around(5, 5.5, 0.0, 0.2)):
        size = (0.5, 1.2 + 0.3 * math.sin(2 * i), 0.9 + 0.5 * math.cos(3 * i))
        shapes.append(Shape("box", size, (x, y, size[2] - 0.5), turned(math.atan2(y, x)), material=brick))
    for x, y, _ in around(7, 3.6, 0.0, 0.35):
        shapes.append(Shape("sphere", (0.35,), (x, y, -0.20), material=look("noise", MOSS, LEAF, 6.0, 0.6)))
    view = dict(target=(0.0, 0.0, -0.1), distance=2.9, angle=1.0, heights=(0.36, 0.80))
    return SyntheticScene("courtyard", tuple(shapes), open_sky=True, **view)


#: name -> the function that makes the scene
SCENES: dict[str, Callable[[], SyntheticScene]] = {
    f.__name__: f for f in (solids, carved, wires, glossy, glass, courtyard)
}


def synthetic_scene(name: str | os.PathLike, *, up: str = "y") -> SyntheticScene:
    """The scene of that name, or of a mesh's file (.obj, .ply, .glb) with the axis `up` ("y" or "z") upwards."""
    if name in SCENES:
        return SCENES[name]()
    path = Path(name)
    if path.suffix.lower() in ENDINGS or path.exists():
        mesh = load_mesh(path, up)
        low = float(mesh.bvh.vertices[:, 2].min())
        return SyntheticScene(path.stem, mesh=mesh, floor=low)
    near = difflib.get_close_matches(str(name), SCENES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise BadInput(
        f"scene is {str(name)!r}; {hint}the rule: one of {', '.join(SCENES)}, or a mesh ({' '.join(ENDINGS)})"
    )


def for_photographs(scene: SyntheticScene) -> SyntheticScene:
    """The scene as one would photograph it: on the ground, below the sky, from close by."""
    if scene.open_sky:
        return scene
    return replace(scene.on_ground(PAVING), distance=2.6, angle=0.95)
