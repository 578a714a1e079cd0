"""What `export` and `convert` share: a scene of Gaussians written as a file, in an order that suits its format."""

from __future__ import annotations

import glob
from pathlib import Path

from ...errors import BadInput, warn

ORDERS = ("auto", "keep", "morton", "plas")
MOST_SORTED = 300_000  # Gaussians that "auto" sorts by PLAS: it takes time
_AUTO = {".sog": "plas", "meta.json": "plas", ".compressed.ply": "morton"}


def check_output(path: Path, order: str, version: int | None) -> None:
    """Raises `BadInput` for a file, order or version that cannot be written."""
    from ...gaussians.files import check_target

    if order not in ORDERS:
        raise BadInput(f"--order is {order}; the rule: {', '.join(ORDERS)}")
    check_target(path, version)


def write_scene(path: Path, scene, order: str, version: int | None) -> dict:
    """Writes `scene`; returns the figures: file, gaussians, bytes (of all its files), order."""
    from ...gaussians.files import check_target, write_gaussians

    ending = check_target(path, version)
    if order == "auto":
        order = _AUTO.get(ending, "keep")
        if order == "plas" and len(scene) > MOST_SORTED:
            warn(
                f"{path}: {len(scene)} Gaussians stand along a Morton curve; --order plas takes minutes, and less space"
            )
            order = "morton"
    write_gaussians(path, _ordered(scene, order), version)
    beside = {"meta.json": "*.webp", ".gltf": f"{glob.escape(path.stem)}.bin"}.get(ending)
    files = [path, *(path.parent.glob(beside) if beside else ())]
    size = sum(each.stat().st_size for each in files)
    return {"file": str(path), "gaussians": len(scene), "bytes": size, "order": order}


def _ordered(scene, order: str):
    if order == "keep" or not len(scene):
        return scene
    if order == "morton":
        from ...gaussians.order import morton_order

        return scene.select(morton_order(scene.means))
    from ...gaussians.plas import plas_order
    from ...training.progress import Progress

    with Progress("sort Gaussians", steps=100) as progress:
        return scene.select(plas_order(scene, progress=lambda part: progress.update(int(100 * part))))
