"""A function whose work on a GPU is recorded once as a CUDA graph and then replayed by one call.

What may be captured: work on torch's current stream with fixed shapes, that reads what changes from one call to the
next from memory on the device, and never has the host wait. Our own launches go to torch's current stream, so torch's
capture sees them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import warn


class Replayed:
    """Calls `function` as it is at first (kernels are compiled and loaded, tables copied), then captures it, then
    replays the capture. On the CPU, and where a capture fails, which is announced once, it is always called as it is.
    """

    def __init__(self, function: Callable[[], None], device: torch.device):
        self.function, self.device = function, device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm, self._can = 0, device.type == "cuda"

    @property
    def captured(self) -> bool:
        """Whether calls are replays."""
        return self._graph is not None

    def __call__(self) -> None:
        if self._graph is None and self._can and self._warm >= 2:
            self._capture()
        if self._graph is not None:
            self._graph.replay()
            return
        self._warm += 1
        self.function()

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads, which save or decode, may use the device meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.function()
        except RuntimeError as error:  # torch's, and the driver's: library.py
            self._can = False
            torch.cuda.synchronize(self.device)
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            what = f"the training step cannot be captured as a CUDA graph ({reason:.200})"
            warn(f"{what}: its kernels are launched one by one")
            return
        self._graph = graph
