"""The compiled library: which one is loaded, and its thread pool."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from radfield.cpu import library
from radfield.encodings.frequency import frequency
from radfield.errors import BadInput

pytestmark = pytest.mark.skipif(library.library() is None, reason="no compiled library for this machine")


@contextlib.contextmanager
def pool_of(threads: int):
    """Within the block the pool has so many threads."""
    before = library.num_threads()
    library.set_num_threads(threads)
    try:
        yield
    finally:
        library.set_num_threads(before)


def points(size: int = 20_000) -> torch.Tensor:
    return torch.rand(size, 3, generator=torch.Generator().manual_seed(size))


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `code` in a Python of its own, which a deadlock does not outlive."""
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)


# ---- which library


def test_the_best_usable_instruction_set_is_chosen(monkeypatch):
    monkeypatch.delenv("RADFIELD_ISA", raising=False)
    assert library.choose_isa() == library.usable_isas()[0]


def test_a_cpu_without_the_features_gets_a_lesser_library(monkeypatch):
    monkeypatch.delenv("RADFIELD_ISA", raising=False)
    monkeypatch.setattr(library, "machine", lambda: "x86_64")
    monkeypatch.setattr(library, "library_path", lambda isa: isa)
    features = {
        "x86-64-v4": library._V4,
        "x86-64-v3": library._V4 - {"avx512bw"},
        "x86-64-v2": library._V2,
        None: {"sse2"},
    }
    for isa, has in features.items():
        monkeypatch.setattr(library, "cpu_features", lambda has=has: frozenset(has))
        assert library.choose_isa() == isa


def test_a_forced_instruction_set_is_taken(monkeypatch):
    for isa in library.usable_isas():
        monkeypatch.setenv("RADFIELD_ISA", isa)
        assert library.choose_isa() == isa


@pytest.mark.parametrize("value", ["avx", "x86-64-v9", "arm65", " "])
def test_refuses_an_instruction_set_that_is_not_there(monkeypatch, value):
    monkeypatch.setenv("RADFIELD_ISA", value)
    with pytest.raises(BadInput, match="RADFIELD_ISA is") as error:
        library.choose_isa()
    assert "\n" not in str(error.value)


def test_refuses_an_instruction_set_that_the_cpu_lacks(monkeypatch):
    monkeypatch.setenv("RADFIELD_ISA", library.choose_isa())
    monkeypatch.setitem(library.INSTRUCTION_SETS[library.machine()], library.choose_isa(), {"no_such_feature"})
    with pytest.raises(BadInput, match="RADFIELD_ISA is"):
        library.choose_isa()


def test_an_unknown_machine_has_no_library(monkeypatch):
    monkeypatch.delenv("RADFIELD_ISA", raising=False)
    monkeypatch.setattr(library, "machine", lambda: "riscv64")
    assert library.choose_isa() is None


def test_describes_itself():
    described = library.describe()
    assert described["isa"] in described["path"]
    assert described["threads"] == library.num_threads()


# ---- the number of threads


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "two", "1025", "²"])
def test_refuses_a_wrong_number_of_threads_from_the_environment(monkeypatch, value):
    monkeypatch.setenv("RADFIELD_NUM_THREADS", value)
    with pytest.raises(BadInput, match="RADFIELD_NUM_THREADS is") as error:
        library.default_num_threads()
    assert "\n" not in str(error.value)


def test_the_environment_sets_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("RADFIELD_NUM_THREADS", "3")
    assert library.default_num_threads() == 3
    for unset in ("", None):
        monkeypatch.delenv("RADFIELD_NUM_THREADS") if unset is None else monkeypatch.setenv("RADFIELD_NUM_THREADS", "")
        assert 1 <= library.default_num_threads() <= os.cpu_count()


@pytest.mark.parametrize("value", ["2", "-1", "no", "00"])
def test_refuses_a_wrong_word_on_amx_from_the_environment(monkeypatch, value):
    monkeypatch.setenv("RADFIELD_AMX", value)
    with pytest.raises(BadInput, match="RADFIELD_AMX is") as error:
        library.amx_wanted()
    assert "\n" not in str(error.value)


