"""`gsplat.distributed`: the entry point of training scripts, for one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def cli(fn: Callable, args: Any, verbose: bool = False) -> bool:
    """Calls `fn(local_rank, world_rank, world_size, args)` as the only process, (0, 0, 1, args): gsplat starts one for
    each GPU, and refuses to without a GPU. Returns True."""
    if verbose:
        print("Distributed worker: 1 / 1")
    fn(0, 0, 1, args)
    return True
