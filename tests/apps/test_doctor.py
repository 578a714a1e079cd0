"""The doctor works where the rest does not, and says what is missing."""

import json
import sys
import types

from radfield.apps import doctor
from radfield.apps.command_line import main


def test_the_report_is_json_and_names_what_it_should(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {
        "device",
        "versions",
        "cpu",
        "library",
        "cuda",
        "kernels",
        "packages",
        "settings",
        "findings",
    }
    assert report["versions"]["torch"] and report["versions"]["radfield"]
    assert report["cpu"]["cores"] >= 1
    assert set(report["packages"]) == set(doctor.REQUIRED)


def test_the_text_shows_every_part(capsys):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for part in ("radfield", "device", "cpu", "library", "cuda", "pycolmap", "findings"):
        assert f"{part} " in output


def broken_library(monkeypatch, describe) -> None:
    import radfield.cpu

    module = types.ModuleType("radfield.cpu.library")
    module.describe = describe
    monkeypatch.setitem(sys.modules, "radfield.cpu.library", module)
    monkeypatch.setattr(radfield.cpu, "library", module, raising=False)


def test_a_library_that_does_not_load_is_a_finding(monkeypatch, capsys):
    def describe():
        raise OSError("wrong ELF class")

    broken_library(monkeypatch, describe)
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "the compiled library cannot be used: OSError: wrong ELF class" in output
    assert "none: plain torch" in output


def test_a_machine_without_a_library_is_a_finding(monkeypatch):
    broken_library(monkeypatch, lambda: {"isa": None, "path": None, "threads": 1, "features": []})
    report = doctor.run(doctor.Options())
    assert report["library"] is None
    assert any("no compiled library" in finding for finding in report["findings"])


def test_a_wrong_setting_is_a_finding(monkeypatch):
    monkeypatch.setenv("RADFIELD_ISA", "mmx")
    report = doctor.run(doctor.Options())
    assert report["settings"] == {"RADFIELD_ISA": "mmx"}
    assert any("mmx" in finding for finding in report["findings"])


def test_missing_packages(monkeypatch):
    monkeypatch.setitem(doctor.REQUIRED, "no-such-package", "everything else")
    report = doctor.run(doctor.Options())
    assert "no-such-package is missing, for everything else" in report["findings"]
    assert report["packages"]["no-such-package"] == {"version": None, "for": "everything else"}


def test_a_gpu_is_named_and_said_to_be_unused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    report = doctor.run(doctor.Options())
    assert report["cuda"] == "NVIDIA H200"
    assert any("programs run on the CPU" in finding for finding in report["findings"])


def test_machines_that_tell_little(monkeypatch):
    monkeypatch.setattr(doctor, "_text", lambda path: "")
    report = doctor.run(doctor.Options())
    assert report["cpu"]["model"]
    assert doctor.describe(report)
