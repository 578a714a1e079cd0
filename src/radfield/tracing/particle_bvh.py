"""A bounding volume hierarchy over particles: ellipsoids whose response falls off with the distance from their centre.

A particle has a mean, a rotation R (by a quaternion), scales S and an opacity o. At the distance d = |S^-1 R^T (x -
mean)| from it, in its own units, its response is exp(-4.5 (d / 3)^b) for the degree b = 1, 2 (a Gaussian), 3, 4, 5, 8,
or max(0, 1 - 0.3296 d) for b = 0 (Moenne-Loccoz et al. 2024, "3D Gaussian Ray Tracing", sec. 4.3, and their code). It
is bounded where o times response falls to `min_response`: the less opaque, the smaller. Its box is that of the
ellipsoid there, half as wide as sqrt(sum_j (R_ij s_j)^2) times that distance along axis i, and no larger. Stretched
icosahedra, which a GPU's triangle units ask for, do not pay here: a ray that meets a box is tested against the
particle itself, 16 of them at a time, which costs less than one of an icosahedron's 20 triangles.

The tree has 16 children per node, which are SIMD lanes: an inner node is 16 boxes (x, y, z of the low corners, then of
the high ones, stream by stream) and 16 numbers, above 0 an inner node, below 0 the leaf -1 - number, 0 nothing. A leaf
is 16 particles, order[16 l : 16 l + 16], and their boxes. It is divided from the top where surface area times leaves
is least (binned, Wald 2007), along x, y, z or the particles' size, so that large particles part from small ones;
ranges are halved below 6 levels. Whatever the number of threads the tree is the same. `refit` gives the same tree new
boxes.

Particles that a ray can never meet (opacity up to `min_response`, a value that is not finite, a negative scale, no
scale above 1e-9 or one above 1e9, a mean beyond 1e12, a quaternion of length 0) have empty boxes. A scale counts as at
least 1e-5 of the particle's largest one: what is flat stays flat, in numbers that float32 can hold.

Letters: G particles, I inner nodes, L leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import backend
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar

WIDE = 16
DEGREES = (0, 1, 2, 3, 4, 5, 8)
MOST_PARTICLES = 1 << 28
_PARTICLES = (
    In("means", "f32", "3 G"),
    In("quaternions", "f32", "4 G", "w, x, y, z of any length"),
    In("scales", "f32", "3 G"),
    In("opacities", "f32", "G"),
)
_KERNEL = (Scalar("min_response", "float"), Scalar("degree", "int"))
BOUNDS = Op(
    "particle_bounds",
    Out("item", "f32", "G 8", "low corner, number (bits), high corner, logarithm of the size"),
    *_PARTICLES,
    *_KERNEL,
)
BUILD = Op(
    "particle_bvh_build",
    Out("order", "i32", "G"),
    Out("child", "i32", "I 16"),
    Out("slot", "i32", "I", "of each inner node in its parent: 16 parent + child"),
    Out("leaf_slot", "i32", "L"),
    Out("used", "i64", "1", "inner nodes; I is at least that of `most_nodes`"),
    InOut("item", "f32", "G 8", "permuted"),
)
REFIT = Op(
    "particle_bvh_refit",
    Out("box", "f32", "I 6 16"),
    Out("leaf_box", "f32", "L 6 16"),
    *_PARTICLES,
    In("order", "i32", "G"),
    In("child", "i32", "I 16"),
    In("slot", "i32", "I"),
    In("leaf_slot", "i32", "L"),
    *_KERNEL,
)


@BOUNDS.cuda
def _(a):
    return Launch("particle_bounds", blocks(a.G))


@REFIT.cuda
def _(a):
    name = "particle_bvh_refit"
    leaves, nodes = Launch(f"{name}_leaves", blocks(WIDE * a.L)), Launch(f"{name}_nodes", (1,), (512,))
    return Launch(f"{name}_clear", blocks(6 * WIDE * a.I)), leaves, nodes


@dataclass(frozen=True)
class Kernel:
    """The particles' shape: the degree of the response, and the smallest opacity times response that a ray notices."""

    degree: int = 2
    min_response: float = 0.0113

    def __post_init__(self):
        if self.degree not in DEGREES:
            raise BadInput(f"Kernel: degree is {self.degree!r}; the rule: one of {', '.join(map(str, DEGREES))}")
        if not 1e-6 <= self.min_response < 1:
            raise BadInput(f"Kernel: min_response is {self.min_response!r}; the rule: from 1e-6, and below 1")


GAUSSIAN = Kernel()


def particle_streams(means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor) -> dict[str, Tensor]:
    """Particles [3, G], [4, G], [3, G], [G] as the ops take them."""
    values = {"means": means, "quaternions": quaternions, "scales": scales, "opacities": opacities}
    return {name: value.detach().contiguous() for name, value in values.items()}


@dataclass(frozen=True)
class ParticleBvh:
    """A tree over G >= 1 particles; names as in the ops."""

    kernel: Kernel
    order: Tensor
    child: Tensor
    slot: Tensor
    leaf_slot: Tensor
    box: Tensor
    leaf_box: Tensor

    def __len__(self) -> int:
        return len(self.order)

    @staticmethod
    def of(
        means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, kernel: Kernel = GAUSSIAN
    ) -> ParticleBvh:
        """Builds the tree of particles [3, G], [4, G], [3, G], [G], float32; that of particles on a GPU is divided on
        the CPU. Raises `BadInput` for none of them, or too many."""
        particles = particle_streams(means, quaternions, scales, opacities)
        count = len(opacities)
        if not 1 <= count <= MOST_PARTICLES:
            raise BadInput(f"ParticleBvh: it has {count} particles; the rule: from 1 to {MOST_PARTICLES}")
        leaves, device = -(-count // WIDE), opacities.device
        item = torch.empty(count, 8, device=device)
        BOUNDS(item=item, **particles, min_response=kernel.min_response, degree=kernel.degree)
        host = {"dtype": torch.int32, "device": "cpu"}
        child = torch.empty(max(leaves, 1), WIDE, **host)  # a node has two children at least
        order, slot, leaf_slot = (torch.empty(n, **host) for n in (count, len(child), leaves))
        used = torch.empty(1, dtype=torch.int64, device="cpu")
        with backend.use("cpu"):
            BUILD(order=order, child=child, slot=slot, leaf_slot=leaf_slot, used=used, item=item.cpu())
        tables = (order, child[: int(used)], slot[: int(used)], leaf_slot)
        boxes = (torch.empty(n, 6, WIDE, device=device) for n in (int(used), leaves))
        tree = ParticleBvh(kernel, *(table.to(device) for table in tables), *boxes)
        tree.refit(means, quaternions, scales, opacities)
        return tree

    def refit(self, means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor) -> None:
        """Gives the tree the boxes of the same particles after they have changed. It stays valid however far they
        moved, but rays visit more of it: build it again now and then (3DGRT: after 15 refits). Raises `BadInput`
        for another number of particles."""
        if len(opacities) != len(self):
            rule = f"the tree has {len(self)}: build it again"
            raise BadInput(f"ParticleBvh: there are {len(opacities)} particles; the rule: {rule}")
        REFIT(
            box=self.box,
            leaf_box=self.leaf_box,
            **particle_streams(means, quaternions, scales, opacities),
            order=self.order,
            child=self.child,
            slot=self.slot,
            leaf_slot=self.leaf_slot,
            min_response=self.kernel.min_response,
            degree=self.kernel.degree,
        )
