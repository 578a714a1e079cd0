"""What users get for captures that are damaged: one line, exit code 2, and nothing written."""

import pytest
from colmap_files import colmap, images_bin
from PIL import Image

from radfield.apps.command_line import main
from radfield.errors import RadfieldWarning

DAMAGE = {
    "lacks images.bin": dict(images=None),
    "in the middle of an entry|states 1 keypoints": dict(images=images_bin()[:-20]),
    "states 1152921504606846976 images": dict(images=images_bin(count=2**60)),
}
PROGRAMS = {
    "train": ["--output"],
    "data inspect": ["--output"],
    "data convert": [],
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("said", DAMAGE)
def test_a_damaged_colmap_model(tmp_path, capsys, program, said):
    folder, output = colmap(tmp_path / "capture", **DAMAGE[said]), tmp_path / "out.png"
    rest = ["--to", "nerfstudio"] if program == "data convert" else []
    assert main([*program.split(), str(folder), *PROGRAMS[program], str(output), *rest]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and any(each in lines[0] for each in said.split("|"))
    assert [path.name for path in tmp_path.iterdir()] == ["capture"]


def test_a_folder_without_photographs(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "IMG_1.HEIC").write_bytes(b"?")
    assert main(["train", str(tmp_path), "--output", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "HEIC photographs" in lines[0] and "export them as JPEG" in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["IMG_1.HEIC", "notes.txt"]


def test_decoded_images_of_a_read_only_capture_go_to_the_run(tiny_capture, tmp_path, monkeypatch):
    monkeypatch.setattr("radfield.errors._announced", {})
    folders = [tiny_capture, *(path for path in tiny_capture.rglob("*") if path.is_dir())]
    before = sorted(tiny_capture.rglob("*"))
    for folder in folders:
        folder.chmod(0o555)
    try:
        options = ["--memory-gb", "1e-5", "--steps", "2", "--no-evaluate"]
        with pytest.warns(RadfieldWarning, match="do not fit into memory: they are kept decoded in the run's folder"):
            assert main(["train", str(tiny_capture), "--output", str(tmp_path / "run"), *options]) == 0
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert sorted(tiny_capture.rglob("*")) == before
    assert (tmp_path / "run" / "cache" / "train.pixels").stat().st_size > 0


def test_photographs_and_nothing_but_remnants_of_a_model(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(tmp_path / "images" / f"{i}.jpg")
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    assert main(["train", str(tmp_path), "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
