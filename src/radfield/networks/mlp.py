"""The small multilayer perceptron, fused: activations never leave the cache (as Mueller et al. 2021 did on a GPU,
"Real-time neural radiance caching", sec. 4).

    h_0 = x,   h_l+1 = sigma(W_l h_l + b_l),   y = sigma_out(W_L-1 h_L-1 + b_L-1),   at a skip layer h_l is [h_l, x]

Backward recomputes the activations instead of storing them. In "bf16" the operands of every product are rounded to
bfloat16 and sums are fp32, where the CPU has AMX or AVX512-BF16; elsewhere products stay fp32, which is faster there
than rounding.

In "f32" on a CPU with AMX, networks of width 32 or more run on its bf16 tiles too: an operand is split into three bf16
numbers that sum to it exactly, and the six largest of their products are summed in fp32 (mlp_kernels_split.h). Values
and gradients differ from those of plain fp32 in the last bits, as those of two instruction sets do; against float64
they err half as much where a sum has many terms, and up to 1.5 times as much (in the mean of squares) where it has two.
Tiles take bf16 numbers below 2^-126 as 0: operands below 2^-102 lose bits, which plain fp32 keeps. An infinite operand
gives NaN. `RADFIELD_AMX=0` keeps to plain fp32.

Letters: M samples, A and B channels of the two (concatenated) inputs, O outputs, L layers, P parameters. The parameters
are one flat vector: per layer the weights [outputs, inputs] row by row, then the bias [outputs] if there is one.
"""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass, field

import torch

from ..backend import by_tinycudann, check_count, native, on_cuda
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from ..tensors import feature_major, gradient_into, on_device, streams

_STREAM = "f32 bf16 f16"
_NETWORK = (
    In("parameters", "f32", "P"),
    In("layers", "i64", "L 4", "inputs, outputs, offset of the weights, whether a skip layer"),
    InOut("packed", "f32", "Q", "scratch: the weights as the kernels read them"),
    Scalar("activation", "int"),
    Scalar("output_activation", "int"),
    Scalar("bias", "int"),
    Scalar("channels", "int", "inputs and outputs of all layers, each padded to 16"),
    Scalar("widest", "int", "the most inputs or outputs of a layer, padded to 16"),
)
FORWARD = Op(
    "mlp_forward",
    Out("y", _STREAM, "O M"),
    Out("head", "f32", "H M", "the first outputs once more, in 32 bits", optional=True),
    In("x0", _STREAM, "A M", "first inputs"),
    In("x1", _STREAM, "B M", "further inputs, behind the first", optional=True),
    In("count", "i64", "1", "CUDA only: rows in use, the first of M; others are not read or written", optional=True),
    *_NETWORK,
    Scalar(
        "kernel",
        "int",
        "0 fp32; bf16: 1 rounded fp32 (for tests), 2 AVX512-BF16, 3 AMX; on CUDA all tensor cores; 4 fp16, CUDA only; "
        "5 fp32 by AMX, CPU only",
    ),
)
BACKWARD = Op(
    "mlp_backward",
    Out("grad_x0", _STREAM, "A M", optional=True),
    Out("grad_x1", _STREAM, "B M", optional=True),
    InOut("grad_parameters", "f32", "P", "is added to", optional=True),
    InOut("partial", "f32", "R P", "scratch: gradients of each chunk of samples"),
    In("grad_y", _STREAM, "O M", optional=True),
    In("grad_head", "f32", "H M", "is added to that of the first outputs", optional=True),
    In("x0", _STREAM, "A M"),
    In("x1", _STREAM, "B M", optional=True),
    In("tangent0", _STREAM, "A M", "adds the gradient of dy_0/dx along this and", optional=True),
    In("tangent1", _STREAM, "B M", "this; activations relu or none, without skip layers", optional=True),
    In("count", "i64", "1", "CUDA only: rows in use, the first of M; others are not read or written", optional=True),
    *_NETWORK,
    Scalar("kernel", "int"),
    Scalar("chunk", "int", "samples per row of partial"),
)
SECOND = Op(
    "mlp_second",
    Out("grad_grad_y", "f32", "O M", "derivative of y along the tangent"),
    Out("grad_x", "f32", "A M", "gradients of s = <grad_y, dy/dx tangent>"),
    InOut("grad_parameters", "f32", "P", "is added to"),
    InOut("partial", "f32", "R P"),
    In("tangent", "f32", "A M"),
    In("grad_y", "f32", "O M"),
    In("x", "f32", "A M"),
    *_NETWORK,
    Scalar("chunk", "int"),
)


