"""How an op reaches a GPU, with a driver that only notes what it is told: no GPU is needed. And what is said where CUDA
cannot be used."""

import ctypes
import re
import struct
import time
import warnings
from types import SimpleNamespace

import pytest
import torch

from radfield import backend
from radfield.apps.command_line import main
from radfield.cuda import compiler, library
from radfield.cuda.plan import Launch, Plan
from radfield.encodings import frequency
from radfield.errors import BadInput, RadfieldWarning
from radfield.op import In, Op, Out

GPU = torch.device("cuda", 1)


class Status(int):
    name = "CUDA_ERROR_FOR_TESTS"


class Driver:
    """Notes launches; `answers` are the statuses of the next calls of cuLaunchKernel."""

    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def __init__(self):
        self.launches, self.attributes, self.answers = [], [], []

    def cuModuleLoadData(self, code):
        assert code.startswith(b"\x7fELF")
        return Status(0), "module"

    def cuModuleGetFunction(self, module, symbol):
        return Status(0), symbol

    def cuFuncSetAttribute(self, *arguments):
        self.attributes.append(arguments)
        return (Status(0),)

    def cuGetErrorString(self, status):
        return Status(0), b"something broke"

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra):
        if self.answers and (status := self.answers.pop(0)):
            return (Status(status),)
        struct_at = ctypes.c_void_p.from_address(parameters).value
        self.launches.append((function, (gx, gy, gz), (bx, by, bz), shared, stream, ctypes.string_at(struct_at, 48)))
        return (Status(0),)


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A machine with two GPUs of sm_90, as far as torch and the driver tell."""
    fake = Driver()
    monkeypatch.setenv("RADFIELD_CACHE", str(tmp_path))
    monkeypatch.setattr(library, "_driver", lambda: fake)
    monkeypatch.setattr(library, "unavailable", lambda: None)
    monkeypatch.setattr(library, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: GPU.index)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 4200 + index, raising=False)
    library.kernel.cache_clear()
    yield fake
    library.kernel.cache_clear()


def packed_call(samples=300):
    tensors = {"encoded": torch.empty(12, samples), "x": torch.zeros(3, samples), "frequencies": 2}
    return frequency.FORWARD.marshal(tensors)[0]


def test_launches_the_struct_on_the_current_stream(driver):
    packed = packed_call()
    library.call(frequency.FORWARD, packed, GPU)
    ((function, grid, block, shared, stream, received),) = driver.launches
    assert b"frequency_forward" in function and (grid, block, shared, stream) == ((2, 3, 1), (256, 1, 1), 0, 4201)
    assert received == packed and struct.unpack("=6q", received)[2:] == (2, 12, 300, 3)


def test_nothing_is_launched_for_no_rows(driver):
    library.call(frequency.FORWARD, packed_call(0), GPU)
    assert driver.launches == []


def test_another_current_device_is_changed_for_the_launch(driver, monkeypatch):
    entered = []

    class Guard:
        def __init__(self, device):
            entered.append(device)

        def __enter__(self):
            pass

        def __exit__(self, *_):
            entered.append("left")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    library.call(frequency.FORWARD, packed_call(), GPU)
    assert entered == [GPU, "left"] and len(driver.launches) == 1


def test_a_failed_launch_names_kernel_device_and_status(driver):
    driver.answers = [700]
    with pytest.raises(
        RuntimeError, match=r"frequency_forward: cannot launch with grid .2, 3, 1.* on cuda:1: CUDA_ERROR"
    ):
        library.call(frequency.FORWARD, packed_call(), GPU)


def test_out_of_memory_says_what_is_free(driver):
    driver.answers = [2]
    with pytest.raises(
        BadInput, match=r"forward.*: out of memory on cuda:1: cannot launch with grid.*100 of 1000 bytes.*--ngp.batch"
    ):
        library.call(frequency.FORWARD, packed_call(), GPU)


def test_scratch_memory_that_is_not_there(driver, monkeypatch):
    from radfield.training.adam import STEP

    op = Op("needs_scratch", Out("y", "f32", "M"), In("x", "f32", "M"))
    Op.registry.pop("needs_scratch")
    op.plan = Plan(STEP.plan.file, lambda a: Launch("adam_clear", (1,), scratch=1 << 40))

    def refuse(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    packed = op.marshal({"y": torch.zeros(2), "x": torch.zeros(2)})[0]
    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(
        BadInput, match=f"needs_scratch: out of memory on cuda:1: cannot take {1 << 40} bytes of scratch"
    ):
        library.call(op, packed, GPU)


def test_memory_that_torch_has_not_is_one_line(monkeypatch, capsys):
    def refuse(*_):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which "
            "3.50 GiB is free. Including non-PyTorch memory, this process has 136 GiB memory in use."
        )

    monkeypatch.setattr("radfield.apps.command_line._dispatch", refuse)
    assert main(["train", "x"]) == 2
    said = capsys.readouterr().err
    assert "20.00 GiB asked, 3.50 GiB of 139.81 GiB are free; smaller: --ngp.batch-samples" in said
    assert said.count("\n") == 1


def test_compiling_is_announced_once(driver, capsys):
    library._announce.cache_clear()
    for _ in range(2):
        library.call(frequency.FORWARD, packed_call(), GPU)
    assert capsys.readouterr().err == "radfield: compiling CUDA kernels for sm_90, once per machine\n"


def test_scratch_and_extra_arguments_follow_the_struct():
    values = library.parameter_values(Launch("k", (1,), scratch=64, extra=(3, 5)), b"12345678", 4096)
    assert values[0].raw == b"12345678" and [v.value for v in values[1:]] == [4096, 3, 5]
    assert len(library.parameter_values(Launch("k", (1,)), b"12345678", 0)) == 1


def test_an_op_without_kernels_says_so():
    op = Op("no_kernel_here", Out("y", "f32", "M"), In("x", "f32", "M"))
    Op.registry.pop("no_kernel_here")
    with pytest.raises(BadInput, match="no_kernel_here: has no CUDA kernel"):
        op.launches(op.marshal({"y": torch.zeros(2), "x": torch.zeros(2)})[0])


def test_memory_that_vectors_cannot_be_read_from_is_refused():
    from radfield.encodings.hash_grid import FORWARD, Config, grid_levels

    grid = grid_levels(3, Config(2, 4, 8))
    table = torch.zeros(grid.entries * 4 + 1)[1:].view(-1, 4)
    values = {"features": torch.empty(8, 5), "x": torch.zeros(3, 5), "table": table, "tangent": None}
    packed, _ = FORWARD.marshal({**values, **grid.tables(torch.device("cpu"))})
    with pytest.raises(BadInput, match="hash_grid_forward: table starts at byte 4 of a 16-byte vector"):
        FORWARD.launches(packed)


def test_the_overhead_of_a_launch_is_small(driver):
    """What Python does per call, with a driver that does nothing: checks, struct, plan, arguments, launch."""
    tensors = {"encoded": torch.empty(12, 300), "x": torch.zeros(3, 300), "frequencies": 2}
    driver.cuLaunchKernel = lambda *_: (0,)
    times = []
    for _ in range(20):
        begin = time.thread_time()
        for _ in range(100):
            library.call(frequency.FORWARD, frequency.FORWARD.marshal(tensors)[0], GPU)
        times.append((time.thread_time() - begin) / 100)
    assert sorted(times)[10] < 100e-6, f"{sorted(times)[10] * 1e6:.1f} us"


# ---- where CUDA cannot be used


@pytest.fixture
def fresh():
    library.unavailable.cache_clear()
    backend._cuda_backend.cache_clear()
    yield
    library.unavailable.cache_clear()
    backend._cuda_backend.cache_clear()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": None}, "is built without CUDA"),
        ({"available": False}, "torch finds no GPU$"),
        (
            {"available": "The NVIDIA driver on your system\n is too old (found 11040)"},
            "can use: The NVIDIA driver .* 11040",
        ),
        ({"missing": "NVRTC cannot be loaded"}, "NVRTC cannot be loaded"),
        ({"capability": (7, 0)}, "sm_70, the rule: sm_75 or newer"),
        ({"capability": (13, 5)}, "sm_135; the rule: NVRTC .* compiles for sm_75 to"),
        ({}, None),
    ],
)
def test_says_why_there_is_no_cuda(monkeypatch, fresh, changes, words):
    monkeypatch.setattr(torch.version, "cuda", changes.get("version", "13.0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available(changes.get("available", True)))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: changes.get("capability", (9, 0)))
    monkeypatch.setattr(compiler, "missing", lambda: changes.get("missing"))
    library.architecture.cache_clear()
    reason = library.unavailable()
    library.architecture.cache_clear()
    if words is None:
        assert reason is None
    else:
        assert "\n" not in reason
        assert re.search(words, reason)


def is_available(answer):
    """What torch's function does: an answer, or words of warning and no GPU."""
    if isinstance(answer, str):
        warnings.warn(answer, stacklevel=1)
        return False
    return answer


