"""SOG and .ksplat files, which are only read: made here by their layouts, and as other programs wrote them."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from radfield.errors import BadInput
from radfield.gaussians.files import read_gaussians

HALF = 2**0.5 / 2


def webp(pixels):
    """A lossless image of [rows, columns, 4] bytes."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(out, "WEBP", lossless=True, exact=True)
    return out.getvalue()


def square(values, width=4):
    """[G, n] bytes as an image with the rest of each pixel 255."""
    pixels = np.full((-(-len(values) // width) * width, 4), 255)
    pixels[: len(values), : values.shape[1]] = values
    return webp(pixels.reshape(-1, width, 4))


@pytest.fixture
def sog():
    """(members of a .sog of 5 Gaussians by name, its meta.json)."""
    codebook = np.linspace(-5, 5, 256).tolist()
    u = np.arange(15).reshape(5, 3) * 4000
    labels = np.stack([np.arange(5), np.zeros(5), np.zeros(5)], 1)
    members = {
        "means_l.webp": square(u % 256),
        "means_u.webp": square(u // 256),
        "quats.webp": square(np.array([[255, 0, 128, 252 + i % 4] for i in range(4)] + [[1, 2, 3, 0]])),
        "scales.webp": square(np.arange(15).reshape(5, 3)),
        "sh0.webp": square(np.arange(20).reshape(5, 4) * 10),
        "centroids.webp": webp(np.arange(64 * 3 * 4).reshape(1, 192, 4) % 256),
        "labels.webp": square(labels),
    }
    meta = {
        "version": 2,
        "count": 5,
        "means": {"mins": [-1.0, -2, -3], "maxs": [1.0, 2, 3], "files": ["means_l.webp", "means_u.webp"]},
        "quats": {"files": ["quats.webp"]},
        "scales": {"codebook": codebook, "files": ["scales.webp"]},
        "sh0": {"codebook": codebook, "files": ["sh0.webp"]},
        "shN": {"count": 64, "bands": 1, "codebook": codebook, "files": ["centroids.webp", "labels.webp"]},
    }
    return members, meta


def write(path, members, meta):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
        file.writestr("meta.json", json.dumps(meta))
    return path


def test_sog(tmp_path, sog):
    members, meta = sog
    scene = read_gaussians(write(tmp_path / "a.sog", members, meta))
    code = torch.linspace(-5, 5, 256)
    n = torch.tensor([-1.0, -2, -3]) + torch.tensor([2.0, 4, 6]) * torch.arange(15).view(5, 3) * 4000 / 65535
    torch.testing.assert_close(scene.means.T, n.sign() * n.abs().expm1(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scene.log_scales.T, code[torch.arange(15).view(5, 3)])
    torch.testing.assert_close(scene.base.T, code[torch.arange(20).view(5, 4)[:, :3] * 10])
    torch.testing.assert_close(scene.opacity_logits.sigmoid(), torch.arange(3, 20, 4) * 10 / 255)
    pixels = torch.arange(64 * 3 * 4).view(64, 3, 4) % 256
    torch.testing.assert_close(scene.rest.T, code[pixels[:5, :, :3].reshape(5, 9)])
    for i in range(4):  # the two at +-1/sqrt(2) fill the length: what is left out is 0
        others = [k for k in range(4) if k != i]
        torch.testing.assert_close(
            scene.quaternions[others, i], torch.tensor([HALF, -HALF, 0.00277]), atol=1e-4, rtol=0
        )
        assert scene.quaternions[i, i] == 0
    assert scene.quaternions[:, 4].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("version", 3, "version 3; the rule: 1 or 2"),
        ("count", 0, "has 0 Gaussians"),
        ("count", 1 << 30, "has 1073741824 Gaussians in 146 bytes of positions"),
        ("count", 9, "has 8 pixels; the rule: one per Gaussian"),
        (
            "means",
            {"mins": [1, 2], "files": ["means_l.webp", "means_u.webp"]},
            "means.mins .1, 2.; the rule: a list of 3",
        ),
        ("quats", {"files": ["../quats.webp"]}, "names the file '../quats.webp'; the rule: one in the same folder"),
        ("quats", {"files": ["nothing.webp"]}, "has no nothing.webp"),
        ("quats", {"files": ["meta.json"]}, "meta.json is no image"),
        ("scales", {"files": ["scales.webp"], "codebook": [0.0] * 255}, "a list of 256"),
        ("scales", {"files": ["scales.webp"], "codebook": ["x"] * 256}, "finite numbers"),
        ("shN", {"files": ["scales.webp", "labels.webp"]}, "is 4 pixels wide; the rule: 192, 512 or 960"),
        ("shN", {"files": ["centroids.webp", "quats.webp"]}, "the palette's entries"),
    ],
)
def test_sogs_that_are_wrong(tmp_path, sog, key, value, line):
    members, meta = sog
    with pytest.raises(BadInput, match=line):
        read_gaussians(write(tmp_path / "a.sog", members, {**meta, key: value}))


def test_sogs_with_more_pixels_than_gaussians_are_not_decoded(tmp_path, sog):
    members, meta = sog
    members["quats.webp"] = webp(np.zeros((600, 600, 4)))
    with pytest.raises(BadInput, match="600 x 600 pixels; the rule: at most 65556"):
        read_gaussians(write(tmp_path / "a.sog", members, meta))
    (tmp_path / "b.sog").write_bytes(b"no zip")
    with pytest.raises(BadInput, match="cannot be opened as a zip"):
        read_gaussians(tmp_path / "b.sog")
    (tmp_path / "meta.json").write_text("[1")
    with pytest.raises(BadInput, match="no JSON"):
        read_gaussians(tmp_path / "meta.json")


def test_sogs_of_another_program(captures):
    counts = {"monkey_0001.sog": 31658, "playcanvas-logo/meta.json": 307128, "playbot/6_0/meta.json": 1873}
    for name, count in counts.items():
        scene = read_gaussians(captures / "gaussians/playcanvas" / name)
        assert len(scene) == count and scene.degree == (2 if "playbot" in name else 0)
        assert scene.means.abs().max() < 3 and 0.5 < float(scene.opacity_logits.sigmoid().mean()) < 1


KINDS = (("<f4", "<f4", "<f4"), ("<u2", "<f2", "<f2"), ("<u2", "<f2", "u1"))


def ksplat(level, degree, count=7, **changes):
    """(bytes of a file of one section with a full bucket of 4 and a partly filled one, means, the records)."""
    position, number, harmonic = KINDS[level]
    record = np.zeros(
        count,
        [
            ("p", position, 3),
            ("s", number, 3),
            ("q", number, 4),
            ("c", "u1", 4),
            ("h", harmonic, 3 * ((degree + 1) ** 2 - 1)),
        ],
    )
    record["s"], record["q"][:, 1] = 0.5, 1
    record["c"] = np.arange(4 * count).reshape(count, 4) * 7 + 20
    record["h"] = np.arange(record["h"].size).reshape(record["h"].shape) % 50
    record["p"] = np.arange(3 * count).reshape(count, 3) * 1000
    centres = np.array([[0, 0, 0], [10, 20, 30]], "<f4")
    means = record["p"].astype(float)
    if level:
        means = centres[np.arange(count) // 4] + (means - 32767) * (2.5 / 32767)
    main, section = bytearray(4096), bytearray(1024)
    values = {"sections": 1, "total": count, "kind": level, "major": 0, "claimed": count, "named": degree, **changes}
    main[:2] = bytes([values["major"], 1])
    struct.pack_into("<IIIIH", main, 4, values["sections"], 1, count, values["total"], values["kind"])
    struct.pack_into("<4IfHxxI", section, 0, count, values["claimed"], 4, 2, 5.0, 12, 0)
    struct.pack_into("<IIH", section, 32, 1, 1, values["named"])
    body = struct.pack("<I", count - 4) + centres.tobytes() + record.tobytes()
    return bytes(main) + bytes(section) + body, means, record


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_ksplat(tmp_path, level, degree):
    data, means, record = ksplat(level, degree)
    path = tmp_path / "a.ksplat"
    path.write_bytes(data)
    scene = read_gaussians(path)
    torch.testing.assert_close(scene.means.T, torch.from_numpy(means).float())
    torch.testing.assert_close(scene.log_scales, torch.full((3, 7), 0.5).log())
    torch.testing.assert_close(scene.opacity_logits.sigmoid(), torch.from_numpy(record["c"][:, 3] / 255).float())
    assert scene.quaternions.T[0].tolist() == [0, 1, 0, 0] and scene.degree == degree
    if degree:  # coefficient 1 of green stands second in a scene, fourth in the file
        wanted = record["h"][:, 3].astype(np.float32)
        torch.testing.assert_close(scene.rest[1], torch.from_numpy(-1.5 + 3 * wanted / 255 if level == 2 else wanted))


def test_ksplats_that_are_wrong(tmp_path, captures):
    path, whole = tmp_path / "a.ksplat", ksplat(1, 1)[0]
    cases = [(whole[:-1], "a section claims"), (whole[:4100], "ends within the header"), (b"x", "has 1 bytes")]
    for changes, line in (
        ({"total": 9}, "has 7 Gaussians in its sections; its header has 9"),
        ({"claimed": 3}, "7 Gaussians of 3"),
        ({"claimed": 1 << 30}, "a section claims"),
        ({"kind": 3}, "level 3"),
        ({"major": 1}, "version 1.1"),
        ({"sections": 1 << 20}, "1048576 sections"),
        ({"named": 3}, "degree 3"),
    ):
        cases.append((ksplat(1, 1, **changes)[0], line))
    for data, line in cases:
        path.write_bytes(data)
        with pytest.raises(BadInput, match=line):
            read_gaussians(path)
    assert len(read_gaussians(captures / "gaussians/splat_transform_fixtures/minimal.ksplat")) == 4
