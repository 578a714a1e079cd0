"""Random numbers by counter."""

import torch

from radfield.sampling.random import Counted, pcg, random_below, random_bits, stream, uniform, unit_float, whole_numbers


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


def test_numbers_of_a_device_are_drawn_once_and_follow_its_seed():
    def drawn(seed):
        source = Counted(torch.tensor([seed]))
        return uniform(source, 1000, 3), uniform(source, 2000, dtype=torch.float64)

    first, again, other = (drawn(seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    everything = torch.cat([each.double().flatten() for each in (*first, *other)])
    assert everything.min() >= 0 and everything.max() < 1 and len(everything.unique()) > 0.999 * len(everything)
    assert abs(everything.mean() - 0.5) < 0.01 and abs(everything.var() - 1 / 12) < 0.005
    assert (first[1] * 2**53 == (first[1] * 2**53).round()).all() and (first[1] * 2**24 % 1 > 0).any()


def test_whole_numbers_come_as_often_from_either_source():
    for source in (torch.Generator().manual_seed(0), Counted(torch.tensor([9]))):
        found = whole_numbers(source, 7, 7000)
        assert torch.equal(found.unique(), torch.arange(7)) and found.bincount().min() > 850
