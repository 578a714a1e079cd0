"""Wrong files of Gaussians, by number: small right ones of every format, changed as damage and malice change them.

`FORMATS` names them; `Mutator(name, folder).write(number)` writes the file (and those beside it) of a number and
returns its path. The same number gives the same file.
"""

import base64
import gzip
import io
import itertools
import json
import random
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from radfield.gaussians.files import write_gaussians
from radfield.gaussians.scene import GaussianScene
from radfield.renderers.gaussian_color import rest_rows

FORMATS = ("ply", "compressed.ply", "splat", "spz2", "spz3", "spz4", "sog", "sog1", "meta.json", "lod-meta.json")
FORMATS += ("ksplat", "glb", "gltf")
_NUMBERS = (
    0,
    1,
    2,
    3,
    255,
    256,
    65535,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 24,
    0x7F800000,
    0x7FC00000,
)
_WORDS = ("0", "-1", "1e309", "nan", "inf", "99999999999999999999", "4294967296", "x", "", "list uchar int", "\x00")
_VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**70,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "../../x",
    "/etc",
    "a\0b",
)
_VALUES += ([], {}, [[]], [1], "meta.json", 255, 4096)


def scene(count, degree, seed=0):
    """Random Gaussians."""
    generator = torch.Generator().manual_seed(seed)
    rows = {"means": (3,), "quaternions": (4,), "log_scales": (3,), "opacity_logits": (), "base": (3,)}
    values = {name: torch.randn(*shape, count, generator=generator) for name, shape in rows.items()}
    return GaussianScene(**values, rest=0.2 * torch.randn(rest_rows(degree), count, generator=generator))


def ksplat(level, degree, count=7):
    """A .ksplat file of one section: a full bucket of 4, and one with the others."""
    kinds = (("<f4", "<f4", "<f4"), ("<u2", "<f2", "<f2"), ("<u2", "<f2", "u1"))[level]
    fields = [("p", kinds[0], 3), ("s", kinds[1], 3), ("q", kinds[1], 4), ("c", "u1", 4)]
    record = np.ones(count, [*fields, ("h", kinds[2], 3 * ((degree + 1) ** 2 - 1))])
    main, section = bytearray(4096), bytearray(1024)
    main[1] = 1
    struct.pack_into("<IIIIH", main, 4, 1, 1, count, count, level)
    struct.pack_into("<4IfHxxI", section, 0, count, count, 4, 2, 5.0, 12, 0)
    struct.pack_into("<IIH", section, 32, 1, 1, degree)
    return bytes(main + section) + struct.pack("<I6f", count - 4, *range(6)) + record.tobytes()


