"""Frames of a moving object: its motion is found, frames are runs, and an interrupted sequence goes on."""

import json
import math
import shutil

import pytest
import torch

from radfield.apps.neus2 import motion as neus2_motion
from radfield.apps.neus2.motion import Motion, composed, in_transform, rotation_of
from radfield.data import load
from radfield.data.synthetic import write_synthetic_sequence
from radfield.geometry import SceneTransform

SMALL = (
    *("--neus2.levels", 4, "--neus2.log2-size", 13, "--neus2.finest-resolution", 128, "--neus2.radius", 0.15),
    *("--neus2.batch-samples", 8192, "--neus2.uniform-cells", 65536, "--neus2.occupied-cells", 8192),
    *("--steps", 200, "--motion-steps", 50, "--later", 0.1, "--resolution", 64, "--json"),
)


def turn(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))


def test_composed_is_one_after_the_other():
    a = SceneTransform(0.5, turn(30), (0.1, 0.2, 0.3))
    b = SceneTransform(2.0, turn(-70), (1.0, 0.0, -1.0))
    x = torch.rand(10, 3, dtype=torch.float64)
    assert torch.allclose(composed(a, b).points(x), a.points(b.points(x)))


def test_six_numbers_are_a_rotation():
    r = rotation_of(torch.randn(6, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(r @ r.T, torch.eye(3), atol=1e-6) and abs(float(torch.linalg.det(r)) - 1) < 1e-6
    assert torch.equal(Motion().now()[0], torch.eye(3))


def test_a_motion_is_the_transform_that_it_says():
    generator = torch.Generator().manual_seed(0)
    motion = Motion(torch.randn(6, generator=generator), torch.randn(3, generator=generator))
    r, t = motion.now()
    x = torch.rand(10, 3, generator=generator)
    centre = torch.tensor(neus2_motion.CENTRE)
    assert torch.allclose(motion.transform().points(x), (x - centre) @ r.T + centre + t, atol=1e-5)


def test_scenes_in_other_coordinates_see_the_same(tiny_capture):
    scene = load(tiny_capture)
    other = composed(SceneTransform(1.0, turn(25), (0.1, 0.0, -0.2)), scene.transform)
    moved = in_transform(scene, other)
    x = torch.rand(50, 3) * 0.5 + 0.25
    world = scene.transform.inverse().points(x.double())
    view = torch.zeros(50, dtype=torch.long)
    ours = moved.train.cameras.project(view, other.points(world).float())[0]
    theirs = scene.train.cameras.project(view, x)[0]
    assert torch.allclose(ours, theirs, atol=0.05)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Three frames: the object turns by 6 degrees and moves by 0.06 of 1.8 at each."""
    folder = tmp_path_factory.mktemp("frames") / "sequence"
    motions = write_synthetic_sequence(folder, "solids", 3, views=12, val_views=1, size=48, turn=6.0, shift=0.06)
    return folder, motions


def test_motions_are_found_and_a_sequence_goes_on(frames, tmp_path, command):
    folder, motions = frames
    run = tmp_path / "run"
    code, figures, said = command("train-frames", folder, "--output", run, *SMALL)
    assert code == 0, said
    assert len(figures["frames"]) == 3
    for frame, motion in zip(figures["frames"][1:], motions[1:], strict=True):
        found = torch.tensor(frame["to_first_frame"]["rotation"]).double()
        truth = torch.tensor(motion.rotation).double().T
        angle = math.degrees(math.acos(min(1.0, (float((found @ truth.T).trace()) - 1) / 2)))
        assert angle < 4, (frame["name"], angle)  # a small training; the benchmark has the figures
        centre = torch.tensor(motion.points(torch.zeros(3, dtype=torch.float64)).tolist(), dtype=torch.float64)
        back = found @ centre + torch.tensor(frame["to_first_frame"]["translation"]).double()
        assert float(back.norm()) < 0.06
    assert sorted(path.name for path in (run / "meshes").iterdir()) == ["000.ply", "001.ply", "002.ply"]
    # a frame is a run like any other
    code, measured, _ = command("eval", run / "frames" / "002", "--json")
    assert code == 0 and measured["psnr_inside"] > 12
    # without its last frame the sequence goes on there, and finds the same
    sequence = json.loads((run / "sequence.json").read_text())
    last = sequence["frames"].pop()
    (run / "sequence.json").write_text(json.dumps(sequence))
    code, figures, _ = command("train-frames", folder, "--output", run, "--resume", *SMALL)
    assert code == 0 and figures["frames"][2]["scene_motion"] == last["scene_motion"]


def test_bad_sequences_are_refused(tmp_path, refused):
    out = ("--output", tmp_path / "run")
    refused("train-frames", tmp_path / "none", *out, rule="is no folder; the rule: a folder of captures")
    (tmp_path / "empty").mkdir()
    refused("train-frames", tmp_path / "empty", *out, rule="has no folders")
    refused("train-frames", tmp_path / "empty", *out, "--later", 0, rule="--later is 0.0; the rule: above 0")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sequence.json").write_text("[]")
    (tmp_path / "empty" / "a").mkdir()
    refused("train-frames", tmp_path / "empty", *out, "--resume", rule="cannot be read")
    refused("train-frames", tmp_path / "empty", *out, rule="--resume goes on with it")


def test_a_frame_that_fails_is_named_and_those_before_it_are_kept(frames, tmp_path, command):
    folder, run = tmp_path / "sequence", tmp_path / "run"
    shutil.copytree(frames[0] / "000", folder / "a")
    shutil.copytree(frames[0] / "001", folder / "b")
    for file in (folder / "b").glob("transforms_*.json"):  # cameras that look away from where the object is
        values = json.loads(file.read_text())
        for frame in values["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[1:3] = [-row[1], -row[2]]
        file.write_text(json.dumps(values))
    quick = ("--output", run, "--no-meshes", *SMALL[: SMALL.index("--steps")], "--steps", 20, "--motion-steps", 2)
    code, _, lines = command("train-frames", folder, *quick)
    assert code == 2 and "Traceback" not in "".join(lines)
    assert "frame 1 (b): no ray meets the surface of the frame before" in lines[-1]
    assert "the 1 before it are whole" in lines[-1] and "--resume goes on" in lines[-1]
    assert [frame["name"] for frame in json.loads((run / "sequence.json").read_text())["frames"]] == ["a"]
    assert not (run / "frames" / "001").exists()
    shutil.rmtree(folder / "b")
    shutil.copytree(frames[0] / "001", folder / "b")
    code, figures, _ = command("train-frames", folder, "--resume", *quick, "--json")
    assert code == 0 and len(figures["frames"]) == 2
