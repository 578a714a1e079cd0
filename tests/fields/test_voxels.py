"""The field of sparse voxels: what renderers ask of it."""

import pytest
import torch

from radfield.encodings import sparse_voxels
from radfield.encodings.spherical_harmonics import spherical_harmonics_reference
from radfield.errors import BadInput
from radfield.fields import radiance
from radfield.fields.voxels import VoxelField


def small_field(precision="f32", cascades=1):
    torch.manual_seed(0)
    grid = sparse_voxels.Config(resolution=12)
    field = radiance.build(radiance.Config(grid=grid, precision=precision), cascades)
    with torch.no_grad():
        for table in field.parameters():
            table.normal_()
    return field


def queries(n):
    return torch.rand(n, 3), torch.nn.functional.normalize(torch.randn(n, 3), dim=1)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_color_is_the_sum_of_harmonics(precision):
    field, (x, d) = small_field(precision), queries(200)
    assert isinstance(field, VoxelField) and field.networks == ()
    values = field.features(x).detach().float()
    harmonics = spherical_harmonics_reference(d, 3)
    expected = torch.stack([(values[:, 1 + 9 * c : 10 + 9 * c] * harmonics).sum(1) for c in range(3)], 1)
    assert torch.allclose(field.color(x, d), expected.sigmoid(), atol=1e-5)
    assert torch.allclose(field.density(x), values[:, 0].exp(), rtol=1e-5)


def test_features_found_earlier_change_nothing():
    field, (x, d) = small_field(), queries(200)
    gradients = []
    for encoded in (None, field.encode(x).detach()):
        field.zero_grad()
        logit, features = field.geometry(x, encoded)
        (logit.sum() + field.color_logits(features, d).square().sum()).backward()
        gradients.append([p.grad.clone() for p in field.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one.any() and torch.equal(one, other)


def test_cascades_widen_the_voxels():
    narrow, wide = small_field(), small_field(cascades=2)
    x, _ = queries(100)
    assert torch.allclose(wide.density((x - 0.5) * 2 + 0.5), narrow.density(x), rtol=1e-4)


def test_refuses_appearance():
    with pytest.raises(BadInput, match="appearance is 4"):
        VoxelField(sparse_voxels.Config(resolution=12), appearance=4)
