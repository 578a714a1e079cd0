"""Gaussians and rays of every kind: training along random rays, a rasterised scene that goes on by tracing, and that is
seen through wide lenses without seams."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import radfield
from radfield.apps import splat
from radfield.apps.splat import random_rays
from radfield.apps.splat.tracing import TracedModel, with_lens
from radfield.data import load
from radfield.data.decoded_cache import CachedImages
from radfield.errors import BadInput

OPTIONS = dict(initial="random", initial_gaussians=1500, max_gaussians=5000, sh_degree=1, refine_interval=10_000)
TINY = [f"--splat.{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]


@pytest.fixture(scope="module")
def scene(tiny_capture):
    return load(tiny_capture)


@pytest.fixture(scope="module")
def rasterised(tiny_capture, tmp_path_factory):
    """A run trained by rasterising."""
    from radfield.apps.command_line import main

    run = tmp_path_factory.mktemp("runs") / "rasterised"
    arguments = ["train", tiny_capture, "--output", run, "--method", "splat", "--steps", 150, "--no-evaluate", *TINY]
    assert main([str(argument) for argument in arguments]) == 0
    return run


def training_of(scene, **options):
    config = splat.Config(**{**OPTIONS, "coarse": 0.0, **options})
    splat.check(config)
    place = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    return splat.Training(splat.build(config, **place), scene, 0)


def traced_loss(model, scene):
    """The absolute difference of traced views from the photographs."""
    traced, losses = TracedModel(model), []
    for view in range(0, len(scene.train), 4):
        pixels = scene.train.images[view].float() / 255
        wanted = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
        seen = traced.render_view(scene.train.cameras, view, torch.ones(3))
        losses.append((seen.color - wanted).abs().mean())
    return float(sum(losses) / len(losses))


def test_random_rays_learn_the_scene(scene, threads):
    training = training_of(scene, renderer="trace", rays=768, refine_interval=8)
    losses = [splat.train_step(training, step / 80).loss for step in range(80)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert len(training.model.gaussians) > 1500  # statistics along rays say where to add
    first = threads(lambda: [splat.train_step(training_of(scene, renderer="trace", rays=333), 0.0).loss])
    assert all(ours == theirs for ours, theirs in first)


def test_ignored_pixels_are_no_rays(scene):
    images = scene.train.images
    half = torch.stack((images.offset[:-1], images.offset[:-1] + images.offset.diff() // 2), 1)
    masked = dataclasses.replace(scene.train, images=dataclasses.replace(images, spans=half))
    training = training_of(dataclasses.replace(scene, train=masked), renderer="trace", rays=200, background="white")
    drawn = training.ray_sampler.draw(torch.ones(3), 0, 0)
    assert (drawn.pixels.pixel[:, 1] < 24).all() and len(drawn.pixels.view.unique()) == 12
    assert splat.train_step(training, 0.0).loss > 0


def test_a_rasterised_scene_goes_on_by_tracing(rasterised, scene, tmp_path, command, refused):
    run = tmp_path / "run"
    shutil.copytree(rasterised, run)
    before = traced_loss(radfield.load(run), scene)
    options = ("--splat.renderer", "trace", "--splat.rays", 768)
    assert command("train", "--resume", "--output", run, "--steps", 230, "--no-evaluate", *options)[0] == 0
    model = radfield.load(run)
    assert (model.config.renderer, model.config.rays, model.config.sh_degree) == ("trace", 768, 1)
    assert traced_loss(model, scene) < 0.93 * before
    assert json.loads((run / "config.json").read_text())["splat"]["renderer"] == "trace"
    rule = "--resume keeps them, but for renderer, rays"
    refused("train", "--resume", "--output", run, "--splat.renderer", "trace", "--splat.near", 0.5, rule=rule)


def test_rays_that_cannot_be(scene, tiny_capture, tmp_path, refused):
    options = ("--method", "splat", "--splat.rays", 100)
    refused("train", tiny_capture, "--output", tmp_path / "run", *options, rule="by renderer trace")
    assert not (tmp_path / "run").exists()
    on_disk = dataclasses.replace(scene.train, images=CachedImages.__new__(CachedImages))
    with pytest.raises(BadInput, match="on disk; the rule: a larger --memory-gb"):
        random_rays.check_images(splat.Config(renderer="trace", rays=8), dataclasses.replace(scene, train=on_disk))


def turned(cameras, rows):
    """The first camera with its axes turned."""
    pose = cameras.camera_to_world[:1].clone()
    pose[0, :3, :3] = pose[0, :3, :3] @ torch.tensor(rows, dtype=pose.dtype)
    fields = {f.name: getattr(cameras, f.name) for f in dataclasses.fields(cameras)}
    one = {k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in fields.items()}
    return type(cameras)(**{**one, "camera_to_world": pose})


def test_a_panorama_has_no_seam(rasterised, scene):
    traced = TracedModel(radfield.load(rasterised))
    forward = with_lens(turned(scene.train.cameras, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), "equirectangular")
    backward = with_lens(turned(scene.train.cameras, [[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]]), "equirectangular")
    ahead, behind = (traced.render_view(cameras, 0, torch.ones(3)).color for cameras in (forward, backward))
    width = ahead.shape[1]
    torch.testing.assert_close(behind, ahead.roll(width // 2, 1), rtol=0, atol=2e-4)
    # the scene is now where the panorama's ends meet: these differ as columns do that stand side by side
    across = (behind[:, 0] - behind[:, -1]).abs().mean()
    beside = torch.stack([(behind[:, i] - behind[:, i - 1]).abs().mean() for i in (1, 2, -1, -2)])
    assert behind[:, 0].std() > 0.02 and across < 1.5 * beside.max() and across > 0


def test_a_fisheye_of_180_degrees_turns_as_its_camera_does(rasterised, scene):
    traced = TracedModel(radfield.load(rasterised))
    upright = with_lens(turned(scene.train.cameras, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), "fisheye")
    rolled = with_lens(turned(scene.train.cameras, [[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), "fisheye")
    one, other = (traced.render_view(cameras, 0, torch.ones(3)).color for cameras in (upright, rolled))
    torch.testing.assert_close(other, one.rot90(1, (0, 1)), rtol=0, atol=2e-4)
    assert one.std() > 0.02


@pytest.mark.parametrize("renderer", ("3dgut", "3dgut-sorted"))
def test_training_by_3dgut(scene, renderer, threads):
    """It learns, adds Gaussians where gradients are large, and repeats bit for bit; what is trained is drawn alike by
    the tracer."""
    training = training_of(scene, renderer=renderer, refine_interval=7, background="white")
    losses = [splat.train_step(training, step / 60).loss for step in range(60)]
    assert sum(losses[-8:]) < 0.75 * sum(losses[:8])
    assert len(training.model.gaussians) > 1500 and training.cap.peak > 0
    first = threads(lambda: [splat.train_step(training_of(scene, renderer=renderer), 0.0).loss])
    assert all(ours == theirs for ours, theirs in first)
    traced = TracedModel(training.model).render_view(scene.train.cameras, 0, torch.ones(3))
    ours = training.model.render_view(scene.train.cameras, 0, torch.ones(3))
    least = 40 if renderer == "3dgut-sorted" else 30
    assert -10 * float((ours.color - traced.color).square().mean().log10()) > least
    assert ours.color.std() > 0.02


def test_3dgut_draws_a_run_through_a_fisheye(rasterised, tmp_path, command, refused):
    for name, lens in (("3dgut-sorted", "fisheye"), ("trace", "fisheye"), ("raster", "capture"), ("3dgut", "capture")):
        options = ("--views", 1, "--size", 64, "--renderer", name, "--lens", lens)
        assert command("render", rasterised, "--output", tmp_path / name, *options)[0] == 0
    ours, theirs, raster, unsorted = (
        torch.from_numpy(np.asarray(Image.open(tmp_path / name / "000.png")).astype(np.float32) / 255)
        for name in ("3dgut-sorted", "trace", "raster", "3dgut")
    )
    assert ours.shape == (64, 64, 3) and ours.std() > 0.02
    assert -10 * float((ours - theirs).square().mean().log10()) > 40
    assert -10 * float((unsorted - raster).square().mean().log10()) > 25  # the rasteriser blurs by half a pixel
    for options, rule in (
        (("--renderer", "3dgut", "--lens", "equirectangular"), "the whole sphere by --renderer trace alone"),
        (("--renderer", "3dgut", "--tracer"), "one of them"),
    ):
        refused("render", rasterised, "--output", tmp_path / "no", *options, rule=rule)


def test_a_rasterised_scene_goes_on_by_3dgut(rasterised, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(rasterised, run)
    options = ("--steps", 160, "--splat.renderer", "3dgut-sorted")
    code, figures, _ = command("train", "--resume", "--output", run, "--json", *options)
    assert code == 0 and figures["psnr"] > 15
    assert radfield.load(run).config.renderer == "3dgut-sorted"
    assert command("eval", run, "--json")[1]["psnr"] == figures["psnr"]


def test_3dgut_that_cannot_be(scene, tiny_capture, tmp_path, refused):
    options = ("--method", "splat", "--output", tmp_path / "run")
    refused("train", tiny_capture, *options, "--splat.renderer", "3dgs", rule="3dgut-sorted")
    for option, rule in (("--splat.antialiased", "which has no blur"), ("--splat.cameras", "is 3dgut")):
        refused("train", tiny_capture, *options, "--splat.renderer", "3dgut", option, rule=rule)
    refused("train", tiny_capture, *options, "--splat.renderer", "3dgut", "--splat.rays", 64, rule="by renderer trace")
    assert not (tmp_path / "run").exists()
