"""Dense volumes come back as they were written; what is none is one line."""

import gzip

import numpy as np
import pytest
import torch

from radfield.data.volume_files import cloud, read_volume
from radfield.errors import BadInput


def values(depth=4, height=3, width=5):
    return np.random.default_rng(0).random((depth, height, width), dtype=np.float32)


def nrrd(content: bytes, **fields) -> bytes:
    given = {"type": "float", "dimension": "3", "sizes": "5 3 4", "encoding": "raw", "endian": "little"} | fields
    return ("NRRD0004\n# a remark\n" + "".join(f"{k}: {v}\n" for k, v in given.items()) + "\n").encode() + content


def test_every_format_gives_the_same_volume(tmp_path):
    written = values()
    np.save(tmp_path / "a.npy", written)
    (tmp_path / "a.raw").write_bytes(written.tobytes())
    (tmp_path / "a.nrrd").write_bytes(nrrd(written.tobytes()))
    (tmp_path / "b.nrrd").write_bytes(nrrd(gzip.compress(written.tobytes()), encoding="gzip"))
    (tmp_path / "c.nrrd").write_bytes(nrrd(written.astype(">f4").tobytes(), endian="big"))
    for name in ("a.npy", "a.raw", "a.nrrd", "b.nrrd", "c.nrrd"):
        volume = read_volume(tmp_path / name, (5, 3, 4), "float32")
        assert volume.size == (5, 3, 4)
        np.testing.assert_array_equal(volume.density.numpy(), written)
        torch.testing.assert_close(volume.box[1], torch.tensor([1.0, 0.6, 0.8]))


def test_albedos(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([values()] * 4, -1))
    volume = read_volume(tmp_path / "a.npy")
    assert volume.albedo.shape == (4, 3, 5, 3)
    torch.testing.assert_close(volume.channels()[..., 2], volume.density)


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.raw", b"\0" * 239, "has 239 bytes of numbers; the rule: 240"),
        ("a.nrrd", nrrd(b"\0" * 240, sizes="5 3 5"), "the rule: 300"),
        ("a.nrrd", nrrd(b"\0" * 240, sizes="99999 99999 99999"), "at most 2^31 voxels"),
        ("a.nrrd", nrrd(gzip.compress(b"\0" * 100_000), encoding="gzip"), "has 241 bytes of numbers; the rule: 240"),
        ("a.nrrd", nrrd(b"", encoding="hex"), "the rule: raw or gzip"),
        ("a.nrrd", nrrd(b"", **{"data file": "/etc/passwd"}), "the rule: an NRRD file that holds them itself"),
        ("a.nrrd", b"nothing", "no header"),
        ("a.npy", b"nothing", "is not a .npy file"),
        ("a.xyz", b"", "the rule: .npy, .nrrd or .raw"),
    ],
)
def test_what_is_no_volume(tmp_path, name, content, rule):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as error:
        read_volume(tmp_path / name, (5, 3, 4), "float32")
    assert rule in str(error.value)
    assert "\n" not in str(error.value)


def test_values_out_of_range(tmp_path):
    cases = {"not finite": np.nan, "densities are not negative": -1.0}
    for rule, wrong in cases.items():
        array = values()
        array[0, 0, 0] = wrong
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(BadInput, match=rule):
            read_volume(tmp_path / "a.npy")
    (tmp_path / "a.raw").write_bytes(b"")
    with pytest.raises(BadInput, match="need both, W H D"):
        read_volume(tmp_path / "a.raw")


def test_a_cloud_is_in_the_box_and_the_same_every_time():
    volume = cloud(32)
    assert torch.equal(volume.density, cloud(32).density)
    assert 0.05 < (volume.density > 0).float().mean() < 0.6
    assert volume.density.min() >= 0 and volume.density.max() <= 1
    edges = torch.cat([volume.density[0].flatten(), volume.density[:, 0].flatten(), volume.density[..., 0].flatten()])
    assert edges.max() == 0