def test_the_environment_keeps_off_amx(monkeypatch):
    for value, wanted in (("0", False), ("1", True), ("", True)):
        monkeypatch.setenv("RADFIELD_AMX", value)
        assert library.amx_wanted() is wanted
        assert ("amx_bf16" in library.describe()["features"]) == (wanted and "amx_bf16" in library.cpu_features())


def test_a_container_s_quota_limits_the_number_of_threads(monkeypatch):
    monkeypatch.delenv("RADFIELD_NUM_THREADS", raising=False)
    monkeypatch.setattr(library, "_cpu_quota", lambda: 1)
    assert library.default_num_threads() == 1


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_refuses_a_wrong_number_of_threads(threads):
    with pytest.raises(BadInput, match=f"threads is {threads}"):
        library.set_num_threads(threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_no_bit(threads):
    with pool_of(1):
        expected = frequency(points(), 6)
    with pool_of(threads):
        assert library.num_threads() == threads
        assert torch.equal(frequency(points(), 6), expected)


# ---- the pool under strain


def test_the_pool_stops_and_starts_again():
    expected = frequency(points(), 2)
    before = library.num_threads()
    for threads in [1, 3, 2, 7, 1, 2] * 10 + [before]:
        library.set_num_threads(threads)
        assert torch.equal(frequency(points(), 2), expected)


def test_many_quick_calls():
    """20,000 regions of two chunks each, in which workers come late, in time, and not at all."""
    x = points(8192)[:, :1].contiguous()  # two chunks
    with pool_of(3):
        expected = frequency(x, 1)
        for _ in range(20_000):
            result = frequency(x, 1)
        assert torch.equal(result, expected)


def test_several_python_threads_at_once():
    wrong = []

    def client(seed: int) -> None:
        x = points(9_000 + seed)
        expected = frequency(x, 2)
        wrong.extend(seed for _ in range(200) if not torch.equal(frequency(x, 2), expected))

    with pool_of(2):
        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
        for thread in clients:
            thread.start()
        for threads in (1, 4, 2):
            library.set_num_threads(threads)
            time.sleep(0.01)
        for thread in clients:
            thread.join()
    assert wrong == []


FORK = """
import os, threading, torch, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork with threads: that is the test
from radfield.cpu import library
from radfield.encodings.frequency import frequency
torch.set_num_threads(1)  # torch's own pool does not outlive a fork
library.set_num_threads(3)
x = torch.rand(20_000, 3)
expected = frequency(x, 4)
done = threading.Event()
def busy():
    while not done.is_set():
        frequency(x, 4)
thread = threading.Thread(target=busy)
thread.start()
for _ in range(10):  # in some of them the other thread holds the pool
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(frequency(x, 4), expected) and library.num_threads() == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
done.set()
thread.join()
assert torch.equal(frequency(x, 4), expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_pool_of_its_own():
    done = run(FORK)
    assert done.returncode == 0, done.stderr


def test_a_wrong_setting_is_one_line_for_the_user():
    code = "import torch; from radfield.encodings.frequency import frequency; frequency(torch.zeros(1, 3), 2)"
    done = run(code, RADFIELD_ISA="pentium")
    assert "BadInput: RADFIELD_ISA is 'pentium'" in done.stderr.splitlines()[-1]


def test_torch_s_threads_come_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), library.one_torch_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


# ---- the floating-point mode


def test_the_caller_s_floating_point_mode_neither_matters_nor_changes():
    x = torch.full((4, 1), 1e-40)  # a denormal number: it counts as 0 in ops
    library_results = []
    for flush in (False, True):
        torch.set_flush_denormal(flush)
        try:
            library_results.append(frequency(x, 1)[:, 0])
            kept = (torch.full((1,), 1e-38) * 0.01).item() != 0.0
        finally:
            torch.set_flush_denormal(False)
        assert kept is not flush
    assert torch.equal(*library_results)


def test_a_library_of_another_version_is_refused():
    class Other:
        name, size = "frequency_forward", 8

    with pytest.raises(RuntimeError, match="build it again"):
        library.call(Other, bytes(8))
    Other.name = "no_such_op"
    with pytest.raises(RuntimeError, match="no such function"):
        library.call(Other, bytes(8))
