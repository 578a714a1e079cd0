"""Learned hash probing (Takikawa et al. 2023, Compact neural graphics primitives, sec. 3): a hash grid whose vertices
choose among N_p neighbouring entries, by a codebook of small integers that is trained with the entries.

    entry(v) = (N_p hash(v)) mod N_f + D_c[hash2(v)],     D_c[r] in [0, N_p)

Levels, positions, interpolation and `hash` are those of hash_grid.py with N_f = T; a level whose vertices fit N_f is
dense and has no codebook. `hash2` = (v_1 + the highest bits of XOR_(d > 1) (v_d q_d)) mod N_c: the highest, so that it
shares nothing with `hash`, which takes the lowest; and v_1 itself, so that a cell's corners along the first axis have
rows that follow one another and are read together. While training, a row of D_c is the largest of N_p logits, and
gradients are those of a softmax p over the row (straight-through): with g the gradient of a vertex's features and
a_j = <g, D_f[base + j]>,

    dD_f[base + j] += p_j g  ("all"; or "chosen": g, the chosen entry alone),    dlogit_j += p_j (a_j - sum_k p_k a_k)

With N_p = 1 it is the hash grid, bit for bit. `LearnedProbe.bake` keeps what inference needs: entries of 16 bits and
log2 N_p bits per row, L (16 N_f F + N_c log2 N_p) bits where all L levels are hashed.

Letters: M samples, D dimensions (1 to 4), L levels, F features per level (1, 2, 4, 8), C = L F channels, E entries in
all, P = N_p probes, K rows of all codebooks, Q bytes of choices. Points outside [0, 1] are clamped.
Gradients by x can be differentiated again, those by entries and logits cannot.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backend import native
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, InOut, Op, Scalar
from ..tensors import check_shape, feature_major, gradient_into, streams
from . import hash_grid
from .hash_grid import GridLevels, GridOps, HashGrid, entry_bytes
from .outside import clamped

PRIMES = (0, 3266489917, 668265263, 374761393)
REPEATED = 8  # choices of a level's first rows, which stand again behind its last: kernels read a word at each row


def _probing(op: Op, name: str) -> Op:
    """The hash grid's op, with the choices and the sizes of the codebooks."""
    arguments = [a for a in op.arguments if a.name != "count"]
    at = next(i for i, a in enumerate(arguments) if a.name == "levels")
    arguments.insert(
        at, In("choices", "u8", "Q", "of the rows, level by level; the first 8 of a level again behind its last")
    )
    return Op(name, *arguments, Scalar("log2_codebook", "int", "of N_c"), Scalar("log2_probes", "int", "of N_p"))


FORWARD = _probing(hash_grid.FORWARD, "learned_probe_forward")
BACKWARD_X = _probing(hash_grid.BACKWARD_X, "learned_probe_backward_x")
BACKWARD = Op(
    "learned_probe_backward",
    InOut("grad_table", "f32", "E F"),
    InOut("grad_logits", "f32", "K P"),
    In("grad_features", "f32 bf16", "C M"),
    In("x", "f32", "D M"),
    In("table", "f32", "E F"),
    In("probabilities", "f32", "K P", "softmax of the logits"),
    In("choices", "u8", "Q"),
    In("levels", "i64", "L 4"),
    In("scales", "f32", "L"),
    In("tangent", "f32", "D M", "of the derivative along it", optional=True),
    Scalar("smoothstep", "int"),
    Scalar("log2_codebook", "int"),
    Scalar("log2_probes", "int"),
    Scalar("all", "int", "whether all entries of a window take a gradient"),
)


@FORWARD.cuda
def _(a):
    a.aligned("table", entry_bytes(a, "table"))
    types = f"{a.cxx('table')}, {a.cxx('features')}, {flag(a.tangent)}"
    return Launch(f"learned_probe_forward<{a.D}, {a.F}, {types}>", blocks(a.M, a.L))


@BACKWARD.cuda
def _(a):
    a.aligned("grad_table", min(4 * a.F, 16))
    a.aligned("table", min(4 * a.F, 16))
    types = f"{a.cxx('grad_features')}, {flag(a.tangent)}"
    return Launch(f"learned_probe_backward<{a.D}, {a.F}, {a.P}, {types}>", blocks(a.M, a.L))


@BACKWARD_X.cuda
def _(a):
    a.aligned("table", entry_bytes(a, "table"))
    types = f"{a.cxx('table')}, {a.cxx('grad_features')}, {flag(a.tangent)}"
    return Launch(f"learned_probe_backward_x<{a.D}, {a.F}, {types}>", blocks(a.M))


