"""The parameters of a scene of 3D Gaussians, and how a camera sees it.

Each parameter is a stream per component (the layout of the kernels), as optimised and as 3DGS files hold them:

    means [3, G]            centres
    quaternions [4, G]      w, x, y, z, of any length
    log_scales [3, G]       natural logarithms
    opacity_logits [G]
    base [3, G]             spherical harmonics of degree 0, red, green, blue
    rest [R, G]             those of degree 1 and more; row 3 (k - 1) + c is coefficient k of channel c

Letters: G Gaussians, R = 3 ((degree + 1)^2 - 1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..encodings.spherical_harmonics import spherical_harmonics_reference
from ..errors import BadInput
from ..geometry import SceneTransform
from ..renderers.gaussian_color import gaussian_color, rest_rows
from ..renderers.gaussian_projection import Camera, Projected, project, rotation_matrices
from ..renderers.gaussian_raster import Rasterised, rasterise
from ..renderers.gaussian_tiles import EntryBudget
from .memory_cap import MemoryCap

ROWS = {"means": (3,), "quaternions": (4,), "log_scales": (3,), "opacity_logits": (), "base": (3,)}
DEGREES = {rest_rows(degree): degree for degree in range(5)}


@dataclass(frozen=True)
class GaussianScene:
    """G Gaussians (see the module)."""

    means: Tensor
    quaternions: Tensor
    log_scales: Tensor
    opacity_logits: Tensor
    base: Tensor
    rest: Tensor

    def __post_init__(self):
        for name, rows in ROWS.items():
            found = getattr(self, name).shape
            if found != (*rows, len(self)):
                raise BadInput(f"GaussianScene: {name} has shape {list(found)}; the rule: {[*rows, len(self)]}")
        if self.rest.ndim != 2 or self.rest.shape[1] != len(self) or len(self.rest) not in DEGREES:
            rule = f"[R, {len(self)}] with R one of {', '.join(map(str, DEGREES))}"
            raise BadInput(f"GaussianScene: rest has shape {list(self.rest.shape)}; the rule: {rule}")

    def __len__(self) -> int:
        return self.opacity_logits.shape[0]

    @property
    def degree(self) -> int:
        """Of the spherical harmonics, 0 to 4."""
        return DEGREES[len(self.rest)]

    def tensors(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def map(self, function) -> GaussianScene:
        """The scene of `function(value)` of each parameter; Gaussians are its last dimension."""
        return GaussianScene(**{name: function(value) for name, value in self.tensors().items()})

    def to(self, device: torch.device | str) -> GaussianScene:
        """The scene on `device`."""
        return self.map(lambda value: value.to(device))

    def select(self, index: Tensor) -> GaussianScene:
        """The Gaussians `index` (numbers, or a mask)."""
        return self.map(lambda value: value[..., index].contiguous())

    def unsound(self) -> Tensor:
        """[G], whether a value is not finite, or the quaternion has no length: such Gaussians are never drawn."""
        finite = torch.ones(len(self), dtype=torch.bool, device=self.means.device)
        for value in self.tensors().values():
            if not bool(value.detach().sum().isfinite()):  # of most scenes the sum is, and nothing more is asked
                each = value.detach().isfinite()
                finite &= each if each.ndim == 1 else each.all(0)
        return ~finite | (self.quaternions.detach().square().sum(0) == 0)

    def transformed(self, transform: SceneTransform) -> GaussianScene:
        """The scene moved, turned and scaled; view-dependent colours turn with it."""
        rotation = torch.tensor(transform.rotation, dtype=torch.float64)
        return replace(
            self,
            means=transform.points(self.means.double().T).T.float().contiguous(),
            quaternions=_quaternion_product(_quaternion(rotation), self.quaternions.double()).float(),
            log_scales=self.log_scales + torch.tensor(transform.scale, dtype=torch.float64).log().float(),
            rest=_turned_harmonics(self.rest, rotation),
        )


def joined(scenes: list[GaussianScene]) -> GaussianScene:
    """The Gaussians of several scenes (at least one), one after the other; of colours by direction that some do not
    have, 0."""
    most = max(len(scene.rest) for scene in scenes)
    wide = [torch.nn.functional.pad(scene.rest, (0, 0, 0, most - len(scene.rest))) for scene in scenes]
    values = {name: torch.cat([getattr(scene, name) for scene in scenes], -1) for name in ROWS}
    return GaussianScene(**values, rest=torch.cat(wide, 1))


@dataclass(frozen=True)
class Seen:
    """What a camera sees of a scene, and the projection on the way."""

    image: Rasterised  # color [rows, columns, 3 or, with depth, 4]
    projected: Projected


def see(
    scene: GaussianScene,
    camera: Camera,
    background: Tensor | None = None,
    *,
    depth: bool = False,
    antialiased: bool = False,
    max_alpha: float = 0.99,
    absolute: Tensor | None = None,
    cap: MemoryCap | None = None,
    budget: EntryBudget | None = None,
) -> Seen:
    """Renders `scene` with `camera`, over `background` [3] (black by default). With `depth` a fourth channel is the sum
    of weight times z, 0 where nothing is. Differentiable by the scene's parameters; `absolute`, `budget`: see
    `rasterise`. `cap` is asked whether there is memory for it."""
    means, scales, opacities = scene.means.T, scene.log_scales.exp().T, scene.opacity_logits.sigmoid()
    projected = project(means, scene.quaternions.T, scales, opacities, camera, antialiased=antialiased)
    if cap is not None:
        cap.check(projected.radius, camera.width, camera.height)
    colors = gaussian_color(means, scene.base, scene.rest, projected.radius, camera.position, degree=scene.degree)
    if depth:
        colors = torch.cat((colors.T, projected.depth[None])).T
        background = None if background is None else torch.cat((background, background.new_zeros(1)))
    options = {"max_alpha": max_alpha, "absolute": absolute, "budget": budget}
    return Seen(rasterise(projected, colors, camera.width, camera.height, background, **options), projected)


def _quaternion(rotation: Tensor) -> Tensor:
    """(w, x, y, z) [4] of a rotation matrix: the eigenvector of Bar-Itzhack's symmetric matrix (2000)."""
    m = rotation
    symmetric = torch.stack(
        [
            torch.stack([m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]),
            torch.stack([m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2]]),
            torch.stack([m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2]]),
            torch.stack([m[1, 0] - m[0, 1], m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1]]),
        ]
    )
    return torch.linalg.eigh(symmetric).eigenvectors[:, -1]


