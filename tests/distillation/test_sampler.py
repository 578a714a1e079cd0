"""Where rays come from: poses around scenes, epochs, and the pools of active learning."""

import math

import pytest
import torch

from radfield.cameras import Cameras, look_at
from radfield.distillation import Active, Sampler
from radfield.distillation.active import POSE_POOL, SHARE, HardPoses, HardRays
from radfield.distillation.poses import KINDS, Between, Shell, jittered, kind_of, pinhole, surroundings
from radfield.distillation.sampler import EPOCH, POSES
from radfield.errors import BadInput
from radfield.rays import Rays

CENTRE = torch.full((3,), 0.5, dtype=torch.float64)
UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def cameras_at(origin, target):
    count = len(origin)
    return Cameras(
        camera_to_world=look_at(origin, target, UP).float(),
        focal=torch.full((count, 2), 50.0),
        principal=torch.full((count, 2), 20.0),
        size=torch.full((count, 2), 40),
        distortion=torch.zeros(count, 9),
    )


def ring(radius, height, count=12):
    turn = torch.arange(count, dtype=torch.float64) / count * 2 * math.pi
    level = torch.stack((turn.cos(), turn.sin(), torch.full_like(turn, height)), 1)
    return cameras_at(CENTRE + radius * level, CENTRE)


def facing(count=9):
    x = torch.linspace(-0.3, 0.3, count, dtype=torch.float64)
    origin = torch.stack((x, torch.full_like(x, -1.0), 0.5 + 0.1 * x.abs()), 1)
    return cameras_at(origin, origin + torch.tensor([0.0, 1.0, 0.0]))


def test_captures_are_of_a_kind():
    assert kind_of(ring(1.3, 0.5).camera_to_world, 1) == "synthetic"
    assert kind_of(ring(1.3, 0.1).camera_to_world, 5) == "unbounded"
    assert kind_of(facing().camera_to_world, 5) == "forward"


def test_synthetic_poses_stand_where_the_cameras_did_and_look_at_the_object():
    drawn = surroundings("auto", ring(1.3, 0.5), 1)
    assert isinstance(drawn, Shell)
    poses = drawn.draw(200, torch.Generator().manual_seed(0)).double()
    distance = (poses[:, :3, 3] - CENTRE).norm(dim=1)
    assert torch.allclose(distance, torch.tensor(1.3 * 1.25**0.5, dtype=torch.float64), rtol=1e-4)
    towards = torch.nn.functional.normalize(CENTRE - poses[:, :3, 3], dim=1)
    assert torch.allclose(poses[:, :3, 2], towards, atol=1e-5)
    assert (poses[:, :3, 3] - CENTRE).mean(0)[:2].norm() < 0.3  # from all sides


@pytest.mark.parametrize("cascades", [1, 5])
def test_without_a_capture_poses_follow_the_scene_box(cascades):
    around = surroundings("auto", None, cascades)
    poses = around.draw(50, torch.Generator().manual_seed(0))
    ahead = ((0.5 - poses[:, :3, 3]) * poses[:, :3, 2]).sum(1)
    assert (ahead > 0.9).all()
    focal, size = pinhole(None, cascades)
    assert size.tolist() == [800, 800] and (focal > 400).all()


def test_forward_and_unbounded_poses_stand_between_cameras():
    for cameras, kind in ((facing(), "forward"), (ring(1.3, 0.1, 24), "unbounded")):
        around = surroundings("auto", cameras, 5)
        assert isinstance(around, Between)
        poses = around.draw(300, torch.Generator().manual_seed(0))
        rotation = poses[:, :3, :3]
        assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(300, 3, 3), atol=1e-5)
        nearest = torch.cdist(poses[:, :3, 3], cameras.camera_to_world[:, :3, 3]).min(1)
        assert (nearest.values < 0.35).all(), kind
        theirs = cameras.camera_to_world[nearest.indices, :3, 2]
        assert ((poses[:, :3, 2] * theirs).sum(1) > 0.9).all(), kind


def test_kinds_are_named():
    with pytest.raises(BadInput, match="poses are 'around'; the rule: auto, " + ", ".join(KINDS)):
        surroundings("around", None, 1)
    with pytest.raises(BadInput, match="'forward' without the capture's cameras"):
        surroundings("forward", None, 5)


