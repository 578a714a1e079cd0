"""gsplat's exporter and its compression: files that radfield's readers give back, and folders from anyone."""

import json

import numpy as np
import pytest
import torch

from radfield.compat.gsplat import PngCompression, export_splats
from radfield.compat.gsplat.checks import WrongCall
from radfield.compat.gsplat.compression.kmeans import clusters
from radfield.compat.gsplat.compression.sort import sort_splats
from radfield.errors import BadInput, RadfieldWarning
from radfield.gaussians.files import read_gaussians


def splats(N=100, K=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "means": torch.randn(N, 3, generator=generator) * 3,
        "scales": torch.randn(N, 3, generator=generator) - 3,
        "quats": torch.randn(N, 4, generator=generator),
        "opacities": torch.randn(N, generator=generator),
        "sh0": torch.randn(N, 1, 3, generator=generator),
        "shN": torch.randn(N, K, 3, generator=generator) * 0.2,
    }


@pytest.mark.parametrize("format, ending", [("ply", ".ply"), ("splat", ".splat"), ("ply_compressed", ".ply")])
def test_exported_files_are_read_back(tmp_path, format, ending):
    values, path = splats(), tmp_path / f"scene{ending}"
    if format == "splat":
        values["shN"] = values["shN"][:, :0]
    data = export_splats(**values, format=format, save_to=str(path))
    assert path.read_bytes() == data
    scene = read_gaussians(path)
    assert len(scene) == 100 and scene.degree == (0 if format == "splat" else 2)
    nearest = torch.cdist(scene.means.T, values["means"]).argmin(1)
    assert len(set(nearest.tolist())) == 100
    tolerance = {"ply": 0, "splat": 0.01, "ply_compressed": 0.03}[format]
    assert (scene.means.T - values["means"][nearest]).abs().max() <= tolerance
    assert (scene.base.T - values["sh0"][nearest, 0]).abs().max() <= (3 if format == "splat" else tolerance)
    if format == "ply":
        assert torch.equal(nearest, torch.arange(100))
        assert torch.equal(scene.rest.T.reshape(100, 8, 3), values["shN"])
        assert torch.equal(scene.quaternions.T, values["quats"])
        assert torch.equal(scene.opacity_logits, values["opacities"])


def test_what_is_not_finite_is_left_out_and_counted(tmp_path):
    values = splats()
    values["opacities"][3] = torch.nan
    values["shN"][5, 0, 0] = torch.inf
    with pytest.warns(RadfieldWarning, match="2 Gaussians have values that are not finite"):
        data = export_splats(**values)
    assert b"element vertex 98\n" in data


def test_wrong_exports():
    with pytest.raises(WrongCall, match="format is 'obj'; the rule: one of ply, splat, ply_compressed"):
        export_splats(**splats(), format="obj")
    with pytest.raises(WrongCall, match=r"sh0 has shape \[100, 3\]; the rule: \[100, 1, 3\]"):
        values = splats()
        export_splats(**{**values, "sh0": values["sh0"][:, 0]})


@pytest.mark.parametrize("use_sort", [False, True])
def test_compression_loses_no_more_than_its_steps(tmp_path, use_sort, recwarn):
    values = {**splats(), "extra": torch.arange(100.0)}
    before = {k: v.clone() for k, v in values.items()}
    method = PngCompression(use_sort=use_sort, verbose=False)
    method.compress(str(tmp_path / "out"), values)
    assert all(torch.equal(values[k], v) for k, v in before.items())
    found = method.decompress(str(tmp_path / "out"))
    assert set(found) == set(values) and all(found[k].shape == v.shape for k, v in values.items())
    order = found["extra"].long()
    assert torch.equal(order.sort().values, torch.arange(100)) and torch.equal(order, torch.arange(100)) != use_sort
    values = {k: v[order] for k, v in values.items()}
    unit = torch.nn.functional.normalize(values["quats"], dim=-1)
    for name, wanted in {"scales": values["scales"], "quats": unit, "opacities": values["opacities"]}.items():
        step = (wanted.amax(0) - wanted.amin(0)) / 255
        assert ((found[name] - wanted).abs() <= 0.5 * step + 1e-5).all()
    logs = [m.sign() * m.abs().log1p() for m in (found["means"], values["means"])]
    assert ((logs[0] - logs[1]).abs() <= (logs[1].amax(0) - logs[1].amin(0)) / 65535 * 0.5 + 1e-5).all()
    step = (values["shN"].max() - values["shN"].min()) / 63  # 100 Gaussians have centres of their own
    assert ((found["shN"] - values["shN"]).abs() <= 0.5 * step + 1e-5).all()


