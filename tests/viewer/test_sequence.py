"""A sequence of frames as one source: each frame is its own run's picture, seen from the first one's scene."""

import json
from dataclasses import replace

import pytest
import torch
from programs import as_before  # noqa: F401

from radfield.apps.command_line import main
from radfield.apps.methods import load
from radfield.apps.view import Options, open_exhibit
from radfield.data.synthetic import write_synthetic_sequence
from radfield.errors import BadInput
from radfield.viewer.sequence import frames_of
from radfield.viewer.sources import Look

SMALL = (
    *("--neus2.levels", 3, "--neus2.log2-size", 12, "--neus2.finest-resolution", 64, "--neus2.radius", 0.15),
    *("--neus2.batch-samples", 4096, "--neus2.uniform-cells", 32768, "--neus2.occupied-cells", 4096),
    *("--steps", 40, "--motion-steps", 5, "--later", 0.1, "--no-meshes"),
)


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequence")
    write_synthetic_sequence(folder / "captures", frames=2, views=4, size=32)
    arguments = ("train-frames", folder / "captures", "--output", folder / "run", *SMALL)
    assert main([str(each) for each in arguments]) == 0
    return folder / "run"


def test_every_frame_is_its_own_runs_picture(sequence):
    exhibit, _ = open_exhibit(Options(sequence, device="cpu"))
    source = exhibit.source
    assert source.frames == 2
    camera = exhibit.at(width=30, height=30)
    index = torch.arange(900)
    for frame in range(2):
        model = load(sequence / "frames" / f"{frame:03d}")
        found = source.ask(Look(frame=frame), camera, index)
        world = source.transform.inverse()
        pose = model.transform.poses(world.poses(camera.camera_to_world.double())).float()
        expected = model.render_view(replace(camera, camera_to_world=pose), 0).color
        torch.testing.assert_close(found.color.view(30, 30, 3), expected, rtol=0, atol=2e-3)


def test_the_viewer_has_a_slider_of_frames(sequence, viewing):
    from viewer.client import Client

    viewer = viewing(sequence)
    client = Client(viewer.url, 60, 60)
    position, aim, fov = viewer.exhibit.first_view()
    client.move(position, aim, fov=fov)
    assert client.wait(lambda c: "frame" in c.gui)
    assert client.gui["frame"]["props"]["max"] == 1
    client.close()


@pytest.mark.parametrize(
    ("frames", "rule"), [([{"run": "../elsewhere"}], "a folder below"), ([], "no frames yet"), (None, "cannot be read")]
)
def test_what_is_no_sequence(tmp_path, frames, rule):
    (tmp_path / "sequence.json").write_text(json.dumps({"frames": frames}))
    with pytest.raises(BadInput, match=rule):
        frames_of(tmp_path)
