"""Progress says the truth about what is left, stays quiet in a pipe, and interrupts let a step finish."""

import io
import os
import signal
import subprocess
import sys
import threading

import pytest

from radfield.training.progress import Progress, interruptible, show_clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_one_line_at_the_end(capsys):
    with Progress("train lego", steps=100) as progress:
        for step in range(1, 101):
            progress.update(step, seconds=step * 0.1, samples_per_s=3.1e6, psnr=20 + step / 100, loss=None)
        assert capsys.readouterr().err == ""
    captured = capsys.readouterr()
    assert captured.err == "train lego: 100 steps, 10.0 s, 3.10 M samples/s, PSNR 21.00 dB\n"
    assert captured.out == ""


def test_remaining_time_by_steps_by_seconds_and_by_both():
    by_steps, by_seconds = Progress("a", steps=100), Progress("a", seconds=30.0)
    both = Progress("a", steps=100, seconds=30.0)
    for progress in (by_steps, by_seconds, both):
        progress.update(25, seconds=10.0)
    assert (by_steps.fraction(), by_steps.remaining()) == (0.25, 30.0)
    assert (by_seconds.fraction(), by_seconds.remaining()) == (pytest.approx(1 / 3), 20.0)
    assert (both.fraction(), both.remaining()) == (pytest.approx(1 / 3), 20.0)


def test_without_a_budget_nothing_is_promised():
    progress = Progress("a")
    progress.update(3, seconds=1.0)
    assert progress.fraction() is None and progress.remaining() is None


def test_a_resumed_loop_is_judged_by_its_own_steps():
    progress = Progress("a", steps=100, resumed_from=(50, 1000.0))
    assert progress.remaining() is None
    progress.update(60, seconds=1001.0)
    assert progress.remaining() == pytest.approx(4.0)
    assert progress.fraction() == pytest.approx(0.6)


def test_going_past_the_budget_ends_at_the_end():
    progress = Progress("a", steps=10, seconds=1.0)
    progress.update(12, seconds=1.5)
    assert progress.fraction() == 1.0 and progress.remaining() == 0.0


def test_a_terminal_gets_a_live_line(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with Progress("train lego", seconds=60.0) as progress:
        progress.update(7, seconds=30.0, samples_per_s=3.1e6, psnr=24.5)
    for text in ("train lego", "step 7", "3.10 M samples/s", "PSNR 24.50 dB", "0:30 < 0:30"):
        assert text in terminal.getvalue()


def test_no_standard_error_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress("a", steps=1) as progress:
        progress.update(1)


def test_clock():
    assert [show_clock(seconds) for seconds in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_the_flag_and_the_second_stops(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupt:
        assert not interrupt
        os.kill(os.getpid(), number)
        assert interrupt
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_another_thread_is_never_interrupted():
    seen = []

    def work():
        with interruptible() as interrupt:
            seen.append(bool(interrupt))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_real_terminal_and_a_warning_do_not_quarrel():
    # A child on a pseudo-terminal: the warning stands on its own line, above the bar.
    pty = pytest.importorskip("pty")
    code = """
from radfield.errors import warn
from radfield.training.progress import Progress
with Progress("train", steps=2) as progress:
    progress.update(1, psnr=20.0)
    warn("an image is missing")
    progress.update(2, psnr=21.0)
"""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    child = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment)
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            output += chunk
    except OSError:  # Linux reports the end of a pseudo-terminal as an input/output error
        pass
    os.close(ours)
    assert child.wait() == 0, output
    assert b"radfield: warning: an image is missing" in output
    assert b"PSNR 21.00 dB" in output