def test_jitter_is_small_and_rigid():
    poses = ring(1.3, 0.5).camera_to_world
    moved = jittered(poses, torch.Generator().manual_seed(0))
    assert not torch.equal(moved, poses)
    assert ((moved - poses)[:, :3, 3].norm(dim=1) < 0.3).all()
    assert ((moved[:, :3, 2] * poses[:, :3, 2]).sum(1) > 0.98).all()


def test_draws_depend_on_seed_and_step_alone():
    one, two, other = (Sampler(None, 1, seed=seed) for seed in (0, 0, 1))
    one.draw(0, 64)
    for sampler in (two, other):
        for step in range(3):
            sampler.draw(step, 64)
    again = [sampler.draw(3, 64) for sampler in (one, two, other)]
    assert torch.equal(again[0].rays.directions, again[1].rays.directions)
    assert torch.equal(again[0].background, again[1].background)
    assert not torch.equal(again[0].rays.directions, again[2].rays.directions)


def test_an_epoch_keeps_its_poses():
    sampler = Sampler(None, 1)
    sampler.draw(0, 8)
    first = sampler.poses.clone()
    sampler.draw(EPOCH - 1, 8)
    assert torch.equal(sampler.poses, first)
    sampler.draw(EPOCH, 8)
    assert not torch.equal(sampler.poses, first)


def test_hard_poses_come_again():
    sampler = Sampler(None, 1, active=Active(poses=True))
    for step in range(3):
        batch = sampler.draw(step, 2000)
        sampler.learn(batch, (batch.pose == 7).float() + 1e-3)  # one pose is worse than all others
    worst = sampler.poses[7].clone()
    sampler.draw(EPOCH, 8)
    pool = sampler.hard_poses
    assert torch.equal(pool.pose[0], worst) and int((pool.error >= 0).sum()) == round(SHARE * POSES)
    distance = torch.cdist(sampler.poses[:10, :3, 3], pool.pose[:10, :3, 3]).min(1).values
    assert (distance < 0.3).all()  # jittered copies in a tenth of the places
    assert (sampler.seen == 0).all()


def test_the_pool_of_poses_keeps_the_worst():
    pool = HardPoses()
    for epoch in range(20):
        poses = torch.eye(4).repeat(POSES, 1, 1)
        poses[:, 0, 3] = error = torch.rand(POSES) + epoch
        pool.take(poses, error)
    assert len(pool.error) == POSE_POOL and (pool.error > 9).all()
    assert torch.equal(pool.pose[:, 0, 3], pool.error)


def rays_of(values):
    d = torch.zeros(len(values), 3)
    d[:, 2] = 1
    return Rays(values[:, None].repeat(1, 3), d)


def test_hard_rays_are_drawn_once_the_pool_is_full_and_swapped():
    pool, generator = HardRays(64), torch.Generator().manual_seed(0)
    for _ in range(6):
        assert not pool.full and len(pool.draw(100, generator)) == 0
        error = torch.rand(100)
        pool.take(rays_of(error), error, pool.draw(100, generator))
        worst = error.sort(descending=True).values[:10]
        assert torch.equal(pool.ray[int(pool.filled) - 10 : int(pool.filled), 0], worst)
    pool.take(rays_of(torch.rand(100)), torch.rand(100), torch.empty(0, dtype=torch.int64))
    assert pool.full
    places = pool.draw(100, generator)
    assert len(places.unique()) == 10
    before, error = pool.ray.clone(), torch.rand(100) + 5
    pool.take(rays_of(error), error, places)
    assert (pool.ray[places, 0] > 5).all()
    others = torch.ones(64, dtype=torch.bool)
    others[places] = False
    assert torch.equal(pool.ray[others], before[others])


def test_rays_of_the_pool_lead_a_batch():
    sampler = Sampler(None, 1, active=Active(rays=True))
    sampler.hard_rays.ray[:, 5] = 1.0
    sampler.hard_rays.filled.fill_(len(sampler.hard_rays.ray))
    batch = sampler.draw(0, 200)
    assert (batch.pose == -1).sum() == len(batch.places) == 20
    assert (batch.rays.directions[:20, 2] == 1).all() and (batch.rays.directions[20:, 2] != 1).all()