@dataclass(frozen=True)
class Config:
    """The learned probe's options."""

    levels: int = 16  # number L of levels
    features: int = 2  # features F per level: 1, 2, 4 or 8
    log2_entries: int = 12  # log2 of the entries N_f of a hashed level, up to 24
    log2_codebook: int = 14  # log2 of the rows N_c of a hashed level's codebook, 3 to 24
    probes: int = 8  # entries N_p that a vertex chooses among: 1, 2, 4, 8 or 16
    base_resolution: int = 16  # resolution of the coarsest level
    growth: float = 1.3819  # factor between the resolutions of two levels
    gradients: str = "all"  # entries that learn: all of a window, by their probability; or the "chosen" one
    precision: str = "f32"  # "bf16" stores a 16-bit copy of the table for reading, and gives 16-bit features


@dataclass(frozen=True)
class ProbeLevels(GridLevels):
    """The derived tables that reference and kernels share: those of the hash grid, and the codebooks' sizes."""

    log2_codebook: int = 3
    log2_probes: int = 0

    @property
    def probes(self) -> int:
        return 1 << self.log2_probes

    @functools.cached_property
    def rows(self) -> int:
        """K, of all codebooks: none where there is nothing to choose."""
        hashed = int((self.levels[:, 3] == 1).sum())
        return hashed << self.log2_codebook if self.log2_probes else 0

    @property
    def bits(self) -> int:
        """What is kept when baked: 16 bits per feature, log2 N_p per row."""
        return 16 * self.entries * self.features + self.rows * self.log2_probes

    @property
    def ops(self) -> GridOps:
        return OPS

    def tables(self, device: torch.device) -> dict:
        sizes = {"log2_codebook": self.log2_codebook, "log2_probes": self.log2_probes}
        return {**super().tables(device), **sizes}


def probe_levels(dimensions: int, config: Config) -> ProbeLevels:
    """Level tables of a learned probe. Raises `BadInput` on options out of range."""
    rules = [
        ("log2_entries", config.log2_entries, hash_grid._whole(config.log2_entries, 3, 24), "from 3 to 24"),
        ("log2_codebook", config.log2_codebook, hash_grid._whole(config.log2_codebook, 3, 24), "from 3 to 24"),
        ("probes", config.probes, config.probes in (1, 2, 4, 8, 16), "1, 2, 4, 8 or 16"),
        ("gradients", config.gradients, config.gradients in ("all", "chosen"), "all or chosen"),
        ("precision", config.precision, config.precision in ("f32", "bf16"), "f32 or bf16"),
    ]
    for name, value, holds, rule in rules:
        if not holds:
            raise BadInput(f"learned probe: {name} is {value}; the rule: {rule}")
    if config.probes > 2**config.log2_entries:
        raise BadInput(f"learned probe: probes is {config.probes}; the rule: at most 2^log2_entries")
    shared = ("levels", "features", "base_resolution", "growth", "precision")
    options = {name: getattr(config, name) for name in shared}
    grid = hash_grid.grid_levels(dimensions, hash_grid.Config(log2_size=config.log2_entries, **options))
    sizes = {"log2_codebook": config.log2_codebook, "log2_probes": config.probes.bit_length() - 1}
    return ProbeLevels(grid.dimensions, grid.features, grid.smoothstep, grid.levels, grid.scales, **sizes)


def learned_probe_reference(x: Tensor, table: Tensor, logits: Tensor, grid: ProbeLevels, gradients="all") -> Tensor:
    """The specification: `x` [M, D], `table` [E, F] and `logits` [K, P] of any float type -> [M, L F]."""
    first, features = 0, []
    for (offset, size, resolution, rule), scale in zip(grid.levels.tolist(), grid.scales.tolist(), strict=True):
        position = clamped(x) * scale + 0.5
        base = position.detach().floor()
        f, total = position - base, 0.0
        for corner in range(2**grid.dimensions):
            bits = torch.tensor([corner >> d & 1 for d in range(grid.dimensions)], device=x.device)
            vertex = base.long() + bits
            entry = offset + hash_grid._entry_reference(vertex, size, resolution, rule == 1)
            if rule == 1 and grid.log2_probes:
                window = offset + (entry - offset) * grid.probes % size
                row = first + row_reference(vertex, grid.log2_codebook)
                values = table[window[:, None] + torch.arange(grid.probes, device=x.device)]
                value = straight_through(values, logits[row], gradients)
            else:
                value = table[entry]
            total = total + torch.where(bits.bool(), f, 1 - f).prod(1, keepdim=True) * value
        features.append(total)
        first += 2**grid.log2_codebook if rule == 1 else 0
    return torch.cat(features, 1)


def row_reference(vertex: Tensor, log2_codebook: int) -> Tensor:
    """hash2 of vertices [M, D]: the row of a level's codebook."""
    row = torch.zeros_like(vertex[:, 0])
    for d in range(1, vertex.shape[1]):
        row = row ^ (vertex[:, d] * PRIMES[d] & 0xFFFFFFFF)
    return (vertex[:, 0] + (row >> (32 - log2_codebook))) % 2**log2_codebook


