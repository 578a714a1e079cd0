"""A mesh whose texture holds features, which a tiny network turns into a colour by direction (MobileNeRF, Chen et al.
2023, sec. 3.3), distilled from a field's views.

    rgb = f_0..2 + MLP(f, d)      f [F] in [0, 1], 8 bits each: the texel that a ray meets; d: its direction

MobileNeRF learns its triangles too, and which texels are holes; here they are those of the field's surface, and all is
opaque. The first three features begin as the field's colours seen from in front, and the network as 0.

Texture: two triangles share a block of (s + 1) x s texels; the first has those (i, j) with i + j < s, the other what is
left, turned round. Texels are taken as they are, so that no triangle sees its neighbour's.
Letters: N rays, T triangles, s texels along a triangle's legs, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from ..meshing.mesh import Mesh
from ..networks import mlp
from ..rays import Rays
from ..tracing.bvh import Bvh, trace_triangles
from .network_texels import round_weights

FEATURES = 8
WIDE, TALLEST = 2048, 8192  # texels of the texture along its sides
BATCH = 1 << 14
AROUND = 2  # triangles about one that a ray meets that are kept with it
NO_HIT = "no ray of the run's views meets the mesh; the rule: a run with a surface, and poses that see it"
TEXEL_RATE, RATE, LAST = 0.05, 5e-3, 0.05


@dataclass(frozen=True)
class Config:
    """The baked mesh's options."""

    resolution: int = 160  # cells of the mesh along the scene's side
    texels: int = 5  # texels along each triangle's legs


