"""Corrections per image: they explain what differs between images, and change nothing where they are off."""

import dataclasses

import pytest
import torch

from radfield.apps import ngp
from radfield.data import load
from radfield.data.synthetic import write_synthetic_capture
from radfield.errors import BadInput
from radfield.training import per_image

TINY = dict(
    levels=6,
    log2_size=14,
    finest_resolution=256,
    batch_samples=8192,
    uniform_cells=65536,
    occupied_cells=8192,
    precision="f32",
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return load(write_synthetic_capture(tmp_path_factory.mktemp("capture"), views=10, val_views=1, size=40))


def trained(scene, steps, **corrections):
    config = ngp.Config(**TINY, per_image=per_image.Config(**corrections))
    place = {"cascades": scene.cascades, "transform": scene.transform, "background": "white"}
    training = ngp.Training(ngp.build(config, **place), scene, 0)
    losses = [ngp.train_step(training, step / steps).loss for step in range(steps)]
    return training, sum(losses[-10:]) / 10


def exposed(scene, gains):
    """The scene with the colours of view i multiplied by gains[i]; alpha stays."""
    images = scene.train.images
    pixels = images.pixels.clone()
    for i, gain in enumerate(gains.tolist()):
        part = pixels[images.offset[i] : images.offset[i + 1], :3]
        part.copy_((part.float() * gain).round().clamp(0, 255).byte())
    return dataclasses.replace(
        scene, train=dataclasses.replace(scene.train, images=dataclasses.replace(images, pixels=pixels))
    )


def test_exposures_are_found(scene):
    gains = torch.tensor([0.6, 1.0] * 5)
    dark = exposed(scene, gains)
    training, _ = trained(dark, 40, exposure=True, exposure_rate=3e-2)
    found = training.per_image.values["exposure"].mean(-1)
    expected = gains.log() - gains.log().mean()
    assert torch.corrcoef(torch.stack((found, expected)))[0, 1] > 0.95
    assert found.mean().abs() < 1e-6


def test_appearance_tells_dark_from_bright_images(scene):
    dark = exposed(scene, torch.tensor([0.6, 1.0] * 5))
    training, _ = trained(dark, 40, appearance=4, appearance_rate=3e-2)
    found = training.per_image.values["appearance"].view(5, 2, 4)
    along = found @ (found[:, 0] - found[:, 1]).mean(0)
    assert along[:, 0].min() > along[:, 1].max()
    image = training.model.render_view(scene.train.cameras, 0).color  # with the mean, which is 0
    assert image.isfinite().all()


def test_states_are_kept(scene, tmp_path):
    from radfield.training.run_folder import RunFolder

    options = dict(exposure=True, appearance=4, cameras=True, lenses=True)
    training, _ = trained(scene, 6, **options)
    folder = RunFolder.create(tmp_path / "run")
    folder.start({"app": "ngp"})
    training.save(folder)
    again, _ = trained(scene, 1, **options)
    again.load(folder)
    for name, tensor in training.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    pose = again.per_image.cameras.camera_to_world
    assert torch.equal(pose, training.per_image.cameras.camera_to_world)
    assert not torch.equal(pose, scene.train.cameras.camera_to_world)
    results = [ngp.train_step(each, 0.9).loss for each in (training, again)]
    assert results[0] == results[1]


def test_nothing_is_kept_where_all_is_off(scene):
    training, _ = trained(scene, 2)
    assert not training.per_image.tensors()
    assert torch.equal(training.per_image.cameras.camera_to_world, scene.train.cameras.camera_to_world)


@pytest.mark.parametrize(
    "options, rule",
    [
        (dict(appearance=-1), "appearance is -1"),
        (dict(lenses=True), "the rule: lenses are refined with poses"),
        (dict(exposure_rate=0.0), "exposure-rate is 0.0"),
    ],
)
def test_bad_options(options, rule):
    with pytest.raises(BadInput, match=rule):
        per_image.check(per_image.Config(**options), "--ngp.per-image.")
