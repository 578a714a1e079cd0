"""NumPy's .npy and .npz files from anyone: nothing is unpickled, nothing is allocated that the file does not hold."""

import ast
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import BadInput
from .paths import read_bytes

# More than any file of poses has (100,000 cameras of 17 doubles are 13 MB); it bounds what a .npz unpacks to.
LARGEST = 1 << 28
_MAGIC = b"\x93NUMPY"


def read_npy(path: Path) -> np.ndarray:
    """The array of real numbers in a .npy file, as float64."""
    return _array(read_bytes(path), str(path))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of real numbers in a .npz file by name, as float64."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            return {m.filename[:-4]: _array(_unpacked(archive, m, path), f"{path}: {m.filename}") for m in members}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise BadInput(f"{path} is not a whole .npz file: {error}") from None


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    with archive.open(member) as file:  # what the directory claims of the size is not relied on
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise BadInput(f"{path}: {member.filename} unpacks to more than {LARGEST >> 20} MiB; that is no file of poses")
    return data


def _array(data: bytes, where: str) -> np.ndarray:
    shape, fortran, dtype, start = _header(data, where)
    count = 1
    for side in shape:
        count *= side
    have = len(data) - start
    if count * dtype.itemsize > have:
        raise BadInput(f"{where} states {count} numbers ({count * dtype.itemsize} bytes) but holds {have} bytes")
    values = np.frombuffer(data, dtype, count, start).astype(np.float64)
    return values.reshape(shape, order="F" if fortran else "C")


def _header(data: bytes, where: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    # the format's version 1 has a length of 2 bytes, 2 and 3 have one of 4
    if data[:6] != _MAGIC or len(data) < 12:
        raise BadInput(f"{where} is not a .npy file")
    wide = data[6] > 1
    start = 12 if wide else 10
    length = int.from_bytes(data[8:start], "little")
    if length > min(len(data) - start, 1 << 16):
        raise BadInput(f"{where} has a header of {length} bytes; the file is damaged")
    try:
        values = ast.literal_eval(data[start : start + length].decode("latin-1").strip())
        shape, fortran, descr = values["shape"], values["fortran_order"], values["descr"]
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise BadInput(f"{where} has a damaged header: {error}") from None
    if not whole or not isinstance(descr, str):
        raise BadInput(f"{where} holds {str(descr)[:40]} of shape {str(shape)[:40]}; it must be an array of numbers")
    try:
        dtype = np.dtype(descr)
    except TypeError:
        raise BadInput(f"{where} has the type {descr[:40]!r}; it must be an array of numbers") from None
    if dtype.hasobject:
        raise BadInput(f"{where} holds pickled Python objects, which are never loaded; it must be an array of numbers")
    if dtype.kind not in "fiu":
        raise BadInput(f"{where} has the type {dtype}; it must be an array of numbers")
    return shape, bool(fortran), dtype, start + length
