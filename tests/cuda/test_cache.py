"""Compiled kernels on disk: kept, shared, bounded, and never trusted when damaged."""

import json
import os
import subprocess
import sys
import time

import pytest

from radfield.cuda import cache, compiler, library
from radfield.cuda.source import PACKAGE, flat_source
from radfield.errors import RadfieldWarning

FILE = PACKAGE / "data" / "pixels.cu"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RADFIELD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch):
    """The calls of NVRTC, counted."""
    calls, compile_cubin = [], compiler.compile_cubin

    def counted(*arguments):
        calls.append(arguments)
        return compile_cubin(*arguments)

    monkeypatch.setattr(compiler, "compile_cubin", counted)
    return calls


def build():
    return library.build(FILE, "pixels_sample", "sm_90")


def test_a_kernel_is_compiled_once(compiled, folder):
    first = build()
    assert first[0].startswith(b"\x7fELF") and first[1].startswith("_Z")
    assert build() == first and len(compiled) == 1
    assert [p.suffix for p in folder.iterdir()] == [".cubin"]


def test_the_key_covers_everything_that_the_code_depends_on():
    base = ("text", "kernel<1>", "sm_90", {"fma": False}, (13, 0))
    changed = [("texts", *base[1:]), (base[0], "kernel<2>", *base[2:]), (*base[:2], "sm_80", *base[3:])]
    changed += [(*base[:3], {"fma": True}, base[4]), (*base[:4], (13, 1))]
    keys = {cache.key(*each) for each in [base, *changed]}
    assert len(keys) == 6 and cache.key(*base) in keys


def test_the_source_has_its_headers_once_each():
    text = flat_source(PACKAGE / "sampling" / "march.cu")
    assert '#include "' not in text.replace('#include "cpu/', "")
    for header in ("maths.h", "sampling/march.h", "sampling/occupancy.h", "sampling/random.h", "cuda/device.h"):
        assert text.count(f'#line 1 "{header}"') == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[:-1],
        lambda b: b[:-1] + bytes([b[-1] ^ 1]),
        lambda b: b"{}\n" + b,
        lambda b: b"[1]\n",
        lambda b: b"\xff\xfe" + b,
        lambda b: b.replace(b'"symbol": "', b'"symbol": 3, "x": "', 1),
    ],
)
def test_a_damaged_entry_is_compiled_again(compiled, folder, damage):
    first = build()
    (entry,) = folder.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert build() == first and len(compiled) == 2
    assert cache.load(entry.stem) == first


def test_a_folder_that_cannot_be_made_is_announced_and_does_not_stop_the_work(folder, compiled):
    folder.write_text("a file where the folder should be")
    with pytest.warns(RadfieldWarning, match="compiled kernels cannot be kept .*set RADFIELD_CACHE"):
        assert build() == build() and len(compiled) == 2
    assert not cache.describe()["writable"]


def test_the_oldest_entries_make_room(monkeypatch):
    monkeypatch.setattr(cache, "MOST_BYTES", 3500)
    for i in range(5):
        cache.store(f"entry{i}", bytes(1000), "symbol")
        os.utime(cache.folder() / f"entry{i}.cubin", (i, i))
        cache.load("entry0")  # used now, and so the youngest
    assert cache.load("entry0") and cache.load("entry4") and cache.load("entry3")
    assert cache.load("entry1") is None and cache.load("entry2") is None


def test_processes_share_the_folder(folder):
    program = (
        "from radfield.cuda import cache\n"
        "for i in range(300):\n"
        "    cache.store(f'entry{i % 3}', bytes([i % 3]) * 20000, f'symbol{i % 3}')\n"
        "    for j in range(3):\n"
        "        found = cache.load(f'entry{j}')\n"
        "        assert found is None or found == (bytes([j]) * 20000, f'symbol{j}'), found\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        assert process.wait(60) == 0, process.stderr.read()
        process.stderr.close()
    assert sorted(p.name for p in folder.iterdir()) == [f"entry{i}.cubin" for i in range(3)]
    assert cache.describe()["entries"] == 3 and cache.describe()["writable"]


def test_a_start_with_everything_cached_is_quick(monkeypatch):
    """From nothing in memory to the code of twenty kernels, without what Python takes to import NVRTC's package."""
    names = [(PACKAGE / "sampling" / "occupancy.cu", f"kernel{i}") for i in range(20)]
    compiler.version()
    for file, name in names:
        cache.store(
            cache.key(flat_source(file), name, "sm_90", compiler.OPTIONS, compiler.version()), bytes(40000), name
        )
    times = []
    for _ in range(5):
        flat_source.cache_clear()
        begin = time.thread_time()
        assert [library.build(file, name, "sm_90")[1] for file, name in names] == [name for _, name in names]
        times.append(time.thread_time() - begin)
    assert min(times) < 0.020, times


def test_an_entry_is_readable_without_us(folder):
    code, symbol = build()
    (entry,) = folder.iterdir()
    head, _, rest = entry.read_bytes().partition(b"\n")
    assert rest == code and json.loads(head)["symbol"] == symbol
