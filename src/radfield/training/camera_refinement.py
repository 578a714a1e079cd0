"""Camera refinement: poses (SE(3)) and lenses of the training views, corrected while the field is trained.

With ray x(t) = o + t d of view v, and g = dL/dx the gradient at a sample, a shift tau_v of the camera and a small turn
omega_v of it about its own centre, both along the scene's axes, give (Lin et al. 2021, BARF; the turn as in SE(3))

    dL/dtau_v = sum g        dL/domega_v = sum t (d x g)        over the samples of the view's rays,

and a change of the lens moves the ray's direction: q = (pixel - c) / f is the point of the image plane and u the point
that `distort` takes there, with Jacobian J. Parameters k of (log f, c_x / f, c_y / f, k1, k2), for all views in common,
change u by J^-1 q_k, where q_k is -q, -e_x, -e_y and, of the distortion, -u r^2, -u r^4 (over the denominator of the
rational model), r^2 = |u|^2. Only perspective lenses are refined.

What all cameras do together changes the scene's frame, not the fit, and would move the training views against the
held-out ones: the means of the shifts and of the turns stay 0. Letters: V views, N rays, M samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cameras import Cameras, distort_by_radial, distort_jacobian
from ..errors import BadInput
from ..rays import Rays
from .adam import Adam


@dataclass(frozen=True)
class Config:
    """How cameras are refined."""

    rate: float = 3e-4  # learning rate of turns (radians) and shifts (scene units) at the start
    final_rate: float = 0.01  # it ends at this part of it
    begin: float = 0.05  # part of the budget after which it begins: before, there is nothing to align with


class CameraRefinement:
    """The corrections of V training cameras. `cameras` are the corrected ones."""

    def __init__(self, cameras: Cameras, *, lens: bool, config: Config = Config(), mode: str = "dense"):
        if lens and cameras.model != "perspective":
            raise BadInput(
                f"the lens models are {', '.join(cameras.models)}; the rule: only perspective lenses can be refined"
            )
        self.given, self.config, self.with_lens = cameras, config, lens
        shapes, device = {"turn": (len(cameras), 3), "shift": (len(cameras), 3), "lens": (5,)}, cameras.focal.device
        self.values = {name: torch.zeros(*shape, device=device) for name, shape in shapes.items()}
        self.grads = {name: torch.zeros_like(value) for name, value in self.values.items()}
        groups = [{"parameter": value, "grad": self.grads[name], "mode": mode} for name, value in self.values.items()]
        self.optimizer = Adam(groups, epsilon=1e-12)
        self.cameras = cameras
        self._move: Tensor | None = None

    def collect(self, grad: Tensor, t: Tensor, ray: Tensor, rays: Rays, view: Tensor, pixel: Tensor) -> None:
        """Adds a batch's gradients. grad: [M, 3] by sample positions; t: [M] distances; ray: [M] the samples' rays;
        view: [N] and pixel: [N, 2] of the rays."""
        n = len(rays)
        by_ray = grad.new_zeros(n, 3).index_add_(0, ray, grad)
        moment = grad.new_zeros(n, 3).index_add_(0, ray, t[:, None] * grad)
        view = view.long()
        self.grads["shift"].index_add_(0, view, by_ray)
        self.grads["turn"].index_add_(0, view, torch.linalg.cross(rays.directions, moment))
        if self.with_lens:
            self.grads["lens"] += self._lens_gradient(moment, rays, view, pixel)

    def world_to_camera(self, view: int) -> Tensor:
        """[4, 4] of a view as corrected, for a renderer that differentiates by it; then `collect_pose` follows."""
        pose = self.cameras.camera_to_world[view]
        self._move = torch.zeros(2, 3, device=pose.device, requires_grad=True)
        turn, shift = self._move
        axes = pose[:3, :3] + torch.linalg.cross(turn[:, None], pose[:3, :3], dim=0)  # to first order, at a turn of 0
        matrix = torch.cat((axes.T, -(axes.T @ (pose[:3, 3] + shift))[:, None]), 1)
        return torch.cat((matrix, matrix.new_tensor([[0.0, 0, 0, 1]])))

    def collect_pose(self, view: int) -> None:
        """Adds the gradients that the backward pass left at `world_to_camera(view)`."""
        if self._move is not None and self._move.grad is not None:
            self.grads["turn"][view] += self._move.grad[0]
            self.grads["shift"][view] += self._move.grad[1]
        self._move = None

    def step(self, progress: float) -> None:
        """One step of Adam; `progress` in [0, 1] is the part of the budget used."""
        if progress < self.config.begin:
            for grad in self.grads.values():
                grad.zero_()
            return
        self.optimizer.step(lr=self.config.rate * self.config.final_rate**progress)
        for name in ("turn", "shift"):
            self.values[name] -= self.values[name].mean(0)
        self.refresh()

    def refresh(self) -> None:
        """Makes `cameras` from the corrections."""
        given = self.given
        pose = given.camera_to_world.clone()
        pose[:, :3, :3] = rotations(self.values["turn"]) @ pose[:, :3, :3]
        pose[:, :3, 3] += self.values["shift"]
        lens = self.values["lens"]
        focal = given.focal * lens[0].exp()
        values = {"camera_to_world": pose, "focal": focal, "principal": given.principal + lens[1:3] * focal}
        if self.with_lens:
            values["distortion"] = torch.cat((given.distortion[:, :2] + lens[3:], given.distortion[:, 2:]), 1)
        self.cameras = replace(given, **values)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        moments = {f"adam.{name}": value for name, value in self.optimizer.state_dict().items()}
        return {**self.values, **moments}

    def _lens_gradient(self, moment: Tensor, rays: Rays, view: Tensor, pixel: Tensor) -> Tensor:
        # d = R l / |l| with l = (u, 1), so that dd = (R dl - d (d . R dl)) / |l|
        axes = self.cameras.camera_to_world[view, :3, :3]
        local = (rays.directions[:, None, :] * axes.mT).sum(-1)  # in the camera's axes
        across = moment - (moment * rays.directions).sum(-1, keepdim=True) * rays.directions
        depth = local[:, 2:].clamp_min(1e-3)  # rays across the axis have no finite u; lenses that wide are fisheyes
        by_u, u = (axes[:, :, :2] * across[:, :, None]).sum(1) * depth, local[:, :2] / depth
        k = self.cameras.distortion[view]
        xx, xy, yy = distort_jacobian(u, k)
        determinant = xx * yy - xy * xy
        # Beyond a fold of the lens model u says nothing of the lens: the guard of `undistort`.
        scale = torch.where(determinant > 1e-6, 1 / determinant, 0)[:, None]
        by_x, by_y = by_u.unbind(-1)
        by_q = torch.stack((yy * by_x - xy * by_y, xx * by_y - xy * by_x), -1) * scale
        q = (pixel - self.cameras.principal[view]) / self.cameras.focal[view]
        totals = [(by_q * each).sum() for each in (q, *distort_by_radial(u, k))]
        return -torch.cat((totals[0][None], by_q.sum(0), torch.stack(totals[1:])))


def rotations(turn: Tensor) -> Tensor:
    """[V, 3, 3] rotations by |turn| radians about turn [V, 3] (Rodrigues' formula)."""
    angle = turn.norm(dim=-1)[:, None, None]
    # sin(a) / a and (1 - cos(a)) / a^2 = 2 (sin(a / 2) / a)^2, both well behaved at 0 through torch's sinc
    first = torch.sinc(angle / torch.pi)
    second = 0.5 * torch.sinc(angle / (2 * torch.pi)) ** 2
    x, y, z = turn.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).view(-1, 3, 3)
    return torch.eye(3, dtype=turn.dtype, device=turn.device) + first * cross + second * (cross @ cross)
