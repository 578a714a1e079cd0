"""Median epipolar error of a capture as it is loaded: do its poses, lenses and pixels belong together?

    python benchmarks/epipolar.py CAPTURE [--pairs 12] [--max-size 1600] [--json] [--save FILE]

SIFT features of neighbouring views are matched (pycolmap, on one thread), and the distance of each match from the
epipolar line that the loaded cameras predict is measured in pixels of the decoded images, as Sampson's distance, with
lens distortion taken out. Matches beyond 8 pixels are wrong matches and left out; the share of them is printed. An
error of a pixel convention or of an axis shows as a median of many pixels or as no match left.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from common import report

from radfield.data import load
from radfield.errors import RadfieldWarning

WRONG = 8.0  # pixels


def features(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [K, 2], descriptors [K, 128]) of an image [H, W, C] uint8."""
    import pycolmap

    grey = image[..., :3].float().mean(-1).round().byte().numpy()
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu = 1, False
    keypoints, descriptors = pycolmap.Sift(options, pycolmap.Device.cpu).extract(grey)[:2]
    return np.asarray(keypoints)[:, :2], np.asarray(descriptors, dtype=np.float32)


def matches(a: np.ndarray, b: np.ndarray, ratio: float = 0.75) -> np.ndarray:
    """[M, 2] indices: mutual nearest neighbours that are much nearer than the second (Lowe 2004)."""
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    similar = a @ b.T
    best = similar.argmax(1)
    mutual = similar.argmax(0)[best] == np.arange(len(a))
    nearest = np.sort(similar, 1)[:, -2:]
    distance = np.sqrt(np.maximum(2 - 2 * nearest, 0))
    good = mutual & (distance[:, 1] < ratio * distance[:, 0])
    return np.stack((np.flatnonzero(good), best[good]), 1)


def epipolar_errors(cameras, i: int, j: int, pixel_i: np.ndarray, pixel_j: np.ndarray) -> np.ndarray:
    """[M] pixels: Sampson's distance, from the distances a, b of each pixel from the other's epipolar line: it is
    a b / sqrt(a^2 + b^2), how far both together must move (Hartley and Zisserman, section 11.4.3)."""
    cameras = cameras.to(torch.float64)
    rays = [
        cameras.rays(torch.full((len(p),), v), torch.from_numpy(p).double()) for v, p in ((i, pixel_i), (j, pixel_j))
    ]
    baseline = rays[1].origins[0] - rays[0].origins[0]
    # The plane through both centres and one ray; the other ray's angle out of it, times its focal length.
    errors = []
    for one, other, view in ((rays[0], rays[1], j), (rays[1], rays[0], i)):
        normal = torch.linalg.cross(baseline.expand_as(one.directions), one.directions)
        normal = torch.nn.functional.normalize(normal, dim=-1)
        out_of_plane = (other.directions * normal).sum(-1)
        axes = cameras.camera_to_world[view, :3, :3]
        # how fast the angle changes with the image point: the plane's normal in the image plane, at unit depth
        across = (normal @ axes)[:, :2].norm(dim=-1)
        depth = other.directions @ axes[:, 2]
        errors.append(out_of_plane.abs() / depth / across * cameras.focal[view].mean())
    return (errors[0] * errors[1] / torch.hypot(*errors).clamp_min(1e-12)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--max-size", type=int, default=1600)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", RadfieldWarning)
    views = load(options.capture, holdout=0, max_size=options.max_size).train
    errors, wrong = [], 0
    for i in np.unique(np.linspace(0, len(views) - 2, options.pairs).round().astype(int)).tolist():
        (pixel_i, first), (pixel_j, second) = (features(views.images[k]) for k in (i, i + 1))
        found = matches(first, second)
        error = epipolar_errors(views.cameras, i, i + 1, pixel_i[found[:, 0]], pixel_j[found[:, 1]])
        wrong += int((error > WRONG).sum())
        errors.append(error[error <= WRONG])
    errors = np.concatenate(errors)
    figures = {"capture": options.capture.name, "matches": len(errors), "median_px": float(np.median(errors))}
    report({**figures, "wrong_share": wrong / max(wrong + len(errors), 1)}, options.json, options.save)


if __name__ == "__main__":
    main()
