"""The state of a training of the method `neus2`, besides the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...cameras import Cameras
from ...data.resident import source_of
from ...data.scene import Images, Scene
from ...encodings import registry
from ...encodings.slope_gradients import SlopeGradients
from ...errors import BadInput, warn
from ...sampling import occupancy, visual_hull
from ...sampling.march import SampleBuffers
from ...training.adam import Adam
from ...training.device_steps import DeviceSteps
from ..ngp.training import FieldTraining, adam_group, network_groups
from .model import VANISHED, Model


@dataclass(frozen=True)
class StepResult:
    """Figures of a step, or of some (`steps`), as of the method ngp. loss: mean squared error over rays and channels;
    eikonal: mean over the surface's samples."""

    loss: float
    rays: int
    marched: int
    live: int
    eikonal: float
    steps: int = 1


class Training(FieldTraining):
    """The state of training besides the model: optimiser, buffers, and how many rays fill a batch.

    memory: bytes that the images may take where the scene's are on disk. still: whether the surface is where the
    cameras see it; where a motion is to be found first, what they see through is not known to be empty."""

    result = StepResult

    def __init__(self, model: Model, scene: Scene, seed: int, memory: int | None = None, still: bool = True):
        super().__init__(model, seed)
        check_masks(scene)
        self.images = source_of(scene.train.images, seed=seed, memory=memory, device=model.device)
        self.has_alpha = scene.has_alpha
        self.buffers = SampleBuffers(4 * model.config.batch_samples)  # most of what is marched may be hidden
        self.more_buffers = SampleBuffers(4 * model.config.batch_samples)  # for what surrounds the unit cube
        self.grad_sharpness = torch.zeros(1, device=model.device)
        self.empty = give_up_cells(model, scene) if still else None
        self.cameras = scene.train.cameras.to(model.device)
        self.detail = detail_of(scene.train.cameras)
        self.take_parameters()

    def take_parameters(self) -> None:
        """Has the optimiser take all parameters; their moments start at 0."""
        config, field = self.model.config, self.model.field
        field.grid.grad_into = SlopeGradients(field.grid.grid)
        table = {"parameter": field.grid.table.data, "grad": field.grid.grad_into, "shadow": field.grid.stored()}
        groups = [{**table, "mode": "skip", "scale": registry.ENCODINGS[config.encoding].rate}]
        if field.color_grid is not None:
            groups += [{**group, "scale": config.color_rate} for group in field.color_grid.adam_groups()]
        groups += network_groups(config, field)
        groups.append({"parameter": field.log_sharpness.data, "grad": self.grad_sharpness})
        if self.model.outside is not None:
            groups += self.model.outside.grid.adam_groups()
            groups += [adam_group(n.weights, n, l2=config.network_l2) for n in self.model.outside.networks]
        self.optimizer.groups = Adam(groups).groups

    def steps_of_device(self) -> DeviceSteps | None:
        """Those of device_step.py."""
        from . import device_step  # which takes up where step.py ends, and that starts from here

        return device_step.steps_of(self)

    def make_ready(self) -> None:
        """Reads the images that the next step draws from, so that reading them is no part of its time."""
        if not isinstance(self.images, Images):
            self.images.at(self.step)

    def loaded(self, ours: dict[str, Tensor]) -> None:
        """Follows after a checkpoint was read."""
        if self.model.outside is not None:
            self.model.outside.grid.loaded()

    def more_figures(self, results: list) -> dict:
        """What metrics.jsonl has of this method alone."""
        steps = max(sum(r.steps for r in results), 1)
        return {"eikonal": sum(r.eikonal * r.steps for r in results) / steps, "sharpness": self.model.field.sharpness}

    def figures(self) -> dict:
        """Figures of the whole training; says where it has lost the surface."""
        if not has_surface(self.model):
            warn(VANISHED)
        return super().figures() | {"sharpness": self.model.field.sharpness}


def detail_of(cameras: Cameras) -> float:
    """How many pixels of a photograph a scene unit in the middle of the unit cube is, in the median of views."""
    distance = (cameras.camera_to_world[:, :3, 3] - 0.5).norm(dim=-1).clamp_min(1e-3)
    return float((cameras.focal.mean(-1) / distance).median())


def give_up_cells(model: Model, scene: Scene) -> Tensor | None:
    """Has the occupancy grid leave out for ever what no camera sees, and what masks say is empty. Returns [G^3] bool,
    the cells of the unit cube that masks say are empty; None where they are not asked."""
    grid = model.grid
    grid.mark_invisible(scene.train.cameras)
    if not (scene.has_alpha and model.config.visual_hull):
        return None
    first = grid.values[: grid.config.resolution**3]
    cells = (first != occupancy.UNSEEN).nonzero()[:, 0].cpu()
    cameras = scene.train.cameras.to(torch.device("cpu"))
    given_up = cells[visual_hull.empty_cells(cameras, scene.train.images, cells, grid.config.resolution)]
    empty = torch.zeros(len(first), dtype=torch.bool)
    empty[given_up] = True
    empty = empty.to(first.device)
    first[empty] = occupancy.UNSEEN
    grid.refresh()
    return empty


def has_surface(model: Model) -> bool:
    """Whether the surface has an inside and an outside, at 64^3 points."""
    side = (torch.arange(64, device=model.device) + 0.5) / 64
    f = model.distance(torch.cartesian_prod(side, side, side))
    return bool((f < 0).any() and (f > 0).any())


def check_masks(scene: Scene) -> None:
    """Raises `BadInput` where masks say of every pixel that it is not the object."""
    images = scene.train.images
    if not scene.has_alpha or not isinstance(images, Images):
        return
    if not bool((images.pixels[:, 3] > 0).any()):
        raise BadInput(
            f"{scene.path}: the masks of all training views are black: no pixel shows the object; the rule: white "
            "where it is, or --masks none"
        )
