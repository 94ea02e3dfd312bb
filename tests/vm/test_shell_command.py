"""``kernelfs shell`` with somebody at the terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.fixtures.machines import RUN
from tests.typist import Typist

pytestmark = pytest.mark.usefixtures("newest_only")

PATIENCE_S = 400.0
Open = Callable[[], Typist]


@pytest.fixture
def command(kernel: Kernel, request: pytest.FixtureRequest) -> list[str]:
    config = request.config.stash[RUN].config
    kernelfs = [sys.executable, "-m", "pytest_kernelfs.cli", "--cache", str(config.cache_root)]
    return [*kernelfs, "shell", kernel.release, "--offline", "--accel", config.accel]


@pytest.fixture
def prompt(kernel: Kernel) -> str:
    return f"({kernel.version}) ~ # "


@pytest.fixture
def shell(command: list[str], prompt: str) -> Iterator[Typist]:
    """A shell that has just shown its prompt."""
    typist = Typist(command, env={"TERM": "xterm-256color"}, size=(30, 100))
    try:
        modes = typist.modes
        assert "three times" in typist.wait_for(prompt)
        yield typist
        if typist.process.poll() is None:
            typist.type("\x1d\x1d\x1d")
            assert typist.wait_for_end() == 130
        assert typist.modes == modes, "the terminal is not as it was"
    finally:
        typist.close()


def test_it_is_a_terminal_of_that_kernel(shell: Typist, kernel: Kernel, prompt: str) -> None:
    shell.type("uname -r; stty size; tput cols; tty; exec 5< /dev/tty; echo $TERM\r")
    shell.wait_for("\r\n")
    answers = shell.wait_for(prompt).split()
    assert kernel.release in answers
    assert answers[-6:-1] == ["30", "100", "100", "/dev/pts/0", "xterm-256color"]
    shell.resize(40, 120)
    shell.type('until [ "$(stty size)" = "40 120" ]; do sleep 0.05; done; echo it" "fits\r')
    shell.wait_for("it fits\r\n")
    shell.type("exit 5\r")
    assert shell.wait_for_end() == 5


def test_jobs_are_controlled_from_the_keyboard(shell: Typist, prompt: str) -> None:
    # Each word is said once the job has the terminal; quotes keep what is typed from being taken for it.
    shell.type('bash -c \'trap "echo aga"in CONT; echo re""ady; while :; do sleep 0.05; done\'\r')
    shell.wait_for("ready\r\n")
    shell.type("\x1a")
    shell.wait_for("Stopped")
    shell.wait_for(prompt)
    shell.type("fg\r")
    shell.wait_for("again\r\n")
    shell.type("\x03")
    shell.wait_for(prompt)
    shell.type("echo rc=$?\r")
    shell.wait_for("rc=130\r\n")
    # Keys that edit the line: left, left, insert; and the last line again.
    shell.type("echo onetwo\x1b[D\x1b[D\x1b[D_\r")
    shell.wait_for("\rone_two\r\n")
    shell.type("\x1b[A\r")
    shell.wait_for("\rone_two\r\n")
    shell.type("\x04")
    assert shell.wait_for_end() == 0


def test_it_can_be_left_whatever_runs(shell: Typist) -> None:
    shell.type("trap '' INT HUP TERM; while :; do :; done\r")
    shell.wait_for("\r\n")
    shell.type("\x03\x1a\x1d\x1d\x1d")
    assert shell.wait_for_end() == 130


def test_a_panic_ends_it_with_its_text(shell: Typist) -> None:
    shell.type("echo c > /proc/sysrq-trigger\r")
    assert shell.wait_for_end() == 255
    assert "Kernel panic - not syncing: sysrq triggered crash\r\n" in shell.shown


def test_a_signal_leaves_the_terminal_as_it_was(shell: Typist) -> None:
    shell.process.send_signal(signal.SIGTERM)
    assert shell.wait_for_end() == 143


def test_without_a_terminal_its_input_is_a_script(command: list[str], kernel: Kernel) -> None:
    lines = "cd /proc\nuname -r\npwd\nls /none\nexit 4\n"
    done = subprocess.run(
        command,
        input=lines,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.stdout, done.returncode) == (f"{kernel.release}\n/proc\n", 4)
    assert "/none" in done.stderr
