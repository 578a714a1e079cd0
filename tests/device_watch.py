"""What radfield's code does with devices while a test looks on."""

import sys
import traceback
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

import radfield

PACKAGE = Path(radfield.__file__).parent
FACTORIES = {
    *(torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.linspace, torch.eye),
    *(torch.tensor, torch.as_tensor, torch.rand, torch.randn, torch.randint, torch.randperm),
}
HOST_READS = {
    *(torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__int__, torch.Tensor.__bool__, torch.Tensor.nonzero),
    *(torch.Tensor.__float__, torch.Tensor.__index__, torch.Tensor.cpu, torch.Tensor.numpy, torch.nonzero, torch.equal),
    *(torch.masked_select, torch.Tensor.masked_select, torch.unique, torch.Tensor.unique),
}
INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
REPEATING = {torch.repeat_interleave, torch.Tensor.repeat_interleave}


class Watch(TorchFunctionMode):
    """Notes what radfield's code does while it is entered: `stray`, the tensors made without a device, except by
    memory.py, which is for the CPU alone; `reads`, the places where the host waits for a value."""

    def __init__(self):
        super().__init__()
        self.stray, self.reads = [], []

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        frame = next(f for f in reversed(traceback.extract_stack(sys._getframe(1))) if "/torch/" not in f.filename)
        place = Path(frame.filename)
        if PACKAGE in place.parents:
            where = f"{place.relative_to(PACKAGE)}:{frame.name}"
            tensor = function in (torch.tensor, torch.as_tensor) and isinstance(arguments[0], torch.Tensor)
            if function in FACTORIES and options.get("device") is None and not tensor and place.name != "memory.py":
                self.stray.append(f"{where}: {function.__name__}")
            if function in HOST_READS or _reads_a_size(function, arguments, options):
                self.reads.append(where)
        return function(*arguments, **options)


def _reads_a_size(function, arguments, options) -> bool:
    """Whether the size of the result is a value on the device: of an index by booleans, of repetitions by a tensor."""
    if function in INDEXING:
        index = arguments[1] if isinstance(arguments[1], tuple) else (arguments[1],)
        return any(isinstance(each, torch.Tensor) and each.dtype == torch.bool for each in index)
    counts = (*arguments[1:], options.get("repeats"))
    return function in REPEATING and "output_size" not in options and any(isinstance(n, torch.Tensor) for n in counts)
