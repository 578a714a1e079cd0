"""Kept blocks for large streams."""

import gc

import pytest
import torch

from radfield import memory


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(memory, "_free", type(memory._free)(list))
    monkeypatch.setattr(memory, "_kept", 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3,), (0, 5), (1 << 18, 3), (7, 1_000_003)])
def test_a_tensor_like_any_other(own, shape, dtype):
    x = memory.empty(shape, dtype)
    assert x.shape == shape and x.dtype == dtype and x.is_contiguous()
    x.fill_(2)
    y = memory.empty(shape, dtype)
    y.fill_(3)
    assert (x == 2).all() and (y == 3).all()


def test_a_dropped_block_is_used_again_and_a_held_one_is_not(own):
    x = memory.empty((1 << 20,), torch.float32)
    view, address = x[5:], x.data_ptr()
    del x
    gc.collect()
    assert memory.empty((1 << 20,), torch.float32).data_ptr() != address  # the view holds it
    del view
    gc.collect()
    blocks = {memory.empty((1 << 20,), torch.float32).data_ptr() for _ in range(3)}
    assert len(blocks) <= 2


def test_what_is_kept_is_bounded(own, monkeypatch):
    monkeypatch.setattr(memory, "KEPT", 3 << 22)
    tensors = [memory.empty((1 << 20,), torch.float32) for _ in range(5)]
    del tensors
    gc.collect()
    assert memory._kept == 3 << 22
