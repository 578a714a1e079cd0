"""The declaration of an op's arguments: written once, here in Python, next to the op.

An `Op` names a native function and lists its arguments, outputs first. That one list
- checks every call (dtype, shape in the common letters, device, contiguity), with an error that names the op,
  the argument, its value and the rule;
- marshals the arguments to the plain struct that the C++ library (and CUDA) takes;
- documents the op: `print(op)` shows the table, `print(op.c_struct())` the struct to paste into `name.h`
  (a test asserts that header and declaration agree for every op).

Layout of the struct, in this order, each field 8 bytes wide:
    per tensor    a pointer (null when an optional one is absent); where several dtypes are allowed also
                  `int64_t <name>_type` (a `DTYPES` code);
    per scalar    `int64_t` or `double`;
    per letter    `int64_t`: the sizes bound by the shapes, in order of first appearance.

Shapes are written outermost first: features of M samples are `"C M"`, stored feature by feature. A letter may carry
a constant ("N+1"); a number stands for itself. Letters everywhere: N rays, M samples, V views, L levels, F features
per level, D dimensions, C channels, P parameters, G Gaussians.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import torch

from . import backend
from .cuda.plan import Arguments, Launch, Plan
from .errors import BadInput

#: name in declarations -> (torch dtype, C type, code handed to native code)
DTYPES = {
    "f32": (torch.float32, "float", 0),
    "bf16": (torch.bfloat16, "bf16", 1),
    "u8": (torch.uint8, "uint8_t", 2),
    "i32": (torch.int32, "int32_t", 3),
    "i64": (torch.int64, "int64_t", 4),
    "u32": (torch.int32, "uint32_t", 5),  # bits kept in torch's int32: torch has few uint32 operations
    "f64": (torch.float64, "double", 6),
    "f16": (torch.float16, "f16", 7),  # CUDA only
    "u16": (torch.uint16, "uint16_t", 8),
}
_SIZE = re.compile(r"([A-Za-z]\w*)(?:\+(\d+))?|(\d+)")


@dataclass(frozen=True)
class Tensor:
    """One tensor argument: `dtypes` separated by blanks, `shape` as letters separated by blanks."""

    name: str
    dtypes: str
    shape: str
    doc: str = ""
    role: str = "in"  # in, out, inout
    optional: bool = False


@dataclass(frozen=True)
class Scalar:
    """One number: `kind` is "int" (int64_t, also booleans) or "float" (double)."""

    name: str
    kind: str
    doc: str = ""


def Out(name, dtypes, shape, doc="", **options):
    """An output, allocated by the caller and overwritten."""
    return Tensor(name, dtypes, shape, doc, role="out", **options)


def InOut(name, dtypes, shape, doc="", **options):
    """An argument that the op updates in place (`+=` unless the doc says otherwise)."""
    return Tensor(name, dtypes, shape, doc, role="inout", **options)


def In(name, dtypes, shape, doc="", **options):
    """An input, never written."""
    return Tensor(name, dtypes, shape, doc, role="in", **options)


class Op:
    """A native function and the declaration of its arguments. Call it with keyword arguments.

    Raises `BadInput` when an argument is missing (optional ones may be), unknown, or breaks its rule.
    """

    registry: dict[str, Op] = {}

    def __init__(self, name: str, *arguments: Tensor | Scalar):
        self.name = name
        self.arguments = arguments
        self.letters: list[str] = []
        self.plan: Plan | None = None  # how it runs on CUDA
        self._plan = [self._compile(a) for a in arguments]
        self._format = "=" + "".join(self._formats())
        self._names = [*self._field_names()]
        Op.registry[name] = self

    def __call__(self, **values) -> None:
        self._launch(*self.marshal(values))

    def marshal(self, values: dict) -> tuple[bytes, torch.device]:
        """Checks `values` against the declaration; returns the packed struct and the device of the tensors."""
        fields, sizes, device = [], {}, None
        absent = 0
        for argument, sizes_of, dtypes in self._plan:
            try:
                value = values[argument.name]
            except KeyError:
                if dtypes is None or not argument.optional:
                    self._refuse_names(values)
                value, absent = None, absent + 1
            if dtypes is None:
                fields.append(int(value) if argument.kind == "int" else float(value))
                continue
            if value is None and argument.optional:
                fields.extend((0, 0) if len(dtypes) > 1 else (0,))
                continue
            self._check(argument, value, sizes_of, dtypes, sizes)
            if device is None:
                device = value.device
            elif value.device != device:
                raise self._error(argument, f"is on {value.device}", f"all tensors are on one device, here {device}")
            fields.append(value.data_ptr())
            if len(dtypes) > 1:
                fields.append(dtypes[value.dtype])
        if len(values) + absent != len(self.arguments):
            self._refuse_names(values)
        fields.extend(sizes.get(letter, 0) for letter in self.letters)
        return struct.pack(self._format, *fields), device or torch.device("cpu")

    def cuda(self, function):
        """Decorates the op's plan (cuda/plan.py), a function of its `Arguments` that lists the launches of kernels in
        the `.cu` file of the same stem as the function's own file, or in the one that `@OP.cuda_in(name)` names."""
        return self.cuda_in(Path(function.__code__.co_filename).with_suffix(".cu").name)(function)

    def cuda_in(self, name: str):
        """As `cuda`, for kernels in the file `name` beside the function's own."""

        def keep(function):
            self.plan = Plan(Path(function.__code__.co_filename).with_name(name), function)
            return function

        return keep

    def launches(self, packed: bytes) -> tuple[Launch, ...]:
        """The CUDA launches of a call with these packed arguments. Raises `BadInput` where the op has no kernels."""
        if self.plan is None:
            raise BadInput(f"{self.name}: has no CUDA kernel in this version; the rule: its tensors are on the cpu")
        try:
            return self.plan.launches(self.unpack(packed))
        except BadInput as error:
            raise BadInput(f"{self.name}: {error}") from None

    def unpack(self, packed: bytes) -> Arguments:
        """The fields of a packed struct by name."""
        return Arguments(dict(zip(self._names, struct.unpack(self._format, packed), strict=True)))

    def c_struct(self) -> str:
        """The C struct that native code takes, as it stands in `name.h`."""
        lines = []
        for argument, _, dtypes in self._plan:
            if dtypes is None:
                lines.append(f"  {'int64_t' if argument.kind == 'int' else 'double'} {argument.name};")
                continue
            names = argument.dtypes.split()
            kind = DTYPES[names[0]][1] if len(names) == 1 else "void"
            lines.append(f"  {'const ' if argument.role == 'in' else ''}{kind}* {argument.name};")
            if len(names) > 1:
                lines.append(f"  int64_t {argument.name}_type;")
        if self.letters:
            lines.append(f"  int64_t {', '.join(self.letters)};")
        return "\n".join([f"struct {self.struct_name} {{", *lines, "};"])

    @property
    def struct_name(self) -> str:
        return "".join(part.capitalize() for part in self.name.split("_"))

    @property
    def size(self) -> int:
        """Bytes of the struct; native code states its own, and the two are compared when the op is first used."""
        return struct.calcsize(self._format)

    def __str__(self) -> str:
        rows = [f"{self.name}:"]
        for a in self.arguments:
            kind = (
                a.kind
                if isinstance(a, Scalar)
                else f"{a.role} {a.dtypes.replace(' ', '|')} [{a.shape.replace(' ', ', ')}]"
            )
            rows.append(f"  {a.name:<16} {kind:<28} {a.doc}")
        return "\n".join(rows)

    def _compile(self, argument):
        if isinstance(argument, Scalar):
            return argument, None, None
        sizes_of = []
        for token in argument.shape.split():
            letter, plus, number = _SIZE.fullmatch(token).groups()
            sizes_of.append((letter, int(plus or number or 0)))
            if letter and letter not in self.letters:
                self.letters.append(letter)
        return argument, tuple(sizes_of), {DTYPES[d][0]: DTYPES[d][2] for d in argument.dtypes.split()}

    def _formats(self):
        for argument, _, dtypes in self._plan:
            if dtypes is None:
                yield "q" if argument.kind == "int" else "d"
            else:
                yield "qq" if len(dtypes) > 1 else "q"
        yield "q" * len(self.letters)

    def _field_names(self):
        for argument, _, dtypes in self._plan:
            yield argument.name
            if dtypes is not None and len(dtypes) > 1:
                yield argument.name + "_type"
        yield from self.letters

    def _check(self, argument, value, sizes_of, dtypes, sizes):
        if not isinstance(value, torch.Tensor):
            raise self._error(argument, f"is {type(value).__name__} {value!r:.40}", "it is a torch.Tensor")
        if value.dtype not in dtypes:
            raise self._error(argument, f"has dtype {value.dtype}", f"it is {argument.dtypes.replace(' ', ' or ')}")
        if value.dtype == torch.float16 and not backend.on_cuda(value):
            raise self._error(argument, "has dtype torch.float16", "on a CPU float32 or bfloat16")
        shape = value.shape
        matches = len(shape) == len(sizes_of)
        if matches:
            for got, (letter, constant) in zip(shape, sizes_of, strict=True):
                if letter is None:
                    matches &= got == constant
                else:
                    matches &= sizes.setdefault(letter, got - constant) == got - constant
        if not matches:
            known = ", ".join(f"{k}={v}" for k, v in sizes.items())
            rule = f"its shape is [{argument.shape.replace(' ', ', ')}]" + (f" with {known}" if known else "")
            raise self._error(argument, f"has shape {list(shape)}", rule)
        if not value.is_contiguous():
            raise self._error(argument, f"has strides {list(value.stride())}", "it is contiguous")

    def _error(self, argument, found, rule):
        return BadInput(f"{self.name}: {argument.name} {found}; the rule: {rule}")

    def _refuse_names(self, values):
        wanted = [a.name for a in self.arguments]
        missing = [a.name for a in self.arguments if a.name not in values and not getattr(a, "optional", False)]
        unknown = [n for n in values if n not in wanted]
        raise BadInput(f"{self.name}: missing {missing}, unknown {unknown}; the arguments are {wanted}")

    def _launch(self, packed: bytes, device: torch.device) -> None:
        backend.runner(device)(self, packed, device)
