"""Cameras: where each view stands, and how its lens maps directions to pixels.

Letters: V views, N rays or points. Axes are OpenCV's: x right, y down, z forward. Pixel coordinates are
continuous with (0, 0) at the image's top left corner, so the first pixel's centre is (0.5, 0.5).

A direction (x, y, z) in a camera's axes reaches the pixel `focal * q + principal`, where

- perspective: q = distort(x / z, y / z), with r2 = x^2 + y^2 of its argument and
  distort(x, y) = (x, y) (1 + k1 r2 + k2 r2^2 + k3 r2^3 + k4 r2^4) / (1 + d1 r2 + d2 r2^2 + d3 r2^3)
                  + (2 p1 x y + p2 (r2 + 2 x^2), 2 p2 x y + p1 (r2 + 2 y^2));
  k4 is nerfstudio's; d1, d2, d3 are OpenCV's (and COLMAP's FULL_OPENCV) k4, k5, k6, of its rational model;
- fisheye (OpenCV's, equidistant): q = (x, y) / |(x, y)| * theta_d, with theta the angle from the z axis and
  theta_d = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8). The other coefficients must be 0.
- equirectangular: q = (longitude, latitude) in radians, the longitude from the z axis towards x, the latitude towards
  y. No distortion. A whole sphere has focal = (width / 2 pi, height / pi) and its principal point in the middle.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from .errors import BadInput
from .rays import Rays

MODELS = ("perspective", "fisheye", "equirectangular")
#: columns of `Cameras.distortion`
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2", "d1", "d2", "d3")
# Newton doubles the correct digits per step: real lenses need 3 to 5 steps in float32, 6 in float64.
NEWTON_STEPS = 10


@dataclass(frozen=True)
class Cameras:
    """V posed cameras.

    camera_to_world: [V, 4, 4] rigid; "world" is whatever the origins of the rays should be in (for a
    `Scene`, scene coordinates). focal, principal: [V, 2] pixels (x, y). size: [V, 2] int (width, height).
    distortion: [V, 9] as (k1, k2, k3, k4, p1, p2, d1, d2, d3); [V, 6] is taken for one without the last three.
    model: "perspective", "fisheye" or "equirectangular"; or one of them per view, which becomes a single name where
    all are the same.
    The floating-point tensors share one type, which is that of the rays.
    """

    camera_to_world: Tensor
    focal: Tensor
    principal: Tensor
    size: Tensor
    distortion: Tensor
    model: str | tuple[str, ...] = "perspective"

    def __post_init__(self):
        v = self.camera_to_world.shape[0]
        if not isinstance(self.model, str):
            self._take_models(tuple(self.model), v)
        if self.distortion.shape == (v, 6):
            object.__setattr__(self, "distortion", torch.nn.functional.pad(self.distortion, (0, 3)))
        shapes = dict(camera_to_world=(4, 4), focal=(2,), principal=(2,), size=(2,), distortion=(9,))
        for name, shape in shapes.items():
            found = tuple(getattr(self, name).shape)
            if found != (v, *shape):
                raise ValueError(f"Cameras.{name} has shape {list(found)}; it must be {[v, *shape]}")
        for model in self.models:
            if model not in MODELS:
                raise ValueError(f"Cameras.model is {model!r}; it must be one of {', '.join(MODELS)}")

    def _take_models(self, models: tuple[str, ...], views: int) -> None:
        if len(models) != views:
            raise ValueError(f"Cameras.model has {len(models)} names; it must have one, or {views}")
        object.__setattr__(self, "model", models if len(set(models)) > 1 else (*models, "perspective")[0])

    def __len__(self) -> int:
        return self.camera_to_world.shape[0]

    def __getitem__(self, index: int | slice | Tensor | list) -> "Cameras":
        """The cameras selected; an int selects one and keeps V = 1."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index} of {len(self)}")
            index = [index]
        model = self.model
        if not isinstance(model, str):
            model = tuple(MODELS[code] for code in self.model_codes[index].tolist())
        return self._map(lambda v: v[index], model)

    @property
    def models(self) -> tuple[str, ...]:
        """The lens models that there are, each once."""
        return (self.model,) if isinstance(self.model, str) else tuple(dict.fromkeys(self.model))

    def model_of(self, i: int) -> str:
        """The lens model of view i."""
        return self.model if isinstance(self.model, str) else self.model[i]

    @cached_property
    def model_codes(self) -> Tensor:
        """[V] int32 indices into `MODELS`."""
        names = [self.model] * len(self) if isinstance(self.model, str) else self.model
        return torch.tensor([MODELS.index(name) for name in names], dtype=torch.int32, device=self.focal.device)

    def to(self, target) -> "Cameras":
        """The same cameras on another device, or in another floating-point type."""
        if isinstance(target, torch.dtype):
            return self._map(lambda v: v.to(target) if v.is_floating_point() else v)
        return self._map(lambda v: v.to(target))

    def scaled(self, factor: float) -> "Cameras":
        """The same views with `factor` times the pixels in each direction, rounded, at least 1.

        The edges of the image stay on the same rays: focal and principal follow the rounded size.
        """
        size = (self.size * factor).round().clamp_min(1).to(self.size.dtype)
        ratio = (size / self.size).to(self.focal)
        return replace(self, size=size, focal=self.focal * ratio, principal=self.principal * ratio)

    def rays(self, view: Tensor, pixel: Tensor) -> Rays:
        """Rays through the pixels. view: [N] int, pixel: [N, 2] continuous coordinates (x, y).

        Pixels that no direction reaches (beyond a lens model's fold) get the nearest Newton iterate.
        """
        pose = self.camera_to_world[view]
        directions = _rotate(pose, self._local_directions(view, pixel))
        return Rays(pose[:, :3, 3], directions)

    def image_rays(self, i: int) -> Rays:
        """The rays through all pixel centres of view i, row by row: N = height * width."""
        pixel = self.pixel_centres(i)
        pose = self.camera_to_world[i]
        local = self._local_directions([i], pixel)
        return Rays(pose[:3, 3].expand(len(pixel), 3), local @ pose[:3, :3].T)

    def pixel_centres(self, i: int) -> Tensor:
        """[height * width, 2] coordinates (x, y) of view i's pixel centres, row by row."""
        width, height = self.size[i].tolist()
        x = torch.arange(width, dtype=self.focal.dtype, device=self.focal.device) + 0.5
        y = torch.arange(height, dtype=self.focal.dtype, device=self.focal.device) + 0.5
        return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1).view(-1, 2)

    def project(self, view: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """(pixel [N, 2], depth [N]) of world points [N, 3] in views [N] int; depth is along the z axis.

        The inverse of `rays`. Perspective pixels are meaningless where depth <= 0.
        """
        pose = self.camera_to_world[view]
        local = _rotate(pose.mT, points - pose[:, :3, 3])
        q = self._by_model(view, _project, local, self.distortion[view])
        return q * self.focal[view] + self.principal[view], local[:, 2]

    @cached_property
    def distorted(self) -> bool:
        """Whether any view has a distortion to undo."""
        return bool((self.distortion != 0).any())

    def _local_directions(self, view, pixel: Tensor) -> Tensor:
        # Unit directions [N, 3] in camera axes; view selects N lenses, or 1 that all pixels share.
        q = (pixel - self.principal[view]) / self.focal[view]
        return self._by_model(view, _unproject if self.distorted else _unproject_ideal, q, self.distortion[view])

    def _by_model(self, view, function, x: Tensor, k: Tensor) -> Tensor:
        # function(model, x, k) of rows of x [N, ...] and their lenses' k [N or 1, 9], for each model on its own rows.
        if isinstance(self.model, str):
            return function(self.model, x, k)
        if len(view) == 1:
            return function(self.model_of(int(view[0])), x, k)
        code = self.model_codes[view]
        rows = [(code == MODELS.index(model)).nonzero()[:, 0] for model in self.models]
        parts = [function(model, x[each], k[each]) for model, each in zip(self.models, rows, strict=True)]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _map(self, function, model: str | tuple[str, ...] | None = None) -> "Cameras":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped = {k: function(v) if isinstance(v, Tensor) else v for k, v in values.items()}
        return Cameras(**{**mapped, "model": self.model if model is None else model})


def look_at(origin: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """[..., 4, 4] camera-to-world of cameras at `origin` that look at `target`, with `up` upwards in the image.

    origin, target, up: [..., 3], broadcast. `up` need not be perpendicular to the view. Raises `BadInput` where a
    camera stands on its target or looks along `up`: there is no answer then.
    """
    origin, target, up = torch.broadcast_tensors(origin, target, up)
    z = torch.nn.functional.normalize(target - origin, dim=-1)
    x = torch.linalg.cross(z, up, dim=-1)
    if bool((x.norm(dim=-1) <= 1e-6 * up.norm(dim=-1)).any()):
        raise BadInput("a camera looks along the up axis or stands on its target; the rule: neither")
    x = torch.nn.functional.normalize(x, dim=-1)
    y = torch.linalg.cross(z, x, dim=-1)
    pose = torch.zeros(*origin.shape[:-1], 4, 4, dtype=origin.dtype, device=origin.device)
    pose[..., :3, :] = torch.stack((x, y, z, origin), -1)
    pose[..., 3, 3] = 1
    return pose


def _project(model: str, local: Tensor, k: Tensor) -> Tensor:
    # q [N, 2] (see the module) of points in camera axes
    if model == "equirectangular":
        return _equirectangular_project(local)
    if model == "fisheye":
        return _fisheye_project(local, k)
    return distort(local[:, :2] / local[:, 2:], k)


def _unproject(model: str, q: Tensor, k: Tensor) -> Tensor:
    # unit directions [N, 3] in camera axes of q [N, 2]
    return _unproject_ideal(model, undistort(q, k) if model == "perspective" else q, k)


def _unproject_ideal(model: str, q: Tensor, k: Tensor) -> Tensor:
    # the same where no perspective lens has a distortion
    if model == "equirectangular":
        return _equirectangular_unproject(q)
    if model == "fisheye":
        return _fisheye_unproject(q, k)
    local = torch.cat((q, torch.ones_like(q[:, :1])), -1)
    return local / local.norm(dim=-1, keepdim=True)


def distort(q: Tensor, k: Tensor) -> Tensor:
    """Perspective distortion of q [N, 2] (see the module) with k [N or 1, 6 or 9]."""
    x, y = q.unbind(-1)
    p1, p2 = k[:, 4], k[:, 5]
    r2 = x * x + y * y
    radial, _ = _radial(r2, k)
    dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    return torch.stack((radial * x + dx, radial * y + dy), -1)


def distort_jacobian(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(dX/dx, dX/dy = dY/dx, dY/dy), each [N], of `distort`; its Jacobian is symmetric."""
    x, y = q.unbind(-1)
    p1, p2 = k[:, 4], k[:, 5]
    radial, slope = _radial(x * x + y * y, k)
    slope = 2 * slope
    xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
    xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
    yy = radial + slope * y * y + 2 * p2 * x + 6 * p1 * y
    return xx, xy, yy


def _radial(r2: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    # the factor of distortion along the radius, and its derivative by r2
    k1, k2, k3, k4 = k[:, :4].unbind(-1)
    value = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    slope = k1 + r2 * (2 * k2 + r2 * (3 * k3 + r2 * 4 * k4))
    if k.shape[-1] == 6:
        return value, slope
    d1, d2, d3 = k[:, 6:].unbind(-1)
    under = 1 + r2 * (d1 + r2 * (d2 + r2 * d3))
    value = value / under
    return value, (slope - value * (d1 + r2 * (2 * d2 + r2 * 3 * d3))) / under


def distort_by_radial(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives [N, 2] of `distort` by k1 and by k2."""
    r2 = (q * q).sum(-1, keepdim=True)
    under = 1 if k.shape[-1] == 6 else 1 + r2 * (k[:, 6:7] + r2 * (k[:, 7:8] + r2 * k[:, 8:9]))
    by_k1 = q * r2 / under
    return by_k1, by_k1 * r2


def undistort(q: Tensor, k: Tensor) -> Tensor:
    """The inverse of `distort` near the optical axis, by Newton's method from q itself."""
    guess = q
    for _ in range(NEWTON_STEPS):
        error_x, error_y = (distort(guess, k) - q).unbind(-1)
        xx, xy, yy = distort_jacobian(guess, k)
        determinant = xx * yy - xy * xy
        # At a fold of the lens model the determinant is 0: stay there instead of leaping to infinity.
        scale = torch.where(determinant > 1e-6, 1 / determinant, 0)
        step = torch.stack((yy * error_x - xy * error_y, xx * error_y - xy * error_x), -1)
        step = step * scale[:, None]
        guess = guess - step
        if _converged(step):
            break
    return guess


def _fisheye_polynomial(theta: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    # (theta_d, its derivative)
    k1, k2, k3, k4 = k[:, :4].unbind(-1)
    t2 = theta * theta
    value = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
    return value, slope


def _fisheye_project(local: Tensor, k: Tensor) -> Tensor:
    r = local[:, :2].norm(dim=-1)
    theta_d, _ = _fisheye_polynomial(torch.atan2(r, local[:, 2]), k)
    # On the axis r = theta_d = 0 and the quotient's limit does not matter: it multiplies (x, y) = 0.
    return local[:, :2] * (theta_d / r.clamp_min(torch.finfo(r.dtype).tiny))[:, None]


def _fisheye_unproject(q: Tensor, k: Tensor) -> Tensor:
    theta_d = q.norm(dim=-1)
    theta = theta_d.clamp_max(torch.pi)
    for _ in range(NEWTON_STEPS):
        value, slope = _fisheye_polynomial(theta, k)
        # The same guard as in `undistort`; angles outside [0, pi] are no directions.
        step = torch.where(slope > 1e-6, (value - theta_d) / slope, 0)
        theta = (theta - step).clamp(0, torch.pi)
        if _converged(step):
            break
    ratio = theta.sin() / theta_d.clamp_min(torch.finfo(q.dtype).tiny)
    return torch.cat((q * ratio[:, None], theta.cos()[:, None]), -1)


def _equirectangular_project(local: Tensor) -> Tensor:
    x, y, z = local.unbind(-1)
    return torch.stack((torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))), -1)


def _equirectangular_unproject(q: Tensor) -> Tensor:
    longitude, latitude = q.unbind(-1)
    across = latitude.cos()
    return torch.stack((across * longitude.sin(), latitude.sin(), across * longitude.cos()), -1)


def _converged(step: Tensor) -> bool:
    # Asking a GPU would wait for it; there the steps that are left cost less than the wait.
    return not step.is_cuda and (not len(step) or bool(step.abs().max() < 4 * torch.finfo(step.dtype).eps))


def _rotate(pose: Tensor, vectors: Tensor) -> Tensor:
    # Row by row, [N, 3, 3] by [N, 3]: sums of products, since batched matrix products of this size are slow.
    return (pose[:, :3, :3] * vectors[:, None, :]).sum(-1)
