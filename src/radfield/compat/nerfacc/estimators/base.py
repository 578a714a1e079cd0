"""What estimators share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class AbstractEstimator(nn.Module):
    """Says where along rays to sample, and learns it from what is found there."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_dummy", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self._dummy.device

    def sampling(self, *args, **kwargs) -> Any:
        """The samples of rays."""
        raise NotImplementedError

    def update_every_n_steps(self, *args, **kwargs) -> None:
        """What is learnt, once in a while."""
        raise NotImplementedError
