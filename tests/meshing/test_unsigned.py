"""Open sheets out of unsigned distances: in place, as large as they are, in one part; the lattice of marching cubes."""

import math

import pytest
import torch

from radfield.meshing.parts import areas, holes
from radfield.meshing.unsigned import mesh_of_unsigned

BOX = torch.full((3,), 0.02, dtype=torch.float64), torch.full((3,), 0.98, dtype=torch.float64)


def disc(x):
    """A turned disc of radius 0.3."""
    x = x.double() - 0.5
    axis = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 1.0], dtype=torch.float64), dim=0)
    height = x @ axis
    across = (x - height[:, None] * axis).norm(dim=-1)
    return torch.hypot((across - 0.3).clamp_min(0), height).float()


def half_sphere(x):
    """Radius 0.3, the upper half."""
    x = x - 0.5
    rim = torch.hypot(torch.hypot(x[:, 0], x[:, 1]) - 0.3, x[:, 2])
    return torch.where(x[:, 2] >= 0, (x.norm(dim=-1) - 0.3).abs(), rim)


def sphere(x):
    return ((x - 0.5).norm(dim=-1) - 0.293).abs()


@pytest.mark.parametrize(
    ("field", "area", "rim"),
    [
        (disc, math.pi * 0.09, 2 * math.pi * 0.3),
        (half_sphere, 2 * math.pi * 0.09, 2 * math.pi * 0.3),
        (sphere, 4 * math.pi * 0.293**2, 0),
    ],
    ids=["disc", "half-sphere", "sphere"],
)
def test_a_sheet_is_where_it_is(field, area, rim):
    n = 64
    mesh = mesh_of_unsigned(field, BOX, n)
    spacing = 0.96 / n
    assert field(mesh.vertices.float()).max() < spacing and field(mesh.vertices.float()).mean() < 0.08 * spacing
    assert float(areas(mesh).sum()) == pytest.approx(area, rel=0.06)
    parts = mesh.components()[mesh.triangles[:, 0]].bincount()
    assert parts.max() > 0.99 * len(mesh.triangles), "one part but for scraps at the rim"
    long = holes(mesh.vertices, mesh.triangles)
    if rim:
        assert float(long[0]) > 0.9 * rim
    # what is left of slits: a few cells each, together less than the sheet's 4000 cells have sides
    assert (long[1 if rim else 0 :] < 16 * spacing).all() and long[1 if rim else 0 :].sum() < 0.01 * 4000 * 4 * spacing


def test_nothing_where_nothing_is():
    assert not len(mesh_of_unsigned(lambda x: torch.full((len(x),), 0.5), BOX, 16).triangles)
