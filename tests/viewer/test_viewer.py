"""A viewer and its clients, without a browser: what they are sent, and what stays when they have left."""

import math
import os
import time

import numpy as np
import pytest
import torch
from viewer.browser import until
from viewer.client import Client
from viewer.test_exhibit import gaussians

from radfield.gaussians.files import read_gaussians
from radfield.gaussians.ply import write_ply
from radfield.metrics import psnr
from radfield.viewer import crop, sources
from radfield.viewer.pictures import picture_of
from radfield.viewer.refine import refine
from radfield.viewer.sources import Look

SIZE = (120, 90)


@pytest.fixture
def watched(trained, viewing):
    """A viewer of a run."""
    return viewing(trained)


def enter(viewer, **options) -> Client:
    """A client at the first view."""
    client = Client(viewer.url, *SIZE, **options)
    position, aim, fov = viewer.exhibit.first_view()
    client.move(position, aim, fov=fov)
    return client


def whole(client) -> bool:
    return client.size() == SIZE


def settled(viewer, client, number=0) -> np.ndarray:
    """The client's picture once the viewer has drawn the whole one and the client has it."""
    session = session_of(viewer, number)

    def same():
        if viewer.worker.waiting() or session.last is None or not client.pictures:
            return False
        view, wish = session.last
        sent, got = picture_of(view, wish.look.channel, wish.camera), client.picture()
        return sent.shape == got.shape and np.abs(sent.astype(int) - got).mean() < 12  # JPEG

    until(same, 40)
    return client.picture()


def session_of(viewer, number=0):
    return until(lambda: viewer.sessions.get(number), 20)


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_last_picture_is_what_render_gives(watched):
    client = enter(watched)
    picture = settled(watched, client)
    model, camera = watched.exhibit.source.model, session_of(watched).camera()
    expected = model.render_view(camera, 0).color
    assert psnr(torch.from_numpy(picture).float() / 255, expected) > 35  # but for JPEG
    *_, last = refine(watched.exhibit.source, Look(), camera, 4)
    assert torch.allclose(last.view.color, expected, atol=1e-5)
    client.close()


def test_controls_change_the_picture(watched):
    client = enter(watched)
    assert client.wait(lambda c: whole(c) and {"show", "background", "crop", "resolution"} <= set(c.gui))
    session = session_of(watched)
    seen = {"colour": settled(watched, client)}
    for channel in sources.CHANNELS[1:]:
        client.set("show", channel)
        until(lambda channel=channel: session.last[1].look.channel == channel, 20)
        seen[channel] = settled(watched, client)
    pictures = list(seen.values())
    assert all(np.abs(a.astype(int) - b).mean() > 1 for i, a in enumerate(pictures) for b in pictures[:i])
    client.set("show", "colour")
    client.set("background", "black")
    until(lambda: session.last[1].look == Look(background=(0.0, 0.0, 0.0)), 20)
    assert settled(watched, client)[0, 0].max() < 20
    client.set("resolution", 100)
    assert client.wait(lambda c: c.size() == (100, 75))
    client.close()


def test_nothing_outside_the_crop_box_is_drawn(trained, viewing):
    source = viewing(trained).exhibit.source
    camera = viewing(trained).exhibit.at(width=40, height=40)
    index = torch.arange(1600)
    rays = sources.pixel_rays(camera, index)
    box = crop.Box((0.3, 0.3, 0.3), (0.6, 0.7, 0.8))
    found = source.ask(Look(crop=box), camera, index)
    part = sources.cropped(rays, box)
    missed = part.far <= part.near
    assert bool(missed.any())
    assert bool((found.opacity[missed] == 0).all())
    seen = found.opacity > 0.9
    assert bool(seen.any())
    at = rays.at(found.depth)[seen]
    assert bool(((at > torch.tensor(box.low) - 0.01) & (at < torch.tensor(box.high) + 0.01)).all())
    nothing = crop.Box((5.0, 5.0, 5.0), (6.0, 6.0, 6.0))
    assert float(source.ask(Look(crop=nothing), camera, index).opacity.max()) == 0


def test_two_clients_and_one_that_vanishes(watched):
    first, second = enter(watched), enter(watched)
    assert first.wait(whole)
    assert second.wait(whole)
    position, aim, fov = (v.numpy() if hasattr(v, "numpy") else v for v in watched.exhibit.first_view())
    for i in range(10):
        first.move(position + np.array([0.02 * i, 0, 0]), aim, fov=fov)
    first.vanish()  # in the middle of a drag
    until(lambda: len(watched.sessions) == 1, 30)
    count = second.count
    second.move(position + np.array([0, 0.1, 0]), aim, fov=fov)
    assert second.wait(lambda c: c.count > count and whole(c))
    until(lambda: watched.worker.clients() == 1, 20)
    second.close()
    until(lambda: not watched.sessions, 20)
    third = enter(watched)  # a page that is loaded again
    assert third.wait(whole)
    third.close()


def test_two_hundred_drags_leave_no_queue_and_no_memory(watched):
    client = enter(watched, keep=False)
    assert client.wait(whole)
    position, aim, fov = watched.exhibit.first_view()
    offset = (position - aim).numpy()

    def drag(count):
        for i in range(count):
            angle = 2 * math.pi * i / count
            turned = [offset[0] * math.cos(angle) - offset[1] * math.sin(angle),
                      offset[0] * math.sin(angle) + offset[1] * math.cos(angle), offset[2]]  # fmt: skip
            client.move(aim.numpy() + turned, aim, fov=fov)
            time.sleep(0.002)
        before = client.count
        until(lambda: not watched.worker.waiting(), 30)
        assert client.wait(lambda c: c.count >= before and whole(c))

    drag(100)  # buffers and caches fill
    count, memory = client.count, resident()
    drag(200)
    assert client.count - count < 200  # pictures were left out, not queued
    assert resident() < 1.05 * memory
    count = client.count
    time.sleep(0.5)
    assert client.count == count  # and none comes late
    slot = session_of(watched).slot
    assert slot.pending is None
    assert slot.passes is None
    client.close()


