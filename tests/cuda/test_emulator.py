"""The emulator of the tests: it computes what CUDA does, and sees each kind of broken rule, with its place."""

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_emulator.backend import SCHEDULES
from cuda_emulator.launcher import HERE, IN_PLACE, INPUT, OUTPUT, EmulationError, Memory, Reach, compile_file

from radfield.cuda.source import PACKAGE

FILE = HERE / "faults.cu"
RIGHT = (11, 14)
WORDS = {
    0: "divergence, of 64 threads: 63 .* at __syncthreads",
    1: "__syncthreads_?o?r? at .* while thread .* of the block waits at __syncthreads",
    2: "names lanes 00000008 that have exited|divergence",
    3: "past the end of x",
    4: "race: .* static shared",
    5: "race: .* static shared",
    6: "reads static shared byte .*, which no thread of the block has written",
    7: r"index \d+ outside its array",
    8: "race: writes x",
    9: "misaligned address",
    10: "divergence|that have exited",
    12: "misaligned address",
    13: "not in mask",
    15: "race: writes x",
    16: "spins",
    17: "race: ",
}


def run(name, *tensors, order=0, roles=(), blocks=1, threads=64, build="checked", kernels=None, extra=()):
    """Launches a kernel of faults.cu on tensors, which are named x, y, z in messages."""
    kernel = compile_file(FILE, kernels or (name,), build)[name]
    roles = roles or (IN_PLACE,) * len(tensors)
    memory = [
        Memory(n, t.data_ptr(), t.numel() * t.element_size(), role)
        for n, t, role in zip("xyzuv", tensors, roles, strict=False)
    ]
    values = [ctypes.c_void_p(t.data_ptr()) for t in tensors] + list(extra)
    return kernel((blocks,), (threads,), values, Reach(memory, build == "checked"), order=order)


FAULTS = tuple(f"fault<{rule}>" for rule in range(18))


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("rule", range(18))
def test_each_fault_is_caught_with_kernel_block_thread_and_line(rule, order):
    def launch():
        run(f"fault<{rule}>", torch.arange(64.0), order=order, kernels=FAULTS, blocks=2 if rule in (14, 15) else 1)

    if rule in RIGHT:
        return launch()
    with pytest.raises(EmulationError, match=WORDS[rule]) as error:
        launch()
    assert f"fault<{rule}>: block (0,0,0)" in str(error.value)
    if "divergence" not in str(error.value):
        assert " thread (" in str(error.value)
    assert re.search(rf"faults.cu:\d+|fault<{rule}>:\d+", str(error.value))


def test_the_line_is_that_of_the_access():
    line = next(i for i, text in enumerate(FILE.read_text().splitlines(), 1) if "RULE == 3" in text)
    with pytest.raises(EmulationError, match=f"faults.cu:{line}"):
        run("fault<3>", torch.arange(64.0), kernels=FAULTS)


def test_inputs_are_not_written_and_outputs_not_read_before_they_are():
    x, y = torch.zeros(64), torch.zeros(64)
    with pytest.raises(EmulationError, match="writes x byte 0, which is an input"):
        run("writes_input", x, y, roles=(INPUT, IN_PLACE))
    with pytest.raises(EmulationError, match="reads x byte 0, an output that nobody has written"):
        run("reads_output", x, roles=(OUTPUT,))


@pytest.mark.parametrize("size", [4, 9])
def test_arguments_of_another_size_are_refused(size):
    with pytest.raises(TypeError, match=r"\[8, 8\] bytes"):
        run("takes_two", torch.zeros(64), extra=[(ctypes.c_char * size)()])


