"""Forward and backward pass of a neural surface (neural_surface.py has the equations) on native kernels: values,
normals, colours, and the gradients of all parameters from theirs. No graph is kept: the forward pass returns a `Tape`
of streams, which the backward pass takes.

Letters: M samples, C channels of the grid, G channels between the networks, P of the position, S that the colour
network sees beside those. Streams are [channels, M].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..encodings import grid_jacobian, hash_grid, spherical_harmonics
from ..encodings.grid_jacobian import Jacobian
from ..networks import mlp_passes
from ..tensors import feature_major, streams
from .neural_surface import Answer, NeuralSurface


@dataclass(frozen=True)
class Tape:
    """What a forward pass leaves to the backward pass."""

    x: Tensor  # [3, M]
    encoded: Tensor  # [C, M]
    jacobian: Jacobian  # of the levels in use
    position: Tensor  # [P, M]
    slope: Tensor  # [C, M] df/d encoded
    between: Tensor  # [G, M] outputs of the SDF network
    f: Tensor  # [M]
    normal: Tensor  # [3, M]
    count: Tensor | None = None  # [1] int64, the samples in use, where only a device knows how many
    seen: Tensor | None = None  # [S, M]: harmonics, position, normal
    logits: Tensor | None = None  # [3, M]

    @property
    def answer(self) -> Answer:
        """The same as rows of samples."""
        return Answer(self.f, self.normal.T, self.logits.T)


def distance(surface: NeuralSurface, x: Tensor, count: Tensor | None = None) -> Tensor:
    """f [M] alone, at x [M, 3] in [0, 1]. count: as in `geometry`."""
    xs = feature_major(x)
    encoded, position = encode(surface, xs, count), position_streams(surface, xs)
    network = surface.sdf_network
    between, head = streams(x, network.layers.outputs, encoded.dtype), streams(x, 1)
    mlp_passes.forward(network, encoded, position, between, head, count=count)
    return head[0]


def geometry(surface: NeuralSurface, x: Tensor, count: Tensor | None = None) -> Tape:
    """Distances and normals at x [M, 3] in [0, 1], without colours. count: [1] int64, for CUDA kernels: the samples in
    use, the first of M, where only the device knows how many; what is said of others is undefined."""
    xs = feature_major(x)
    (encoded, jacobian), position = encode_with_slopes(surface, xs, count), position_streams(surface, xs)
    network = surface.sdf_network
    between, head = streams(x, network.layers.outputs, encoded.dtype), streams(x, 1)
    mlp_passes.forward(network, encoded, position, between, head, count=count)
    slope, by_position = streams(x, len(encoded), encoded.dtype), streams(x, len(position))
    mlp_passes.backward(
        network,
        encoded,
        position,
        grad_head=torch.ones_like(head),
        grad_x0=slope,
        grad_x1=by_position,
        parameters=False,
        count=count,
    )
    normal = jacobian.pull(slope[: len(jacobian.features)])
    normal += by_position[:3]
    return Tape(xs, encoded, jacobian, position, slope, between, head[0], normal, count)


def forward(surface: NeuralSurface, x: Tensor, directions: Tensor, count: Tensor | None = None) -> Tape:
    """All that the field says at x [M, 3] in [0, 1], seen along unit directions [M, 3]. count: as in `geometry`."""
    tape = geometry(surface, x, count)
    harmonics, detail = surface.harmonics.channels, surface.color_grid
    seen = streams(x, harmonics + 6 + (0 if detail is None else detail.channels), tape.encoded.dtype)
    degree = surface.config.degree
    spherical_harmonics.FORWARD(encoded=seen[:harmonics], directions=feature_major(directions), degree=degree)
    seen[harmonics : harmonics + 3] = tape.x - 0.5
    seen[harmonics + 3 : harmonics + 6] = tape.normal
    if detail is not None:
        given = {"x": tape.x, "table": _table(detail), "tangent": None, "count": count}
        detail.grid.ops.forward(features=seen[harmonics + 6 :], **given, **detail.grid.tables(x.device))
    logits = streams(x, 3)
    mlp_passes.forward(surface.color_network, tape.between, seen, logits, count=count)
    return replace(tape, seen=seen, logits=logits)


def backward(surface: NeuralSurface, tape: Tape, grad_f: Tensor, grad_normal: Tensor, grad_logits: Tensor) -> None:
    """Adds the parameters' gradients to the networks' and the grids' `grad_into`, from those of f [M], normal and
    logits [3, M]."""
    harmonics = surface.harmonics.channels
    grad_between, grad_seen = (torch.empty_like(each) for each in (tape.between, tape.seen))
    color = {"grad_y": grad_logits, "grad_x0": grad_between, "grad_x1": grad_seen, "count": tape.count}
    mlp_passes.backward(surface.color_network, tape.between, tape.seen, **color)
    if surface.color_grid is not None:
        surface.color_grid.grad_into.add(grad_seen[harmonics + 6 :].T, tape.x.T, tape.count)
    towards = grad_normal + grad_seen[harmonics + 3 : harmonics + 6]  # e of the module's docstring
    grad_encoded = torch.empty_like(tape.encoded)
    along, by_position = _tangent(surface, tape, towards)
    mlp_passes.backward(
        surface.sdf_network,
        tape.encoded,
        tape.position,
        grad_y=grad_between,
        grad_head=grad_f[None],
        grad_x0=grad_encoded,
        tangent0=along,
        tangent1=by_position,
        count=tape.count,
    )
    _share_position(surface)
    active = surface.active
    grads = grad_encoded[: active.channels], tape.slope[: active.channels]
    surface.grid.grad_into.add_slopes(active, *grads, tape.x, towards, tape.count)


def position_gradient(surface: NeuralSurface, tape: Tape, grad_f: Tensor, grad_logits: Tensor) -> Tensor:
    """[3, M] the gradient by x of what f and the colours' logits have the gradients [M] and [3, M] of; that by way of
    the normal, which is of second order, is left out (NeuS2, sec. 3.5). Parameters get none."""
    harmonics = surface.harmonics.channels
    grad_between, grad_seen = (torch.empty_like(each) for each in (tape.between, tape.seen))
    color = {"grad_y": grad_logits, "grad_x0": grad_between, "grad_x1": grad_seen, "parameters": False}
    mlp_passes.backward(surface.color_network, tape.between, tape.seen, **color)
    grad_encoded, by_position = torch.empty_like(tape.encoded), torch.empty_like(tape.position)
    mlp_passes.backward(
        surface.sdf_network,
        tape.encoded,
        tape.position,
        grad_y=grad_between,
        grad_head=grad_f[None],
        grad_x0=grad_encoded,
        grad_x1=by_position,
        parameters=False,
    )
    pulled = tape.jacobian.pull(grad_encoded[: len(tape.jacobian.features)])
    total = pulled + by_position[:3] + grad_seen[harmonics : harmonics + 3]
    if surface.color_grid is not None:
        detail, part = surface.color_grid, torch.empty_like(tape.x)
        given = {"x": tape.x, "table": _table(detail), "tangent": None, **detail.grid.tables(tape.x.device)}
        detail.grid.ops.backward_x(grad_x=part, grad_features=grad_seen[harmonics + 6 :], **given)
        total += part
    return total


def _tangent(surface: NeuralSurface, tape: Tape, towards: Tensor) -> tuple[Tensor, Tensor]:
    """(J e [C, M], e [P, M]): the tangent of the SDF network's inputs, from the gradient e of the normal [3, M]."""
    along, active = torch.empty_like(tape.encoded), len(tape.jacobian.features)
    tape.jacobian.push(towards, along[:active])
    along[active:] = 0.0
    if surface.position == 3:
        return along, towards
    return along, torch.cat((towards, torch.zeros_like(towards)))