def test_nvrtc_that_is_not_installed_or_too_old(monkeypatch):
    def raises(error):
        def version():
            raise error

        return version

    monkeypatch.setattr(compiler, "version", raises(ImportError("No module named 'cuda'")))
    assert "cuda.core is not installed" in compiler.missing() and "pip install" in compiler.missing()
    monkeypatch.setattr(compiler, "version", raises(RuntimeError("libnvrtc.so.13:\n cannot open")))
    assert compiler.missing().startswith("NVRTC cannot be loaded (libnvrtc.so.13: cannot open)")
    monkeypatch.setattr(compiler, "version", lambda: (12, 4))
    assert compiler.missing() == "NVRTC is 12.4, the rule: 12.8 or newer"
    with pytest.raises(BadInput, match=r"NVRTC is 12\.4"):
        compiler.compile_cubin("", "x.cu", ("k",), "sm_90")


def test_an_architecture_that_nvrtc_does_not_know_is_named():
    with pytest.raises(BadInput, match="the GPU is sm_135; the rule: NVRTC"):
        compiler.compile_cubin("", "x.cu", ("k",), "sm_135")


def test_the_cuda_backend_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(library, "unavailable", lambda: "no GPU for tests")
    with pytest.raises(BadInput, match="backend is 'cuda': no GPU for tests"), backend.use("cuda"):
        pass
    monkeypatch.setenv("RADFIELD_BACKEND", "cuda")
    with pytest.raises(BadInput, match="no GPU for tests"):
        frequency.frequency(torch.zeros(2, 3), 2)


