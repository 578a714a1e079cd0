"""Random numbers by counter."""

import torch

from radfield.sampling.random import pcg, random_below, random_bits, stream, unit_float


def test_hash_has_its_published_form():
    # pcg of Jarzynski and Olano 2020, evaluated by hand for 0: state = 2891336453
    state = 2891336453
    word = (((state >> ((state >> 28) + 4)) ^ state) * 277803737) % 2**32
    assert pcg(0) == (word >> 22) ^ word
    assert torch.equal(pcg(torch.tensor([0, 7])), torch.tensor([pcg(0), pcg(7)]))


def test_is_a_bijection():
    assert len(pcg(torch.arange(1 << 18)).unique()) == 1 << 18


def test_numbers_are_uniform_and_streams_independent():
    index = torch.arange(1 << 16)
    a, b = (unit_float(random_bits(stream(1, step), index)) for step in (0, 1))
    for u in (a, b):
        assert u.min() >= 0 and u.max() < 1
        counts = torch.histc(u, 64, 0, 1)
        assert ((counts - 1024) ** 2 / 1024).sum() < 63 + 5 * (2 * 63) ** 0.5
    assert abs(torch.corrcoef(torch.stack((a, b)))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack((a[1:], a[:-1])))[0, 1]) < 0.02


def test_streams_differ_by_every_number():
    assert len({stream(s, a, b) for s in range(20) for a in range(20) for b in range(20)}) == 8000
    assert stream(-1) != stream(1) and stream(2**40) != stream(0)


def test_below():
    n = random_below(random_bits(3, torch.arange(10000)), 7)
    assert n.min() == 0 and n.max() == 6 and n.bincount().min() > 1200