class BakedMesh:
    """The mesh: corners [T, 3, 3] in scene coordinates, as 16 bits within their box hold them. Raises `BadInput` where
    its texture would be larger than browsers allow."""

    def __init__(self, corners: Tensor, texels: int, seed: int = 0):
        low, high = corners.amin((0, 1)).double(), corners.amax((0, 1)).double()
        self.low, self.size = low, (high - low).clamp_min(1e-9)
        self.steps = ((corners.double() - low) / self.size * 65535).round().to(torch.int32)
        at = (self.low + self.steps.double() / 65535 * self.size).float()
        self.corners, self.texels = at, texels
        self.tree = Bvh.of(at.view(-1, 3), torch.arange(3 * len(at)).view(-1, 3))
        columns, pairs = WIDE // (texels + 1), (len(at) + 1) // 2
        self.height = (pairs + columns - 1) // columns * texels
        if self.height > TALLEST:
            raise BadInput(
                f"{len(at)} triangles with {texels} texels need {self.height} rows of a texture; the rule: at most "
                f"{TALLEST}; a lower --web.mesh.resolution or --web.mesh.texels"
            )
        self.features = torch.zeros(self.height * WIDE, FEATURES)  # logits
        layers = mlp.Config(width=16, hidden_layers=2, bias=True)
        self.network = mlp.MLP(FEATURES + 3, 3, layers, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.network.weights[self.network.layers.table[-1, 2] :] = 0  # the last layer

    def meet(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """(the texel of each ray that hits [n], which rays these are [N] bool)."""
        hits = trace_triangles(self.tree, rays)
        hit = hits.index >= 0
        return self.texel(hits.index[hit].long(), hits.weights[hit]), hit

    def texel(self, triangle: Tensor, weights: Tensor) -> Tensor:
        """[n] texels at places on triangles: weights [n, 2] of the second and the third corner."""
        s = self.texels
        place = (weights * s).floor().long().clamp(0, s - 1)
        i, j = place.unbind(1)
        over = (i + j - (s - 1)).clamp_min(0)  # on the edge between the two
        from_i = torch.minimum(over, i)
        i, j = i - from_i, j - (over - from_i)
        second = triangle % 2 == 1
        x, y = torch.where(second, s - i, i), torch.where(second, s - 1 - j, j)
        columns, pair = WIDE // (s + 1), triangle // 2
        return (pair // columns * s + y) * WIDE + pair % columns * (s + 1) + x

    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """(texel [n], triangle [n], scene position of its middle [n, 3]) of all texels in use."""
        s = self.texels
        i, j = torch.cartesian_prod(torch.arange(s), torch.arange(s)).unbind(1)
        kept = i + j < s
        weights = (torch.stack((i[kept], j[kept]), 1) + 0.5) / s
        inner = torch.where(weights.sum(1, keepdim=True) >= 1, weights * (1 - 1e-4), weights)
        count, each = len(self.corners), len(inner)
        triangle = torch.arange(count).repeat_interleave(each)
        weights = inner.repeat(count, 1)
        a, b, c = self.corners[triangle].unbind(1)
        x = a + weights[:, :1] * (b - a) + weights[:, 1:] * (c - a)
        return self.texel(triangle, weights), triangle, x

    def paint(self, color: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Begins with the colours of color(x [n, 3], d [n, 3]), seen from in front."""
        texel, triangle, x = self.places()
        towards = -self.tree.normals[triangle]
        towards[towards.norm(dim=1) < 0.5] = torch.tensor([0.0, 0, -1])
        parts = zip(texel.split(1 << 17), x.split(1 << 17), towards.split(1 << 17), strict=True)
        for at, place, d in parts:
            self.features[at, :3] = color(place, d.contiguous()).float().clamp(0.02, 0.98).logit()

    def shade(self, features: Tensor, directions: Tensor) -> Tensor:
        """[n, 3] of features [n, F] in [0, 1] along directions [n, 3]."""
        return features[:, :3] + self.network(torch.cat((features, directions), 1))

    def __call__(self, rays: Rays, background: float) -> Tensor:
        """[N, 3]: what is seen of what `picture` holds."""
        seen = torch.full((len(rays), 3), background)
        texel, hit = self.meet(rays)
        seen[hit] = self.shade(self.picture()[texel].float() / 255, rays.directions[hit]).clamp(0, 1)
        return seen

    def picture(self) -> Tensor:
        """[height * WIDE, F] uint8."""
        return (self.features.sigmoid() * 255).round().to(torch.uint8)


def seen_part(mesh: Mesh, rays: Rays) -> Mesh:
    """The triangles of `mesh` that rays [N] meet first, and those around them: what lies inside, or below, is not worth
    its texels. Raises `BadInput` where no ray hits."""
    hits = trace_triangles(Bvh.of(mesh.vertices, mesh.triangles), rays)
    kept = torch.zeros(len(mesh.triangles), dtype=torch.bool)
    kept[hits.index[hits.index >= 0].long()] = True
    if not kept.any():
        raise BadInput(NO_HIT)
    for _ in range(AROUND):
        corner = torch.zeros(len(mesh.vertices), dtype=torch.bool)
        corner[mesh.triangles[kept].flatten()] = True
        kept = corner[mesh.triangles].any(1)
    return mesh.select(kept)


def fit(
    mesh: BakedMesh,
    rays: Rays,
    color: Tensor,
    used: Callable[[int], float],
    each: Callable[[int, float], None] = lambda step, loss: None,
    seed: int = 0,
) -> int:
    """Trains features and network on rays [N] and their colours [N, 4] (straight alpha, which is their weight) until
    `used(steps)`, the part of the budget that is used, is 1; returns the steps. Raises `BadInput` where no ray hits."""
    texel, hit = mesh.meet(rays)
    directions, target, weight = rays.directions[hit], color[hit, :3], color[hit, 3:]
    if not len(texel):
        raise BadInput(NO_HIT)
    table = torch.nn.Parameter(mesh.features)
    sparse = torch.optim.SparseAdam([table], TEXEL_RATE)
    dense, step = torch.optim.Adam([mesh.network.weights], RATE), 0
    while (progress := used(step)) < 1:
        for optimizer, rate in ((sparse, TEXEL_RATE), (dense, RATE)):
            optimizer.param_groups[0]["lr"] = rate * LAST**progress
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(texel), (BATCH,), generator=generator)
        found = torch.nn.functional.embedding(texel[chosen], table, sparse=True).sigmoid()
        error = (mesh.shade(found, directions[chosen]) - target[chosen]).square() * weight[chosen]
        loss = error.mean()
        sparse.zero_grad()
        dense.zero_grad()
        loss.backward()
        sparse.step()
        dense.step()
        step += 1
        each(step, loss.item())
    mesh.features = table.detach()
    round_weights(mesh.network)
    return step
