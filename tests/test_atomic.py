"""Folders are filled as a whole or not at all, and what was there stays until then."""

import errno

import pytest

from radfield.atomic import filling, foreign, replacing_file
from radfield.errors import BadInput


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(folder, **options):
    with filling(folder, **options) as inside:
        (inside / "images").mkdir()
        (inside / "images" / "a").write_text("new")
        (inside / "list").write_text("new")


def test_a_new_folder_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "er" / "out"
    with filling(target) as inside:
        (inside / "a").write_text("1")
        assert not target.exists() and inside.parent == target.parent
    assert names(target) == ["a"] and names(target.parent) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_what_fails(tmp_path, error, there):
    target = tmp_path / "deep" / "out"
    if there:
        target.mkdir(parents=True)
        (target / "old").write_text("old")
    with pytest.raises(error), filling(target) as inside:
        (inside / "old").write_text("new")
        raise error
    assert names(tmp_path) == (["deep"] if there else [])
    assert not there or (names(target) == ["old"] and (target / "old").read_text() == "old")


def test_a_folder_that_is_there_stays_the_same_one(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b").write_text("old")
    (tmp_path / "mine").write_text("kept")
    number = tmp_path.stat().st_ino
    fill(tmp_path, last="list")
    assert tmp_path.stat().st_ino == number and names(tmp_path) == ["images", "list", "mine"]
    assert names(tmp_path / "images") == ["a"]
    fill(tmp_path, clear=True)
    assert names(tmp_path) == ["images", "list"]


def test_what_marks_a_whole_folder_goes_first_and_comes_last(tmp_path, monkeypatch):
    fill(tmp_path, last="images")
    moved = []

    def move(source, target):
        assert not (tmp_path / "images").exists()  # half of it is never taken for the whole
        moved.append(target.name)
        source.rename(target)

    monkeypatch.setattr("radfield.atomic.os.replace", move)
    fill(tmp_path, last="images")
    assert moved == ["list", "images"]


def test_what_a_killed_process_left_is_nobodys(tmp_path):
    left = tmp_path / ".out.tmp"
    left.mkdir()
    (left / "half").write_text("")
    assert foreign(tmp_path) == [] == foreign(tmp_path / "none")
    fill(tmp_path / "out")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["images", "list"]


def test_a_full_disk_is_one_line(tmp_path):
    with (
        pytest.raises(BadInput, match=r"out: could not be written: no space left on device"),
        filling(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(BadInput, match=r"b: could not be written: .*unchanged"):
        (tmp_path / "b").write_text("old")
        with replacing_file(tmp_path / "b") as file:
            file.write(b"new")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == ["b"] and (tmp_path / "b").read_text() == "old"
    with pytest.raises(OSError, match="Bad address"), filling(tmp_path / "out"):
        raise OSError(errno.EFAULT, "Bad address")  # says nothing of the disk
