"""A CUDA graph's twin on the host, and what a training's state is, for the tests of steps on a device."""

import torch
from cuda_emulator.backend import emulator
from torch.utils._python_dispatch import TorchDispatchMode

from radfield import backend
from radfield.training import graph


def tensors_in(value, seen):
    """Every tensor that is reached from `value` through radfield's objects, dicts, lists and tuples."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, torch.Tensor):
        yield value
        return
    if isinstance(value, torch.nn.Module):
        yield from (*value.parameters(), *value.buffers())
    inside = list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list | tuple) else []
    if type(value).__module__.startswith("radfield"):
        inside += list(getattr(value, "__dict__", {}).values())
    for each in inside:
        yield from tensors_in(each, seen)


class Tape(TorchDispatchMode):
    """A CUDA graph's twin on the host: what torch and the kernels do while it is entered is noted with the memory
    that they did it on, and done again there by `replay`. No Python of the step runs then."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        found = function(*arguments, **(options or {}))
        self.done.append((function, arguments, options or {}, found))
        return found

    def emulate(self, op, packed, device):
        self.done.append((emulator, (op, packed, device), {}, None))
        emulator(op, packed, device)

    @torch.no_grad()
    def replay(self):
        for function, arguments, options, found in self.done:
            again = function(*arguments, **options)
            for old, new in zip(*(x if isinstance(x, tuple | list) else [x] for x in (found, again)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def replays_of(training, monkeypatch):
    """Has steps of `training` that are made from now on be captured, as a tape in the place of a graph. A GPU does
    nothing while it captures: what the tape did is undone."""
    begin = graph.Replayed.__init__

    def made(self, *given):
        begin(self, *given)
        self._can = True

    def capture(self):
        tape, state = Tape(), list(tensors_in([training, training.model, training.device_steps()], {}))
        before = [tensor.detach().clone() for tensor in state]
        with monkeypatch.context() as patch, tape:
            patch.setattr(backend, "emulator", tape.emulate)
            self.function()
        for tensor, old in zip(state, before, strict=True):
            tensor.data.copy_(old)
        self._graph = tape

    monkeypatch.setattr(graph.Replayed, "__init__", made)
    monkeypatch.setattr(graph.Replayed, "_capture", capture)
