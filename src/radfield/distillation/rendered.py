"""What a teacher shows, as the photographs of a scene: rendered views at poses drawn around it. That is what fields
have in common with Gaussians, which answer nothing at a point.

A view has straight alpha, so that a student can be compared with it on any background:
colour = c / alpha of the teacher's picture c on black, in 8 bits. Letters: V views, H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Cameras
from ..data.scene import Images, Scene, Views
from ..errors import BadInput
from ..sampling.random import stream
from .loop import LEAST_OPACITY
from .sampler import Sampler

VIEWS = 100  # poses of a distillation
SIZE = 400  # longer side of views in pixels, where the lens has more


def pictured(teacher, cameras: Cameras, view: int) -> Tensor:
    """[H, W, 4] uint8 on the CPU: what `teacher` shows of a view, with straight alpha."""
    seen = teacher.render_view(cameras, view, torch.zeros(3, device=teacher.device))
    alpha = seen.opacity.clamp(0, 1)[..., None]
    color = (seen.color / alpha.clamp_min(1e-6)).clamp(0, 1)
    return (torch.cat((color, alpha), -1) * 255).round().to(torch.uint8).cpu()


def drawn(sampler: Sampler, count: int = VIEWS, size: int = SIZE) -> Cameras:
    """Cameras at `count` poses around the scene, on the CPU, at most `size` pixels along the longer side."""
    generator = torch.Generator().manual_seed(stream(sampler.seed, 23))
    cameras = sampler.views(sampler.around.draw(count, generator)).to("cpu")
    return cameras.scaled(min(size / int(cameras.size.max()), 1.0))


def check_not_empty(teacher, cameras: Cameras) -> None:
    """Raises `BadInput` where the teacher shows nothing in the first of `cameras`."""
    small = cameras.scaled(min(32 / int(cameras.size.max()), 1.0))
    if not any(bool(pictured(teacher, small, i)[..., 3].any()) for i in range(min(8, len(small)))):
        raise BadInput(
            f"the teacher is empty: no ray's opacity reaches {LEAST_OPACITY}; the rule: a trained run, and poses that "
            "see it"
        )


def rendered(teacher, cameras: Cameras, progress=lambda done: None) -> Images:
    """All views of `cameras`, rendered. progress: called with how many are done."""
    images = Images.allocate(cameras.size.tolist(), 4)
    for i in range(len(cameras)):
        images[i].copy_(pictured(teacher, cameras, i))
        progress(i + 1)
    return images


def scene_of(teacher, cameras: Cameras, images: Images | None) -> Scene:
    """The scene of `teacher` with these views to train on, in the teacher's scene coordinates."""
    names = [f"drawn {i}" for i in range(len(cameras))]
    where = {"transform": teacher.transform, "cascades": teacher.cascades, "background": teacher.background}
    views = Views(cameras, images, names)
    return Scene("rendered views", views, None, None, **where, has_alpha=True, path=Path("."))


class ViewsOnDemand:
    """The views of a teacher as `data/view_reader.py: ViewReader` hands them out: each is rendered when it is first
    asked for, at the size that is asked for. cameras: by how many times smaller they are; `level` is the one in use."""

    def __init__(self, teacher, cameras: dict[int, Cameras], device: torch.device):
        self.teacher, self.cameras, self.device = teacher, cameras, device
        self.level, self._made = max(cameras), {}

    def __call__(self, view: int, next_view: int) -> tuple[Tensor, None]:
        """(pixels [H, W, 4] uint8, no mask)."""
        if (view, self.level) not in self._made:
            picture = pictured(self.teacher, self.cameras[self.level], view)
            self._made[view, self.level] = picture.to(self.device)
        return self._made[view, self.level], None
