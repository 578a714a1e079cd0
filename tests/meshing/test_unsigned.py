"""Open sheets out of unsigned distances: in place, as large as they are, in one part, open along their rims alone."""

import math

import pytest
import torch

from radfield.meshing import cube_cases
from radfield.meshing.band import Band, repaired
from radfield.meshing.marching_cubes import Lattice
from radfield.meshing.mending import mended
from radfield.meshing.parts import areas, holes
from radfield.meshing.turning import _neighbours
from radfield.meshing.unsigned import mesh_of_unsigned
from radfield.tracing.surface import Surface

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


def nested(x):
    """The half sphere around a sphere."""
    return torch.minimum(half_sphere(x), ((x - 0.5).norm(dim=-1) - 0.22).abs())


def strip_around(turns):
    """(vertices, triangles) of a band of radius 0.3 and width 0.16 that is turned `turns` half turns: 1 is a Moebius
    strip."""
    along, across = 240, 9
    u = torch.arange(along + 1, dtype=torch.float64)[:, None] / along * 2 * math.pi
    w = torch.linspace(-0.08, 0.08, across, dtype=torch.float64)
    radius = 0.3 + w * torch.cos(turns * u / 2)
    points = torch.stack((radius * u.cos(), radius * u.sin(), w * torch.sin(turns * u / 2)), -1) + 0.5
    first = (torch.arange(along)[:, None] * across + torch.arange(across - 1)).view(-1)
    quads = torch.stack((first, first + across, first + across + 1, first + 1), -1)
    return points.view(-1, 3), torch.cat((quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]))


HALF, BALL = 2 * math.pi * 0.09, 4 * math.pi * 0.22**2
RIM = 2 * math.pi * 0.3


@pytest.mark.parametrize(
    ("field", "area", "rim", "parts"),
    [
        (disc, math.pi * 0.09, RIM, 1),
        (half_sphere, HALF, RIM, 1),
        (sphere, 4 * math.pi * 0.293**2, 0, 1),
        (nested, HALF + BALL, RIM, 2),
    ],
    ids=["disc", "half-sphere", "sphere", "nested"],
)
def test_a_sheet_is_where_it_is(field, area, rim, parts):
    """In place, as large as it is, in as many parts, and open along its rim alone."""
    n = 48
    mesh = mesh_of_unsigned(field, BOX, n)
    off, spacing = field(mesh.vertices.float()), 0.96 / n
    assert off.max() < 0.15 * spacing and off.mean() < 0.01 * spacing
    assert float(areas(mesh).sum()) == pytest.approx(area, rel=0.02)
    assert len(mesh.components().unique()) == parts
    lines = holes(mesh.vertices, mesh.triangles)
    assert len(lines) == (1 if rim else 0)
    if rim:
        assert rim < float(lines[0]) < 1.6 * rim, "the rim, in steps of a cell"


def test_a_moebius_strip_has_one_rim_and_a_full_turn_two():
    for turns, rims in ((1, 1), (2, 2)):
        surface = Surface.of(*strip_around(turns))
        mesh = mesh_of_unsigned(surface.distance, BOX, 64)
        assert len(mesh.components().unique()) == 1
        assert len(holes(mesh.vertices, mesh.triangles)) == rims
        assert float(areas(mesh).sum()) == pytest.approx(float(surface.area_vectors.norm(dim=-1).sum()), rel=0.05)
        differently = _neighbours(mesh.triangles)[2]
        assert bool(differently.any()) == (turns == 1), "only what has one side alone keeps a seam"


def test_what_is_closed_is_turned_outwards():
    mesh = mesh_of_unsigned(nested, BOX, 32)
    label = mesh.components()[mesh.triangles[:, 0]]
    for name in label.unique():
        part = mesh.select(label == name)
        outwards = ((part.vertices - 0.5) * part.normals()).sum(-1)
        assert (outwards > 0).float().mean() > 0.97


