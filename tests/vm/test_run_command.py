"""``kernelfs run`` as its users call it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.fixtures.machines import RUN
from pytest_kernelfs.machines import lease
from tests.vm.inner import hear_signals

pytestmark = pytest.mark.usefixtures("newest_only")

PATIENCE_S = 400.0
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start the command; its machines are gone when it is."""
    config = request.config.stash[RUN].config
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, kernels: int = 1, stdin: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pytest_kernelfs.cli", "--cache", str(config.cache_root), "run"]
        wanted = ["--offline", "--accel", config.accel, *["--kernel", kernel.release] * kernels]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*command, *wanted, *arguments],
            stdin=stdin,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            preexec_fn=hear_signals,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    owners = {owner.pid for _, owner, _ in lease.machines()}
    assert not owners & {process.pid for process in started}, "a machine was left behind"


def test_it_is_that_kernel_with_our_streams(start: Start, kernel: Kernel) -> None:
    process = start("--", "sh", "-c", "uname -r; pwd; echo bad >&2; md5sum; exit 3", stdin=subprocess.PIPE)
    out, err = process.communicate(b"x" * 3_000_000, PATIENCE_S)
    assert out.decode().split() == [kernel.release, "/root", "8e32e22642bddc89698e25a4e9bf528b", "-"]
    assert (err, process.returncode) == (b"bad\n", 3)


def test_a_lot_of_output_arrives_while_it_runs(start: Start) -> None:
    process = start("echo first; read answer; head -c 3000000 /dev/zero", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"first\n"
    process.stdin.write(b"go on\n")
    process.stdin.flush()
    assert process.stdout.read() == bytes(3_000_000)
    assert process.wait(PATIENCE_S) == 0


def test_a_panic_is_told_with_its_text(start: Start) -> None:
    process = start("echo before; read line; echo c > /proc/sysrq-trigger", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"before\n"
    _, err = process.communicate(b"go on\n", PATIENCE_S)
    assert process.returncode == 255
    assert b"kernelfs: error: kernel " in err
    assert b"Kernel panic - not syncing: sysrq triggered crash" in err


def test_the_interrupt_key_reaches_the_command(start: Start) -> None:
    process = start("trap 'echo trapped; exit 7' INT; echo ready; sleep 1000 & wait")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == b"trapped\n"
    assert process.wait(PATIENCE_S) == 7


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_end_the_machine(start: Start, number: signal.Signals, code: int) -> None:
    process = start("trap '' INT TERM HUP; echo ready; while :; do sleep 1000; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == code


def test_a_command_that_ignores_the_interrupt_key_is_ended_by_the_second(start: Start) -> None:
    process = start("trap 'echo not yet' INT; echo ready; while :; do sleep 1000 & wait; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"not yet\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130


def test_its_time_is_that_of_the_command(start: Start) -> None:
    process = start("--timeout", "0.5", "--", "sleep", "1000")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 124
    assert err == b"kernelfs: the command did not end within 0.5 s and was killed\n"


def test_work_begins_in_what_is_shared(start: Start, tmp_path: Path) -> None:
    (tmp_path / "hello.sh").write_text('echo "from $PWD"; echo changed > hello.sh\n')
    process = start("--share", f"{tmp_path}:/work", "sh hello.sh")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (out, err, process.returncode) == (b"from /work\n", b"", 0)
    assert "from" in (tmp_path / "hello.sh").read_text(), "the machine has a copy of its own"


def test_what_cannot_be_run_has_the_code_of_shells(start: Start) -> None:
    process = start("--", "no-such-command", "--with", "arguments")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 127
    assert b"no-such-command" in err
