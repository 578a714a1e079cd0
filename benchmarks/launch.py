"""What Python does for one call of an op on CUDA, without a GPU: the driver's part is left out.

python benchmarks/launch.py [--json] [--save FILE]

Microseconds of one thread's CPU time per call, median of 30 rounds: `check` (the arguments against the declaration, and
the packed struct), `plan` (which kernels), `launch` (stream, arguments, the call of a driver that does nothing), and
the whole. A step that is captured as a CUDA graph spends none of it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import report

from radfield.cuda import library
from radfield.encodings import frequency, hash_grid
from radfield.networks import mlp
from radfield.op import Op
from radfield.training import adam

DEVICE = torch.device("cuda", 0)


def microseconds(function: Callable[[], object], calls: int = 200, rounds: int = 30) -> float:
    """Median CPU time of a call."""
    function()
    times = []
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(calls):
            function()
        times.append((time.thread_time() - began) / calls)
    return 1e6 * statistics.median(times)


def calls(samples: int = 300) -> dict[str, tuple[Op, dict]]:
    """Ops with few and with many arguments, with one launch and with several."""
    x, cpu = torch.zeros(3, samples), torch.device("cpu")
    grid = hash_grid.grid_levels(3, hash_grid.Config(levels=8, features=4, log2_size=10))
    table, layers = torch.zeros(grid.entries, 4), mlp.layers_of(32, 16, mlp.Config(64, 2))
    network = mlp._Call(layers, 1, torch.float32, 0, None).arguments(torch.zeros(layers.parameters))
    parameters = {name: torch.zeros(1000) for name in ("parameter", "m", "v", "grad")}
    rates = dict.fromkeys(("rate", "beta1", "beta2", "epsilon", "correction2", "l2", "skip"), 0)
    features = {"features": torch.empty(32, samples), "x": x, "table": table, **grid.tables(cpu)}
    inputs = {"y": torch.empty(16, samples), "x0": torch.zeros(32, samples), "kernel": 1, **network}
    return {
        "frequency_forward": (frequency.FORWARD, {"encoded": torch.empty(12, samples), "x": x, "frequencies": 2}),
        "hash_grid_forward": (hash_grid.FORWARD, features),
        "mlp_forward": (mlp.FORWARD, inputs),
        "adam_step": (adam.STEP, {**parameters, "bad": torch.zeros(1, dtype=torch.int64), **rates}),
    }


class _NoDriver:
    @staticmethod
    def cuLaunchKernel(*_):
        return (0,)


class _Kernel(library.Kernel):
    """A kernel that there is nothing of."""

    def __init__(self, name: str):
        self.name, self.device, self.driver = name, DEVICE, _NoDriver
        self._shared, self._function = 1 << 20, None


def figures() -> dict:
    """Of each op: launches, and microseconds per call."""
    kernels: dict[str, _Kernel] = {}
    library.kernel = lambda file, name, device: kernels.setdefault(name, _Kernel(name))
    torch.cuda.current_device = lambda: DEVICE.index
    torch._C._cuda_getCurrentRawStream = lambda index: 0
    empty = torch.empty
    torch.empty = lambda *size, device=None, **options: empty(*size, **options)  # scratch memory
    found = {}
    for name, (op, values) in calls().items():
        packed = op.marshal(values)[0]
        launches = op.launches(packed)
        found[name] = {
            "launches": len(launches),
            "check": microseconds(lambda op=op, values=values: op.marshal(values)),
            "plan": microseconds(lambda op=op, packed=packed: op.launches(packed)),
            "launch": microseconds(lambda op=op, n=launches, packed=packed: library._run(op, n, packed, DEVICE)),
            "whole": microseconds(lambda op=op, values=values: library.call(op, op.marshal(values)[0], DEVICE)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    report(figures(), options.json, options.save)


if __name__ == "__main__":
    main()
