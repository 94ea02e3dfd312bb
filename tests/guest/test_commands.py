"""Commands run in groups of their own, and end when their time is up."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_kernelfs.guest import commands, patience
from pytest_kernelfs.guest.dispatch import GuestError

LONG = 30.0


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return True
    return stat.rsplit(b")", 1)[1].split()[0] in (b"Z", b"X")


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 120
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        os.sched_yield()


def test_output_and_exit_code_come_back() -> None:
    result = commands.run("echo out; echo err >&2; exit 3", LONG)
    assert (result["rc"], result["stdout"], result["stderr"]) == (3, b"out\n", b"err\n")
    assert result["stuck"] == ""


def test_a_list_does_not_go_through_the_shell() -> None:
    assert commands.run(["echo", "$HOME", "a  b"], LONG)["stdout"] == b"$HOME a  b\n"


def test_a_signal_is_a_negative_exit_code() -> None:
    assert commands.run("kill -TERM $$", LONG)["rc"] == -signal.SIGTERM


@pytest.mark.parametrize("command", ["no-such-command", ["no-such-command"], ["/no/such/command"]])
def test_a_missing_command_is_127(command: str | list[str]) -> None:
    result = commands.run(command, LONG)
    assert result["rc"] == 127
    assert b"no" in result["stderr"]


def test_a_file_that_may_not_be_run_is_126(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o644)
    assert commands.run([str(script)], LONG)["rc"] == 126
    assert commands.run(str(script), LONG)["rc"] == 126


def test_the_time_is_measured() -> None:
    start = time.monotonic()
    duration = commands.run(["true"], LONG)["duration"]
    assert 0 < duration <= time.monotonic() - start


def test_input_is_given() -> None:
    assert commands.run("tr a-z A-Z", LONG, b"text")["stdout"] == b"TEXT"


def test_without_input_there_is_none() -> None:
    assert commands.run("cat", LONG)["stdout"] == b""


def test_input_that_nobody_reads_is_no_error() -> None:
    assert commands.run(["true"], LONG, b"x" * (1 << 20))["rc"] == 0


def test_much_output_does_not_block() -> None:
    result = commands.run("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2", LONG)
    assert (len(result["stdout"]), len(result["stderr"])) == (3000000, 3000000)


def test_it_runs_where_it_is_told(tmp_path: Path) -> None:
    assert commands.run("pwd", LONG, cwd=str(tmp_path))["stdout"].decode().strip() == str(tmp_path)


def test_variables_are_added_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "kept")
    result = commands.run('echo "$KEPT $GIVEN"', LONG, env={"GIVEN": "given"})
    assert result["stdout"] == b"kept given\n"


def test_a_command_has_a_session_of_its_own() -> None:
    result = commands.run(["ps", "-o", "sid=,pid=", "--ppid", str(os.getpid())], LONG)
    ids = [line.split() for line in result["stdout"].decode().splitlines()]
    assert any(sid == pid for sid, pid in ids)


def run_too_long(command: str) -> dict[str, Any]:
    """What is given of a command whose time is up, once that was enough for it to print something."""
    for seconds in (0.5, 5.0, 50.0):
        result = commands.run(command, seconds)
        if result["stdout"].endswith(b"\n"):
            break
    return result


def test_a_command_that_takes_too_long_is_killed_but_its_output_kept() -> None:
    result = run_too_long("echo error >&2; echo before; sleep 600")
    assert (result["rc"], result["stdout"], result["stderr"]) == (None, b"before\n", b"error\n")
    assert (result["stuck"], result["duration"] < 300) == ("", True)


def test_the_whole_group_is_killed() -> None:
    result = run_too_long("sleep 600 & echo $!; wait")
    assert result["rc"] is None
    wait_until_gone(int(result["stdout"]))


def test_a_command_that_leaves_a_child_behind_is_waited_for() -> None:
    result = run_too_long("sleep 600 & echo $!")
    assert result["rc"] is None
    wait_until_gone(int(result["stdout"]))


def test_a_process_outside_of_the_group_that_holds_the_output_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "_GRACE_S", 0.1)
    result = run_too_long("setsid sh -c 'echo $$; exec sleep 600' & wait")
    os.kill(int(result["stdout"]), signal.SIGKILL)
    assert (result["rc"], result["stuck"]) == (None, "a process outside the group holds its output open")


class Killed:
    """Stands in for a process that the machine has no time to end at first."""

    pid, returncode = 4711, -9
    stdin = stdout = stderr = None

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        self.looks -= 1
        if self.looks:
            raise subprocess.TimeoutExpired("command", timeout, b"out", b"err")
        return b"out", b"err"

    def poll(self) -> None:
        return None


@pytest.mark.parametrize(("looks", "stuck"), [(5, ""), (1000, "pid 4711 does not end")])
def test_a_machine_that_stood_still_has_had_no_time_to_kill(
    monkeypatch: pytest.MonkeyPatch, looks: int, stuck: str
) -> None:
    monkeypatch.setattr(commands, "kill_group", lambda pid: None)
    now = itertools.count(0.0, 3600.0)
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=now.__next__, sleep=lambda seconds: None))
    process: Any = Killed(looks)
    result = commands._end(process, 0.0)
    assert (result["rc"], result["stdout"], result["stuck"]) == (None, b"out", stuck)


def test_a_missing_working_folder_is_no_missing_command() -> None:
    with pytest.raises(GuestError, match="in the folder /nowhere: No such file"):
        commands.run(["true"], 5, cwd="/nowhere")
