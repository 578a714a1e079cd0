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
_BLOCK = 1 << 11  # Gaussians


def streams(values: np.ndarray) -> torch.Tensor:
    """[G, n] -> [n, G] float32."""
    with np.errstate(over="ignore"):  # what becomes infinite is left out
        return torch.from_numpy(np.ascontiguousarray(values.T, np.float32))


def rows(values: torch.Tensor) -> np.ndarray:
    """[n, G] -> [G, n] float64."""
    return values.detach().double().T.numpy()


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Rounded, halves up, and clamped to 0 to 255."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def byte_rows(values: torch.Tensor, coded) -> np.ndarray:
    """[G, n] bytes that `coded` makes of `values` [n, G], a block of Gaussians after the other: what is turned round
    fits into a cache."""
    values = values.detach().numpy()
    found = np.empty(values.shape[::-1], np.uint8)
    for start in range(0, len(found), _BLOCK):
        found[start : start + _BLOCK] = coded(values[:, start : start + _BLOCK]).T
    return found


def from_byte_rows(codes: np.ndarray, decoded) -> torch.Tensor:
    """[n, G] float32 that `decoded` makes of bytes [G, n], turned round [n, block]: the reverse of `byte_rows`."""
    found = np.empty(codes.shape[::-1], np.float32)
    for start in range(0, len(codes), _BLOCK):
        found[:, start : start + _BLOCK] = decoded(codes[start : start + _BLOCK].T)
    return torch.from_numpy(found)


def columns(records: np.ndarray, names) -> torch.Tensor:
    """[n, G] float32: the fields `names` of records [G], a block of them after the other, as above."""
    found = np.empty((len(names), len(records)), np.float32)
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and is then left out
        for start in range(0, len(records), _BLOCK):
            block = records[start : start + _BLOCK]
            for row, name in zip(found, names, strict=True):
                row[start : start + _BLOCK] = block[name]
    return torch.from_numpy(found)


def looked_up(table: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """[n, G] float32: the rows `labels` [G], all of which there are, of `table` [K, n]; taken column by column, as one
    fits into a cache."""
    found = np.empty((table.shape[1], len(labels)), np.float32)
    for row, column in zip(found, streams(table).numpy(), strict=True):
        np.take(column, labels, out=row, mode="clip")  # which needs no copy, unlike "raise"
    return torch.from_numpy(found)


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
    sign = np.where(np.choose(left_out, turns.T) < 0, -1, 1)
    three = [sign * np.where(left_out > k, turns[:, k], turns[:, k + 1]) for k in range(3)]
    return left_out, np.stack(three, 1)


def from_smallest_three(left_out: np.ndarray, three: np.ndarray) -> np.ndarray:
    """[G, 4] quaternions: the component `left_out` [G] fills the length of `three` [G, 3] up to 1."""
    largest = np.sqrt(np.maximum(0, 1 - (three * three).sum(1)))
    whole = np.empty((len(three), 4))
    for k in range(4):
        other = np.where(left_out > k, three[:, min(k, 2)], three[:, max(k - 1, 0)])
        whole[:, k] = np.where(left_out == k, largest, other)
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
