"""A checkpoint: named tensors and a few strings in one safetensors file, written atomically, never unpickled.

The file is plain safetensors (8 bytes header length, JSON header, data) and opens in any reader of that format. It is
written and read here rather than by the library, for four promises: a full disk or a kill leaves the old checkpoint;
nothing is allocated that the file does not hold; the data is read, not mapped, so that a file cut short while in use
cannot crash the process; and every error is one clear line. The metadata holds "format": "radfield", "version": "1" and
"checksum", the CRC-32 of the data followed by the header (with the checksum itself as zeros), so that a damaged file is
refused instead of loaded.

Letters: a *table* is the header's {name: {"dtype", "shape", "data_offsets"}}; offsets count from the end of the header.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from ..atomic import replacing_file
from ..errors import BadInput

FORMAT, VERSION = "radfield", "1"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_NO_CHECKSUM = "0" * 8
#: a header of a hundred tensors has 20 kB; the safetensors library's own limit is 100 MB
_MAX_HEADER_BYTES = 16 << 20

Expected = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


def save_checkpoint(path: Path | str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors (any device, shape, strides; dtypes of `DTYPES`) and strings to `path`, atomically.

    Raises `BadInput` when the disk is full or the folder cannot be written; an older checkpoint there stays readable.
    """
    for name, text in metadata.items():
        if not isinstance(text, str) or name in ("format", "version", "checksum"):
            raise ValueError(f"metadata[{name!r}] is {text!r}; the rule: a string, under a name that is not reserved")
    # Widest elements first, as the safetensors library does: every tensor is then aligned to its element.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = _encode_header({name: tensors[name] for name in names}, metadata)
    with replacing_file(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        checksum = 0
        for name in names:
            data = _bytes_of(tensors[name].detach().cpu().contiguous())
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        checksum = zlib.crc32(header, checksum)
        file.seek(8 + header.index(_NO_CHECKSUM.encode()))
        file.write(f"{checksum:08x}".encode())


def load_checkpoint(
    path: Path | str, expected: Expected | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors (on the CPU) and the metadata (without "format", "version", "checksum") of a checkpoint.

    `expected` gives the (shape, dtype) of every tensor that must be there, and of no other; it is checked before any
    tensor is allocated. Raises `BadInput`, in one line, for whatever is wrong with the file.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _read(path, file, expected)
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such checkpoint") from None
    except OSError as error:
        raise BadInput(f"{path}: could not be read: {(error.strerror or str(error)).lower()}") from error


def counts_in(path: Path | str, metadata: Mapping[str, str], **kinds: type) -> list:
    """The numbers that the metadata of the checkpoint at `path` keeps under these names, each of its kind (int or
    float), in order. Raises `BadInput` where one is missing or is none."""
    try:
        return [kind(metadata[name]) for name, kind in kinds.items()]
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path}: its counts are missing or no numbers: {error}") from None


def _read(path: Path, file: BinaryIO, expected: Expected | None):
    header, table, metadata = _read_header(path, file)
    if expected is not None:
        _check_expected(path, table, expected)
    tensors, checksum = {}, 0
    for name in sorted(table, key=lambda name: table[name]["data_offsets"]):
        entry = table[name]
        tensors[name] = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
        data = _bytes_of(tensors[name])
        if file.readinto(data) != data.nbytes:
            raise BadInput(f"{path}: was cut short while it was read")
        checksum = zlib.crc32(data, checksum)
    written = metadata["checksum"]
    checksum = zlib.crc32(header.replace(written.encode(), _NO_CHECKSUM.encode(), 1), checksum)
    if written != f"{checksum:08x}":
        raise BadInput(f"{path}: is damaged: its checksum is {checksum:08x}, the one it was written with {written}")
    return tensors, _public(metadata)


def _encode_header(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    # The checksum stands first, so that its zeros are the first to be found.
    header: dict = {
        "__metadata__": {"checksum": _NO_CHECKSUM, "format": FORMAT, "version": VERSION, **metadata},
    }
    begin = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPE_NAMES:
            raise ValueError(f"tensor {name!r} has dtype {tensor.dtype}; the rule: one of {', '.join(DTYPES)}")
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return encoded + b" " * (-len(encoded) % 8)


def _read_header(path: Path, file: BinaryIO) -> tuple[bytes, dict[str, dict], dict[str, str]]:
    """The header's bytes, its table and its metadata, every claim in it checked against the size of the file."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > _MAX_HEADER_BYTES:
        raise BadInput(
            f"{path}: is not a checkpoint (safetensors): it has {size} bytes, its header would have {length}"
        )
    if 8 + length > size:
        raise BadInput(f"{path}: is cut short: it has {size} bytes, its header alone ends at {8 + length}")
    encoded = file.read(length)
    try:
        header = json.loads(encoded.decode())
    except (ValueError, RecursionError):
        raise BadInput(f"{path}: is not a checkpoint (safetensors): its header is not JSON") from None
    if not isinstance(header, dict):
        raise BadInput(f"{path}: is not a checkpoint (safetensors): its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    _check_metadata(path, metadata)
    _check_table(path, header, size - 8 - length)
    return encoded, header, metadata


def _check_metadata(path: Path, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise BadInput(f"{path}: is damaged: its metadata is not a table of strings")
    if metadata.get("format") != FORMAT:
        raise BadInput(f"{path}: is not a radfield checkpoint: its format is {metadata.get('format')!r}")
    if metadata.get("version") != VERSION:
        version = metadata.get("version")
        raise BadInput(f"{path}: has version {version!r}; the rule: this program reads version {VERSION!r}")
    if len(metadata.get("checksum", "")) != len(_NO_CHECKSUM):
        raise BadInput(f"{path}: is damaged: it has no checksum")


def _check_table(path: Path, table: dict, data_size: int) -> None:
    """Every entry well formed, and all together covering the data once, in order, without a gap."""
    for name, entry in table.items():
        if not _is_entry(entry):
            raise BadInput(f"{path}: is damaged: tensor {name!r} is described as {str(entry)[:80]}")
    end = 0
    for name in sorted(table, key=lambda name: table[name]["data_offsets"]):
        entry = table[name]
        claimed = math.prod(entry["shape"]) * DTYPES[entry["dtype"]].itemsize
        if entry["data_offsets"] != [end, end + claimed]:
            raise BadInput(
                f"{path}: is damaged: tensor {name!r} stands at bytes {entry['data_offsets']}, "
                f"its shape {entry['shape']} and place ask for {[end, end + claimed]}"
            )
        end += claimed
    if end > data_size:
        raise BadInput(f"{path}: is cut short: it holds {data_size} bytes of data, its header claims {end}")
    if end < data_size:
        raise BadInput(f"{path}: is damaged: it holds {data_size} bytes of data, its header accounts for {end}")


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return False
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        return False
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2 or len(shape) > 64:
        return False
    if not all(type(number) is int and number >= 0 for number in [*shape, *offsets]):
        return False
    # A shape like [0, 2^62, 2^62] holds no bytes, and yet no tensor library can make it.
    return math.prod(max(number, 1) for number in shape) < 1 << 56


def _check_expected(path: Path, table: dict, expected: Expected) -> None:
    for name, (shape, dtype) in expected.items():
        if name not in table:
            raise BadInput(f"{path}: has no tensor {name!r}, which this run's configuration asks for")
        found = table[name]
        if tuple(found["shape"]) != tuple(shape):
            raise BadInput(
                f"{path}: tensor {name!r} has shape {found['shape']}; the rule: {list(shape)}, as configured"
            )
        if DTYPES[found["dtype"]] != dtype:
            raise BadInput(f"{path}: tensor {name!r} has dtype {found['dtype']}; the rule: {_DTYPE_NAMES[dtype]}")
    extra = sorted(set(table) - set(expected))
    if extra:
        raise BadInput(f"{path}: has a tensor {extra[0]!r}, which this run's configuration does not know")


def _public(metadata: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in metadata.items() if name not in ("format", "version", "checksum")}


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, uncopied and writable."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
