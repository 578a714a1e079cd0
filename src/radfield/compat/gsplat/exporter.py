"""`gsplat.exporter`: files of Gaussians, by radfield's writers (`gaussians/files.py`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import Tensor

from ...atomic import replacing_file
from ...errors import warn
from ...gaussians.compressed_ply import write_compressed_ply
from ...gaussians.order import morton_order
from ...gaussians.packing import C0
from ...gaussians.ply import write_ply
from ...gaussians.scene import GaussianScene
from ...gaussians.splat_file import write_splat
from .checks import check_choice, check_shape

__all__ = ["C0", "export_splats", "sh2rgb"]
WRITERS = {"ply": write_ply, "splat": write_splat, "ply_compressed": write_compressed_ply}


def sh2rgb(sh: Tensor) -> Tensor:
    """The colour 1/2 + C0 sh of coefficients of degree 0."""
    return 0.5 + C0 * sh


def export_splats(
    means: Tensor,
    scales: Tensor,
    quats: Tensor,
    opacities: Tensor,
    sh0: Tensor,
    shN: Tensor,
    format: str = "ply",
    save_to: str | None = None,
) -> bytes:
    """The bytes of a file of Gaussians, which `save_to` gets too, whole or not at all.

    `means` [N, 3], `scales` [N, 3] (logarithms), `quats` [N, 4] (w, x, y, z), `opacities` [N] (logits), `sh0`
    [N, 1, 3], `shN` [N, K, 3] with K of 0, 3, 8, 15 or 24. format: "ply" (3DGS), "splat" (without harmonics) or
    "ply_compressed"; the latter two follow a Morton curve. Differences from gsplat: a 3DGS file has (zero) normals, as
    Inria's; bytes are rounded, not cut; all harmonics of a compressed file are kept, and Gaussians below 1/255 too;
    what is left out is counted in a warning: values that are not finite, and quaternions of length 0. Raises
    `WrongCall`, and `BadInput` where the file cannot be written.
    """
    N = len(means)
    check_choice("format", format, tuple(WRITERS))
    for name, value, shape in (
        ("means", means, (N, 3)),
        ("scales", scales, (N, 3)),
        ("quats", quats, (N, 4)),
        ("opacities", opacities, (N,)),
        ("sh0", sh0, (N, 1, 3)),
        ("shN", shN, (N, shN.shape[1] if shN.ndim == 3 else 0, 3)),
    ):
        check_shape(name, value, shape)
    streams = means.T, quats.T, scales.T, opacities, sh0[:, 0].T, shN.flatten(1).T
    scene = GaussianScene(*(v.detach().float().cpu().contiguous() for v in streams))
    unsound = scene.unsound()
    if bool(unsound.any()):
        warn(f"export_splats: {int(unsound.sum())} Gaussians have values that are not finite, left out")
        scene = scene.select(~unsound)
    if format != "ply":
        scene = scene.select(morton_order(scene.means))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "splats"
        WRITERS[format](made, scene)
        data = made.read_bytes()
    if save_to:
        with replacing_file(Path(save_to)) as file:
            file.write(data)
    return data
