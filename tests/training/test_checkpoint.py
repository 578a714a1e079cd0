"""A checkpoint is the old one or the new one, never something in between, and a bad file is one clear line."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radfield.errors import BadInput
from radfield.training import checkpoint
from radfield.training.checkpoint import load_checkpoint, save_checkpoint


def example_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, 4, generator=generator)
    return {
        "grid/table": values,
        "grid/table16": values.bfloat16(),
        "transposed": values.T,
        "shared": values[:2],
        "bits": torch.arange(7, dtype=torch.uint8),
        "flags": torch.tensor([True, False, True]),
        "step": torch.tensor(12345, dtype=torch.int64),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(values.double()),
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, example_tensors(), {"step": "12345", "name": "Bär\n"})
    return path


def assert_one_line(error: pytest.ExceptionInfo) -> None:
    assert "\n" not in str(error.value)


def test_what_was_saved_is_loaded_bit_for_bit(saved):
    tensors, metadata = load_checkpoint(saved)
    assert metadata == {"step": "12345", "name": "Bär\n"}
    assert tensors.keys() == example_tensors().keys()
    for name, tensor in example_tensors().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
        assert not tensors[name].requires_grad


def test_the_safetensors_library_reads_it(saved):
    with safetensors.safe_open(saved, "pt") as file:
        assert file.metadata()["format"] == "radfield"
        for name, tensor in example_tensors().items():
            assert torch.equal(file.get_tensor(name), tensor)


def test_equal_states_give_equal_files(saved, tmp_path):
    reordered = dict(reversed(example_tensors().items()))
    save_checkpoint(tmp_path / "again", reordered, {"step": "12345", "name": "Bär\n"})
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_no_tensors_at_all(tmp_path):
    save_checkpoint(tmp_path / "none", {}, {})
    assert load_checkpoint(tmp_path / "none", {}) == ({}, {})


def test_the_folder_holds_nothing_else_afterwards(saved):
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_failing_save_leaves_the_old_checkpoint_and_no_leftover(saved):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="dtype"):
        save_checkpoint(saved, {"a": torch.zeros(2, dtype=torch.complex64)}, {})
    with pytest.raises(ValueError, match="metadata"):
        save_checkpoint(saved, {}, {"version": "7"})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's file size")
def test_a_full_disk_is_one_clear_line_and_keeps_the_old_checkpoint(saved):
    # A limit on file size makes write() fail halfway through the data, as a full disk does.
    before = saved.read_bytes()
    code = f"""
import resource, signal, torch
from radfield.errors import BadInput
from radfield.training.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint({str(saved)!r}, {{"a": torch.zeros(1_000_000)}}, {{}})
except BadInput as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.count("\n") == 1
    assert "could not be written" in output and "unchanged" in output
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "nowhere" / "c", {}, {})


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_killed_while_saving_the_checkpoint_always_loads(tmp_path):
    path = tmp_path / "c.safetensors"
    code = f"""
import torch
from radfield.training.checkpoint import save_checkpoint
step = 0
while True:
    step += 1
    tensors = {{"a": torch.full((300_000,), step), "b": torch.full((7,), step)}}
    save_checkpoint({str(path)!r}, tensors, {{"step": str(step)}})
    print(step, flush=True)
"""
    delays = np.random.default_rng(0).uniform(0.0, 0.06, size=4)
    for delay in delays:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with child:
            child.stdout.readline()
            time.sleep(delay)
            child.send_signal(signal.SIGKILL)
            told = [int(line) for line in child.stdout.read().splitlines() if line]
        tensors, metadata = load_checkpoint(path, {"a": ((300_000,), torch.int64), "b": ((7,), torch.int64)})
        step = int(metadata["step"])
        assert bool((tensors["a"] == step).all()) and bool((tensors["b"] == step).all())
        assert step >= max(told, default=1)
    save_checkpoint(path, {}, {})
    assert [file.name for file in tmp_path.iterdir()] == [path.name], (
        "the last leftover is overwritten by the next save"
    )


def test_cut_short_anywhere(saved):
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(BadInput) as error:
            load_checkpoint(saved)
        assert_one_line(error)


def test_longer_than_it_claims(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(BadInput, match="accounts for"):
        load_checkpoint(saved)


def test_any_flipped_byte_is_found(saved):
    whole = bytearray(saved.read_bytes())
    for position in range(len(whole)):
        flip = (0x01, 0x20, 0xFF)[position % 3]
        whole[position] ^= flip
        saved.write_bytes(whole)
        with pytest.raises(BadInput) as error:
            load_checkpoint(saved)
        assert_one_line(error)
        whole[position] ^= flip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), plausible=st.booleans())
