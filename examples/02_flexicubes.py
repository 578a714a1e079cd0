"""Fits a mesh with sharp edges to a turned box: values, weights and lattice points of FlexiCubes are optimised so that
random points of the mesh come to lie on the box. Marching cubes on the same lattice cuts the edges off.

    python examples/02_flexicubes.py box.ply
"""

import sys
from pathlib import Path

import torch

from radfield.meshing.files import write_mesh
from radfield.meshing.flexicubes import Grid, Weights, extract, moved, sign_changes
from radfield.meshing.marching_cubes import Lattice, marching_cubes
from radfield.meshing.mesh import Mesh

HALF = torch.tensor([0.62, 0.45, 0.33])  # half the sides of the box
TURN = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.4, 0.3], [0.4, 0.0, -0.2], [-0.3, 0.2, 0.0]]))


def box(x: torch.Tensor) -> torch.Tensor:
    """Signed distance [M] to the box at x [M, 3]."""
    q = (x @ TURN.to(x)).abs() - HALF.to(x)
    return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)


def points_of(vertices: torch.Tensor, triangles: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[T, 3]: a random point of each triangle."""
    weights = -torch.rand(len(triangles), 3, 1, generator=generator).clamp_min(1e-9).log()
    return (vertices[triangles] * (weights / weights.sum(1, keepdim=True)).to(vertices)).sum(1)


def fit(cells: int = 20, steps: int = 150) -> Mesh:
    """The mesh after `steps` of Adam."""
    grid = Grid((-1.0, -1.0, -1.0), 2 / cells, (cells,) * 3)
    values = box(grid.points()).requires_grad_()
    raw = torch.zeros(cells**3, 21, requires_grad=True)
    shift = torch.zeros(len(values), 3, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [values], "lr": 1e-3}, {"params": [raw, shift], "lr": 2e-2}])
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        found = extract(grid, values, Weights.of(raw), moved(grid, shift), training=True)
        error = box(points_of(found.vertices, found.triangles, generator)).abs().mean()
        loss = error + 0.05 * found.deviation.mean() + 1e-4 * sign_changes(grid, values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return extract(grid, values.detach(), Weights.of(raw.detach()), moved(grid, shift.detach())).mesh()


def error_of(mesh: Mesh) -> float:
    """The mean distance of the mesh's points from the box, even by area."""
    from radfield.tracing.surface import Surface

    points = Surface.of(mesh.vertices, mesh.triangles).sample(50_000, torch.Generator().manual_seed(1))
    return float(box(points.double()).abs().mean())


def main() -> None:
    """Prints both errors; writes the mesh where a file is given."""
    lattice = Lattice(torch.full((3,), -1.0, dtype=torch.float64), 0.1, (20, 20, 20))
    plain = marching_cubes(box, lattice, lambda centres, radius: box(centres).abs() <= radius)
    fitted = fit()
    print(f"marching cubes {error_of(plain):.2e}, FlexiCubes {error_of(fitted):.2e}")
    if len(sys.argv) > 1:
        write_mesh(Path(sys.argv[1]), fitted)


if __name__ == "__main__":
    main()