def _quaternion_product(p: Tensor, q: Tensor) -> Tensor:
    """p [4] times each of q [4, G]: the rotation of q, then that of p."""
    w, x, y, z = p
    left = torch.stack([torch.stack(row) for row in ((w, -x, -y, -z), (x, w, -z, y), (y, z, w, -x), (z, -y, x, w))])
    return left @ q


def _turned_harmonics(rest: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients of the functions turned by `rotation`: f'(d) = f(R^T d). A band turns into itself, so its matrix
    follows from the harmonics of a few directions, before and after."""
    if torch.equal(rotation, torch.eye(3, dtype=rotation.dtype)):
        return rest
    directions = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    directions = directions / directions.norm(dim=1, keepdim=True)
    degree = DEGREES[len(rest)]
    now, before = (spherical_harmonics_reference(d, degree + 1) for d in (directions, directions @ rotation))
    turned = torch.empty_like(rest).view(len(rest) // 3, 3, rest.shape[1])
    for band in range(1, degree + 1):
        rows = slice(band**2 - 1, (band + 1) ** 2 - 1)
        columns = slice(band**2, (band + 1) ** 2)
        matrix = torch.linalg.lstsq(now[:, columns], before[:, columns]).solution
        values = rest.view(len(rest) // 3, 3, rest.shape[1])[rows].double()
        turned[rows] = torch.einsum("ij,jcg->icg", matrix, values).float()
    return turned.view_as(rest)


def covariances(scene: GaussianScene) -> Tensor:
    """[G, 3, 3], R diag(s)^2 R^T."""
    axes = rotation_matrices(scene.quaternions.T) * scene.log_scales.exp().T[:, None]
    return axes @ axes.mT
