"""Tensors that do not fit an encoding are refused: a kernel would read beyond them."""

import pytest
import torch

from radfield.encodings import hash_grid, learned_probe
from radfield.encodings.registry import ENCODINGS, build
from radfield.errors import BadInput


@pytest.mark.parametrize("name", ENCODINGS)
def test_positions_of_other_dimensions(name):
    small = {"log2_size": 8, "log2_entries": 8}
    entry = ENCODINGS[name]
    known = entry.config.__dataclass_fields__
    encoding = build(3, entry.config(**{k: v for k, v in {**entry.options, **small}.items() if k in known}))
    assert encoding(torch.rand(5, 3)).shape == (5, encoding.channels)
    for shape in ((5, 2), (5, 4), (5,), (1, 5, 3)):
        with pytest.raises(BadInput, match=r"x is \[.*; the rule: \[M, 3\]"):
            encoding(torch.rand(shape))


@pytest.mark.parametrize("rows", [-1, 1])
def test_tables_of_other_sizes(rows):
    grid = hash_grid.grid_levels(3, hash_grid.Config(levels=2, log2_size=8))
    with pytest.raises(BadInput, match=r"hash grid: table is \[\d+, 2\]; the rule: \[512, 2\]"):
        hash_grid.hash_grid(torch.rand(4, 3), torch.rand(grid.entries + rows, 2), grid)
    probes = learned_probe.probe_levels(3, learned_probe.Config(levels=2, log2_entries=8, log2_codebook=4))
    table = torch.rand(probes.entries, probes.features)
    with pytest.raises(BadInput, match="learned probe: logits is"):
        learned_probe.learned_probe(torch.rand(4, 3), table, torch.rand(probes.rows + rows, probes.probes), probes)
