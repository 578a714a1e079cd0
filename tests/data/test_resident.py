"""Decoded images on disk, and the rotating subset of them that is in memory."""

import errno
import itertools
import json

import pytest
import torch

from radfield.data import load
from radfield.data.decoded_cache import CachedImages, Limits, cached, fitting_size
from radfield.data.images import Decode, decode, decode_all
from radfield.data.masks import Mask
from radfield.data.resident import ResidentImages, draw_pixels
from radfield.data.scene import Images
from radfield.errors import BadInput, RadfieldWarning
from radfield.training.progress import Progress


@pytest.fixture
def jobs(capture):
    """Decoding jobs of ten images of two sizes, the red channel of image i being 10 i."""
    sizes = [(16, 12) if i % 3 else (8, 10) for i in range(10)]
    return [Decode(capture.image(f"{i}.png", size=size, red=10 * i), size) for i, size in enumerate(sizes)]


def masked(jobs, capture):
    files = [capture.image(f"masks/{i}.png", size=job.size, mode="L", red=255) for i, job in enumerate(jobs)]
    capture.image("masks/4.png", size=jobs[4].size, mode="L", red=0)
    return [Decode(job.path, job.size, mask=Mask(file)) for job, file in zip(jobs, files, strict=True)]


@pytest.mark.parametrize("with_masks", [False, True])
def test_the_cache_holds_what_is_decoded(jobs, capture, tmp_path, with_masks):
    jobs = masked(jobs, capture) if with_masks else jobs
    images, cache = decode_all(jobs, 3), cached(jobs, 3, tmp_path / "x.pixels")
    assert torch.equal(cache.size, images.size) and len(cache) == 10 and cache.channels == 3
    for i in range(10):
        assert torch.equal(cache[i], images[i])
        assert torch.equal(cache.composited(i, (0, 0, 0)), images.composited(i, (0, 0, 0)))
        if with_masks:
            assert torch.equal(cache.kept(i), images.kept(i)) and bool(images.kept(i).all()) == (i != 4)
        else:
            assert cache.kept(i) is None


def test_a_cache_is_used_again_and_made_again(jobs, capture, tmp_path):
    file = tmp_path / "x.pixels"
    cached(jobs, 3, file)
    made = file.stat().st_mtime_ns, file.stat().st_ino
    cached(jobs, 3, file)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == made
    capture.image("3.png", size=jobs[3].size, red=200)
    assert cached(jobs, 3, file)[3][0, 0, 0] == 200
    file.write_bytes(file.read_bytes()[:-1])
    assert cached(jobs, 3, file)[9][0, 0, 0] == 90
    file.with_suffix(".json").write_text(json.dumps({"images": 3}))
    assert cached(jobs, 3, file)[9][0, 0, 0] == 90
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["x.json", "x.pixels"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda spans: [[[0, 1 << 40]], *spans[1:]],
        lambda spans: [[[-5, 3]], *spans[1:]],
        lambda spans: [[[6, 3]], *spans[1:]],
        lambda spans: [[[2, 6], [4, 8]], *spans[1:]],
        lambda spans: [[[0, 1.5]], *spans[1:]],
        lambda spans: [[[0, True]], *spans[1:]],
        lambda spans: [[0, 4], *spans[1:]],
        lambda spans: ["all", *spans[1:]],
        lambda spans: spans[1:],
        lambda spans: {"0": 3},
        lambda spans: None,
    ],
)
def test_spans_that_no_image_has_are_made_again(jobs, capture, tmp_path, damage):
    jobs, file = masked(jobs, capture), tmp_path / "x.pixels"
    before = cached(jobs, 3, file).spans
    about = file.with_suffix(".json")
    written = about.read_text()
    content = json.loads(written)
    about.write_text(json.dumps({**content, "spans": damage(content["spans"])}))
    after = cached(jobs, 3, file).spans
    assert all((a == b).all() for a, b in zip(before, after, strict=True)) and about.read_text() == written


