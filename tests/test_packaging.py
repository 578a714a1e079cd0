"""The wheel, every instruction set in it, and arm64: what takes minutes to build.

The wheel is installed into a fresh environment outside the checkout. That environment sees the packages that radfield
depends on (torch above all: hundreds of megabytes) where they are installed already, through a path file; such a path
is searched last, and the path files in it (this checkout's editable install) are not followed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from radfield.cpu import library
from radfield.op import Op

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "radfield"
FOLDERS = {"encodings", "networks", "fields", "sampling", "renderers", "training"}
#: the tests that run ops, for one build of the library after another
OP_TESTS = [
    path
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    if path != Path(__file__) and (path.parent.name in FOLDERS or "check_op(" in path.read_text())
]
ISAS = list(library.INSTRUCTION_SETS.get(library.machine(), {}))
CROSS = "aarch64-linux-gnu-g++"


def run(*command, **options) -> str:
    """Standard output of `command`; its whole output is shown when it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RADFIELD_ISA", "RADFIELD_BACKEND")}
    environment |= options.pop("environment", {})
    command = [str(c) for c in command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
    return done.stdout


def needs(*programs: str) -> None:
    missing = [p for p in programs if shutil.which(p) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


# ---- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, with every instruction set."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"]
    run(*pip, ROOT, "--no-deps", "--no-build-isolation", "-w", folder, "-C", f"build-dir={folder / 'build'}")
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of a fresh environment with the wheel installed."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "-q"]
    run(*pip, "--no-deps", "--ignore-installed", wheel)
    return python


def test_wheel_serves_every_python(wheel):
    assert re.fullmatch(r"radfield-[\d.]+-py3-none-(linux|manylinux|macosx)\w*\.whl", wheel.name)


def test_wheel_contains_what_is_needed_and_no_more(wheel):
    names = {n.removeprefix("radfield/") for n in zipfile.ZipFile(wheel).namelist() if n.startswith("radfield/")}
    suffix = library._SUFFIX
    here = [p.relative_to(SOURCE).as_posix() for p in SOURCE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    expected = {n for n in here if not n.endswith((".cpp", ".so", ".dylib"))}
    assert {"maths.h", "cpu/simd.h", "encodings/frequency.h"} <= expected
    assert names == expected | {f"cpu/libradfield-{isa}{suffix}" for isa in ISAS}
    assert any(n.endswith("licenses/LICENSE") for n in zipfile.ZipFile(wheel).namelist())


def test_installed_wheel_runs_an_op_outside_the_checkout(installed, tmp_path):
    code = """
import json, radfield, torch
from radfield import backend
from radfield.cpu import library
from radfield.encodings import frequency as f
x = torch.rand(1000, 3)
error = (f.frequency(x, 4) - f.frequency_reference(x.double(), 4)).abs().max().item()
print(json.dumps({"file": radfield.__file__, "error": error, "backend": backend.backend_for(x), **library.describe()}))
"""
    said = json.loads(run(installed, "-c", code, cwd=tmp_path))
    home = str(installed.parents[1])
    assert said["file"].startswith(home) and said["path"].startswith(home)
    assert said["backend"] == "cpu" and said["isa"] in ISAS
    assert said["error"] < 1e-5


def test_installed_programs_start(installed, tmp_path):
    report = run(installed.parent / "radfield", "doctor", "--json", cwd=tmp_path).splitlines()[-1]
    assert json.loads(report)["library"]["isa"] in ISAS


# ---- the libraries


def symbols(path: Path) -> tuple[set[str], set[str]]:
    """The names that a library exports, and those that it expects from others (with their version)."""
    exported, expected = set(), set()
    for line in run("readelf", "-W", "--dyn-syms", path).splitlines():
        row = line.split()  # number, value, size, type, binding, visibility, section, name, (version)
        if len(row) < 8 or row[4] not in ("GLOBAL", "WEAK"):
            continue
        if row[6] != "UND":
            exported.add(row[7])
        elif row[4] == "GLOBAL":
            expected.add(row[7])
    return exported, expected


@pytest.mark.skipif(sys.platform != "linux", reason="ELF libraries are Linux's")
@pytest.mark.parametrize("isa", ISAS)
def test_library_needs_libc_alone_and_exports_its_ops_alone(installed, isa):
    needs("readelf")
    (path,) = installed.parents[1].rglob(f"libradfield-{isa}.so")
    dynamic = run("readelf", "-W", "-d", path)
    linked = re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic)
    assert all(re.fullmatch(r"(libc|libm|libpthread|ld-linux.*)\.so\.\d", name) for name in linked)
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic
    exported, expected = symbols(path)
    assert [s for s in expected if "@GLIBC_" not in s] == []
    ops = {name for op in import_ops() for name in (op, f"{op}_size")}
    assert sorted(ops - exported) == []
    assert [s for s in exported if s.startswith("_")] == []  # what C++ mangles


def import_ops() -> set[str]:
    """The names of all ops that Python declares."""
    import importlib
    import pkgutil

    import radfield

    for info in pkgutil.walk_packages(radfield.__path__, "radfield."):
        if not info.name.startswith(("radfield.apps", "radfield.cpu.libradfield")):
            importlib.import_module(info.name)
    return set(Op.registry)


@pytest.mark.parametrize("isa", ISAS)
def test_ops_agree_with_their_references(installed, isa):
    if not library.INSTRUCTION_SETS[library.machine()][isa] <= library.cpu_features():
        pytest.skip(f"this CPU lacks {isa}")
    check_ops(installed, RADFIELD_ISA=isa)


def check_ops(python: Path, *options: str, **environment: str) -> None:
    """Runs the tests of the ops with `python`."""
    run(python, "-m", "pytest", "-q", "-x", "-m", "not slow", *options, *OP_TESTS, cwd=ROOT, environment=environment)


# ---- every access, and another architecture: the ops run in a process of their own (cpu/driver.cpp)


def build_driver(folder: Path, isa: str, *options: str, compiler: str = "c++") -> Path:
    """The driver, with the library of one instruction set, which it finds beside itself."""
    cmake = shutil.which("cmake") or pytest.skip("not installed: cmake")
    run(cmake, "-S", ROOT, "-B", folder, f"-DRADFIELD_ISA={isa}", f"-DCMAKE_CXX_COMPILER={compiler}", *options)
    run(cmake, "--build", folder, "--parallel")
    driver = folder / "driver"
    link = ["-L", folder, "-Wl,--no-as-needed", f"-lradfield-{isa}", "-Wl,-rpath,$ORIGIN", "-ldl"]
    run(compiler, "-std=c++20", "-O1", ROOT / "tests" / "cpu" / "driver.cpp", "-o", driver, *link)
    return driver


@pytest.mark.skipif(sys.platform != "linux", reason="the driver is linked as on Linux")
@pytest.mark.parametrize("isa", ISAS)
def test_ops_touch_nothing_beyond_their_arguments(tmp_path, isa):
    needs("c++")
    if not library.INSTRUCTION_SETS[library.machine()][isa] <= library.cpu_features():
        pytest.skip(f"this CPU lacks {isa}")
    check_remote(build_driver(tmp_path, isa))


@pytest.mark.skipif(library.machine() == "aarch64", reason="arm64 is this machine's own")
def test_arm64_agrees_with_the_references(tmp_path):
    needs(CROSS, "qemu-aarch64")
    system = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
    driver = build_driver(tmp_path, "arm64", *system, compiler=CROSS)
    libc = Path(run(CROSS, "-print-file-name=libc.so.6").strip()).resolve()
    check_remote(f"qemu-aarch64 -L {libc.parents[1]} {driver}")


def check_remote(driver) -> None:
    """Runs the tests of the ops with every op in `driver`."""
    environment = {"RADFIELD_TEST_DRIVER": str(driver), "PYTHONPATH": str(ROOT / "tests")}
    check_ops(Path(sys.executable), "-p", "remote_library", **environment)