def _bytes_changed(rng, data):
    """`data` with one damage: cut, flipped, overwritten, left out, doubled, exchanged, put in between."""
    data, size = bytearray(data), len(data)
    at = rng.randrange(size) if rng.random() < 0.6 else rng.randrange(min(size, 128))  # headers more often
    end = min(size, at + rng.choice((1, 2, 4, 8, 16, 100)))
    kind = rng.randrange(8)
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for _ in range(rng.choice((1, 1, 2, 8, 40))):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    elif kind == 3:
        number = rng.choice(_NUMBERS).to_bytes(4, "little") + rng.choice((b"", b"", b"\0\0\0\0", b"\xff\xff\xff\xff"))
        at &= ~3 if rng.random() < 0.7 else ~0
        data[at : at + len(number)] = number
    elif kind == 4:
        del data[at:end]
    elif kind == 5:
        data[at:at] = data[at:end] * rng.choice((1, 1, 2, 50))
    elif kind == 6:
        other = rng.randrange(size)
        data[at:end], data[other : other + end - at] = data[other : other + end - at], data[at:end]
    else:
        data[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
    return bytes(data)


def _lines_changed(rng, data):
    """A PLY file with its header's lines left out, doubled, exchanged, or a word of one replaced."""
    header, mark, body = data.partition(b"end_header\n")
    lines = header.split(b"\n")[:-1]
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(other, lines[at])
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    else:
        words = lines[at].split() or [b""]
        words[rng.randrange(len(words))] = rng.choice(_WORDS).encode() or rng.choice(lines)
        lines[at] = b" ".join(words)
    return b"\n".join([*lines, mark + body])


def _json_changed(rng, data):
    """JSON with a value replaced, left out, or doubled under another name."""
    content = json.loads(data)
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and rng.random() < 0.75:
            place = place[key]
            continue
        kind = rng.randrange(4)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[rng.choice(keys)] = place[key]
        elif kind == 2 and isinstance(place, list):
            place[:] = place * rng.choice((2, 100))
        else:
            place[key] = rng.choice(_VALUES)
        break
    return json.dumps(content).encode()


def _gzip_changed(rng, data):
    return gzip.compress(_bytes_changed(rng, gzip.decompress(data)), 1)


def _frames_changed(rng, data):
    """SPZ version 4 with one stream's content changed, listed with the sizes it has or had."""
    import zstandard

    count = data[15]
    sizes = struct.unpack_from(f"<{2 * count}Q", data, 32)
    ends = list(itertools.accumulate(sizes[::2], initial=32 + 16 * count))
    frames = [data[a:b] for a, b in itertools.pairwise(ends)]
    chosen = rng.randrange(count)
    content = _bytes_changed(rng, zstandard.decompress(frames[chosen])) * rng.choice((1, 1, 1, 1000))
    frames[chosen] = zstandard.compress(content)
    wanted = [len(content) if i == chosen and rng.random() < 0.5 else size for i, size in enumerate(sizes[1::2])]
    listed = b"".join(struct.pack("<QQ", len(f), size) for f, size in zip(frames, wanted, strict=True))
    return data[:32] + listed + b"".join(frames)


def _zip_changed(rng, data):
    """A SOG with one member changed, left out, renamed, doubled, or packed otherwise."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [[name, archive.read(name), zipfile.ZIP_STORED] for name in archive.namelist()]
    chosen, kind = rng.choice(members), rng.randrange(6)
    if kind <= 1:
        chosen[1] = (_json_changed if chosen[0].endswith("json") else _bytes_changed)(rng, chosen[1])
    elif kind == 2:
        members.remove(chosen)
    elif kind == 3:
        chosen[0] = rng.choice(("../" + chosen[0], "/" + chosen[0], "", rng.choice(members)[0], "a" * 300))
    elif kind == 4:
        members.insert(rng.randrange(len(members)), [chosen[0], rng.choice(members)[1], zipfile.ZIP_STORED])
    else:
        chosen[2] = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        chosen[1] += bytes(rng.choice((0, 0, 0, 1 << 20)))
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content, method in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), content, method)
    return out.getvalue()


def _chunk_changed(rng, data):
    """A .glb file with its JSON changed."""
    (size,) = struct.unpack_from("<I", data, 12)
    text = _json_changed(rng, data[20 : 20 + size])
    text += b" " * (-len(text) % 4)
    return data[:12] + struct.pack("<I", len(text)) + data[16:20] + text + data[20 + size :]


#: what knows a format's parts, beside `_bytes_changed`
_BY_FORMAT = {"ply": _lines_changed, "compressed.ply": _lines_changed, "spz2": _gzip_changed, "spz3": _gzip_changed}
_BY_FORMAT |= {"spz4": _frames_changed, "sog": _zip_changed, "sog1": _zip_changed, "glb": _chunk_changed}
_BY_FORMAT |= {"meta.json": _json_changed, "lod-meta.json": _json_changed, "gltf": _json_changed}


def with_numbers_inside(path: Path) -> bytes:
    """The .gltf file at `path` with its buffer in base64 instead of beside it."""
    content = json.loads(path.read_bytes())
    numbers = path.with_suffix(".bin").read_bytes()
    content["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{base64.b64encode(numbers).decode()}"
    return json.dumps(content).encode()


class Mutator:
    """Writes wrong files of a format into a folder."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder, self.files = name, folder, []
        version = {"spz2": 2, "spz3": 3, "spz4": 4, "sog": 2, "sog1": 1, "meta.json": 2}.get(name)
        ending = {"spz2": "spz", "spz3": "spz", "spz4": "spz", "sog1": "sog"}.get(name, name)
        self.target = folder / (ending if ending.endswith("json") else f"a.{ending}")
        self.seeds = []
        if name == "ksplat":
            self.seeds = [{self.target: ksplat(level, degree)} for level, degree in ((0, 0), (1, 1), (2, 2))]
        elif name == "lod-meta.json":
            self.seeds = [{self.target: self._levels()}]
        else:
            for count, degree in ((1, 0), (5, 1), (40, 3)):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    write_gaussians(self.target, scene(count, degree), version)
                self.seeds.append({path: path.read_bytes() for path in folder.iterdir()})
        if name == "gltf":
            self.seeds += [{self.target: with_numbers_inside(self.target)}]

    def _levels(self) -> bytes:
        for number, count in ((0, 30), (1, 9)):
            (self.folder / f"{number}_0").mkdir(exist_ok=True)
            write_gaussians(self.folder / f"{number}_0" / "meta.json", scene(count, number))
        ranges = ([(0, 0, 12), (1, 0, 4)], [(0, 12, 18), (1, 4, 5)])
        keys = ("file", "offset", "count")
        lods = [{str(i): dict(zip(keys, r, strict=True)) for i, r in enumerate(found)} for found in ranges]
        tree = {"bound": {"min": [0, 0, 0], "max": [1, 1, 1]}, "children": [{"lods": each} for each in lods]}
        names = ["0_0/meta.json", "1_0/meta.json"]
        return json.dumps({"lodLevels": 2, "environment": None, "filenames": names, "tree": tree}).encode()

    def right(self) -> Path:
        """A file without damage."""
        return self._written(self.seeds[0])

    def _written(self, files: dict[Path, bytes]) -> Path:
        for path, content in files.items():
            path.write_bytes(content)
        return self.target

    def write(self, number: int) -> Path:
        """The file of a number; it has one to four damages."""
        rng = random.Random(f"{self.name} {number}")
        files = dict(rng.choice(self.seeds))
        for _ in range(rng.choice((1, 1, 2, 4))):
            known = rng.random() < 0.5 and self.name in _BY_FORMAT
            path = self.target if known else rng.choice(sorted(files))
            try:
                files[path] = (_BY_FORMAT[self.name] if known else _bytes_changed)(rng, files[path] or b"\0")
            except Exception:  # too damaged to have parts: every unpacker has errors of its own
                files[path] = _bytes_changed(rng, files[path] or b"\0")
        return self._written(files)
