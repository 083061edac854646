"""Progress: lines in a log, one bar on a terminal, whose screen a terminal emulator keeps."""

import contextlib
import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

import pyte
import pytest
from absl import logging as absl_logging

from pwm_jax.report import progress as progress_module
from pwm_jax.report.progress import Progress, format_seconds


def test_progress_in_a_log_is_a_line_each_tenth_with_rate_eta_and_values():
    stream = io.StringIO()
    with Progress(1000, "pretrain", stream=stream) as progress:
        for step in range(1000):
            progress.update(1, loss=step / 1000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert re.fullmatch(r"pretrain: 50% \(500 of 1,000 steps, \S+/s, .+ so far, ETA .+, loss 0\.499\)", lines[5])
    assert lines[-1].startswith("pretrain: 100% (1,000 of 1,000 steps")


def test_progress_of_a_resumed_run_counts_only_its_own_steps_in_the_rate(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = Progress(1000, "extract", initial=500, stream=stream)
    progress.update(100)
    assert "60% (600 of 1,000 steps, 10/s, 10 s so far, ETA 40 s)" in stream.getvalue()


def test_a_slow_run_is_heard_of_each_minute(monkeypatch):
    clock = iter([0.0, 30.0, 61.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = Progress(10_000, "online", stream=stream)
    progress.update(1)
    progress.update(1)
    short = io.StringIO()
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: 0.0)
    Progress(10, "evaluate", stream=short, tenths=False).update(5)
    assert short.getvalue() == "evaluate: started at 0 of 10 steps\n"
    assert stream.getvalue().splitlines()[1:] == ["online: 0% (2 of 10,000 steps, 0.0328/s, 1 min 1 s so far, ETA 84 h 42 min)"]


def test_a_stage_whose_first_steps_take_long_is_heard_of(monkeypatch):
    monkeypatch.setattr(progress_module, "_QUIET_INTERVAL_S", 0.02)
    stream = io.StringIO()
    with Progress(60, "pretrain", stream=stream):
        time.sleep(0.3)
    said = stream.getvalue()
    assert "pretrain: 0% (0 of 60 steps, 0/s, 0." in said
    assert "so far, ETA unknown)\n" in said
    time.sleep(0.1)
    assert stream.getvalue() == said


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (8.24, "8.2 s"), (59.4, "59 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


class Terminal:
    """A pseudo-terminal whose screen is what its user would see."""

    def __init__(self, columns):
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))
        self.stream = os.fdopen(slave, "w", buffering=1)
        self._screen = pyte.Screen(columns, 20)
        self._screen.set_mode(pyte.modes.LNM)  # a raw terminal passes line feeds on as they are
        self._bytes = pyte.ByteStream(self._screen)

    def __enter__(self):
        """Standard output and error are on it. (A fixture could not do it: pytest replaces both when a test begins.)"""
        self._streams = contextlib.ExitStack()
        self._streams.enter_context(contextlib.redirect_stdout(self.stream))
        self._streams.enter_context(contextlib.redirect_stderr(self.stream))
        return self

    def __exit__(self, *error):
        self._streams.close()
        self.stream.close()
        os.close(self._master)

    def lines(self):
        """The lines of the screen down to the last that is not empty."""
        self.stream.flush()
        try:
            while data := os.read(self._master, 65536):
                self._bytes.feed(data)
        except BlockingIOError:
            pass
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_bar_shows_loss_return_rate_and_eta_and_stays_when_it_ends(columns):
    with Terminal(columns) as terminal:
        with Progress(1_000_000, "generalist") as progress:
            assert re.fullmatch(r"generalist   0%\| +\| 0.00/1.00M \?step/s ETA \?", terminal.lines()[0])
            progress.update(400_000, loss=-0.62194, episode_return=float("nan"))
            progress._bar.refresh()
            (line,) = terminal.lines()
            assert re.fullmatch(r"generalist  40%\|█+. *\| 400k/1.00M +\S+step/s ETA \d\d:\d\d, loss -0\.622", line)
            progress.update(600_000, loss=0.00001234, episode_return=1763.4)
        (line,) = terminal.lines()
        assert re.fullmatch(r"generalist 100%\|█+\| 1.00M/1.00M +\S+step/s in 00:0\d, loss 1\.2e-05, return 1763", line)


def test_lines_come_out_above_the_bar():
    with Terminal(80) as terminal:
        plain, absls = logging.StreamHandler(sys.stderr), absl_logging.ABSLHandler(logging.Formatter("%(message)s"))
        absls.python_handler.setStream(sys.stderr)
        logging.root.addHandler(plain)
        logging.root.addHandler(absls)
        try:
            with Progress(10, "pretrain") as progress:
                progress.update(5)
                print("a table\nof two lines")
                print("half ", end="")
                assert len(terminal.lines()) == 3
                print("a line")
                print("a warning", file=sys.stderr)
                logging.root.warning("a damaged checkpoint")
                shown = terminal.lines()
                progress.update(5)
            print("after it")
            logging.root.warning("and its handlers")
        finally:
            logging.root.removeHandler(plain)
            logging.root.removeHandler(absls)
        lines = ["a table", "of two lines", "half a line", "a warning", "a damaged checkpoint", "a damaged checkpoint"]
        assert [line for line in shown[:-1] if "before flag parsing" not in line] == lines  # which absl says of itself
        assert shown[-1].startswith("pretrain  50%|")
        *before, bar, after, first, second = terminal.lines()
        assert before == shown[:-1]
        assert bar.startswith("pretrain 100%|")
        assert [after, first, second] == ["after it", "and its handlers", "and its handlers"]
        assert sys.stdout is sys.stderr is terminal.stream


def test_one_bar_at_a_time():
    with Terminal(80) as terminal:
        with Progress(3, "regularisers", unit="model") as study:
            for number in range(3):
                said = [f"variant {n}" for n in range(number)]
                *before, line = terminal.lines()
                assert (before, line.split("|")[0]) == (said, f"regularisers {100 * number / 3:3.0f}%")
                with Progress(4, "pretrain") as stage:
                    stage.update(2, loss=0.5)
                    stage._bar.refresh()
                    *before, line = terminal.lines()
                    assert (before, line.split("|")[0]) == (said, f"{number}/3 done, pretrain  50%")
                    print(f"variant {number}")
                    *before, line = terminal.lines()
                    assert (before, line.split("|")[0]) == ([*said, f"variant {number}"], f"{number}/3 done, pretrain  50%")
                    stage.update(2)
                study.update(episode_return=3.0)
                study._bar.refresh()  # which follows every tenth of a second
        *before, line = terminal.lines()
        assert before == ["variant 0", "variant 1", "variant 2"]
        assert re.fullmatch(r"regularisers 100%\|█+\| 3/3 .* in 00:0\d, return 3", line)


def test_a_bar_of_a_failed_stage_is_gone_from_the_streams():
    with Terminal(80) as terminal:
        with pytest.raises(ValueError, match="lost"), Progress(4, "outer"), Progress(4, "inner") as progress:
            progress.update()
            raise ValueError("lost")
        assert sys.stderr is terminal.stream
        print("an error")
        bar, said = terminal.lines()
        assert re.match(r"outer   0%\|.*ETA \?", bar)
        assert said == "an error"


def test_processes_that_share_a_terminal_tell_instead(monkeypatch):
    told = []
    with Terminal(80) as terminal:
        monkeypatch.setattr(progress_module, "_tell", None)
        progress_module.tell_instead(told.append)
        with Progress(1000, "pretrain", initial=500) as progress:
            for _ in range(3):
                progress.update(4, loss=1.0)  # two of the three do not reach another percent
            progress.update(488)
        assert terminal.lines() == [""]
    assert told == ["pretrain 50%", "pretrain 51%", "pretrain 100%", ""]


def test_a_note_stands_behind_loss_and_return():
    with Terminal(120) as terminal, Progress(10, "study", unit="model") as progress:
        progress.update(1, episode_return=3.0)
        progress.note("pretrain 34% | extract 80%")
        (bar,) = terminal.lines()
        assert bar.endswith("return 3, pretrain 34% | extract 80%")
        progress.note("")
        (bar,) = terminal.lines()
        assert bar.endswith("return 3")


def test_what_was_finished_before_says_so():
    with Terminal(80) as terminal:
        Progress(40, "pretrain", initial=40).close()
        (line,) = terminal.lines()
        assert re.fullmatch(r"pretrain 100%\|█+\| 40/40, finished earlier", line)


def test_a_launcher_leaves_its_bar_alone_on_the_screen(tmp_path):
    changes = ["--config.collect.sources.random.episodes=1", "--config.collect.sources.expert.episodes=1", "--config.num_workers=1"]
    command = [sys.executable, "-m", "experiments.collect", "--config=configs/debug.py", f"--workdir={tmp_path / 'run'}", *changes]
    with Terminal(80) as terminal:
        for ending in (r" +\S+ in 00:\d\d", ", finished earlier"):
            stream = terminal.stream.fileno()
            process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[1], stdout=stream, stderr=stream)
            while process.poll() is None:
                terminal.lines()  # its buffer is small
                time.sleep(0.1)
            assert process.returncode == 0
            assert re.fullmatch(r"collect 100%\|█+\| 3/3" + ending, terminal.lines()[-1])
        assert len(terminal.lines()) == 2
