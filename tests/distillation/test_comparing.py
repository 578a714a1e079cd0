"""What two fields are compared on: norms, the clamp, hard points."""

import pytest
import torch

from radfield.distillation.active import POINTS, hard_points
from radfield.distillation.comparing import CLAMP, clamped, differences, in_common


def test_norms_are_not_squared():
    a, b = torch.randn(50, 3), torch.randn(50, 3)
    one, two = (differences({"color": a}, {"color": a + k * b}, ["color"])["color"] for k in (1, 2))
    assert one == pytest.approx(float(b.square().sum().sqrt()), rel=1e-5)
    assert two == pytest.approx(2 * float(one), rel=1e-5)


@pytest.mark.parametrize(("ours", "theirs", "expected"), [(-9, -5, 0), (9, 20, 0), (-9, 9, 9), (0, 3, 3), (8, 0, 7)])
def test_densities_are_compared_within_the_clamp(ours, theirs, expected):
    pair = {"density": torch.tensor([float(ours)])}, {"density": torch.tensor([float(theirs)])}
    assert CLAMP == (-2.0, 7.0)
    assert differences(*pair, ["density"])["density"] == expected
    assert differences(*pair, ["density"], clamp=None)["density"] == abs(ours - theirs)


def test_the_clamp_is_of_the_densitys_feature_alone():
    ours, theirs = torch.full((4, 3), 20.0), torch.zeros(4, 3)
    found = differences({"features": ours}, {"features": theirs}, ["features"])["features"]
    assert found == pytest.approx((4 * (7**2 + 2 * 20**2)) ** 0.5)


def test_a_student_beyond_the_clamp_comes_back():
    x = torch.tensor([-5.0, 0.0, 9.0], requires_grad=True)
    wanted = torch.tensor([1.0, 1.0, 1.0])
    differences({"density": wanted}, {"density": x}, ["density"])["density"].backward()
    assert x.grad[0] < 0 < x.grad[2]
    far = torch.tensor([-5.0, 9.0], requires_grad=True)  # on the same side as the teacher: nothing to learn
    differences({"density": torch.tensor([-3.0, 8.0])}, {"density": far}, ["density"])["density"].backward()
    assert (far.grad == 0).all()
    assert torch.equal(clamped(x, CLAMP), x.clamp(*CLAMP))


def test_rows_leave_out_samples_but_no_rays():
    rows = torch.tensor([True, False])
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    found = differences({"color": a, "rendered": a}, {"color": b, "rendered": b}, ["color", "rendered"], rows=rows)
    assert found["color"] == pytest.approx(3**0.5) and found["rendered"] == pytest.approx(6**0.5)


def test_hard_points_are_the_union_of_both_fields_largest():
    ours, theirs = torch.rand(1000), torch.rand(1000)
    hard = hard_points(ours, theirs)
    count = round(POINTS * 1000)
    assert count <= hard.sum() <= 2 * count
    for weights in (ours, theirs):
        assert hard[weights > weights.sort(descending=True).values[count]].all()
    assert torch.equal(hard_points(ours, ours), hard_points(ours, 2 * ours))


def test_what_fields_have_in_common(teacher, student_of):
    field = teacher.field
    assert in_common(field, student_of(teacher, "vm").field) == ["features", "density", "color", "rendered"]
    assert in_common(field, student_of(teacher, "sparse").field) == ["density", "color", "rendered"]

    class Other:
        comparable = {"features": 8, "density": 1}

    assert in_common(field, Other()) == ["density"]  # features of another size are not the same thing
