"""The examples run, and make what they say they make."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from radfield.data.synthetic import write_synthetic_capture

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "demo"
    small = ("--seconds", 1, "--views", 12, "--size", 32, "--frames", 2)  # too small to find cameras in
    options = ("--output", output, *small, "--posed", "--json")
    for _ in range(2):  # the second replaces what the first has left
        done = run("demo.py", *options)
        assert done.returncode == 0, done.stderr
    return output, json.loads(done.stdout.splitlines()[-1])


def test_the_demo_names_what_it_made(demo):
    output, figures = demo
    assert figures["psnr"] > 10
    for path in (*figures["pictures"], figures["video"], figures["report"]):
        assert Path(path).is_relative_to(output) and Path(path).stat().st_size > 0


def test_the_python_example(demo, tmp_path):
    capture = write_synthetic_capture(tmp_path, views=6, val_views=0, size=24)
    done = run("01_python_api.py", capture, "--steps", 20, "--run", demo[0] / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("density") == 2
    assert len((EXAMPLES / "01_python_api.py").read_text().splitlines()) <= 100


def test_the_demo_refuses_in_one_line(tmp_path):
    done = run("demo.py", "--output", tmp_path, "--seconds", 0, "--size", 8, "--views", 3, "--posed")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("radfield: --seconds is 0")


def test_the_ray_tracing_example(tmp_path):
    done = run("03_ray_tracing.py", tmp_path, "--size", 24)
    assert done.returncode == 0, done.stderr
    pictures = [tmp_path / f"{n}.png" for n in ("pinhole", "fisheye", "equirectangular", "aperture", "balls")]
    assert done.stdout.split() == [str(picture) for picture in pictures]
    assert len({picture.read_bytes() for picture in pictures}) == len(pictures)
    assert len((EXAMPLES / "03_ray_tracing.py").read_text().splitlines()) <= 100


def test_flexicubes_keeps_the_edges_of_a_box():
    import importlib.util

    spec = importlib.util.spec_from_file_location("flexicubes_example", EXAMPLES / "02_flexicubes.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    before, after = (example.error_of(example.fit(cells=12, steps=steps)) for steps in (0, 60))
    assert after < 0.3 * before
    assert len((EXAMPLES / "02_flexicubes.py").read_text().splitlines()) <= 100