def _share_position(surface: NeuralSurface) -> None:
    """Gives both parts of the position's weights the sum of their gradients, so that they stay equal."""
    if surface.position == 3:
        return
    network = surface.sdf_network
    fan_in, fan_out = network.layers.inputs, network.config.width
    parts = network.grad_into[: fan_in * fan_out].view(fan_out, fan_in)[:, surface.grid.channels :]
    total = parts[:, :3] + parts[:, 3:]
    parts[:, :3], parts[:, 3:] = total, total


def encode(surface: NeuralSurface, x: Tensor, count: Tensor | None = None) -> Tensor:
    """[C, M] the grid's features at streams x [3, M]; those of levels that are not in use are 0. count: as in
    `geometry`."""
    grid = surface.active
    encoded = streams(x.T, surface.grid.channels, _dtype(surface))
    given = {"x": x, "table": _table(surface.grid), "tangent": None, "count": count}
    grid.ops.forward(features=encoded[: grid.channels], **given, **grid.tables(x.device))
    encoded[grid.channels :] = 0.0
    return encoded


def encode_with_slopes(surface: NeuralSurface, x: Tensor, count: Tensor | None = None) -> tuple[Tensor, Jacobian]:
    """`encode`, and the derivatives of the features."""
    grid = surface.active
    encoded = streams(x.T, surface.grid.channels, _dtype(surface))
    jacobian = grid_jacobian.encode(grid, x, _table(surface.grid), encoded[: grid.channels], count)
    encoded[grid.channels :] = 0.0
    return encoded, jacobian


def position_streams(surface: NeuralSurface, x: Tensor) -> Tensor:
    """[P, M]: x - 1/2, in bf16 as what 8 bits hold of it, and the rest."""
    p = x - 0.5
    if surface.position == 3:
        return p
    parts = streams(x.T, 6)
    parts[:3] = p.bfloat16()
    torch.sub(p, parts[:3], out=parts[3:])
    return parts


def _table(grid: hash_grid.HashGrid) -> Tensor:
    stored = grid.stored()
    return grid.table.detach() if stored is None else stored


def _dtype(surface: NeuralSurface) -> torch.dtype:
    return torch.bfloat16 if surface.config.precision == "bf16" else torch.float32