def test_what_makes_no_square_loses_the_least_opaque(tmp_path):
    values = splats(N=103)
    with pytest.warns(RadfieldWarning, match="103 Gaussians are no square number: the 3 least opaque are left out"):
        PngCompression(use_sort=False).compress(tmp_path / "out", values)
    found = PngCompression().decompress(tmp_path / "out")
    kept = values["opacities"].sort(descending=True).values[:100]
    assert (found["opacities"] - kept).abs().max() < 0.02


def test_sorting_moves_whole_gaussians(recwarn):
    values = splats(N=64)
    tagged = sort_splats({**values, "tag": torch.arange(64)}, verbose=False)
    assert torch.equal(values["shN"][tagged["tag"]], tagged["shN"])
    step = (tagged["means"].diff(dim=0)).norm(dim=1).mean()
    assert step < 0.8 * values["means"].diff(dim=0).norm(dim=1).mean()
    with pytest.raises(WrongCall, match="a square number"):
        sort_splats(splats(N=63))


def test_clusters_are_found():
    centers = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    points = torch.cat([c + 0.1 * torch.randn(50, 2, generator=torch.Generator().manual_seed(1)) for c in centers])
    for seed in range(20):  # one of the starts has a point of each
        found, label = clusters(points, 3, seed=seed)
        if len(label[::50].unique()) == 3:
            break
    assert torch.allclose(found[label[::50]], centers, atol=0.1) and torch.equal(
        label, label[::50].repeat_interleave(50)
    )


def damaged(change):
    def run(folder):
        meta = json.loads((folder / "meta.json").read_text())
        change(meta, folder)
        (folder / "meta.json").write_text(json.dumps(meta))

    return run


def _rename(meta, folder):
    meta["../../secret"] = meta.pop("scales")


def _cut(meta, folder):
    path = folder / "quats.png"
    path.write_bytes(path.read_bytes()[:200])


def _labels(meta, folder):
    np.savez(folder / "shN.npz", centroids=np.zeros((4, 24), np.uint8), labels=np.full(100, 9, np.uint16))


def _pickled(meta, folder):
    np.savez(folder / "shN.npz", centroids=np.array([{}], dtype=object), labels=np.zeros(100, np.uint16))


@pytest.mark.parametrize(
    "change, words",
    [
        (_rename, "'../../secret'"),
        (_cut, "quats.png: is no whole PNG file"),
        (_labels, "labels are not those of 4 centroids"),
        (_pickled, "pickled Python objects, which are never loaded"),
        (lambda m, f: m["means"].update(shape=[1 << 30, 3]), "means_l.png: is 10 x 10 RGB"),
        (lambda m, f: m["scales"].update(dtype="load"), "of 'load'"),
        (lambda m, f: m["scales"].update(mins=[0, "x", 1]), "finite numbers"),
        (lambda m, f: (f / "sh0.png").unlink(), "sh0.png"),
        (lambda m, f: m["shN"].update(shape=[100, 7, 3]), "shN has 2400 numbers; the rule: 2100"),
    ],
)
def test_damaged_folders_are_one_line(tmp_path, change, words):
    PngCompression(use_sort=False).compress(tmp_path / "out", splats())
    damaged(change)(tmp_path / "out")
    with pytest.raises(BadInput) as caught:
        PngCompression().decompress(tmp_path / "out")
    assert words in str(caught.value) and "\n" not in str(caught.value)
