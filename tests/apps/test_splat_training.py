"""What training Gaussians can do besides: MCMC, a NeRF to begin with, exposures, masks, poses, caps, disk, resuming."""

import dataclasses
import itertools

import pytest
import torch

from radfield.apps import splat
from radfield.data import load
from radfield.data.decoded_cache import CachedImages
from radfield.errors import BadInput, RadfieldWarning
from radfield.gaussians.densify import Config as Densify
from radfield.training.run_folder import RunFolder

TINY = dict(initial="random", initial_gaussians=800, max_gaussians=20_000, refine_interval=8, sh_degree=1, coarse=0.0)


@pytest.fixture(scope="module")
def scene(tiny_capture):
    return load(tiny_capture)


def training_of(scene, **options):
    config = splat.Config(**{**TINY, **options})
    splat.check(config)
    place = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    return splat.Training(splat.build(config, **place), scene, 0)


def trained(scene, steps, **options):
    """(the training, mean loss of the last ten steps)."""
    training = training_of(scene, **options)
    losses = [splat.train_step(training, step / steps).loss for step in range(steps)]
    return training, sum(losses[-10:]) / 10


def with_pixels(scene, change, **images):
    """The scene with the training images' pixels changed in place by `change(i, part)`, part [pixels, C] of image i."""
    pixels = scene.train.images.pixels.clone()
    offset = scene.train.images.offset.tolist()
    for i, (begin, end) in enumerate(itertools.pairwise(offset)):
        change(i, pixels[begin:end])
    changed = dataclasses.replace(scene.train.images, pixels=pixels, **images)
    return dataclasses.replace(scene, train=dataclasses.replace(scene.train, images=changed))


def test_mcmc_grows_to_its_limit_and_learns(scene):
    with pytest.warns(RadfieldWarning, match="have reached --splat.max-gaussians 900"):
        training, late = trained(scene, 120, densification="mcmc", max_gaussians=900)
    early = trained(scene, 10, densification="mcmc")[1]
    assert len(training.model.gaussians) == 900 and late < 0.8 * early


def test_a_short_nerf_finds_the_surfaces(scene):
    training = training_of(scene, initial="nerf", nerf_steps=40, initial_gaussians=500)
    training.begin()
    found = training.model.gaussians
    assert 250 < len(found) <= 500
    # the capture's masks say which rays hit: centres lie on the object in every view
    camera = scene.train.cameras
    inside = torch.ones(len(found), dtype=torch.bool)
    for view in range(0, len(camera), 4):
        seen = training.camera(view, 1)
        local = found.means.T @ seen.world_to_camera[:3, :3].T + seen.world_to_camera[:3, 3]
        x, y = (local[:, :2] / local[:, 2:] * torch.tensor(seen.focal) + torch.tensor(seen.center)).long().T
        alpha = scene.train.images[view][..., 3]
        ok = (x >= 0) & (y >= 0) & (x < alpha.shape[1]) & (y < alpha.shape[0])
        inside &= ok & (alpha[y.clamp(0, alpha.shape[0] - 1), x.clamp(0, alpha.shape[1] - 1)] > 0)
    assert inside.float().mean() > 0.8


def test_points_that_there_are_not_are_refused(scene):
    with pytest.raises(BadInput, match=r"--splat\.initial is points; the rule: auto, nerf or random"):
        training_of(scene, initial="points")


def test_auto_takes_the_points_where_there_are_some(scene):
    from radfield.apps.splat.initial import source
    from radfield.data.points import Points

    assert source(splat.Config(), scene) == "nerf"
    for count, expected in ((20, "nerf"), (2000, "points")):
        points = Points(torch.rand(count, 3).double().numpy(), torch.zeros(count, 3, dtype=torch.uint8).numpy())
        with_points = dataclasses.replace(scene, points=points)
        assert source(splat.Config(), with_points) == expected
        assert source(splat.Config(initial="points"), with_points) == "points"


