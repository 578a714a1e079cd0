"""Fields in different scene boxes: a student asked at a teacher's coordinates.

Both scenes have a similarity from the world, x = s R w + o; so there is one from the teacher's coordinates to the
student's, y = a Q x + b. A density per unit of the teacher's length is a times that per unit of the student's.
Letter: M samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadInput
from ..geometry import SceneTransform, cascade_box


def between(teacher: SceneTransform, student: SceneTransform) -> SceneTransform:
    """From the teacher's scene coordinates to the student's, both given from the world."""
    back = teacher.inverse()
    zero, axes = torch.zeros(1, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    offset = student.points(back.points(zero))[0].tolist()
    rotation = student.directions(back.directions(axes)).T.tolist()
    return SceneTransform(student.scale * back.scale, tuple(map(tuple, rotation)), tuple(offset))


class Moved(torch.nn.Module):
    """What a renderer asks of `field`, whose own coordinates are `place.points(x)`, at x."""

    def __init__(self, field: torch.nn.Module, place: SceneTransform):
        super().__init__()
        self.field, self.place = field, place
        # the density's logit among the features is of the student's own length
        self.comparable = {name: size for name, size in field.comparable.items() if name != "features"}

    def geometry(self, x: Tensor, encoded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The density's logit [M] per unit of the length of x, and the field's features."""
        logit, features = self.field.geometry(self.place.points(x), encoded)
        return logit + torch.tensor(self.place.scale).log(), features

    def encode(self, x: Tensor) -> Tensor:
        """The field's own."""
        return self.field.encode(self.place.points(x))

    def color_logits(self, features: Tensor, d: Tensor) -> Tensor:
        """Logits [M, 3] of the colour along directions d [M, 3] of x."""
        return self.field.color_logits(features, self.place.directions(d).contiguous())


def aligned(teacher, student) -> torch.nn.Module:
    """The field of the model `student` in the coordinates of the model `teacher`: itself where these are the same.
    Raises `BadInput` where what the teacher has does not fit into the student's outermost cube."""
    same = teacher.transform == student.transform
    place = SceneTransform() if same else between(teacher.transform, student.transform)
    box = teacher.grid.occupied_box().cpu().double()
    corners = place.points(torch.cartesian_prod(*box.T))
    low, high = cascade_box(student.cascades - 1)
    margin = 1e-3 * (high - low)
    if bool(((corners < low - margin) | (corners > high + margin)).any()):
        raise BadInput(
            f"the teacher reaches from {_shown(corners.amin(0))} to {_shown(corners.amax(0))} in the student's scene; "
            f"the rule: within its outermost cube, {low:g} to {high:g}"
        )
    return student.field if same else Moved(student.field, place)


def take_occupancy(teacher, student) -> None:
    """Makes the student's occupancy grid say what the teacher's says: a copy in the same box, else by the teacher's
    density where the teacher has any."""
    if teacher.transform == student.transform and teacher.cascades == student.cascades:
        student.grid.load_state_dict(teacher.grid.state_dict())
        student.grid.refresh()
        return
    place = between(teacher.transform, student.transform)
    back = place.inverse()

    def density(y: Tensor) -> Tensor:
        x = back.points(y)
        low, high = cascade_box(teacher.cascades - 1)
        inside = ((x >= low) & (x <= high)).all(1)
        return torch.where(inside, teacher.density(x) / place.scale, 0.0)

    student.grid.update(density, uniform=student.grid.config.cells, occupied=0)


def _shown(corner: Tensor) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in corner.tolist()) + ")"
