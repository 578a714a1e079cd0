"""Which pairs of photographs are worth matching in full. Letters: N photographs, h features of each.

Matching all pairs of N photographs costs N^2 / 2; most pairs of a large capture show different things, and of those
that overlap, the best few per photograph suffice. Up to `EXHAUSTIVE` photographs all pairs are taken. Otherwise the few
features of largest scale of each photograph are matched first (Wu, "Towards linear-time incremental structure from
motion", 2013: preemptive matching), which costs little, and the number of those matches ranks the pairs. Beyond
`PREEMPTIVE` photographs even that grows too large, and whole-image descriptors rank the pairs instead (Jegou et al.,
"Aggregating local descriptors into a compact image representation", 2010: VLAD), their vocabulary made from the capture
itself. Names that are a video's or a burst's (a number that counts up) add each photograph's neighbours in time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

EXHAUSTIVE = 24
PREEMPTIVE = 400
# Of each photograph: partners by rank, features that are matched first, neighbours in time.
PARTNERS = 14
FIRST_FEATURES = 200
NEIGHBOURS = 6
# As SIFT's matching: an angle below 0.8 times that to the second best, and below 0.7 radians, and mutual.
MAX_RATIO, MAX_ANGLE = 0.8, 0.7
WORDS, WORD_SAMPLES, WORD_ROUNDS = 64, 20_000, 8

Pairs = list[tuple[int, int]]
Features = Sequence[tuple[np.ndarray, np.ndarray]]  # per photograph: descriptors [K, 128] uint8, scales [K]


def all_pairs(count: int) -> Pairs:
    return list(combinations(range(count), 2))


def choose_pairs(features: Features, names: Sequence[str], partners: int = PARTNERS) -> Pairs:
    """The pairs (i < j) to match, in order of i."""
    count = len(features)
    if count <= EXHAUSTIVE:
        return all_pairs(count)
    likeness = preemptive_matches(features) if count <= PREEMPTIVE else vlad_likeness(features)
    chosen = best_partners(likeness, partners)
    if is_sequence(names):
        chosen |= neighbours(count, NEIGHBOURS)
    return sorted(chosen | spanning_tree(likeness))


def best_partners(likeness: np.ndarray, partners: int) -> set[tuple[int, int]]:
    """The `partners` likeliest of each photograph; likeness: [N, N], symmetric, higher is likelier."""
    scores = likeness.astype(np.float64)
    np.fill_diagonal(scores, -np.inf)
    partners = min(partners, len(scores) - 1)
    best = np.argpartition(-scores, partners - 1, axis=1)[:, :partners]
    return {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(best) for j in row}


def spanning_tree(likeness: np.ndarray) -> set[tuple[int, int]]:
    """The edges of the tree of greatest likeness (Prim): without them the best partners may fall into two groups."""
    count = len(likeness)
    best, parent = likeness[0].astype(np.float64), np.zeros(count, dtype=np.int64)
    inside = np.arange(count) == 0
    edges = set()
    for _ in range(count - 1):
        j = int(np.where(inside, -np.inf, best).argmax())
        i = int(parent[j])
        edges.add((min(i, j), max(i, j)))
        inside[j] = True
        closer = likeness[j] > best
        best[closer], parent[closer] = likeness[j][closer], j
    return edges


def neighbours(count: int, reach: int) -> set[tuple[int, int]]:
    """Pairs at most `reach` apart, and at distances that double up to the whole (as COLMAP's quadratic overlap)."""
    steps = sorted({*range(1, reach + 1), *(2**k for k in range(3, 8))})
    return {(i, i + step) for step in steps for i in range(count - step)}


def is_sequence(names: Sequence[str]) -> bool:
    """Whether the names, in order, are one text with one number that only grows, by 1 more often than not."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if not all(parts) or len({(p[1], p[3]) for p in parts}) > 1:
        return False
    steps = np.diff([int(p[2]) for p in parts])
    return len(steps) > 0 and bool((steps > 0).all()) and float(np.median(steps)) <= 2


def preemptive_matches(features: Features, progress: Callable[[int], None] = lambda i: None) -> np.ndarray:
    """[N, N] symmetric: matches among the `FIRST_FEATURES` features of largest scale."""
    x = [_unit(d[np.argsort(-s, kind="stable")[:FIRST_FEATURES]]) for d, s in features]
    start = np.cumsum([0] + [len(each) for each in x])
    every = np.concatenate(x)
    counts = np.zeros((len(x), len(x)), dtype=np.int64)
    for i in range(len(x) - 1):
        cosine = x[i] @ every[start[i + 1] :].T
        for j in range(i + 1, len(x)):
            block = cosine[:, start[j] - start[i + 1] : start[j + 1] - start[i + 1]]
            counts[i, j] = counts[j, i] = count_matches(block)
        progress(i + 1)
    return counts


def count_matches(cosine: np.ndarray) -> int:
    """Mutual matches that pass SIFT's ratio test. cosine: [A, B] of unit descriptors."""
    if min(cosine.shape) < 2:
        return 0
    rows = np.arange(len(cosine))
    best = cosine.argmax(1)
    mutual = cosine.argmax(0)[best] == rows
    two = np.partition(cosine, cosine.shape[1] - 2, axis=1)[:, -2:]
    second, first = np.arccos(np.clip(two, -1, 1)).T
    return int((mutual & (first < MAX_RATIO * second) & (first < MAX_ANGLE)).sum())


def vlad_likeness(features: Features) -> np.ndarray:
    """[N, N] float32 cosines of whole-image descriptors."""
    rng = np.random.default_rng(0)
    per_image = max(1, WORD_SAMPLES // len(features))
    samples = [_unit(d[rng.permutation(len(d))[:per_image]]) for d, _ in features]
    words = _words(np.concatenate(samples), rng)
    vlads = np.stack([_vlad(_unit(d[np.argsort(-s, kind="stable")[:1000]]), words) for d, s in features])
    return vlads @ vlads.T


def _vlad(x: np.ndarray, words: np.ndarray) -> np.ndarray:
    # Per word the sum of differences to it, each word's of length 1 (intra-normalised), the whole of length 1.
    nearest = (x @ words.T).argmax(1)
    sums = np.zeros_like(words)
    np.add.at(sums, nearest, x - words[nearest])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return (sums / max(np.linalg.norm(sums), 1e-12)).ravel()


def _words(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # Spherical k-means: the words are unit vectors.
    words = x[rng.permutation(len(x))[:WORDS]]
    for _ in range(WORD_ROUNDS):
        nearest = (x @ words.T).argmax(1)
        sums = np.zeros_like(words)
        np.add.at(sums, nearest, x)
        empty = ~sums.any(1)  # a word that nothing is nearest to stays where it was
        sums[empty] = words[empty]
        words = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return words


def _unit(descriptors: np.ndarray) -> np.ndarray:
    x = descriptors.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