def test_tensors_on_another_device_are_refused(fresh, monkeypatch):
    with pytest.raises(BadInput, match="a tensor is on meta; the rule: there are kernels for cpu and cuda"):
        frequency.frequency(torch.zeros(2, 3, device="meta"), 2)
    values = {"encoded": torch.empty(12, 5, device="meta"), "x": torch.zeros(3, 5), "frequencies": 2}
    with pytest.raises(BadInput, match="x is on cpu; the rule: all tensors are on one device, here meta"):
        frequency.FORWARD(**values)
    with backend.use("cpu"), pytest.raises(BadInput, match="backend is 'cpu' and a tensor is on meta"):
        frequency.frequency(torch.zeros(2, 3, device="meta"), 2)
    monkeypatch.setattr(library, "unavailable", lambda: "NVRTC is missing")
    with pytest.warns(
        RadfieldWarning, match="no CUDA kernels here .NVRTC is missing.: ops on a GPU run as plain torch"
    ):
        assert backend.backend_for(SimpleNamespace(device=torch.device("cuda"))) == "reference"


@pytest.mark.parametrize(
    "program", [("train", "nowhere", "--output", "out"), ("eval", "run"), ("render", "run", "--output", "out")]
)
def test_device_cuda_without_one_exits_2_with_the_reason(program, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "unavailable", lambda: "no GPU for tests")
    assert main([*program, "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("radfield: --device is cuda; the rule: auto or cpu here: no GPU for tests")
    assert error.count("\n") == 1


def test_auto_says_which_device_it_took_and_why(monkeypatch):
    from radfield.apps.runs import use_device

    monkeypatch.setattr(library, "unavailable", lambda: "no GPU for tests")
    threads = torch.get_num_threads()
    try:
        assert use_device("auto", 1)[1].endswith("1 thread; no GPU: no GPU for tests)")
        assert use_device("cpu", 1)[1].endswith("1 thread)")
    finally:
        torch.set_num_threads(threads)
        use_device("cpu", None)
        torch.set_num_threads(threads)