def straight_through(values: Tensor, logits: Tensor, gradients: str) -> Tensor:
    """Of `values` [M, P, F] those [M, F] with the largest of `logits` [M, P], with the gradient of their softmax."""
    p = logits.softmax(1)[:, :, None]
    hard = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])[:, :, None].to(p.dtype)
    if gradients == "chosen":
        return ((hard - p.detach() + p) * values).sum(1)
    soft = (p * values).sum(1)
    return soft + ((hard * values).sum(1) - soft).detach()


OPS = GridOps(FORWARD, BACKWARD, BACKWARD_X, "", learned_probe_reference)


def choices_of(logits: Tensor, log2_codebook: int) -> Tensor:
    """The choices [Q] of `logits` [K, P], as kernels read them. Raises `BadInput` on another dtype."""
    if logits.dtype != torch.float32:
        raise BadInput(f"learned probe: logits is {logits.dtype}; the rule: float32")
    return repeated(logits.detach().argmax(1).to(torch.uint8), log2_codebook)


def repeated(choices: Tensor, log2_codebook: int) -> Tensor:
    """Choices [K] uint8 -> [Q]: the first ones of each level stand behind its last again."""
    rows = choices.view(-1, 1 << log2_codebook)
    return torch.cat([rows, rows[:, :REPEATED]], 1).flatten()


@dataclass(frozen=True)
class _Call:
    """What a differentiable call of the native op carries besides its differentiable inputs."""

    grid: ProbeLevels
    choices: Tensor
    all: bool
    stored: Tensor | None
    dtype: torch.dtype
    grad_into: tuple[Tensor, Tensor] | None
    computed: Tensor | None = None

    def forward(self, x, table, tangent=None):
        features = streams(x, self.grid.channels, self.dtype)
        arguments = {"x": feature_major(x), "table": self.read(table), "tangent": hash_grid._optional(tangent)}
        FORWARD(features=features, choices=self.choices, **arguments, **self.grid.tables(x.device))
        return features.T

    def backward_x(self, grad, x, table, tangent=None):
        grad_x = streams(x, self.grid.dimensions)
        arguments = {"grad_features": feature_major(grad), "x": feature_major(x), "table": self.read(table)}
        arguments |= {"tangent": hash_grid._optional(tangent), "choices": self.choices}
        BACKWARD_X(grad_x=grad_x, **arguments, **self.grid.tables(x.device))
        return grad_x.T

    def backward(self, grad, x, table, logits, tangent=None, into=None):
        into = (torch.zeros_like(table), torch.zeros_like(logits)) if into is None else into
        parameters = {"table": table.detach().contiguous(), "probabilities": logits.detach().softmax(1)}
        arguments = {"grad_features": feature_major(grad), "x": feature_major(x), "choices": self.choices}
        arguments |= {"tangent": hash_grid._optional(tangent), "all": self.all}
        BACKWARD(grad_table=into[0], grad_logits=into[1], **parameters, **arguments, **self.grid.tables(x.device))
        return into

    def read(self, table):
        return table.detach().contiguous() if self.stored is None else self.stored


class _LearnedProbe(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, table, logits, call):
        ctx.save_for_backward(x, table, logits)
        ctx.call = call
        return call.forward(x, table) if call.computed is None else call.computed.view_as(call.computed)

    @staticmethod
    def backward(ctx, grad):
        x, table, logits = ctx.saved_tensors
        need_x, need_table, need_logits, _ = ctx.needs_input_grad
        parameters = need_table or need_logits
        if parameters and ctx.call.grad_into is not None:
            ctx.call.backward(grad, x, table, logits, into=ctx.call.grad_into)
            parameters = False
        if not (need_x or parameters):
            return None, None, None, None
        return *_LearnedProbeBackward.apply(grad, x, table, logits, ctx.call, need_x, parameters), None


class _LearnedProbeBackward(torch.autograd.Function):
    """Gradients as a function of their own: that by x can be differentiated again, by the same kernels along a
    tangent."""

    @staticmethod
    def forward(ctx, grad, x, table, logits, call, need_x, parameters):
        ctx.save_for_backward(grad, x, table, logits)
        ctx.set_materialize_grads(False)
        ctx.call = call
        grad_x = call.backward_x(grad, x, table) if need_x else None
        return grad_x, *(call.backward(grad, x, table, logits) if parameters else (None, None))

    @staticmethod
    def backward(ctx, u, by_table, by_logits):
        if by_table is not None or by_logits is not None:
            raise ValueError("learned probe: gradients by entries and logits cannot be differentiated again")
        grad, x, table, logits = ctx.saved_tensors
        call, needs = ctx.call, ctx.needs_input_grad
        if u is None:
            return (None,) * 7
        grad_grad = call.forward(x, table, tangent=u) if needs[0] else None
        grad_x = call.backward_x(grad, x, table, tangent=u) if needs[1] else None
        parameters = call.backward(grad, x, table, logits, tangent=u) if needs[2] or needs[3] else (None, None)
        return grad_grad, grad_x, *parameters, None, None, None


