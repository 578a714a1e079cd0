"""Fewer triangles: as many as asked for, closed and in place, whatever the unit."""

import sys

import pytest
import torch
from tracing_meshes import sphere

from radfield.errors import BadInput
from radfield.meshing.decimate import decimate
from radfield.meshing.mesh import Mesh
from radfield.tracing.surface import Surface


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_a_sphere_stays_one(unit):
    vertices, triangles = sphere(5)
    made = decimate(Mesh(unit * (vertices.double() + 3), triangles), 1000)
    assert 900 <= len(made.triangles) <= 1000
    surface = Surface.of(made.vertices, made.triangles)
    assert surface.open_edges == 0
    radius = (made.vertices / unit - 3).norm(dim=-1)
    assert (radius - 1).abs().max() < 0.01, "a triangle of such a mesh has a sagitta of 0.004"
    assert made.colors is None


def test_a_flat_sheet_stays_flat_and_loses_little_at_its_corners():
    side = torch.linspace(0, 1, 33, dtype=torch.float64)
    x, y = torch.meshgrid(side, side, indexing="ij")
    at = torch.arange(33 * 33).view(33, 33)
    a, b, c, d = at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]
    triangles = torch.cat((torch.stack((a, b, c), -1).view(-1, 3), torch.stack((a, c, d), -1).view(-1, 3)))
    sheet = Mesh(torch.stack((x, y, torch.zeros_like(x)), -1).view(-1, 3), triangles)
    made = decimate(sheet, 200)
    assert len(made.triangles) <= 200 and made.vertices[:, 2].abs().max() < 1e-9
    assert Surface.of(made.vertices, made.triangles).area_vectors.norm(dim=-1).sum() == pytest.approx(1, abs=0.03)


def test_a_small_mesh_stays_as_it_is():
    vertices, triangles = sphere(1)
    mesh = Mesh(vertices.double(), triangles)
    assert decimate(mesh, len(triangles)) is mesh


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    vertices, triangles = sphere(1)
    with pytest.raises(BadInput, match=r"--triangles needs fast_simplification .*; the rule: pip install") as error:
        decimate(Mesh(vertices.double(), triangles), 4)
    assert "\n" not in str(error.value)
