"""A picture from coarse to fine: every pixel once, and in the end what the renderer gives."""

import pytest
import torch

from radfield.cameras import look_at
from radfield.viewer.exhibit import perspective
from radfield.viewer.refine import OFFSET, Split, refine
from radfield.viewer.sources import Answer, Look
from radfield.viewer.worker import REST, Wish, Worker


class Numbers:
    """Every pixel's colour is its number; counts what is asked."""

    whole = False
    channels = ("colour",)
    transform = None

    def __init__(self, offset: float = 0.0):
        self.asked, self.offset = [], offset

    def ask(self, look, camera, index):
        self.asked.append(index)
        value = index.float() + self.offset
        return Answer(value[:, None].expand(-1, 3), torch.ones(len(index)), value)


def camera(width=50, height=37):
    up = torch.tensor([0.0, 0, 1])
    return perspective(look_at(torch.tensor([2.0, 1, 1]), torch.tensor([0.5, 0.5, 0.5]), up), 0.8, width, height)


@pytest.mark.parametrize("first", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(50, 37), (320, 240), (8, 8)])
def test_every_pixel_is_asked_for_once_and_lands_in_its_place(first, size):
    source, (width, height) = Numbers(), size
    pictures = [p for p in refine(source, Look(), camera(*size), first) if p is not None]
    assert torch.equal(torch.cat(source.asked).sort().values, torch.arange(width * height))
    assert [p.whole for p in pictures] == [False] * (len(pictures) - 1) + [True]
    assert torch.equal(pictures[-1].view.depth.view(-1), torch.arange(float(width * height)))


def test_passes_show_the_pixels_of_their_stride():
    pictures = [p for p in refine(Numbers(), Look(), camera(64, 64), 4) if p is not None]
    numbers = torch.arange(64.0 * 64).view(64, 64)
    for picture, stride in zip(pictures, (4, 2, 1), strict=True):
        assert torch.equal(picture.view.depth, numbers[OFFSET[stride] :: stride, OFFSET[stride] :: stride])


def test_a_split_takes_each_side_from_its_source():
    left, right = Numbers(), Numbers(10_000)
    *_, last = refine(Split(left, right, 0.25), Look(), camera(40, 20), 2)
    depth = last.view.depth
    assert bool((depth[:, :10] < 10_000).all())
    assert bool((depth[:, 10:] >= 10_000).all())
    assert torch.equal(depth % 10_000, torch.arange(800.0).view(20, 40))


def test_a_client_has_one_pending_wish_however_often_it_asks():
    worker, shown, source = Worker(), [], Numbers()
    worker.open(1, lambda view, wish, whole: shown.append((wish, whole)))
    wishes = [Wish(source, Look(), camera()) for _ in range(200)]
    for wish in wishes:
        worker.ask(1, wish)
    assert worker.work()
    assert shown == [(wishes[-1], False)]  # one quick picture, of the last
    worker._slots[1].moved -= REST
    while worker.work():
        pass
    assert shown[-1] == (wishes[-1], True)
    assert {id(wish) for wish, _ in shown} == {id(wishes[-1])}
    assert not worker.waiting()


def test_a_moving_camera_ends_the_refinement_of_its_last_place():
    worker, shown = Worker(), []
    worker.open(1, lambda view, wish, whole: shown.append((wish, whole)))
    first, second = (Wish(Numbers(), Look(), camera(320, 240)) for _ in range(2))
    worker.ask(1, first)
    worker.work()
    worker._slots[1].moved -= REST
    assert worker.work()  # a piece of the first
    worker.ask(1, second)
    worker.work()
    assert shown[-1] == (second, False)
    worker._slots[1].moved -= REST
    while worker.work():
        pass
    assert (first, True) not in shown


def test_clients_take_turns_and_leave_without_a_trace():
    worker, shown = Worker(), []
    for client in (1, 2):
        worker.open(client, lambda view, wish, whole, client=client: shown.append((client, whole)))
        worker.ask(client, Wish(Numbers(), Look(), camera(320, 240)))
    worker.work(), worker.work()
    assert sorted(shown) == [(1, False), (2, False)]
    worker.close(1)
    worker._slots[2].moved -= REST
    while worker.work():
        pass
    assert [client for client, whole in shown if whole] == [2]
    assert worker.clients() == 1


def test_a_source_that_fails_is_told_and_does_not_end_the_others():
    class Broken(Numbers):
        def ask(self, look, camera, index):
            raise RuntimeError("broken")

    worker, shown, failed = Worker(), [], []
    worker.failed = failed.append
    for client, source in ((1, Broken()), (2, Numbers())):
        worker.open(client, lambda view, wish, whole, client=client: shown.append((client, whole)))
        worker.ask(client, Wish(source, Look(), camera(), moving=False))
    while worker.work():
        pass
    assert [str(error) for error in failed] == ["broken"]
    assert shown[-1] == (2, True)


def test_jobs_wait_for_pictures():
    worker, order = Worker(), []
    worker.open(1, lambda view, wish, whole: order.append("picture"))
    worker.ask(1, Wish(Numbers(), Look(), camera(), moving=False))
    worker.add_job(iter(map(order.append, ["job"] * 3)))
    while worker.work():
        pass
    assert order[-3:] == ["job"] * 3
    assert "job" not in order[:-3]
    assert worker.jobs == []