@FORWARD.cuda
def _(a):
    mma = products(a.kernel)
    rows = _padded(a.A + a.B, 16) + 2 * a.widest
    return per_parameter(a, f"mlp_pack<{mma}, radfield::MlpForward>"), tiles(
        f"mlp_forward<{mma}>", rows, -(-a.M // _TILE)
    )


@BACKWARD.cuda
def _(a):
    mma = products(a.kernel)
    rows = _padded(a.A + a.B, 16) + 2 * a.widest + a.channels
    pack = per_parameter(a, f"mlp_pack<{mma}, radfield::MlpBackward>")
    launches = pack, tiles(f"mlp_backward<{mma}, {flag(a.tangent0)}>", rows, a.R)
    return (*launches, per_parameter(a, "mlp_add_partial")) if a.grad_parameters else launches


@SECOND.cuda_in("mlp_second.cu")
def _(a):
    rows = _padded(a.A, 16) + 2 * a.widest + 5 * a.channels
    pack, add = per_parameter(a, "mlp_second_pack"), per_parameter(a, "mlp_second_add_partial")
    return pack, tiles("mlp_second", rows, a.R), add


def products(kernel: int) -> str:
    """The template argument of an op's kernel: plain sums, or operands in bfloat16 or fp16 (mlp_tiles.h)."""
    return "2" if kernel == FP16 else flag(kernel)


def per_parameter(a, kernel: str) -> Launch:
    """A launch with a thread per parameter of the network."""
    return Launch(kernel, blocks(a.P if a.M else 0))


FP16 = 4  # the number of the kernel with fp16 operands
SPLIT = 5  # of that with fp32 operands on AMX, each split into three of bf16
_LEAST_SPLIT = 32  # the width from which it is no slower than plain fp32: layers are padded to as much
_TILE, _ROW_BYTES = 32, 144  # mlp_tiles.h
_MOST_SHARED = 60 << 10  # what every architecture has, less what the kernels declare
_MOST_BLOCKS = 1024


def tiles(kernel: str, rows: int, tasks: int) -> Launch:
    """A launch of 128 threads per block whose rows are in shared memory, or where they do not fit in scratch memory.
    The kernel's further arguments are the scratch memory's address, or 0, and the rows."""
    if rows * _ROW_BYTES <= _MOST_SHARED:
        return Launch(kernel, (min(tasks, _MOST_BLOCKS),), (128,), shared=rows * _ROW_BYTES, extra=(0, rows))
    count = min(tasks, _MOST_BLOCKS // 8)
    return Launch(kernel, (count,), (128,), scratch=count * rows * _ROW_BYTES, extra=(rows,))


ACTIVATIONS = {
    "none": (0, lambda z: z),
    "relu": (1, torch.relu),
    "silu": (2, torch.nn.functional.silu),
    "softplus": (3, lambda z: torch.logaddexp(z, torch.zeros_like(z))),
    "sine": (4, torch.sin),
}
MAX_LAYERS = 16


@dataclass(frozen=True)
class Config:
    """The network's options."""

    width: int = 64  # channels of a hidden layer, 16 to 256
    hidden_layers: int = 2  # number of hidden layers, 0 to 15
    activation: str = "relu"  # of the hidden layers: none, relu, silu, softplus or sine
    output_activation: str = "none"  # of the last layer, likewise
    bias: bool = False  # add a learned constant to every channel
    skip: int | None = None  # the layer, from 1, that sees the network's inputs again beside its own
    precision: str = "f32"  # "bf16" rounds the operands of products to 16 bits; sums stay fp32; "f16" likewise on CUDA


@dataclass(frozen=True)
class Layers:
    """The derived table that reference and kernels share."""

    config: Config
    inputs: int
    outputs: int
    table: torch.Tensor  # [L, 4] int64: inputs, outputs, offset of the weights, skip
    parameters: int
    packed: int  # an upper bound of the floats that packed weights take
    channels: int  # inputs and outputs of all layers, each padded to 16
    widest: int  # the most inputs or outputs of a layer, padded to 16
    _copies: dict = field(default_factory=dict, repr=False, compare=False)  # of the table, on other devices


def layers_of(inputs: int, outputs: int, config: Config) -> Layers:
    """Layer table of a network. Raises `BadInput` on options out of range."""
    _check(inputs, outputs, config)
    rows, offset, packed = [], 0, 0
    count = config.hidden_layers + 1
    for layer in range(count):
        skip = layer > 0 and layer == config.skip
        fan_in = inputs if layer == 0 else config.width + (inputs if skip else 0)
        fan_out = outputs if layer == count - 1 else config.width
        rows.append((fan_in, fan_out, offset, int(skip)))
        offset += fan_in * fan_out + (fan_out if config.bias else 0)
        packed += 3 * (_padded(fan_in) + (32 if skip else 0)) * _padded(fan_out) + _padded(fan_out)
    sizes = [_padded(size, 16) for fan_in, fan_out, *_ in rows for size in (fan_in, fan_out)]
    table = torch.tensor(rows, dtype=torch.int64)
    return Layers(config, inputs, outputs, table, offset, packed, sum(sizes), max(sizes))


def _padded(channels: int, to: int = 32) -> int:
    return -(-channels // to) * to


def _check(inputs: int, outputs: int, config: Config) -> None:
    names = ", ".join(ACTIVATIONS)
    rules = [
        ("inputs", inputs, 1 <= inputs <= 1024, "from 1 to 1024"),
        ("outputs", outputs, 1 <= outputs <= 1024, "from 1 to 1024"),
        ("width", config.width, 16 <= config.width <= 256, "from 16 to 256"),
        ("hidden_layers", config.hidden_layers, 0 <= config.hidden_layers < MAX_LAYERS, f"from 0 to {MAX_LAYERS - 1}"),
        ("activation", config.activation, config.activation in ACTIVATIONS, f"one of {names}"),
        ("output_activation", config.output_activation, config.output_activation in ACTIVATIONS, f"one of {names}"),
        (
            "skip",
            config.skip,
            config.skip is None or 1 <= config.skip <= config.hidden_layers,
            "a layer after the first",
        ),
        ("precision", config.precision, config.precision in ("f32", "bf16", "f16"), "f32, bf16 or f16"),
    ]
    for name, value, holds, rule in rules:
        if not holds:
            raise BadInput(f"MLP: {name} is {value}; the rule: {rule}")


def mlp_reference(x0: torch.Tensor, x1: torch.Tensor | None, parameters: torch.Tensor, layers: Layers) -> torch.Tensor:
    """The specification: inputs [M, A] and [M, B] (or None), `parameters` [P] of any float type -> [M, O]."""
    config = layers.config
    x = x0 if x1 is None else torch.cat([x0, x1], 1)
    h = x
    rows = layers.table.tolist()
    for index, (fan_in, fan_out, offset, skip) in enumerate(rows):
        h = torch.cat([h, x], 1) if skip else h
        end = offset + fan_in * fan_out
        h = h @ parameters[offset:end].view(fan_out, fan_in).T
        h = h + parameters[end : end + fan_out] if config.bias else h
        name = config.output_activation if index == len(rows) - 1 else config.activation
        h = ACTIVATIONS[name][1](h)
    return h


def best_kernel(precision: str) -> int:
    """Number of the kernel that "f32" or "bf16" runs on here, on the CPU; without AMX where `RADFIELD_AMX` is 0."""
    from ..cpu.library import amx_wanted

    return _best_kernel(precision == "bf16", amx_wanted())


@functools.cache
def _best_kernel(bf16: bool, amx: bool) -> int:
    from ..cpu.library import library

    function = library().mlp_best_kernel
    function.argtypes, function.restype = [ctypes.c_int64, ctypes.c_int64], ctypes.c_int64
    return function(bf16, amx)


def kernel_of(config: Config, x: torch.Tensor) -> int:
    """Number of the kernel that a network of this precision runs on, for samples `x`."""
    if config.precision == "f16":
        return FP16 if on_cuda(x) else 0
    if on_cuda(x):
        return int(config.precision == "bf16")
    if config.precision == "f32" and config.width < _LEAST_SPLIT:
        return 0
    return best_kernel(config.precision)


def chunks(layers: Layers, x: torch.Tensor, count: int) -> tuple[int, torch.Tensor]:
    """Samples per chunk of `count`, and scratch for the gradients of each, on the device of `x`; the number of chunks
    never depends on threads."""
    if on_cuda(x):  # a block each
        chunk = max(64, -(-count // _MOST_BLOCKS // 32) * 32)
    else:
        chunk = max(2048, -(-count // 32 // 256) * 256)
    return chunk, x.new_empty(-(-count // chunk), layers.parameters, dtype=torch.float32)


@dataclass(frozen=True)
class _Call:
    """What a differentiable call of the native network carries besides its differentiable inputs."""

    layers: Layers
    kernel: int
    dtype: torch.dtype  # of the outputs
    head: int  # the first outputs that are also returned in 32 bits
    grad_into: torch.Tensor | None
    count: torch.Tensor | None = None  # [1] int64: rows in use

    def arguments(self, parameters):
        config = self.layers.config
        return {
            "parameters": parameters.detach().contiguous(),
            "layers": on_device((self.layers.table,), parameters.device, self.layers._copies)[0],
            "packed": torch.empty(self.layers.packed, device=parameters.device),
            "activation": ACTIVATIONS[config.activation][0],
            "output_activation": ACTIVATIONS[config.output_activation][0],
            "bias": config.bias,
            "channels": self.layers.channels,
            "widest": self.layers.widest,
        }

    def chunks(self, x):
        return chunks(self.layers, x, len(x))


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x0, x1, parameters, call):
        ctx.save_for_backward(x0, x1, parameters)
        ctx.set_materialize_grads(False)
        ctx.call = call
        y = streams(x0, call.layers.outputs, call.dtype)
        head = streams(x0, call.head) if call.head else None
        inputs = {"x0": feature_major(x0), "x1": _optional(x1)}
        FORWARD(y=y, head=head, count=call.count, kernel=call.kernel, **inputs, **call.arguments(parameters))
        return y.T, _transposed(head)

    @staticmethod
    def backward(ctx, grad, grad_head):
        needs = ctx.needs_input_grad[:3]
        return *_MlpBackward.apply(grad, grad_head, *ctx.saved_tensors, ctx.call, needs), None


class _MlpBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, grad_head, x0, x1, parameters, call, needs):
        ctx.save_for_backward(grad, grad_head, x0, x1, parameters)
        ctx.set_materialize_grads(False)
        ctx.call = call
        grad_x0 = streams(x0, x0.shape[1], x0.dtype) if needs[0] else None
        grad_x1 = streams(x1, x1.shape[1], x1.dtype) if needs[1] else None
        into = call.grad_into
        if needs[2] and into is None:
            into = torch.zeros_like(parameters)
        chunk, partial = call.chunks(x0)
        BACKWARD(
            grad_x0=grad_x0,
            grad_x1=grad_x1,
            grad_parameters=into if needs[2] else None,
            partial=partial,
            grad_y=_optional(grad),
            grad_head=_optional(grad_head),
            x0=feature_major(x0),
            x1=_optional(x1),
            count=call.count,
            kernel=call.kernel,
            chunk=chunk,
            **call.arguments(parameters),
        )
        grad_parameters = into if needs[2] and call.grad_into is None else None
        return _transposed(grad_x0), _transposed(grad_x1), grad_parameters

    @staticmethod
    def backward(ctx, u0, u1, v):
        if v is not None:
            raise BadInput("MLP: a derivative of the parameters' gradient was asked for; the rule: of the inputs' only")
        grad, grad_head, x0, x1, parameters = ctx.saved_tensors
        if x0.dtype != torch.float32 or (x1 is not None and x1.dtype != torch.float32):
            raise BadInput("MLP: second derivatives of 16-bit inputs; the rule: inputs are float32 for them")
        u0 = torch.zeros_like(x0) if u0 is None else u0
        x, u = x0, u0
        if x1 is not None:
            x, u = torch.cat([x0, x1], 1), torch.cat([u0, torch.zeros_like(x1) if u1 is None else u1], 1)
        call = ctx.call
        chunk, partial = call.chunks(x)
        grad_grad = streams(x, call.layers.outputs)
        grad_x = streams(x, x.shape[1])
        grad_parameters = torch.zeros_like(parameters)
        SECOND(
            grad_grad_y=grad_grad,
            grad_x=grad_x,
            grad_parameters=grad_parameters,
            partial=partial,
            tangent=feature_major(u),
            grad_y=feature_major(_whole_gradient(grad, grad_head, x, call.layers.outputs)),
            x=feature_major(x),
            chunk=chunk,
            **call.arguments(parameters),
        )
        first = x0.shape[1]
        grad_x1 = None if x1 is None else grad_x[first:].T
        of_grad = None if grad is None else grad_grad.T
        of_head = None if grad_head is None else grad_grad[: call.head].T
        return of_grad, of_head, grad_x[:first].T, grad_x1, grad_parameters, None, None


def _whole_gradient(grad, grad_head, x, outputs):
    """Gradient [M, O] of all outputs in float32, the head's added."""
    whole = x.new_zeros(len(x), outputs) if grad is None else grad.float()
    if grad_head is None:
        return whole
    return whole + torch.nn.functional.pad(grad_head, (0, outputs - grad_head.shape[1]))


def _optional(x):
    return None if x is None else feature_major(x)


def _transposed(x):
    return None if x is None else x.T


def mlp(
    x0: torch.Tensor,
    x1: torch.Tensor | None,
    parameters: torch.Tensor,
    layers: Layers,
    *,
    dtype: torch.dtype = torch.float32,
    head: int = 0,
    kernel: int | None = None,
    grad_into: torch.Tensor | None = None,
    count: torch.Tensor | None = None,
):
    """Outputs [M, O] of the network for inputs `x0` [M, A] and `x1` [M, B] or None, float32 or bfloat16 each.

    `parameters` [P] float32; `dtype` is that of the outputs; with `head` H > 0 the first H outputs are returned once
    more, as [M, H] float32, where not all of them bear 16 bits; `kernel` forces one (see `best_kernel`);
    `grad_into` [P] takes the parameters' gradient by addition, and then autograd returns none for it; `count` [1]
    int64, for CUDA kernels: the rows in use, where only the device knows them; others are neither read nor written.
    Differentiable twice (the gradient of the inputs, in float32). Raises `BadInput` on another shape or dtype.
    """
    if not 0 <= head <= layers.outputs:
        raise BadInput(f"MLP: head is {head}; the rule: from 0 to the {layers.outputs} outputs")
    check_count("MLP", count, x0)
    if by_tinycudann():
        from ..compat import tcnn_backend

        return tcnn_backend.mlp(x0, x1, parameters, layers, dtype, head, grad_into)
    if not native(x0):
        x0, x1 = (None if x is None else x.to(parameters.dtype) for x in (x0, x1))
        y = mlp_reference(x0, x1, gradient_into(parameters, grad_into), layers)
        return (y, y[:, :head]) if head else y
    kernel = kernel_of(layers.config, x0) if kernel is None else kernel
    if kernel == FP16 and not on_cuda(x0):
        raise BadInput(f"MLP: kernel is {kernel}; the rule: fp16 operands on CUDA alone")
    if kernel == SPLIT and on_cuda(x0):
        raise BadInput(f"MLP: kernel is {kernel}; the rule: AMX on a CPU alone")
    y, first = _Mlp.apply(x0, x1, parameters, _Call(layers, kernel, dtype, head, grad_into, count))
    return (y, first) if head else y


class MLP(torch.nn.Module):
    """The network as a module: [M, `inputs`] -> [M, `outputs`]. Weights start Xavier-uniform, biases at 0."""

    def __init__(self, inputs: int, outputs: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.layers = layers_of(inputs, outputs, config)
        self.weights = torch.nn.Parameter(torch.zeros(self.layers.parameters))
        self.grad_into: torch.Tensor | None = None
        with torch.no_grad():
            for fan_in, fan_out, offset, _ in self.layers.table.tolist():
                bound = math.sqrt(6 / (fan_in + fan_out))
                self.weights[offset : offset + fan_in * fan_out].uniform_(-bound, bound, generator=generator)

    def forward(
        self,
        *x: torch.Tensor,
        dtype: torch.dtype = torch.float32,
        head: int = 0,
        count: torch.Tensor | None = None,
    ):
        """Outputs [M, O] for one or two inputs, which are concatenated without a copy; and with `head` H > 0 the first
        H of them once more, [M, H] in float32; `count` as in `mlp`."""
        x0, x1 = (*x, None)[:2]
        if len(x) > 2 or sum(t.shape[1] for t in x) != self.layers.inputs:
            widths = [t.shape[1] for t in x]
            raise BadInput(f"MLP: the inputs have {widths} channels; the rule: one or two, {self.layers.inputs} in all")
        options = {"dtype": dtype, "head": head, "grad_into": self.grad_into, "count": count}
        return mlp(x0, x1, self.weights, self.layers, **options)