def test_decoding_to_disk_is_shown(capture, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("radfield.errors._announced", {})
    folder = capture(12)
    limits = Limits(tmp_path / "cache", memory=2000, disk=10**6)
    with pytest.warns(RadfieldWarning, match="do not fit into memory"):
        load(folder, limits=limits, holdout=4, progress=Progress)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == ["decode train: 9 steps", "decode val: 3 steps"]
    with pytest.warns(RadfieldWarning, match="do not fit into memory"):
        load(folder, limits=limits, holdout=4, progress=Progress)
    assert capsys.readouterr().err == "", "what is decoded already is not decoded again"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the files that are decoded, in any order."""
    names = []

    def counted(job, channels):
        names.append(job.path.name)
        return decode(job, channels)

    monkeypatch.setattr("radfield.data.partial_cache.decode", counted)
    monkeypatch.setattr("radfield.data.partial_cache._TOGETHER", 2)
    return names


@pytest.mark.parametrize("with_masks", [False, True])
def test_decoding_goes_on_where_it_was_interrupted(jobs, capture, tmp_path, decoded, with_masks):
    jobs = masked(jobs, capture) if with_masks else jobs
    expected, resumed = cached(jobs, 3, tmp_path / "whole.pixels"), []

    class Stop(Progress):
        def update(self, step, **figures):
            if step == 6:
                raise KeyboardInterrupt

    class Watch(Progress):
        def __init__(self, *arguments, **options):
            resumed.append(options["resumed_from"])
            super().__init__(*arguments, **options)

    with pytest.raises(KeyboardInterrupt, match="6 of 10 images are decoded; training with the same --output"):
        cached(jobs, 3, tmp_path / "x.pixels", Stop)
    with open(tmp_path / "x.partial", "ab") as file:  # what was written of the next one
        file.write(b"half an image")
    with open(tmp_path / "x.partial.jsonl", "ab") as file:
        file.write(b'[["/caf')
    decoded.clear()
    found = cached(jobs, 3, tmp_path / "x.pixels", Watch)
    assert sorted(decoded) == ["6.png", "7.png", "8.png", "9.png"] and resumed == [(6, 0.0)]
    assert found.path.read_bytes() == expected.path.read_bytes()
    assert (found.spans is None) == (not with_masks)
    if with_masks:
        assert all((a == b).all() for a, b in zip(found.spans, expected.spans, strict=True))
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {
        *("whole.json", "whole.pixels", "x.json", "x.pixels")
    }


def test_an_image_that_cannot_be_read_costs_only_what_follows(jobs, capture, tmp_path, decoded):
    sound = jobs[7].path.read_bytes()
    jobs[7].path.write_bytes(sound[:48])
    with pytest.raises(BadInput, match=r"7.png cannot be read"):
        cached(jobs, 3, tmp_path / "x.pixels")
    capture.image("3.png", size=jobs[3].size, red=200)  # another image by now: decoded again, with what follows
    jobs[7].path.write_bytes(sound)
    decoded.clear()
    cache = cached(jobs, 3, tmp_path / "x.pixels")
    assert sorted(decoded) == [f"{i}.png" for i in range(3, 10)]
    assert [int(cache[i][0, 0, 0]) for i in (2, 3, 4, 9)] == [20, 200, 40, 90]


def test_a_full_disk_gets_back_what_was_taken(jobs, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("radfield.data.partial_cache.PartialCache._decode", full)
    with pytest.raises(BadInput, match=r"x.pixels: could not be written: no space left"):
        cached(jobs, 3, tmp_path / "x.pixels")
    assert not [p for p in tmp_path.iterdir() if p.is_file()]


@pytest.mark.parametrize("slots", [1, 3, 10, 99])
@pytest.mark.parametrize("with_masks", [False, True])
def test_pixels_are_those_of_the_images(jobs, capture, tmp_path, slots, with_masks):
    jobs = masked(jobs, capture) if with_masks else jobs
    images = decode_all(jobs, 3)
    source = ResidentImages(cached(jobs, 3, tmp_path / "x.pixels"), slots, seed=5)
    seen = set()
    for step in range(2 * 10):
        if with_masks and slots == 1 and int(source._at(step)) == 4:
            continue  # the one image there is ignored as a whole
        found = draw_pixels(source, 40, seed=1, step=step, background=None)
        column, row = (found.pixel - 0.5).long().unbind(-1)
        for i, (view, x, y) in enumerate(zip(found.view.tolist(), column.tolist(), row.tolist(), strict=True)):
            expected = images[view][y, x].float() / 255
            assert torch.equal(found.color[i], expected)
        seen |= set(found.view.tolist())
    assert seen == set(range(10)) - ({4} if with_masks else set())
    source.close()


def test_what_is_there_depends_on_seed_and_step_alone(jobs, tmp_path):
    cache = cached(jobs, 3, tmp_path / "x.pixels")
    walked, history = ResidentImages(cache, 4, seed=2), []
    for step in range(25):
        walked.at(step)
        history.append((walked.view.clone(), walked.pixels.clone()))
    for step in (24, 0, 7, 8, 19):
        jumped = ResidentImages(cache, 4, seed=2)
        images = jumped.at(step)
        assert torch.equal(jumped.view, history[step][0])
        for slot, view in enumerate(jumped.view.tolist()):
            count = int(cache.size[view].prod())
            part = slice(slot * jumped.room, slot * jumped.room + count)
            assert torch.equal(images.pixels[part], history[step][1][part])
        jumped.close()
    assert [int((a != b).sum()) for (a, _), (b, _) in itertools.pairwise(history)] == [1] * 24
    walked.close()


def test_every_image_comes_once_per_round(jobs, tmp_path):
    source = ResidentImages(cached(jobs, 3, tmp_path / "x.pixels"), 2, seed=0)
    order = [source._at(number) for number in range(40)]
    for begin in range(0, 40, 10):
        assert sorted(order[begin : begin + 10]) == list(range(10))
    assert order[:10] != order[10:20]
    source.close()


def test_sizes_that_fit_the_disk():
    assert fitting_size([(4000, 3000)] * 2000, 3, 12 * 10**9) == 1600
    smaller = fitting_size([(4000, 3000)] * 5000, 3, 12 * 10**9)
    assert 900 < smaller < 1600 and 5000 * 3 * smaller * round(smaller * 0.75) <= 12 * 10**9
    assert fitting_size([(40, 30)], 3, 10**9) == 40


def test_load_goes_to_disk_where_memory_is_short(capture, tmp_path):
    folder = capture(9, size=(32, 24))
    whole = load(folder)
    assert isinstance(load(folder, limits=Limits(tmp_path / "c", 10**9, 10**9)).train.images, Images)
    assert not (tmp_path / "c").exists()
    with pytest.warns(RadfieldWarning, match=r"the 9 images do not fit into memory: .* reduced to 32 pixels"):
        scene = load(folder, limits=Limits(tmp_path / "c", 3000, 10**9))
    assert isinstance(scene.train.images, CachedImages) and scene.max_size == 32
    for split in ("train", "val"):
        for i in range(len(scene.split(split))):
            assert torch.equal(scene.split(split).images[i], whole.split(split).images[i])
    with pytest.warns(RadfieldWarning, match=r"reduced to \d+ pixels"):
        small = load(folder, limits=Limits(tmp_path / "d", 3000, 10000))
    files = sum(p.stat().st_size for p in (tmp_path / "d").iterdir() if p.suffix == ".pixels")
    assert 5000 < files <= 10000 and int(small.train.cameras.size.max()) < 32
