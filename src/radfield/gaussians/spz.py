"""SPZ files, versions 2 to 4, read and written: arrays of quantised parameters, compressed (nianticlabs/spz).

Versions 2 and 3 are one gzip stream (or, as some programs write it, none) of a 16-byte header and the arrays; version 4
is a 32-byte header, a table of sizes, and one ZSTD frame per array. The arrays, each for all Gaussians:

    positions 3 x 24 bits, in units of 2^-b (b in the header)     opacities 255 o     colours 255 (0.15 f_dc + 0.5)
    log scales 16 (s + 10)     quaternions: 3 x 8 bits (version 2) or "smallest three", 2 + 3 x 10 bits
    harmonics 128 f + 128, in steps of 8 (degree 1) and 16: [coefficient][channel]

An SPZ file's axes are right, up, back, unless an extension names others; those of PLY files, and of a scene, are right,
down, forward. Some programs write a PLY's axes unturned, which a file does not tell: `turned=False` reads those.

Exact to half a step: positions 2^-(b+1) (b is 12 unless the scene is larger than 2,048), log scales 1/32, opacities
1/510, colours 1/76, quaternions 1/1022 / sqrt(2) (version 2: 1/255 each of x, y, z), harmonics 1/32 and 1/16; log
scales below -10 or above 5.94, colours (0.5 + C0 f_dc) outside -0.44 to 1.44 and harmonics outside -1 to 0.99 are
clamped. Versions 3 and 4 hold the same; which programs read which differs, and 3 is read by most.

A file is untrusted: what it unpacks to is bounded by the sizes that follow from its header, and these by its own size.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np

from ..atomic import replacing_file
from ..cpu.library import num_threads
from ..errors import BadInput
from ..renderers.gaussian_color import rest_rows
from .gzip_stream import gzipped
from .packing import (
    byte_rows,
    from_byte_rows,
    from_smallest_three,
    harmonic_signs,
    logits_of_bytes,
    rows,
    smallest_three,
    streams,
    to_bytes,
    turn_signs,
    unit_quaternions,
)
from .scene import GaussianScene
from .untrusted import finite, read_bytes, sound

_MAGIC = b"NGSP"
_EXTENSIONS, _LOD = 2, 0x80  # flags
_AXES = 0xADBE0003  # the extension that names the axes
VERSIONS = (2, 3, 4)
_LARGEST_RATIO, _ALWAYS_ALLOWED = 100, 1 << 22  # bytes unpacked, per byte of the file; as many in any case
_LEAST_WINDOW = 1 << 23  # bytes of what ZSTD may look back to, in any case
_GZIP_LEVEL, _ZSTD_LEVEL = 4, 9


def read_spz(path: Path, *, turned: bool = True) -> GaussianScene:
    """The Gaussians of an SPZ file. Raises `BadInput` for what is none, and for one that is cut or claims too much."""
    data = read_bytes(path)
    packed = data[:2] == b"\x1f\x8b"
    start = _inflated(path, data, 16) if packed else data[:16]
    if len(start) < 16 or start[:4] != _MAGIC:
        raise BadInput(
            f"{path}: begins with {start[:4]!r}; the rule: an SPZ file begins with NGSP, packed by gzip or not"
        )
    version, count, degree, bits, flags, streams_in = struct.unpack("<IIBBBB", start[4:16])
    if version not in (2, 3, 4) or degree > 4 or bits > 23 or flags & _LOD:
        known = "version 2 to 4, degree 0 to 4, at most 23 bits, no levels of detail"
        raise BadInput(
            f"{path}: has version {version}, degree {degree}, {bits} bits, flags {flags:#x}; the rule: {known}"
        )
    sizes = [count * each for each in (9, 1, 3, 3, 3 if version == 2 else 4, rest_rows(degree))]
    if sum(sizes) > max(_LARGEST_RATIO * len(data), _ALWAYS_ALLOWED):
        raise BadInput(f"{path}: claims {count} Gaussians, {sum(sizes)} bytes; the file has {len(data)}")
    if version == 4:
        arrays, extensions = _frames(path, data, sizes, streams_in, flags)
    else:
        body = _inflated(path, data, 16 + sum(sizes) + (1 << 16)) if packed else data
        arrays, extensions = _cut(path, body[16:], sizes)
        extensions = extensions if flags & _EXTENSIONS else b""
    signs = np.array(_axes(path, extensions)) if turned else np.ones(3)
    return sound(path, _scene(arrays, version, bits, signs))


def _inflated(path: Path, data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data, most)
    except zlib.error as error:
        raise BadInput(f"{path}: cannot be unpacked: {error}") from None


def _cut(path: Path, body: bytes, sizes: list[int]) -> tuple[list[bytes], bytes]:
    """The arrays of those sizes that follow one another, and what follows them."""
    if len(body) < sum(sizes):
        raise BadInput(f"{path}: ends after {len(body)} bytes of its arrays; the header asks for {sum(sizes)}")
    ends = np.cumsum([0, *sizes]).tolist()
    return [body[a:b] for a, b in itertools.pairwise(ends)], body[ends[-1] :]


def _frames(path: Path, data: bytes, sizes: list[int], count: int, flags: int) -> tuple[list[bytes], bytes]:
    """The arrays of version 4, unpacked, and the extensions."""
    (table,) = struct.unpack_from("<I", data.ljust(20, b"\0"), 16)
    wanted = [size for size in sizes if size]
    first = table + 16 * count
    if count != len(wanted) or not 32 <= table <= first <= len(data):
        raise BadInput(f"{path}: has {count} streams, listed at byte {table} of {len(data)}; {len(wanted)} are needed")
    listed = struct.unpack_from(f"<{2 * count}Q", data, table)
    if list(listed[1::2]) != wanted or first + sum(listed[::2]) != len(data):
        raise BadInput(f"{path}: its streams' sizes are {list(listed)}; the rule: {wanted} unpacked, to the file's end")
    frames, _ = _cut(path, data[first:], list(listed[::2]))
    unpacked = iter([_unpacked(path, frame, size) for frame, size in zip(frames, wanted, strict=True)])
    return [next(unpacked) if size else b"" for size in sizes], data[32:table] if flags & _EXTENSIONS else b""


def _unpacked(path: Path, frame: bytes, size: int) -> bytes:
    zstandard = _zstandard()
    window = max(_LEAST_WINDOW, 1 << size.bit_length())  # no larger than what the frame may unpack to
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=window).stream_reader(frame)
        out, more = reader.read(size), reader.read(1)
    except zstandard.ZstdError as error:
        raise BadInput(f"{path}: a stream cannot be unpacked: {error}") from None
    if len(out) != size or more:
        raise BadInput(f"{path}: a stream unpacks to another size than {size} bytes, which the header asks for")
    return out


def _axes(path: Path, extensions: bytes) -> tuple[int, int, int]:
    """The signs that turn the file's axes into a scene's."""
    while len(extensions) >= 8:
        kind, size = struct.unpack_from("<II", extensions)
        value, extensions = extensions[8 : 8 + size], extensions[8 + size :]
        if kind == _AXES and len(value) >= 4 and (code := struct.unpack("<I", value[:4])[0]):
            if code > 8:
                raise BadInput(f"{path}: has axes number {code}; the rule: 0 to 8, the second axis up or down")
            return (1 if (code - 1) & 1 else -1, -1 if (code - 1) & 2 else 1, 1 if (code - 1) & 4 else -1)
    return 1, -1, -1


def _scene(arrays: list[bytes], version: int, bits: int, signs: np.ndarray) -> GaussianScene:
    positions, opacities, colors, scales, turns, rest = (np.frombuffer(each, np.uint8) for each in arrays)
    low, middle, high = positions.reshape(-1, 3, 3).astype(np.int32).transpose(2, 0, 1)
    fixed = low | middle << 8 | (high ^ 0x80) - 0x80 << 16  # the third byte has the sign
    turns = _first_three(turns) if version == 2 else _smallest_three(turns.view("<u4"))
    coefficients = rest.reshape(len(opacities), len(rest) // max(len(opacities), 1))
    factor = (harmonic_signs(coefficients.shape[1], signs) / 128).astype(np.float32)[:, None]
    return GaussianScene(
        means=streams(signs * fixed / 2.0**bits),
        quaternions=streams(turns * turn_signs(signs)),
        log_scales=streams(scales.reshape(-1, 3) / np.float32(16) - 10),
        opacity_logits=logits_of_bytes(opacities),
        base=streams((colors.reshape(-1, 3) / np.float32(255) - 0.5) / 0.15),
        rest=from_byte_rows(coefficients, lambda block: (block.astype(np.float32) - 128) * factor),
    )


def _first_three(codes: np.ndarray) -> np.ndarray:
    """Version 2: x, y, z as bytes, w not negative; [G, 4] (w, x, y, z)."""
    xyz = codes.reshape(-1, 3) / np.float32(127.5) - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz * xyz).sum(1, keepdims=True)))
    return np.concatenate([w, xyz], 1)


_FIELD = 511 * 2**0.5


def _smallest_three(codes: np.ndarray) -> np.ndarray:
    """[G] -> [G, 4] (w, x, y, z): two bits name the component (x, y, z, w) that is left out, the others follow."""
    fields = codes[:, None] >> np.array([20, 10, 0], np.uint32) & 1023
    three = np.where(fields & 512, -1, 1) * (fields & 511) / _FIELD
    return from_smallest_three((codes >> 30).astype(int), three)[:, [3, 0, 1, 2]]


def _smallest_three_codes(turns: np.ndarray) -> np.ndarray:
    """[G, 4] (w, x, y, z) of length 1 -> [G] codes."""
    left_out, three = smallest_three(turns[:, [1, 2, 3, 0]])
    codes = left_out.astype(np.uint32)
    for value in three.T:
        size = np.minimum(np.floor(_FIELD * np.abs(value) + 0.5), 511).astype(np.uint32)
        codes = codes << 10 | (value < 0).astype(np.uint32) << 9 | size
    return codes.astype("<u4")


def _first_three_codes(turns: np.ndarray) -> np.ndarray:
    """[G, 4] (w, x, y, z) of length 1 -> [G, 3] bytes of version 2: x, y, z of the one of +-q with w >= 0."""
    return to_bytes(127.5 * turns[:, 1:] * np.where(turns[:, :1] < 0, -1, 1) + 127.5)


def write_spz(path: Path, scene: GaussianScene, version: int = 3) -> None:
    """Writes an SPZ file of version 2, 3 or 4, atomically. Raises `BadInput` for another version, and where a position
    is beyond 2^23."""
    if version not in VERSIONS:
        raise BadInput(f"{path}: the version is {version}; the rule: {', '.join(map(str, VERSIONS))} for SPZ")
    scene = finite(path, scene)
    bits, arrays = _arrays(path, scene, version)
    parts = [np.ascontiguousarray(array).tobytes() for array in arrays]
    with replacing_file(path) as file:
        if version == 4:
            file.write(_version_4(len(scene), scene.degree, bits, parts))
        else:
            header = _MAGIC + struct.pack("<IIBBBB", version, len(scene), scene.degree, bits, 0, 0)
            file.write(gzipped(header + b"".join(parts), _GZIP_LEVEL))


def _arrays(path: Path, scene: GaussianScene, version: int) -> tuple[int, tuple[np.ndarray, ...]]:
    """(bits of a position behind the point, the arrays in their order)."""
    signs = np.array([1, -1, -1])
    means = rows(scene.means) * signs
    largest = float(np.abs(means).max(initial=2.0**-12))
    bits = min(12, int(np.floor(np.log2(((1 << 23) - 1) / largest))))
    if bits < 0:
        raise BadInput(f"{path}: a position is {largest:g}; the rule: an SPZ file holds positions up to 2^23")
    fixed = np.ascontiguousarray(np.floor(means * 2.0**bits + 0.5).astype("<i4"))
    turns = unit_quaternions(scene) * turn_signs(signs)
    return bits, (
        fixed.view(np.uint8).reshape(len(scene), 3, 4)[:, :, :3],
        to_bytes(255 * scene.opacity_logits.detach().double().sigmoid().numpy()),
        to_bytes(255 * (0.15 * rows(scene.base) + 0.5)),
        to_bytes(16 * (rows(scene.log_scales) + 10)),
        _first_three_codes(turns) if version == 2 else _smallest_three_codes(turns),
        _harmonic_codes(scene, signs),
    )


def _harmonic_codes(scene: GaussianScene, signs: np.ndarray) -> np.ndarray:
    """[G, R] bytes: degree 1 in steps of 8, the others of 16."""
    count = len(scene.rest)
    factor = 128 * harmonic_signs(count, signs).astype(np.float32)[:, None]
    step = np.where(np.arange(count) < 9, 8, 16).astype(np.float32)[:, None]
    half = np.float32(0.5)

    def coded(block: np.ndarray) -> np.ndarray:
        return to_bytes(step * np.floor((np.floor(factor * block + half) + (128 + step / 2)) / step))

    return byte_rows(scene.rest, coded)


def _version_4(count: int, degree: int, bits: int, parts: list[bytes]) -> bytes:
    """The file: header, sizes of the streams, streams; arrays without content have none."""
    packer = _zstandard().ZstdCompressor(level=_ZSTD_LEVEL, threads=num_threads())  # whose number changes no byte
    packed = [(packer.compress(part), len(part)) for part in parts if part]
    header = _MAGIC + struct.pack("<IIBBBB", 4, count, degree, bits, 0, len(packed)) + struct.pack("<I12x", 32)
    sizes = b"".join(struct.pack("<QQ", len(frame), size) for frame, size in packed)
    return header + sizes + b"".join(frame for frame, _ in packed)


def _zstandard():
    try:
        import zstandard
    except ImportError as error:
        raise BadInput(f"SPZ version 4 needs zstandard ({error}); the rule: pip install zstandard") from None
    return zstandard