def learned_probe(
    x: Tensor,
    table: Tensor,
    logits: Tensor,
    grid: ProbeLevels,
    *,
    gradients: str = "all",
    choices: Tensor | None = None,
    stored: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    grad_into: tuple[Tensor, Tensor] | None = None,
    computed: Tensor | None = None,
) -> Tensor:
    """Features [M, L F] of `x` [M, D] float32 in [0, 1] from `table` [E, F] and `logits` [K, P], both float32.

    `choices` are those of `logits` where they are known; `stored` is a bfloat16 copy of the table that is
    read in its place (gradients of logits are by the table itself); `grad_into` are the two buffers that gradients of
    the parameters are added to, and then autograd returns none; `computed`, `dtype` and errors as those of `hash_grid`.
    """
    grid.check("learned probe", x, table)
    check_shape("learned probe", "logits", logits, (grid.rows, grid.probes))
    if not native(x):
        read = table if stored is None else table + (stored.to(table.dtype) - table).detach()
        into = (None, None) if grad_into is None else grad_into
        read, rows = gradient_into(read, into[0]), gradient_into(logits, into[1])
        features = learned_probe_reference(x, read, rows, grid, gradients)
        return features.to(dtype if dtype == torch.bfloat16 else x.dtype)
    if choices is None:
        choices = choices_of(logits, grid.log2_codebook)
    call = _Call(grid, choices, gradients == "all", stored, dtype, grad_into, computed)
    return _LearnedProbe.apply(x, table, logits, call)


class LearnedProbe(HashGrid):
    """The encoding as a module: [M, D] in [0, 1] -> [M, `channels`]. Entries start uniform in +-1e-4, logits normal
    with deviation 0.01."""

    takes_count = False
    #: learning rate of the logits, of that of the entries: on lego 1 was 0.5 dB worse, 10 0.1 dB, at 1000 steps
    LOGIT_RATE = 3.0

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__(dimensions, config, generator)
        logits = 0.01 * torch.randn(self.grid.rows, self.grid.probes, generator=generator)
        self.logits = torch.nn.Parameter(logits)
        self._choices: Tensor | None = None
        self._choices_version = -1

    @staticmethod
    def levels_of(dimensions: int, config: Config) -> ProbeLevels:
        return probe_levels(dimensions, config)

    def adam_groups(self) -> list[dict]:
        self.grad_into = (torch.zeros_like(self.table), torch.zeros_like(self.logits))
        groups = [{"parameter": self.table.data, "grad": self.grad_into[0], "shadow": self.stored(), "mode": "skip"}]
        if self.grid.rows:
            groups.append({"parameter": self.logits.data, "grad": _LogitGradients(self), "mode": "skip"})
            groups[-1]["scale"] = self.LOGIT_RATE
        return groups

    def choices(self) -> Tensor:
        """The choices of all rows as kernels read them, made anew where the logits changed."""
        stale = self._choices is None or self._choices.device != self.logits.device
        if stale or self._choices_version != self.logits._version:
            self._choices = choices_of(self.logits, self.config.log2_codebook)
            self._choices_version = self.logits._version
        return self._choices

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        options = {"gradients": self.config.gradients, "dtype": dtype, "computed": computed}
        options |= {"choices": self.choices(), "stored": self.stored(), "grad_into": self.grad_into}
        return learned_probe(x, self.table, self.logits, self.grid, **options)

    def bake(self):
        """What inference needs of it: a `baked_probe.BakedProbe`."""
        from .baked_probe import BakedProbe

        choices = self.logits.detach().argmax(1).to(torch.uint8)
        return BakedProbe(self.grid.dimensions, self.config, self.table.detach().bfloat16(), choices)


class _LogitGradients:
    """The gradient of a probe's logits as the `grad` of a group of `training.adam`: after the step, choices are new."""

    def __init__(self, probe: LearnedProbe):
        self.probe = probe

    def adam_step(self, *, bad: Tensor, **arguments) -> None:
        from ..training import adam

        arguments["grad"] = self.probe.grad_into[1]
        flat = {k: v.view(-1) if isinstance(v, Tensor) else v for k, v in arguments.items()}
        (adam.STEP if native(arguments["parameter"]) else adam.adam_step_reference)(bad=bad, **flat)
        self.probe._choices = None
