"""`radfield fit-volume`: a run of a volume, its pictures, and what it refuses."""

import numpy as np
import pytest
import torch

from radfield.apps.fit import fit_volume, volume, volume_views
from radfield.data.volume_files import cloud, volume_of
from radfield.training.checkpoint import load_checkpoint

TINY = ("--volume.levels", 4, "--volume.log2-size", 14, "--volume.batch", 8192)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(volume_views, "VIEWS", 1)
    monkeypatch.setattr(volume_views, "PIXELS", 24)
    monkeypatch.setattr(volume_views, "PATHS", 8)


@pytest.fixture
def fit(command):
    """Fits a tiny field; returns the figures."""

    def run(file, output, *more, steps=120):
        code, found, said = command("fit-volume", file, "--output", output, "--steps", steps, "--json", *TINY, *more)
        assert code == 0, said
        return found

    return run


def test_a_run_and_its_pictures(tmp_path, fit, command):
    found = fit("cloud:24", tmp_path / "run", "--extinction", 20)
    assert found["psnr"] > 25 and found["psnr_ray_marching"] > 30 and found["density_psnr"] > 25
    for name in ("report.html", "renders/000_delta_tracking.png", "renders/000_ray_marching.png"):
        assert (tmp_path / "run" / name).exists(), name
    code, again, _ = command("eval", tmp_path / "run", "--json")
    assert (code, again["psnr"]) == (0, found["psnr"])


def test_albedos_and_sides_that_differ(tmp_path, fit):
    density = cloud(16).density[:, :12].numpy()
    colors = np.stack([density, 0.9 + 0 * density, 0.5 + 0 * density, 0.1 + 0 * density], -1)
    np.save(tmp_path / "a.npy", colors)
    found = fit(tmp_path / "a.npy", tmp_path / "run")
    assert found["psnr"] > 20
    _, albedo = volume.load(tmp_path / "run").medium(torch.tensor([[0.5, 0.35, 0.5]]))
    torch.testing.assert_close(albedo, torch.tensor([[0.9, 0.5, 0.1]]), rtol=0, atol=0.1)


def test_the_lookup_is_trilinear_between_centres():
    values = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)).numpy()
    lookup = volume.Lookup(volume_of(values, "some"), 1.0)
    z, y, x = 2, 1, 3
    at = (torch.tensor([[x, y, z]]) + 0.5) / 5
    assert lookup.medium(at)[0].item() == pytest.approx(values[z, y, x], abs=1e-6)
    between = (torch.tensor([[x + 0.5, y, z]]) + 0.5) / 5
    assert lookup.medium(between)[0].item() == pytest.approx((values[z, y, x] + values[z, y, x + 1]) / 2, abs=1e-6)


def test_resumed_equals_uninterrupted(tmp_path, fit, command):
    fit("cloud:16", tmp_path / "a", "--threads", 1, "--no-evaluate", steps=6)
    fit("cloud:16", tmp_path / "b", "--threads", 2, "--no-evaluate", steps=6)
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0] for name in "ab")
    for name, value in one.items():
        assert torch.equal(value, two[name]), f"{name} depends on the number of threads"
    # as if it had been stopped after the third step of six
    config = volume.config_from(fit_volume.RunFolder(tmp_path / "a").read_config())
    options = fit_volume.Options(volume_file="cloud:16", output=tmp_path / "c", steps=6, volume=config)
    fit_it, folder = fit_volume.FitVolume(), fit_volume.RunFolder.create(options.output)
    target = fit_it.open(options, folder)
    training = fit_it.training_of(options, target)
    folder.start(fit_it.config_of(options, target))
    for step in range(3):
        training.count(volume.train_step(training, step / 6), 0.1)
    training.save(folder)
    assert command("fit-volume", "--output", tmp_path / "c", "--resume", "--no-evaluate")[0] == 0
    resumed = load_checkpoint(tmp_path / "c" / "checkpoint.safetensors")[0]
    for name, value in one.items():
        assert torch.equal(value, resumed[name]), name


def test_what_is_refused(tmp_path, fit, refused):
    run = tmp_path / "run"
    refused("fit-volume", "cloud:7", "--output", run, rule="cloud:N, N from 8 to 1024")
    refused("fit-volume", tmp_path / "none.npy", "--output", run, rule="there is no such file")
    refused("fit-volume", "cloud:16", "--output", run, "--encoding", "sparse", rule="--encoding is 'sparse'")
    refused("fit-volume", "cloud:16", "--output", run, "--forward", 1, rule="--forward is 1.0; the rule")
    refused("fit-volume", "cloud:16", rule="--output is not given")
    np.save(tmp_path / "a.npy", -np.ones((3, 3, 3)))
    refused("fit-volume", tmp_path / "a.npy", "--output", run, rule="densities are not negative")
    assert not run.exists()
    fit("cloud:16", run, "--no-evaluate", steps=2)
    np.save(tmp_path / "b.npy", np.ones((3, 3, 3)))
    refused("eval", run, "--capture", tmp_path / "b.npy", rule="b.npy: is not the volume that")
    checkpoint = run / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:3000])
    refused("eval", run, rule="is cut short")