@pytest.mark.parametrize("build", ["fast", "checked"])
@pytest.mark.parametrize("order", SCHEDULES)
def test_sums_over_warps_and_blocks(order, build):
    x = torch.randint(0, 9, (96,)).float()
    out = [torch.empty(96) for _ in range(4)]
    run("sums", *out, x, order=order, threads=96, build=build)
    total, upto, below, before = out
    warps = x.view(3, 32)
    assert torch.equal(upto, warps.cumsum(1).flatten())
    assert torch.equal(below, warps.flip(1).cumsum(1).flip(1).flatten())
    assert torch.equal(before, x.cumsum(0) - x)
    shifted = torch.zeros(3, 34)
    shifted[:, 1:33] = warps
    assert torch.equal(total, 2 * x.sum() + (shifted[:, :32] - shifted[:, 2:]).flatten())


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize(("way", "kind"), [(0, torch.bfloat16), (1, torch.bfloat16), (2, torch.half)])
def test_mma_has_the_layout_that_cute_describes(way, kind, order):
    """CuTe's SM80_16x8x16: strides of (lane % 4, lane / 4; value bits) into column-major tiles."""
    lane = np.arange(32)[:, None]

    def bit(i):
        return np.arange(8)[None] >> i & 1

    at_a = 32 * (lane % 4) + lane // 4 + 16 * bit(0) + 8 * bit(1) + 128 * bit(2)
    at_b = (16 * (lane % 4) + lane // 4 + 8 * bit(0) + 64 * bit(1))[:, :4]
    at_d = (32 * (lane % 4) + lane // 4 + 16 * bit(0) + 8 * bit(1))[:, :4]
    a, b = torch.randn(16, 16).to(kind), torch.randn(8, 16).to(kind)  # [m, k], [n, k]
    fragments = [t.T.flatten()[torch.from_numpy(at)].contiguous() for t, at in ((a, at_a), (b, at_b))]
    d = torch.empty(32, 4)
    run(f"mma_fragments<{way}>", *fragments, d, order=order, threads=32)
    expected = (a.float() @ b.float().T).T.flatten()[torch.from_numpy(at_d)]
    torch.testing.assert_close(d, expected, rtol=1e-5, atol=1e-5)


def test_every_instruction_of_ptx_has_a_twin():
    functions = re.compile(r"^(?:RADFIELD_FN|EMU) \w+ (\w+)\(", re.MULTILINE)
    on_gpu = (PACKAGE / "cuda" / "ptx.h").read_text().split("#ifndef CUDA_EMU")[1].split("#endif\n\nnamespace")[0]
    declared = {name for name in functions.findall(on_gpu) if name != "mma_by_shuffles"}
    assert len(declared) == 9 and declared == set(functions.findall((HERE / "ptx_twins.h").read_text()))
    kernels = [path for path in PACKAGE.rglob("*.cu") if "asm" in path.read_text()]
    assert kernels == []


def test_half_and_bfloat16_have_torchs_bits():
    codes = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    x = torch.cat([torch.randn(500) * 10.0 ** torch.arange(-9, 11).repeat(25), torch.tensor([1e9, -0.0, 1 / 3])])[:512]
    for name, kind in (("to_half", torch.half), ("to_bfloat", torch.bfloat16)):
        y = torch.empty(len(x), dtype=kind)
        run(name, x, y, threads=len(x))
        assert torch.equal(y, x.to(kind))
    for part in codes.view(-1, 1024)[::8]:
        y = torch.empty(1024)
        run("from_half", part, y, threads=1024, build="fast")
        assert torch.equal(y.nan_to_num(7), part.view(torch.half).float().nan_to_num(7))


def test_pairs_are_added_atomically():
    index, value = torch.randint(5, (64,), dtype=torch.int32), torch.randn(64)
    total = torch.zeros(5, 2, dtype=torch.half)
    run("scatter_half", index, value, total)
    assert torch.equal(total[:, 1].long(), index.bincount(minlength=5))
    expected = torch.zeros(5).index_add(0, index, value)
    torch.testing.assert_close(total[:, 0].float(), expected, rtol=0.02, atol=0.05)


def test_libraries_share_the_stacks_of_threads():
    """A process may map 65,530 ranges: with 1,024 stacks for each library, some thirty of them were all."""

    def guards(build):
        run("fault<11>", torch.arange(64.0), kernels=FAULTS, build=build)
        return Path("/proc/self/maps").read_text().count(" ---p ")

    assert guards("fast") > 1024
    assert guards("checked") - guards("fast") < 32