def test_any_bytes_are_bad_input(tmp_path, data, plausible):
    path = tmp_path / "any"
    path.write_bytes(len(data).to_bytes(8, "little") + data if plausible else data)
    with pytest.raises(BadInput) as error:
        load_checkpoint(path)
    assert_one_line(error)


def with_header(path, header: dict, data: bytes = b"") -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


METADATA = {"format": "radfield", "version": "1", "checksum": "00000000"}


def entry(shape, begin, end, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": entry([1 << 40], 0, 1 << 42)}, "cut short"),
        ({"a": entry([1 << 70], 0, 1 << 72)}, "described as"),
        ({"a": entry([0, 1 << 62], 0, 0)}, "described as"),
        ({"a": entry([-2], 0, 8)}, "described as"),
        ({"a": entry([2.0], 0, 8)}, "described as"),
        ({"a": entry([True], 0, 4)}, "described as"),
        ({"a": entry([2], 0, 8, dtype="F31")}, "described as"),
        ({"a": entry([2], 0, 8, dtype=["F32"])}, "described as"),
        ({"a": entry([1], 0, 8)}, "stands at"),
        ({"a": entry([2], 4, 12)}, "stands at"),
        ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, "stands at"),
        ({"a": [1, 2]}, "described as"),
        ({"a": {"shape": [1]}}, "described as"),
        ({"a": entry([2], 0, 8), "b": entry([2], 8, 16)}, "cut short"),
        ({}, "accounts for"),
    ],
)
def test_false_claims_are_refused_before_anything_is_allocated(tmp_path, table, message):
    path = tmp_path / "c"
    with_header(path, {"__metadata__": METADATA, **table}, bytes(12))
    with pytest.raises(BadInput, match=message) as error:
        load_checkpoint(path)
    assert_one_line(error)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "is not a radfield checkpoint: its format is None"),
        ({"format": "pt"}, "is not a radfield checkpoint: its format is 'pt'"),
        ({**METADATA, "version": "2"}, "version '2'"),
        ({"format": "radfield", "version": "1"}, "no checksum"),
        ({**METADATA, "step": 3}, "table of strings"),
        ("radfield", "table of strings"),
    ],
)
def test_unknown_format_or_version(tmp_path, metadata, message):
    with_header(tmp_path / "c", {"__metadata__": metadata})
    with pytest.raises(BadInput, match=message):
        load_checkpoint(tmp_path / "c")


def test_a_header_longer_than_the_file(tmp_path):
    (tmp_path / "c").write_bytes((1000).to_bytes(8, "little") + b"{}")
    with pytest.raises(BadInput, match="cut short"):
        load_checkpoint(tmp_path / "c")
    (tmp_path / "c").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(BadInput, match="not a checkpoint"):
        load_checkpoint(tmp_path / "c")


def test_a_header_nested_without_end(tmp_path):
    deep = b"[" * 200_000
    (tmp_path / "c").write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(BadInput, match="not JSON"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other": ((1,), torch.float32)}, "has no tensor 'other'"),
        ({"bits": ((8,), torch.uint8)}, r"'bits' has shape \[7\]; the rule: \[8\]"),
        ({"bits": ((7,), torch.int8)}, "'bits' has dtype U8; the rule: I8"),
        ({"bits": None}, "has a tensor 'bits'"),
    ],
)
def test_tensors_other_than_expected(saved, change, message):
    expected = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in example_tensors().items()}
    assert load_checkpoint(saved, expected)
    changed = {name: rule for name, rule in {**expected, **change}.items() if rule is not None}
    with pytest.raises(BadInput, match=message) as error:
        load_checkpoint(saved, changed)
    assert_one_line(error)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(BadInput, match="no such checkpoint"):
        load_checkpoint(tmp_path / "c")
    with pytest.raises(BadInput, match="could not be read"):
        load_checkpoint(tmp_path)


def test_a_pickle_is_not_even_looked_into(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "c.pt")
    with pytest.raises(BadInput, match="not a checkpoint"):
        load_checkpoint(tmp_path / "c.pt")
    assert "pickle" not in vars(checkpoint)


@pytest.mark.skipif(os.name != "posix", reason="umask")
def test_the_file_has_the_usual_permissions(saved):
    mask = os.umask(0)
    os.umask(mask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~mask
