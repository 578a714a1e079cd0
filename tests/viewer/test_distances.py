"""Runs of `radfield fit-sdf` in the viewer: the same picture as their own, other levels, the crop box."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from tracing_meshes import sphere

from radfield.apps.command_line import main
from radfield.meshing.files import write_mesh
from radfield.meshing.mesh import Mesh
from radfield.viewer import exhibit
from radfield.viewer.crop import Box
from radfield.viewer.sources import DEPTH, DistanceSource, Look


class Ball:
    """A ball of radius 0.3 in the middle, which is a field itself, without a grid."""

    transform, cascades, grid = None, 1, None
    hit, config, device = 1e-3, SimpleNamespace(unsigned=False), torch.device("cpu")
    field = property(lambda self: self)
    box = (torch.full((3,), 0.1, dtype=torch.float64), torch.full((3,), 0.9, dtype=torch.float64))

    def distance(self, x):
        return (x - 0.5).norm(dim=1) - 0.3


def seen(source, look, side=60):
    """(opacity, depth), [side, side] each, from 2 in front along x."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # looks along x
    pose[:3, 3] = torch.tensor([-1.5, 0.5, 0.5])
    camera = exhibit.perspective(pose, 0.5, side, side)
    found = source.ask(look, camera, torch.arange(side * side))
    return found.opacity.view(side, side), found.depth.view(side, side)


@pytest.mark.parametrize("level", [-0.05, 0.0, 0.08])
def test_levels_are_balls_of_other_sizes(level):
    opacity, depth = seen(DistanceSource(Ball()), Look(DEPTH, level=level))
    assert depth[30, 30] == pytest.approx(2 - 0.3 - level, abs=2e-3)
    # the cone that touches a ball of radius r at distance 2: tan of its half angle is r / sqrt(4 - r^2)
    radius = (0.3 + level) / (4 - (0.3 + level) ** 2) ** 0.5 * 60 / 2 / torch.tan(torch.tensor(0.25))
    assert float(opacity.sum()) == pytest.approx(float(torch.pi * radius**2), rel=0.02)


def test_a_crop_box_cuts_the_surface():
    look = Look(DEPTH, crop=Box((0.0, 0.0, 0.0), (0.5, 1.0, 1.0)))
    opacity, _ = seen(DistanceSource(Ball()), look)
    whole, _ = seen(DistanceSource(Ball()), dataclasses.replace(look, crop=None))
    assert torch.equal(opacity, whole), "the front half covers all of it"
    look = dataclasses.replace(look, crop=Box((0.5, 0.0, 0.0), (1.0, 1.0, 1.0)))
    _, depth = seen(DistanceSource(Ball()), look)
    assert depth[30, 30] == pytest.approx(2.0, abs=1e-3), "the cut face"


def test_a_run_is_shown_as_it_is_rendered(tmp_path):
    vertices, triangles = sphere(3)
    write_mesh(tmp_path / "ball.ply", Mesh(vertices.double(), triangles))
    small = ("--sdf.levels", "4", "--sdf.log2-size", "12", "--sdf.finest-resolution", "32", "--sdf.batch", "2048")
    run = tmp_path / "run"
    assert (
        main(["fit-sdf", str(tmp_path / "ball.ply"), "--output", str(run), "--steps", "20", "--no-evaluate", *small])
        == 0
    )
    shown = exhibit.of_run(run, capture=None, device="cpu")
    assert shown.up().tolist() == [0, 1, 0] and shown.gaussians is None
    camera = shown.at(width=40, height=30)
    expected = shown.source.model.render_view(camera, 0)
    found = shown.source.ask(Look(), camera, torch.arange(1200))
    torch.testing.assert_close(found.color.view(30, 40, 3), expected.color, atol=0.02, rtol=0)
    torch.testing.assert_close(found.depth.view(30, 40), expected.depth, atol=1e-3, rtol=0)
