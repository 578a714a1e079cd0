"""The declaration of arguments: it checks, marshals, documents, and agrees with every header."""

import importlib
import pkgutil
import re
import struct
from pathlib import Path

import pytest
import torch

import radfield
from radfield.errors import BadInput
from radfield.op import In, InOut, Op, Out, Scalar

SOURCE = Path(radfield.__path__[0])


def import_all():
    for info in pkgutil.walk_packages(radfield.__path__, "radfield."):
        if not info.name.startswith(("radfield.apps", "radfield.cpu.libradfield")):
            importlib.import_module(info.name)


import_all()
EXAMPLE = Op(
    "example",
    Out("y", "f32 bf16", "C M", "result"),
    In("x", "f32", "3 M", "positions"),
    In("mask", "u8", "M", optional=True),
    InOut("start", "i32", "N+1"),
    Scalar("steps", "int"),
    Scalar("scale", "float", "a factor"),
)
Op.registry.pop("example")


def example(**changes):
    values = {
        "y": torch.zeros(4, 5),
        "x": torch.zeros(3, 5),
        "mask": None,
        "start": torch.zeros(3, dtype=torch.int32),
        "steps": 7,
        "scale": 0.5,
    }
    return {**values, **changes}


@pytest.mark.parametrize("name", sorted(Op.registry))
def test_header_agrees_with_declaration(name):
    op = Op.registry[name]
    pattern = re.compile(r"struct " + op.struct_name + r" \{.*?\};", re.DOTALL)
    found = [m.group(0) for path in SOURCE.rglob("*.h") for m in pattern.finditer(path.read_text())]
    assert len(found) == 1, f"{op.struct_name} stands in {len(found)} headers, expected in one"
    without_comments = re.sub(r"\s*//[^\n]*", "", found[0])
    assert " ".join(without_comments.split()) == " ".join(op.c_struct().split())


def test_marshals_in_declared_order():
    values = example()
    packed, device = EXAMPLE.marshal(values)
    assert device.type == "cpu"
    fields = struct.unpack("=qqqqqqdqqq", packed)
    assert fields[:5] == (values["y"].data_ptr(), 0, values["x"].data_ptr(), 0, values["start"].data_ptr())
    assert fields[5:] == (7, 0.5, 4, 5, 2)  # steps, scale, C, M, N
    assert len(packed) == EXAMPLE.size


def test_documents():
    assert "positions" in str(EXAMPLE)
    assert EXAMPLE.c_struct().startswith("struct Example {\n  void* y;\n  int64_t y_type;\n  const float* x;")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": torch.zeros(3, 6)}, ["x has shape [3, 6]", "C=4, M=5"]),
        ({"x": torch.zeros(2, 5)}, ["x has shape [2, 5]", "[3, M]"]),
        ({"x": torch.zeros(3, 5, dtype=torch.float64)}, ["x has dtype torch.float64", "f32"]),
        ({"x": torch.zeros(5, 3).T}, ["x has strides [1, 3]", "contiguous"]),
        ({"x": None}, ["x is NoneType"]),
        ({"x": [1.0]}, ["x is list"]),
        ({"extra": 1}, ["unknown ['extra']"]),
        ({"y": torch.zeros(4, 5, dtype=torch.int32)}, ["y has dtype", "f32 or bf16"]),
        ({"start": torch.zeros(3)}, ["start has dtype"]),
    ],
)
def test_errors_name_argument_value_and_rule(changes, words):
    with pytest.raises(BadInput) as error:
        EXAMPLE.marshal(example(**changes))
    for word in ["example", *words]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_argument_is_named():
    values = example()
    del values["scale"]
    with pytest.raises(BadInput, match=r"missing \['scale'\]"):
        EXAMPLE.marshal(values)
