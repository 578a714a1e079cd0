"""What the packed formats of Gaussians share: streams and rows, bytes, quaternions without their largest component, and
axes that are turned round.

Three letters name axes by where x, y and z point: right or left, up or down, front or back. A scene, as a PLY file, is
RDF; SPZ files are RUB, glTF files LUF. `signs` (three of +-1) lead from one to the other.
"""

from __future__ import annotations

import numpy as np
import torch

from .scene import GaussianScene

C0 = 0.28209479177387814  # the constant harmonic, 1 / (2 sqrt(pi))
#: of a quaternion, where the other three components stand, by the one that is left out
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def streams(values: np.ndarray) -> torch.Tensor:
    """[G, n] -> [n, G] float32."""
    return torch.from_numpy(np.ascontiguousarray(values.T, np.float32))


def rows(values: torch.Tensor) -> np.ndarray:
    """[n, G] -> [G, n] float64."""
    return values.detach().double().T.numpy()


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Rounded, halves up, and clamped to 0 to 255."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def logits_of_bytes(opacities: np.ndarray) -> torch.Tensor:
    """[G] bytes of opacities -> logits, infinite for 0 and 255."""
    return torch.from_numpy(opacities.astype(np.float32) / 255).logit()


def unit_quaternions(scene: GaussianScene) -> np.ndarray:
    """[G, 4] (w, x, y, z) float64."""
    turns = rows(scene.quaternions)
    return turns / np.linalg.norm(turns, axis=1, keepdims=True)


def smallest_three(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(number of the largest component [G], the first of equals; the others [G, 3]) of quaternions [G, 4] of length 1,
    turned so that the largest is positive and can be left out."""
    left_out = np.abs(turns).argmax(1)
    turns = turns * np.where(np.take_along_axis(turns, left_out[:, None], 1) < 0, -1, 1)
    return left_out, np.take_along_axis(turns, _OTHERS[left_out], 1)


def from_smallest_three(left_out: np.ndarray, three: np.ndarray) -> np.ndarray:
    """[G, 4] quaternions: the component `left_out` [G] fills the length of `three` [G, 3] up to 1."""
    largest = np.sqrt(np.maximum(0, 1 - (three * three).sum(1, keepdims=True)))
    whole = np.empty((len(three), 4))
    np.put_along_axis(whole, _OTHERS[left_out], three, 1)
    np.put_along_axis(whole, left_out[:, None], largest, 1)
    return whole


def turn_signs(signs: np.ndarray) -> np.ndarray:
    """[4], of (w, x, y, z): a turn about an axis changes its sense where one of the other two is turned round."""
    x, y, z = signs
    return np.array([1, y * z, x * z, x * y])


def harmonic_signs(count: int, signs: np.ndarray) -> np.ndarray:
    """[count], of the harmonics of degree 1 and more, each three times: (l, m) is odd in x, y or z as its parts are."""
    x, y, z = signs
    found = []
    for degree in range(1, 5):
        for m in range(-degree, degree + 1):
            odd_y = m < 0
            odd_x = (m + (m < 0)) % 2 != 0  # cos(m phi) and sin(|m| phi): powers of x with the parity of m and of m - 1
            odd_z = (degree - m) % 2 != 0
            found.append((x if odd_x else 1) * (y if odd_y else 1) * (z if odd_z else 1))
    return np.repeat(found, 3)[:count]