def test_a_distance_that_errs_gives_a_sheet_without_slits():
    """A tenth too large or too small from place to place, and nowhere below a tenth of a cell, as trained ones are."""
    spacing = 0.96 / 48

    def erring(x):
        waves = torch.sin(x @ x.new_tensor([3.1, 1.7, 0.9]) * 40) * torch.sin(x @ x.new_tensor([-1.1, 2.3, 0.7]) * 40)
        return torch.hypot(half_sphere(x), torch.tensor(0.1 * spacing)) * (1 + 0.1 * waves)

    mesh = mesh_of_unsigned(erring, BOX, 48)
    assert float(areas(mesh).sum()) == pytest.approx(HALF, rel=0.03)
    assert float(holes(mesh.vertices, mesh.triangles)[1:].sum()) < 0.05 * RIM


def test_odd_faces_are_repaired_where_no_rim_is():
    """Edges with a wrong score in the middle of a sheet are put right; the plane's rim is left as it is."""
    lattice = Lattice.of(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), 16)
    band = Band.of(lambda x: (x[:, 2] - 0.47).abs(), lattice, lambda c, r: (c[:, 2] - 0.47).abs() <= r)
    scores = band.scores()
    right = scores > 0
    inner = ((band.place[:, :2] > 2) & (band.place[:, :2] < 13)).all(-1).repeat(3) & (scores != 0)
    scores[(right & inner).nonzero()[::31, 0]] = -0.2
    scores[(~right & inner).nonzero()[::57, 0]] = 0.05
    assert not torch.equal(scores > 0, right)
    assert torch.equal(repaired(band, scores), right)


def test_slits_are_closed_and_rims_are_not():
    """Triangles taken out of the middle of a disc are put back; a ring's hole and a small disc's rim stay open."""
    whole = mesh_of_unsigned(disc, BOX, 32)
    middle = whole.vertices[whole.triangles].mean(1)
    torn = whole.select((middle - torch.tensor([0.5, 0.62, 0.46])).norm(dim=-1) > 0.04)
    assert len(holes(torn.vertices, torn.triangles)) == 2
    again = mended(torn, 1.0, lambda x: disc(x) < 0.01)
    assert len(holes(again.vertices, again.triangles)) == 1
    assert float(areas(again).sum()) == pytest.approx(float(areas(whole).sum()), rel=1e-3)
    assert len(mended(torn, 1.0, lambda x: (disc(x) < 0.01) & (x[:, 1] < 0.6)).triangles) == len(torn.triangles)
    assert len(mended(torn, 0.01, lambda x: disc(x) < 0.01).triangles) == len(torn.triangles)
    assert len(mended(whole, 10.0, lambda x: disc(x) < 0.01).triangles) == len(whole.triangles)


def test_cells_of_sheets_do_not_care_which_side_is_inside():
    """A case and the one with its sides exchanged cut the cell in the same lines: what a face gets from its two cells
    fits, whichever side each takes for the inside."""
    for case in range(256):
        lines, exchanged = ({frozenset(line) for line in cube_cases.loops(c, sheet=True)} for c in (case, 255 - case))
        assert lines == exchanged
    used = (cube_cases.table(sheet=True)[..., 0] >= 0).sum(1)
    assert int(used.max()) == cube_cases.MOST_OF_SHEET


def test_cells_that_a_sheet_hardly_enters_are_kept():
    """A distance that is 15 per cent too large everywhere tears nothing: corners moved aside lie further off too."""
    for share in (0.02, 0.35):
        height = 0.5 + share * 0.96 / 48

        def plane(x, height=height):
            return 1.15 * (x[:, 2] + 0.31 * x[:, 0] - 0.17 * x[:, 1] - height).abs() / math.hypot(1, 0.31, 0.17)

        mesh = mesh_of_unsigned(plane, BOX, 48)
        assert len(holes(mesh.vertices, mesh.triangles)) == 1


def test_nothing_where_nothing_is():
    assert not len(mesh_of_unsigned(lambda x: torch.full((len(x),), 0.5), BOX, 16).triangles)
