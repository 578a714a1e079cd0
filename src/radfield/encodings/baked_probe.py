"""A trained learned probe as inference needs it: entries in 16 bits and the codebooks' integers, log2 N_p bits each.

The file is a checkpoint (training/checkpoint.py) with the tensors `table` [E, F] bfloat16 and `choices`, whose bits are
the rows' integers, lowest first, level by level: L (16 N_f F + N_c log2 N_p) bits where all levels are hashed (Takikawa
et al. 2023), beside a header of about 500 bytes. Letters: as in learned_probe.py.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BadInput
from ..training.checkpoint import load_checkpoint, save_checkpoint
from .encoding import Encoding
from .learned_probe import Config, learned_probe, probe_levels, repeated


class BakedProbe(Encoding):
    """The encoding as a module without parameters: [M, D] in [0, 1] -> [M, `channels`], bfloat16 where config.precision
    is "bf16". `table` [E, F] bfloat16; `choices` [K] uint8 below N_p. `bake` of a `LearnedProbe` makes one."""

    def __init__(self, dimensions: int, config: Config, table: Tensor, choices: Tensor):
        super().__init__(dimensions)
        self.config, self.grid = config, probe_levels(dimensions, config)
        self.channels = self.grid.channels
        self.register_buffer("table", table)
        self.register_buffer("choices", choices)
        # the reference asks for logits, and the kernels for choices that repeat
        hard = torch.nn.functional.one_hot(choices.long(), self.grid.probes).float()
        self.register_buffer("logits", hard, persistent=False)
        self.register_buffer("read", repeated(choices, config.log2_codebook), persistent=False)

    @property
    def bytes(self) -> int:
        """What its file holds beside the header."""
        return self.grid.bits // 8

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        options = {"choices": self.read, "stored": self.table, "dtype": dtype, "computed": computed}
        return learned_probe(x, self.table, self.logits, self.grid, **options)

    def save(self, path: Path | str) -> None:
        """Writes the file. Raises `BadInput` where the disk is full or the folder cannot be written."""
        about = {"dimensions": self.grid.dimensions, **dataclasses.asdict(self.config)}
        tensors = {"table": self.table, "choices": to_bits(self.choices, self.grid.log2_probes)}
        save_checkpoint(path, tensors, {"encoding": "probe", "probe": json.dumps(about)})

    @staticmethod
    def load(path: Path | str) -> BakedProbe:
        """What `save` wrote. Raises `BadInput` for any other file."""
        tensors, metadata = load_checkpoint(path)
        return BakedProbe.of(path, *_config_of(path, metadata), tensors)

    @staticmethod
    def of(path: Path | str, dimensions: int, config: Config, tensors: dict[str, Tensor]) -> BakedProbe:
        """Of the tensors of the file `path`. Raises `BadInput` where they are not those of `config`."""
        grid = probe_levels(dimensions, config)
        rules = {
            "table": ([grid.entries, grid.features], torch.bfloat16),
            "choices": ([grid.rows * grid.log2_probes // 8], torch.uint8),
        }
        for name, (shape, dtype) in rules.items():
            found = tensors.get(name)
            if found is None or (list(found.shape), found.dtype) != (shape, dtype):
                what = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
                raise BadInput(f"{path}: {name} is {what}; the rule: {dtype} {shape}")
        return BakedProbe(dimensions, config, tensors["table"], from_bits(tensors["choices"], grid.log2_probes))


def to_bits(choices: Tensor, each: int) -> Tensor:
    """[K] uint8 below 2^each, K a multiple of 8 -> [K each / 8] uint8."""
    bits = choices[:, None] >> torch.arange(each, dtype=torch.uint8) & 1
    return (bits.reshape(-1, 8) << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def from_bits(packed: Tensor, each: int) -> Tensor:
    """The inverse of `to_bits`."""
    bits = packed[:, None] >> torch.arange(8, dtype=torch.uint8) & 1
    shifts = torch.arange(each, dtype=torch.uint8)
    return (bits.reshape(-1, each) << shifts).sum(1, dtype=torch.uint8) if each else packed.new_empty(0)


def _config_of(path, metadata: dict) -> tuple[int, Config]:
    rule = f"{path}: holds no baked probe; the rule: a file that `BakedProbe.save` wrote"
    try:
        about = json.loads(metadata["probe"])
        dimensions = about.pop("dimensions")
        config = Config(**about)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise BadInput(rule) from None
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        if type(value) is not type(field.default) and not (type(value) is int and isinstance(field.default, float)):
            raise BadInput(f"{path}: {field.name} is {value!r}; the rule: a {type(field.default).__name__}")
    if type(dimensions) is not int:
        raise BadInput(f"{path}: dimensions is {dimensions!r}; the rule: an int")
    return dimensions, config