def test_exposures_are_found(scene):
    gains = torch.tensor([0.6, 1.0] * 6)

    def darken(i, part):
        part[:, :3] = (part[:, :3].float() * gains[i]).round().byte()

    dark = with_pixels(scene, darken)
    fixed = {"refine_until": 0.0, "color_rate": 0.02}
    training, loss = trained(dark, 200, exposure=True, exposure_rate=0.03, **fixed)
    found = training.per_image.values["exposure"].mean(-1)
    expected = gains.log() - gains.log().mean()
    assert torch.corrcoef(torch.stack((found, expected)))[0, 1] > 0.9
    assert loss < trained(dark, 200, **fixed)[1]


def test_ignored_pixels_are_not_learned(scene):
    """Where the masked half of every image is red, nothing red is learned, at any resolution of training."""
    size = scene.train.images.size[0].tolist()
    half = size[1] // 2 * size[0]

    def redden(_, part):
        part[:half] = torch.tensor([255, 0, 0, 255], dtype=torch.uint8)

    starts = scene.train.images.offset[:-1]
    spans = torch.stack((starts + half, scene.train.images.offset[1:]), 1)
    masked = with_pixels(scene, redden, spans=spans)

    def redness(of, coarse):
        training, _ = trained(of, 40, coarse=coarse)
        color = training.model.render_view(scene.train.cameras, 0).color[: size[1] // 2]
        return float((color[..., 0] - color[..., 1]).clamp_min(0).mean())

    for coarse in (0.0, 1.0):
        assert redness(masked, coarse) < 0.4 * redness(with_pixels(scene, redden), coarse)


def test_a_fixed_background_is_learned_as_such(scene):
    training, _ = trained(scene, 30, background="white")
    from radfield.apps.splat.step import _background

    assert torch.equal(_background(training), torch.ones(3))
    training = training_of(scene, background="random")
    assert float(_background(training).std()) > 0


def test_the_memory_cap_stops_growth(scene):
    limits = {"memory_gb": 0.0015, "densify": Densify(grow_gradient=1e-9)}
    with pytest.warns(RadfieldWarning, match=r"have reached what memory allows.*--splat\.memory-gb sets it"):
        training, _ = trained(scene, 80, **limits)
    assert 0 < len(training.model.gaussians) < 2000
    assert training.cap.peak <= 1.5e6


def test_running_into_the_memory_cap_leaves_a_whole_run(tiny_capture, tmp_path, command, monkeypatch):
    from radfield.gaussians.memory_cap import MemoryCap

    check, calls = MemoryCap.check, []

    def late(self, *given):
        calls.append(1)
        self.limit = self.limit if len(calls) < 8 else 1000
        check(self, *given)

    options = ("--method", "splat", "--splat.initial", "random", "--splat.initial-gaussians", 500, "--no-evaluate")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryCap, "check", late)
        code, _, lines = command("train", tiny_capture, *options, "--steps", 30, "--output", tmp_path / "run")
    assert code == 2 and "--splat.memory-gb allows" in lines[-1] and "keeps the state after step 7" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert command("train", "--output", tmp_path / "run", "--resume", "--no-evaluate")[0] == 0
    assert len(splat.load(tmp_path / "run").gaussians) == 500


def test_more_than_a_view_needs_is_asked_for_before_anything_is_written(tiny_capture, tmp_path, refused):
    options = ("--method", "splat", "--output", tmp_path / "run", "--splat.memory-gb", 1e-6)
    refused("train", tiny_capture, *options, rule="the rule: at least")
    assert not (tmp_path / "run").exists()


EVERYTHING = dict(densification="mcmc", exposure=True, cameras=True, camera_rate=1e-3, antialiased=True)


