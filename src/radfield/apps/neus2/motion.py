"""The rigid motion of an object from one frame of a sequence to the surface that earlier frames made (NeuS2, sec. 3.5).

    x' = R (x - c) + c + t,   c = (1/2, 1/2, 1/2)

takes scene positions of a frame to those of the surface. R is two columns made orthonormal (Zhou et al. 2019). Only R
and t are trained, by the gradient of the loss by the samples' positions: what it is by directions and normals is left
out. The surface is made soft meanwhile (a small sharpness), so that light and gradients reach as far as an object may
have moved.

Letters: N rays, M samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...camera_rays import camera_rays
from ...data.resident import draw_pixels
from ...data.scene import Scene, Views
from ...errors import BadInput
from ...fields import surface_passes
from ...geometry import SceneTransform
from ...rays import Rays
from ...renderers import neus_alpha, surface_volume
from ...sampling.march import march
from ...sampling.random import stream
from ...training.adam import Adam
from .step import STOP, frame_loss
from .training import Training

CENTRE = (0.5, 0.5, 0.5)
SOFT, RATE, FINAL = 40.0, 1e-2, 0.05  # sharpness at first; learning rate and the part of it at the end
STEP = 4.0  # steps along rays, in those of a renderer: a soft surface needs no finer ones
SAMPLES = 1 << 14  # per step: nine numbers are found, which needs fewer than a surface
FEWEST_RAYS, MOST_RAYS = 256, 1 << 15
_UPDATES = 4  # of the occupancy grid, as the surface becomes sharper


@dataclass
class Motion:
    """turn [6] and shift [3] float32, which are trained."""

    turn: Tensor = field(default_factory=lambda: torch.tensor([1.0, 0, 0, 0, 1, 0]))
    shift: Tensor = field(default_factory=lambda: torch.zeros(3))

    def to(self, device: torch.device) -> Motion:
        """A copy on `device`."""
        return Motion(*(each.detach().clone().to(device) for each in (self.turn, self.shift)))

    def now(self) -> tuple[Tensor, Tensor]:
        """(R, t), differentiable by turn and shift."""
        return rotation_of(self.turn), self.shift

    def transform(self) -> SceneTransform:
        """As a similarity of scene coordinates."""
        with torch.no_grad():
            r, t = (each.double().cpu() for each in self.now())
        u, _, v = torch.linalg.svd(r)  # a rotation in double, too
        r, c = u @ v, torch.tensor(CENTRE, dtype=torch.float64)
        return SceneTransform(1.0, tuple(map(tuple, r.tolist())), tuple((c + t - r @ c).tolist()))


def rotation_of(turn: Tensor) -> Tensor:
    """[3, 3] of six numbers: the first two columns, made orthonormal."""
    a = torch.nn.functional.normalize(turn[:3], dim=0)
    b = torch.nn.functional.normalize(turn[3:] - (a @ turn[3:]) * a, dim=0)
    return torch.stack((a, b, torch.linalg.cross(a, b)), 1)


def composed(after: SceneTransform, before: SceneTransform) -> SceneTransform:
    """x -> after(before(x))."""
    a, b = (torch.tensor(each.rotation, dtype=torch.float64) for each in (after, before))
    offset = after.points(torch.tensor(before.offset, dtype=torch.float64))
    return SceneTransform(after.scale * before.scale, tuple(map(tuple, (a @ b).tolist())), tuple(offset.tolist()))


def in_transform(scene: Scene, transform: SceneTransform) -> Scene:
    """The scene in other scene coordinates: `transform` from its world."""
    change = composed(transform, scene.transform.inverse())

    def turned(views: Views | None) -> Views | None:
        if views is None:
            return None
        pose = change.poses(views.cameras.camera_to_world.double()).float()
        pose[..., :3, :3] = _rigid(pose[..., :3, :3])
        return replace(views, cameras=replace(views.cameras, camera_to_world=pose))

    splits = {name: turned(getattr(scene, name)) for name in ("train", "val", "test")}
    return replace(scene, **splits, transform=transform, points=None)


def _rigid(rotation: Tensor) -> Tensor:
    u, _, v = torch.linalg.svd(rotation.double())
    return (u @ v).float()


def find_motion(training: Training, motion: Motion, steps: int, shown=None) -> list[float]:
    """Moves `motion`, on the model's device, to where the training's views, in the coordinates of its scene, show the
    model's surface; returns the losses. The model is as before afterwards, but for its occupancy grid. Raises
    `BadInput` where no ray meets the surface."""
    model, losses = training.model, []
    sharp = float(model.field.log_sharpness.detach())
    soft = min(math.log(SOFT) / 10, sharp)
    groups = [{"parameter": each, "grad": torch.zeros_like(each)} for each in (motion.turn, motion.shift)]
    optimizer = Adam(groups)
    try:
        for step in range(steps):
            part = step / steps
            with torch.no_grad():
                model.field.log_sharpness.fill_(soft + (sharp - soft) * part)
            if step % max(steps // _UPDATES, 1) == 0:
                model.grid.update(model.density, seed=training.seed, uniform=model.grid.config.cells)
            losses.append(_motion_step(training, motion, step, optimizer))
            optimizer.step(lr=RATE * FINAL**part)
            if shown is not None:
                shown(step + 1)
    finally:
        with torch.no_grad():
            model.field.log_sharpness.fill_(sharp)
    return losses


def _motion_step(training: Training, motion: Motion, step: int, optimizer: Adam) -> float:
    """Adds the gradients of turn and shift to the optimiser's; returns the loss."""
    model = training.model
    seed = stream(training.seed, 5, training.step, step)
    pixels = draw_pixels(training.images, training.rays, seed=seed, step=step, background=None)
    rays = camera_rays(training.cameras, pixels.view, pixels.pixel, check=False)
    with torch.no_grad():
        r, t = motion.now()
    centre = torch.tensor(CENTRE, device=model.device)
    moved = Rays((rays.origins - centre) @ r.T + centre + t, rays.directions @ r.T)
    lengths = {"step": model.render.step * STEP, "cone": 0.0, "max_step": model.render.step * STEP}
    samples = march(moved, model.grid, **lengths, jitter_seed=seed, buffers=training.buffers)
    if not len(samples):
        raise BadInput(
            "no ray meets the surface of the frame before: the object moved too far, or the cameras are wrong; the "
            "rule: a part of the object overlaps where it was"
        )
    seen = surface_volume.ask(model.field, None, samples)
    loss, error = frame_loss(training, seen.composited(STOP), pixels, samples.ray_count)
    loss.backward()
    tape, shape = seen.tape, (seen.inside.streams(), neus_alpha.Shape(seen.sharpness))
    given = seen.sigma.grad, seen.rgb.grad, 0.0, tape.f, tape.normal, seen.answers["rgb"]
    found = neus_alpha.gradients(*given, *shape)
    g = surface_passes.position_gradient(model.field, tape, found["grad_f"], found["grad_logits"])
    training.rays = min(max(int(samples.ray_count * SAMPLES / len(samples)), FEWEST_RAYS), MOST_RAYS)
    _chain(motion, optimizer, g, samples.x.T, r, t)
    return error


def _chain(motion: Motion, optimizer: Adam, g: Tensor, x: Tensor, r: Tensor, t: Tensor) -> None:
    """From the gradients g [3, M] by moved positions x [3, M] to those of turn and shift."""
    centre = torch.tensor(CENTRE, device=x.device)[:, None]
    before = r.T @ (x - centre - t[:, None])  # x - c before the motion
    by_rotation, by_translation = g @ before.T, g.sum(1)
    leaves = [each.detach().clone().requires_grad_() for each in (motion.turn, motion.shift)]
    turned, shifted = Motion(*leaves).now()
    value = (by_rotation * turned).sum() + (by_translation * shifted).sum()
    for group, grad in zip(optimizer.groups, torch.autograd.grad(value, leaves), strict=True):
        group["grad"] += grad