def test_compare_with_the_photograph(watched):
    client = enter(watched)
    assert client.wait(lambda c: whole(c) and "compare with photograph" in c.gui)
    session, exhibit = session_of(watched), watched.exhibit
    cameras, view, image = exhibit.photograph(3)
    assert exhibit.name_of(3).startswith("train: ")
    photograph = sources.PhotographSource(cameras, view, image)
    found = photograph.ask(Look(), cameras[view], torch.arange(48 * 48))
    assert torch.allclose(found.color.view(48, 48, 3), image, atol=1e-4)  # its own camera sees the photograph itself
    client.set("camera", 3)
    client.set("compare with photograph", True)
    until(lambda: session.photograph is not None, 20)
    pose = cameras.camera_to_world[view]
    client.move(pose[:3, 3], pose[:3, 3] + pose[:3, 2], up=-pose[:3, 1], fov=0.4)
    client.set("photograph | render", 1.0)
    until(lambda: getattr(session.last[1].source, "at", 0) == 1.0 and photograph.here(session.last[1].camera), 20)
    picture = settled(watched, client)
    expected = photograph.ask(Look(), session.camera(), torch.arange(SIZE[0] * SIZE[1])).color.view(*SIZE[::-1], 3)
    assert psnr(torch.from_numpy(picture).float() / 255, expected) > 30
    client.close()


def test_two_runs_side_by_side(trained, viewing):
    viewer = viewing(trained, trained)
    assert viewer.exhibit.other is not None
    client = enter(viewer)
    assert client.wait(lambda c: whole(c) and "split" in c.gui)
    picture = settled(viewer, client)
    expected = viewer.exhibit.source.model.render_view(session_of(viewer).camera(), 0).color
    assert psnr(torch.from_numpy(picture).float() / 255, expected) > 35
    client.close()


def test_keyframes_become_a_path_a_file_and_a_video(watched):
    client = enter(watched)
    needed = {"add keyframe", "save path", "render video", "seconds", "frames per second"}
    assert client.wait(lambda c: whole(c) and needed <= set(c.gui))
    position, aim, fov = watched.exhibit.first_view()
    session = session_of(watched)
    client.set("add keyframe", True)
    time.sleep(0.3)
    client.move(position + torch.tensor([0.2, 0.1, 0.0]), aim, fov=fov)
    until(lambda: abs(session.client.camera.position[0] - float(position[0]) - 0.2) < 1e-6, 20)
    client.set("add keyframe", True)
    client.set("seconds", 0.2)
    time.sleep(0.3)
    client.set("save path", True)
    folder = watched.exhibit.folder
    until(lambda: (folder / "camera_path.json").exists(), 20)
    from radfield.apps.path_file import read_path

    path = read_path(folder / "camera_path.json")
    world = watched.exhibit.transform.inverse()
    expected = world.poses(session.pose())
    assert torch.allclose(path.camera_to_world[1], expected, atol=1e-4)
    client.set("render video", True)
    until(lambda: (folder / "renders" / "camera_path.mp4").exists(), 60)
    assert client.wait(lambda c: c.messages.get("FileTransferStartDownload", 0) >= 2)
    (folder / "camera_path.json").unlink()
    (folder / "renders" / "camera_path.mp4").unlink()
    client.close()


def downloaded(client) -> tuple[str, bytes]:
    """Name and content of the file that a client was sent."""
    assert client.wait(lambda c: c.files)
    return next(iter(client.files.items()))


def test_the_surface_is_exported_as_a_mesh(watched):
    client = enter(watched)
    assert client.wait(lambda c: whole(c) and {"mesh file", "cells along a side", "export mesh"} <= set(c.gui))
    client.set("mesh file", ".ply")
    client.set("cells along a side", "128")
    time.sleep(0.3)
    client.set("export mesh", True)
    name, content = downloaded(client)
    assert name == "trained.ply"
    assert content.startswith(b"ply")
    client.close()


def test_gaussians_are_exported_in_the_format_asked_for(tmp_path, viewing):
    write_ply(tmp_path / "some.ply", gaussians())
    viewer = viewing(tmp_path / "some.ply")
    client = enter(viewer)
    assert client.wait(lambda c: {"splat file", "export splats"} <= set(c.gui))
    client.set("splat file", ".spz")
    time.sleep(0.3)
    client.set("export splats", True)
    name, content = downloaded(client)
    assert name == "some.spz"
    (tmp_path / "back.spz").write_bytes(content)
    assert len(read_gaussians(tmp_path / "back.spz")) == len(gaussians())
    client.close()


def test_a_client_that_sends_nonsense_gets_no_picture(watched):
    client = Client(watched.url, *SIZE)
    client.move((math.nan, 0, 0), (1, 1, 1))
    client.move((0, 0, 0), (1, 1, 1), fov=1e9)
    client.width = 1 << 40
    client.move((0, 0, 0), (1, 1, 1))
    time.sleep(0.5)
    assert client.count == 0
    client.close()
    other = enter(watched)
    assert other.wait(whole)
    other.close()
