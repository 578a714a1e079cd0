"""`radfield convert`: between files of Gaussians, and what its filters keep."""

import json

import pytest
import torch
from gaussians.test_ply import random_scene

from radfield.apps.command_line import main
from radfield.gaussians.files import read_gaussians, write_gaussians
from radfield.gaussians.order import morton_order
from radfield.gaussians.plas import plas_order


@pytest.fixture
def scene(tmp_path):
    write_gaussians(tmp_path / "a.ply", random_scene(200, 2))
    return read_gaussians(tmp_path / "a.ply")


def convert(tmp_path, capsys, *options, to="b.ply"):
    """(the figures, what was written)"""
    assert main(["convert", str(tmp_path / "a.ply"), str(tmp_path / to), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1]), read_gaussians(tmp_path / to)


def test_without_filters_nothing_changes(tmp_path, scene, capsys):
    figures, found = convert(tmp_path, capsys)
    assert figures["gaussians"] == figures["of"] == 200 and figures["bytes"] == (tmp_path / "b.ply").stat().st_size
    assert all(torch.equal(value, found.tensors()[name]) for name, value in scene.tensors().items())


@pytest.mark.parametrize(
    ("to", "order"),
    [
        *(("b.spz", "keep"), ("b.splat", "keep"), ("b.glb", "keep"), ("b.gltf", "keep")),
        *(("b.compressed.ply", "morton"), ("b.sog", "morton"), ("meta.json", "morton")),
    ],
)
def test_to_every_format(tmp_path, scene, capsys, to, order):
    figures, found = convert(tmp_path, capsys, "--sh-degree", "0", to=to)
    assert len(found) == 200 and found.degree == 0 and figures["order"] == order
    sorts = {"keep": torch.arange(200), "morton": morton_order(scene.means), "plas": plas_order(scene)}
    assert (found.means - scene.means[:, sorts[order]]).abs().max() < 5e-3
    others = {each.name for each in tmp_path.iterdir()} - {"a.ply"}
    assert figures["bytes"] == sum((tmp_path / name).stat().st_size for name in others)


def test_a_grid_that_is_there_is_kept(tmp_path, scene, capsys):
    """What has been sorted by PLAS stays so in a SOG, and nothing else does."""
    figures, found = convert(tmp_path, capsys, "--order", "plas")
    assert figures["order"] == "plas" and torch.equal(found.means, scene.means[:, plas_order(scene)])
    for to, order in (("c.sog", "keep"), ("c.compressed.ply", "morton")):
        assert main(["convert", str(tmp_path / "b.ply"), str(tmp_path / to), "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["order"] == order


def test_between_any_two_formats(tmp_path, scene, capsys):
    """Around through every format that is written and back: what is left is what the coarsest of them holds."""
    before = "a.ply"
    for number, ending in enumerate(("glb", "spz", "sog", "compressed.ply", "spz", "sog", "gltf", "splat", "ply")):
        after = f"{number}.{ending}"
        version = {1: ("--version", "4"), 4: ("--version", "2"), 5: ("--version", "1")}.get(number, ())
        options = (*version, "--order", "keep", "--sh-degree", "0")
        assert main(["convert", str(tmp_path / before), str(tmp_path / after), *options]) == 0
        before = after
    found = read_gaussians(tmp_path / before)
    assert (found.means - scene.means).abs().max() < 5e-3
    assert (found.opacity_logits.sigmoid() - scene.opacity_logits.sigmoid()).abs().max() < 0.02
    turns = (torch.nn.functional.normalize(each.quaternions, dim=0) for each in (found, scene))
    assert (next(turns) * next(turns)).sum(0).abs().min() > 0.97  # SPZ 2 is the coarsest


def test_spz_files_with_the_axes_of_ply_files(tmp_path, scene, capsys):
    write_gaussians(tmp_path / "a.spz", scene)
    arguments = ["convert", str(tmp_path / "a.spz"), str(tmp_path / "b.ply"), "--spz-axes", "rdf"]
    assert main(arguments) == 0
    turned = read_gaussians(tmp_path / "b.ply").means * torch.tensor([1.0, -1, -1])[:, None]
    assert (turned - scene.means).abs().max() < 2**-12


def test_filters(tmp_path, scene, capsys):
    opacity, scale = scene.opacity_logits.sigmoid(), scene.log_scales.exp().amax(0)
    inside = ((scene.means > -1) & (scene.means < 0.5)).all(0)
    for options, keep in (
        (("--least-opacity", "0.4"), opacity >= 0.4),
        (("--largest-scale", "2"), scale <= 2),
        (("--box", "-1", "-1", "-1", "0.5", "0.5", "0.5"), inside),
    ):
        _, found = convert(tmp_path, capsys, *options, "--overwrite")
        assert torch.equal(found.means, scene.means[:, keep]) and 0 < int(keep.sum()) < 200
    _, found = convert(tmp_path, capsys, "--most", "30", "--overwrite")
    weight = opacity * scene.log_scales.sort(0).values[1:].sum(0).exp()
    assert torch.equal(found.means, scene.means[:, weight >= weight.sort().values[-30]])
    _, found = convert(tmp_path, capsys, "--sh-degree", "1", "--overwrite")
    assert torch.equal(found.rest, scene.rest[:9])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("c.obj",), "ends in '.obj'; the rule: .compressed.ply, .ply, .splat, .spz, .sog, meta.json, .glb"),
        (("a.ply",), "is there already; the rule: a new file, or --overwrite"),
        (("c.ply", "--version", "3"), "the version is 3; the rule: none for .ply"),
        (("c.spz", "--version", "1"), "the version is 1; the rule: 2, 3, 4 for .spz"),
        (("c.ply", "--spz-axes", "rdf"), "--spz-axes is rdf; the rule: for an .spz file"),
        (("c.ply", "--least-opacity", "2"), "--least-opacity is 2.0; the rule: from 0 to 1"),
        (("c.ply", "--box", "0", "0", "0", "1", "-1", "1"), "least x, y, z below most"),
        (("c.ply", "--largest-scale", "1e-9"), "nothing is left of 200 Gaussians"),
    ],
)
def test_refusals(tmp_path, scene, capsys, options, line):
    target, *others = options
    assert main(["convert", str(tmp_path / "a.ply"), str(tmp_path / target), *others]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and line in said[0] and not (tmp_path / "c.ply").exists()
