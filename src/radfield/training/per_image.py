"""What may differ from image to image besides the camera: exposure, appearance, and the camera's own errors.

- Exposure: a gain per image and channel in the images' sRGB values, exp(e_v), on what the field shows, not on the
  background. The mean of e is kept at 0, since a common gain is the scene's.
- Appearance: a latent vector per image that the colour network gets as input (Martin-Brualla et al. 2021, NeRF-W,
  section 4.1, by gradient descent instead of variational); renders use the mean, which is kept at 0.
- Cameras: `camera_refinement.py`.

All are off by default. Letters: V views, N rays, A channels of the appearance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import BadInput
from . import camera_refinement
from .adam import Adam


@dataclass(frozen=True)
class Config:
    """Corrections per image; all off by default."""

    exposure: bool = False  # learn a gain per image and channel, for photographs exposed automatically
    appearance: int = 0  # channels of a latent vector per image, for photographs of different light; 8 is usual
    cameras: bool = False  # refine the poses of the training views
    lenses: bool = False  # refine focal length and principal point with them, in common for all views
    camera_rate: float = 3e-4  # learning rate of turns (radians) and shifts (scene units)
    exposure_rate: float = 3e-3  # learning rate of the exposures' logarithms
    appearance_rate: float = 1e-2  # learning rate of the latent vectors


def check(config: Config, prefix: str) -> None:
    """Raises `BadInput` for options out of range."""
    if not 0 <= config.appearance <= 32:
        raise BadInput(f"{prefix}appearance is {config.appearance}; the rule: from 0 (none) to 32 channels")
    if config.lenses and not config.cameras:
        raise BadInput(f"{prefix}lenses is given without {prefix}cameras; the rule: lenses are refined with poses")
    for name in ("camera_rate", "exposure_rate", "appearance_rate"):
        if not 0 < getattr(config, name) < 1:
            raise BadInput(f"{prefix}{name.replace('_', '-')} is {getattr(config, name)}; the rule: between 0 and 1")


class PerImage:
    """The corrections of V training views: what a training step asks, step after step. mode: "skip" where a step sees
    few of the views, so that the others stay as they are (`Adam`)."""

    def __init__(self, config: Config, cameras: Cameras, *, mode: str = "dense"):
        self.config, self.given = config, cameras
        self.refinement = None
        if config.cameras:
            rates = camera_refinement.Config(rate=config.camera_rate)
            self.refinement = camera_refinement.CameraRefinement(cameras, lens=config.lenses, config=rates, mode=mode)
        self.values: dict[str, Tensor] = {}
        if config.exposure:
            self.values["exposure"] = torch.zeros(len(cameras), 3, device=cameras.focal.device)
        if config.appearance:
            self.values["appearance"] = torch.zeros(len(cameras), config.appearance, device=cameras.focal.device)
        rates = {"exposure": config.exposure_rate, "appearance": config.appearance_rate}
        self.grads = {name: torch.zeros_like(value) for name, value in self.values.items()}
        groups = [
            {"parameter": value, "grad": self.grads[name], "scale": rates[name], "mode": mode}
            for name, value in self.values.items()
        ]
        self.optimizer = Adam(groups, epsilon=1e-12)
        self._leaves: dict[str, Tensor] = {}

    @property
    def cameras(self) -> Cameras:
        """The training cameras as corrected so far."""
        return self.given if self.refinement is None else self.refinement.cameras

    @property
    def traces(self) -> bool:
        """Whether gradients by sample positions are needed."""
        return self.refinement is not None

    def latent(self, view: Tensor) -> Tensor | None:
        """[N, A] of the rays' views, with gradient; None without appearance."""
        return self._rows("appearance", view)

    def exposed(self, color: Tensor, left: Tensor, background: Tensor, view: Tensor) -> Tensor:
        """Rendered colours [N, 3], of which left [N] times background [N, 3] is what shines through, as the camera of
        their view would have exposed them."""
        gain = self._rows("exposure", view)
        if gain is None:
            return color
        behind = left[:, None] * background
        return (color - behind) * gain.exp() + behind

    def finish(self, render, rays, view: Tensor, pixel: Tensor, progress: float) -> None:
        """After the backward pass: collects the gradients and makes a step."""
        if self.refinement is not None:
            trace = render.trace
            self.refinement.collect(trace.position.grad, trace.t, trace.ray, rays, view, pixel)
        self.step(progress)

    def step(self, progress: float) -> None:
        """One step with the gradients of the backward pass; those of the cameras have been collected."""
        if self._leaves:
            for name, leaf in self._leaves.items():
                if leaf.grad is not None:
                    self.grads[name].copy_(leaf.grad)
            self._leaves = {}
            self.optimizer.step(lr=0.1**progress)
            for value in self.values.values():
                value -= value.mean(0)
        if self.refinement is not None:
            self.refinement.step(progress)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; nothing where all is off."""
        found = dict(self.values)
        if self.values:
            found |= {f"adam.{k}": v for k, v in self.optimizer.state_dict().items()}
        if self.refinement is not None:
            found |= {f"cameras.{k}": v for k, v in self.refinement.tensors().items()}
        return found

    def loaded(self, tensors: dict[str, Tensor]) -> None:
        """To be called with what `tensors` gave when a checkpoint was read into it."""
        if self.values:
            self.optimizer.steps = int(tensors["adam.steps"])
        if self.refinement is not None:
            self.refinement.optimizer.steps = int(tensors["cameras.adam.steps"])
            self.refinement.refresh()

    def _rows(self, name: str, view: Tensor) -> Tensor | None:
        if name not in self.values:
            return None
        leaf = self.values[name].detach().requires_grad_()
        self._leaves[name] = leaf
        return leaf[view.long()]
