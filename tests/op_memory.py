"""Which memory a call of an op reaches: what its declaration says of the addresses in the packed struct."""

import math

from radfield.op import DTYPES, Scalar

_ITEM_BYTES = {code: dtype.itemsize for dtype, _, code in DTYPES.values()}


def tensors(op, fields):
    """(argument, index of its pointer in the struct's fields, bytes) of every tensor argument."""
    letters = dict(zip(op.letters, fields[len(fields) - len(op.letters) :], strict=True))
    found, index = [], 0
    for argument, sizes_of, dtypes in op._plan:
        if isinstance(argument, Scalar):
            index += 1
            continue
        code = fields[index + 1] if len(dtypes) > 1 else next(iter(dtypes.values()))
        items = math.prod((letters[letter] if letter else 0) + constant for letter, constant in sizes_of)
        found.append((argument, index, items * _ITEM_BYTES[code]))
        index += 2 if len(dtypes) > 1 else 1
    return found
