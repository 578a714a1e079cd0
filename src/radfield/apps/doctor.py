"""`radfield doctor`: what radfield runs on here, and what is missing for what. It works, and says why, where the rest
of radfield does not: whatever cannot be found out becomes a finding.
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any


def has_pycolmap() -> bool:
    """Whether there are wheels of pycolmap for this platform (the marker in pyproject.toml)."""
    return sys.platform == "win32" or (sys.platform, platform.machine()) in (("linux", "x86_64"), ("darwin", "arm64"))


#: distribution and what it is for: the package's dependencies
REQUIRED = {
    "torch": "everything",
    "numpy": "everything",
    "pillow": "reading images",
    "av": "reading and writing videos",
    "tyro": "the command line",
    **({"cuda-core": "CUDA kernels", "cuda-bindings": "CUDA kernels"} if sys.platform in ("linux", "win32") else {}),
    **({"pycolmap": "cameras from bare photographs"} if has_pycolmap() else {}),
    "rich": "progress",
    "trimesh": "mesh files",
}
_SETTINGS = ("RADFIELD_AMX", "RADFIELD_BACKEND", "RADFIELD_CACHE", "RADFIELD_ISA", "RADFIELD_NUM_THREADS")


@dataclass
class Options:
    """Shows device, instruction set, threads and versions, and what is missing for what."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(options: Options) -> dict[str, Any]:
    """The figures: versions, cpu, library, cuda, packages, settings, and findings (lines; none when all is well)."""
    findings: list[str] = []
    report = {
        "device": _device(findings),
        "versions": _versions(),
        "cpu": _cpu(),
        "library": _library(findings),
        "cuda": _cuda(findings),
        "kernels": _kernels(findings),
        "packages": {name: {"version": version_of(name), "for": use} for name, use in REQUIRED.items()},
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }
    findings += [f"{name} is missing, for {use}" for name, use in REQUIRED.items() if version_of(name) is None]
    return {**report, "findings": findings}


def describe(report: dict[str, Any]) -> str:
    """The report as text for a terminal."""
    cpu, library = report["cpu"], report["library"]
    lines = [("radfield", ", ".join(f"{name} {version}" for name, version in report["versions"].items()))]
    lines.append(("device", f"{report['device']} (what --device auto takes)"))
    lines.append(("cpu", f"{cpu['model']}, {cpu['cores']} cores, {cpu['memory_gib']} GiB of memory"))
    if library:
        extra = ", ".join(library.get("features") or []) or "none"
        lines.append(("library", f"{library['isa']}, {library['threads']} threads; chosen at run time: {extra}"))
        lines.append(("", str(library["path"])))
    else:
        lines.append(("library", "none: plain torch, slowly"))
    lines.append(("cuda", report["cuda"] or "no GPU that torch can use"))
    lines += _kernel_lines(report["kernels"])
    lines += [(name, value) for name, value in report["settings"].items()]
    lines.append(("packages", "and what they are for"))
    for name, package in report["packages"].items():
        lines.append(("", f"{name:10} {package['version'] or 'missing':10} {package['for']}"))
    findings = report["findings"]
    lines.append(("findings", findings[0] if findings else "none: everything that this version needs is there"))
    lines += [("", finding) for finding in findings[1:]]
    return "\n".join(f"{name:12}{text}".rstrip() for name, text in lines)


def _kernel_lines(kernels: dict[str, Any] | None) -> list[tuple[str, str]]:
    if kernels is None:
        return []
    cache = kernels["cache"]
    size = f"{cache['entries']} kernels, {cache['bytes'] / 2**20:.1f} MiB"
    return [
        ("kernels", f"NVRTC {kernels['nvrtc'] or 'missing'}; {kernels['unavailable'] or 'they run on this GPU'}"),
        ("cache", f"{cache['folder']}: {size}{'' if cache['writable'] else ', cannot be written'}"),
    ]


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, found without importing it; None where it is missing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    from radfield import __version__

    versions = {"radfield": __version__, "python": platform.python_version()}
    return versions | {name: version_of(name) for name in ("torch", "numpy")}


def _cpu() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"model": _cpu_model(), "cores": usable, "memory_gib": _memory_gib()}


def _cpu_model() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        if line.lower().startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


#: what a broken installation raises, and what the doctor is called for: a package or library that is missing, of
#: another version, or that refuses; torch and CUDA raise RuntimeError, our own rules BadInput, a ValueError
_BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError, AssertionError)


def _library(findings: list[str]) -> dict[str, Any] | None:
    """What `radfield.cpu.library` says of the compiled library; None, with a finding, where there is none."""
    try:
        from ..cpu import library

        described = library.describe()
    except _BROKEN as error:
        findings.append(f"the compiled library cannot be used: {type(error).__name__}: {error}")
        return None
    if described.get("isa") is None:
        findings.append(f"there is no compiled library for this machine ({platform.machine()}): plain torch, slowly")
        return None
    return described


def _cuda(findings: list[str]) -> str | None:
    """The name of the GPU that torch sees, if any."""
    try:
        import torch

        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    except _BROKEN as error:
        findings.append(f"torch cannot be asked for a GPU: {type(error).__name__}: {error}")
        return None
    findings += [f"torch says of CUDA: {' '.join(str(warning.message).split())}" for warning in said]
    return name


def _device(findings: list[str]) -> str:
    """What `--device auto` takes; a finding where torch sees a GPU that cannot be used."""
    try:
        import torch

        from .. import backend

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `_cuda` tells what torch says
            taken, why = backend.device("auto")
            if taken.type == "cpu" and torch.cuda.is_available():
                findings.append(f"torch sees a GPU, but the programs run on the CPU: {why}")
    except _BROKEN as error:
        findings.append(f"no device can be chosen: {type(error).__name__}: {error}")
        return "cpu"
    return str(taken)


def _kernels(findings: list[str]) -> dict[str, Any] | None:
    """What `radfield.cuda.library` says; None, with a finding, where it cannot be asked."""
    try:
        from ..cuda import compiler, library

        described = library.describe()
    except _BROKEN as error:
        findings.append(f"the CUDA kernels cannot be asked for: {type(error).__name__}: {error}")
        return None
    if not described["cache"]["writable"]:
        findings.append(f"compiled CUDA kernels cannot be kept in {described['cache']['folder']} (set RADFIELD_CACHE)")
    if described["nvrtc"] is None and sys.platform in ("linux", "win32"):
        findings.append(f"no CUDA kernel can be compiled: {compiler.missing()}")
    return described