@pytest.mark.parametrize("options", [EVERYTHING, dict(exposure=True, cameras=True)])
def test_resuming_is_exact_with_all_of_it(scene, tmp_path, options):
    whole, _ = trained(scene, 64, **options)
    first = training_of(scene, **options)
    for step in range(45):
        splat.train_step(first, step / 64)
    folder = RunFolder.create(tmp_path / "run")
    folder.start({"app": "splat"})
    first.save(folder)
    again = training_of(scene, **options)
    again.load(folder)
    for step in range(45, 64):
        splat.train_step(again, step / 64)
    for name, value in whole.model.gaussians.tensors().items():
        assert torch.equal(value, again.model.gaussians.tensors()[name]), name
    ours, theirs = whole.per_image.tensors(), again.per_image.tensors()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole.cap.entries == again.cap.entries


def test_views_on_disk_are_the_same_views(scene, tmp_path):
    images = scene.train.images
    path = tmp_path / "train.bin"
    path.write_bytes(images.pixels.numpy().tobytes())
    cached = CachedImages(path, images.channels, images.size, images.offset, None)
    on_disk = dataclasses.replace(scene, train=dataclasses.replace(scene.train, images=cached))
    (ours, _), (theirs, _) = (trained(each, 20) for each in (scene, on_disk))
    assert torch.equal(ours.model.gaussians.means, theirs.model.gaussians.means)


def test_a_loss_that_is_not_finite_leaves_the_state(scene, monkeypatch):
    from radfield.apps.splat import step as splat_step

    training, _ = trained(scene, 5)
    before = training.model.gaussians.map(torch.clone)
    loss = splat_step.image_loss
    monkeypatch.setattr(splat_step, "image_loss", lambda *given: loss(*given) * float("nan"))
    with pytest.raises(FloatingPointError, match="of step 5"):
        splat.train_step(training, 0.5)
    assert torch.equal(before.means, training.model.gaussians.means) and training.step == 5


def test_moved_poses_are_found_again(scene):
    """With the true Gaussians, poses that were moved by a pixel and more come back to a fraction of one."""
    from radfield.gaussians import initial
    from radfield.training.camera_refinement import rotations

    generator = torch.Generator().manual_seed(0)
    truth = initial.at_random(300, 1, 1, generator)
    truth.means.sub_(0.5).mul_(0.5).add_(0.5)
    truth.log_scales.sub_(1), truth.opacity_logits.fill_(1.0), truth.base.normal_(generator=generator)
    cameras = scene.train.cameras
    model = splat.build(splat.Config(sh_degree=1), cascades=1, transform=scene.transform, background="black")
    model.gaussians = truth

    def paint(view, part):
        color = model.render_view(cameras, view).color.clamp(0, 1) * 255
        part[:, :3], part[:, 3] = color.round().byte().view(-1, 3), 255

    painted = with_pixels(scene, paint)
    turn, shift = (0.01 * torch.randn(len(cameras), 3, generator=generator) for _ in range(2))
    pose = cameras.camera_to_world.clone()
    pose[:, :3, :3] = rotations(turn - turn.mean(0)) @ pose[:, :3, :3]
    pose[:, :3, 3] += shift - shift.mean(0)
    moved = dataclasses.replace(cameras, camera_to_world=pose)
    still = dict.fromkeys(("mean_rate", "scale_rate", "quaternion_rate", "opacity_rate", "color_rate"), 1e-12)
    options = {"cameras": True, "camera_rate": 4e-3, "background": "black", "refine_until": 0.0, **still}
    begun = dataclasses.replace(painted, train=dataclasses.replace(painted.train, cameras=moved))
    training = training_of(begun, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("radfield.apps.splat.initial.make", lambda *_: truth.map(torch.clone))
        for step in range(240):
            splat.train_step(training, step / 240)

    def pixels(poses):
        local = (truth.means.T - poses[:, None, :3, 3]) @ poses[:, :3, :3]
        return local[..., :2] / local[..., 2:] * cameras.focal[:, None]

    errors = [
        float((pixels(each) - pixels(cameras.camera_to_world)).norm(dim=-1).mean())
        for each in (pose, training.per_image.cameras.camera_to_world)
    ]
    assert errors[0] > 1 and errors[1] < 0.35 * errors[0]
