"""Few values for many: a codebook of numbers, and a palette of vectors (k-means), as SOG files have them.

The codebook begins where the density's cube root says (Panter and Dite 1951: so a quantiser of many steps has the least
mean squared error) and is improved by Lloyd's steps on a sorted sample; its ends are the least and the largest number.
The palette is a tree of two levels of k-means: vectors are parted into about sqrt(K) groups, and each group has entries
of its own, as many as its share of the vectors. Neither depends on the number of threads.

Letters: N vectors of D components, K entries.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..cpu.library import num_threads, one_torch_thread

_SAMPLE = 1 << 17  # numbers that a codebook is made from, at most
_BLOCK = 1 << 13  # vectors whose distances are in memory at once
_GROUP_SAMPLE = 128  # vectors per group that the first level is made from
_EVENLY = 0.25  # part of a codebook's entries that is spread evenly, of the others
_STEPS, _GROUP_STEPS, _ENTRY_STEPS = 20, 6, 2


def codebook(values: np.ndarray, size: int = 256) -> np.ndarray:
    """[size] float32, ascending: numbers so that the nearest one to each of `values` is near it."""
    values = np.asarray(values, np.float32).reshape(-1)
    low, high = values.min(), values.max()
    different = np.unique(values[:: max(1, len(values) // _SAMPLE)])
    if len(different) <= size and len(values) <= _SAMPLE:
        return np.concatenate([different, np.full(size - len(different), high, np.float32)])
    ordered = np.sort(values[:: max(1, len(values) // _SAMPLE)]).astype(np.float64)
    counts, edges = np.histogram(ordered, 1024, (float(low), float(high)))
    density = np.cbrt(counts)
    share = np.concatenate([[0], np.cumsum(density + _EVENLY * density.mean())])  # no gap becomes very large
    book = np.interp(np.linspace(0, share[-1], size), share, edges)
    sums = np.concatenate([[0], np.cumsum(ordered)])
    for _ in range(_STEPS):
        ends = np.concatenate([[0], np.searchsorted(ordered, (book[1:] + book[:-1]) / 2), [len(ordered)]])
        number = np.diff(ends)
        book = np.where(number > 0, np.diff(sums[ends]) / np.maximum(number, 1), book)
        book[0], book[-1] = low, high
    return np.sort(book).astype(np.float32)


def nearest_codes(values: np.ndarray, book: np.ndarray) -> np.ndarray:
    """The number of the entry of `book` (ascending, at most 256) nearest to each of `values`, as bytes."""
    middles = ((book[1:].astype(np.float64) + book[:-1]) / 2).astype(np.float32)
    return np.searchsorted(middles, np.asarray(values, np.float32)).astype(np.uint8)


def palette(vectors: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(entries [K, D], K <= size; labels [N] int64 of the entries chosen) of `vectors` [N, D] float32."""
    if len(vectors) <= size:
        return vectors, torch.arange(len(vectors))
    generator = torch.Generator().manual_seed(0)
    groups = max(1, round(size**0.5))
    with one_torch_thread(), ThreadPoolExecutor(num_threads()) as pool:
        sample = vectors[torch.randperm(len(vectors), generator=generator)[: groups * _GROUP_SAMPLE]]
        centres = _means(sample, sample[:groups], _GROUP_STEPS)
        label = torch.cat(list(pool.map(_nearest, vectors.split(_BLOCK), itertools.repeat(centres))))
        members = label.argsort(stable=True).split(torch.bincount(label, minlength=len(centres)).tolist())
        members = [each for each in members if len(each)]
        spare, chosen = size - len(members), []
        for each in members:
            number = min(len(each), 1 + int(spare * len(each) / len(vectors)))
            chosen.append(torch.randperm(len(each), generator=generator)[:number])
        found = list(pool.map(lambda each, first: _entries(vectors[each], first), members, chosen))
    labels, count = torch.empty_like(label), 0
    for each, (entries, own_labels) in zip(members, found, strict=True):
        labels[each] = count + own_labels
        count += len(entries)
    return torch.cat([entries for entries, _ in found]), labels


def _entries(own: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """(entries, labels) of a group of vectors [n, D]; its entries begin at the vectors `first`, perhaps all."""
    if len(first) == len(own):
        return own, torch.arange(len(own))
    entries = _means(own, own[first], _ENTRY_STEPS)
    return entries, _nearest(own, entries)


def _means(vectors: Tensor, centres: Tensor, steps: int) -> Tensor:
    """`centres` [K, D] after so many of Lloyd's steps on `vectors` [N, D]; one without vectors stays."""
    for _ in range(steps):
        label = _nearest(vectors, centres)
        sums = torch.zeros_like(centres).index_add_(0, label, vectors)
        number = torch.bincount(label, minlength=len(centres))[:, None]
        centres = torch.where(number > 0, sums / number.clamp_min(1), centres)
    return centres


def _nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """[N] the nearest of `centres` [K, D] to each of `vectors` [N, D]: |v - c|^2 is least where v c - |c|^2 / 2 is
    most."""
    bias = -0.5 * centres.square().sum(1)
    # numpy's argmax uses the vector registers, torch's along a row does not
    found = [torch.addmm(bias, each, centres.T).numpy().argmax(1) for each in vectors.split(_BLOCK)]
    return torch.from_numpy(np.concatenate(found))
