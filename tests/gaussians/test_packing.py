"""What packed formats share: rows turned round, tables looked up, quaternions of three components, gzip by blocks."""

import gzip
import zlib

import numpy as np
import pytest
import torch
from gaussians.mutations import scene

from radfield.gaussians import gzip_stream
from radfield.gaussians.packing import byte_rows, from_byte_rows, from_smallest_three, looked_up, smallest_three


@pytest.mark.parametrize(("rows", "count"), [(0, 5), (3, 0), (1, 1), (45, 4097)])
def test_rows_are_turned_round(rows, count):
    values = torch.randint(0, 256, (rows, count)).float()
    codes = byte_rows(values, lambda block: block.astype(np.uint8))
    assert codes.dtype == np.uint8 and np.array_equal(codes, values.numpy().T)
    assert torch.equal(from_byte_rows(codes, lambda block: block), values)


def test_tables_are_looked_up():
    table, labels = np.random.default_rng(0).normal(size=(50, 9)), np.random.default_rng(1).integers(0, 50, 400)
    assert np.array_equal(looked_up(table, labels).numpy(), table[labels].T.astype(np.float32))


def test_three_components_are_enough():
    turns = torch.nn.functional.normalize(torch.randn(1000, 4, dtype=torch.float64), dim=1).numpy()
    turns[:4], turns[4] = np.eye(4), 0.5  # of equals the first is left out
    left_out, three = smallest_three(turns)
    assert np.array_equal(left_out, abs(turns).argmax(1)) and left_out[4] == 0 and (abs(three) <= 0.7072).all()
    back = from_smallest_three(left_out, three)
    largest = np.take_along_axis(turns, left_out[:, None], 1)
    np.testing.assert_allclose(back, turns * np.sign(largest), atol=1e-7)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 40_000])
def test_a_gzip_stream_by_blocks(monkeypatch, threads, size):
    monkeypatch.setattr(gzip_stream, "_BLOCK", 1000)
    content = (np.random.default_rng(0).integers(0, 4, size) * 60).astype(np.uint8).tobytes()
    found = gzip_stream.gzipped(content, 6)
    assert gzip.decompress(found) == content
    reader = zlib.decompressobj(wbits=31)
    assert reader.decompress(found) == content and reader.eof and not reader.unused_data, "one member"
    assert all(one == other == found for one, other in threads(lambda: [gzip_stream.gzipped(content, 6)]))


def test_blocks_know_what_was_before_them(monkeypatch):
    monkeypatch.setattr(gzip_stream, "_BLOCK", 2000)
    content = np.random.default_rng(0).bytes(2000) * 20  # the same again and again
    assert len(gzip_stream.gzipped(content, 6)) < 2000 + 20 * 100


def test_unsound_gaussians_are_found():
    found = scene(6, 1)
    found.means[:, 0], found.rest[3, 1], found.base[0, 2], found.base[0, 3] = 3e38, np.nan, np.inf, -np.inf
    found.quaternions[:, 4] = 0
    assert found.unsound().tolist() == [False, True, True, True, True, False]  # a sum alone may overflow
