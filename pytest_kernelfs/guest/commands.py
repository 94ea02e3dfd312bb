"""Runs commands in process groups of their own, each with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

from pytest_kernelfs.guest import oom
from pytest_kernelfs.guest.cgroup_entry import Entry
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

_GRACE_S = 2.0
_LOOK_S = 0.1


def run(
    command: str | list[str],
    timeout: float,
    stdin: bytes | None = None,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    cgroups: list[str] | None = None,
) -> dict[str, Any]:
    """Run a command; a string goes through the shell, a list does not.

    ``cgroups`` are folders of cgroups that it is in before it begins.
    Gives a dict: ``rc`` (negative for a signal, None when the time was up), ``stdout`` and ``stderr``
    (bytes), ``duration`` (seconds), ``stuck`` (what the process waits for if even SIGKILL did not end it).
    """
    environment = dict(os.environ, **(env or {}))
    start = time.monotonic()
    entry = Entry(cgroups or [])
    try:
        with oom.expendable(), entry:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command] if isinstance(command, str) else command,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd=cwd,
                env=environment,
                preexec_fn=entry.enter if cgroups else None,
            )
    except subprocess.SubprocessError:
        raise GuestError(entry.refusal) from None
    except OSError as error:
        return _result(refusal_code(error, command, cwd), b"", str(error).encode() + b"\n", start)
    # By the clock: the limit is the user's, and whoever calls counts the same seconds.
    try:
        stdout, stderr = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        return _end(process, start)
    return _result(process.returncode, stdout, stderr, start)


def refusal_code(error: OSError, command: str | list[str], cwd: str | None) -> int:
    """The exit code that shells give a command that could not be started.

    Raises: GuestError if it is not the command's fault.
    """
    if cwd is not None and error.filename == cwd:
        raise GuestError(f"cannot run a command in the folder {cwd}: {error.strerror}") from None
    if isinstance(error, FileNotFoundError):
        return 127
    if isinstance(error, PermissionError):
        return 126
    raise GuestError(f"cannot start the command {command!r}: {error.strerror}") from None


def _end(process: subprocess.Popen[bytes], start: float) -> dict[str, Any]:
    """Kill the whole group and keep what it had written."""
    kill_group(process.pid)
    waiting = Patience(_GRACE_S)
    while True:
        try:
            stdout, stderr = process.communicate(timeout=_LOOK_S)
            return _result(None, stdout, stderr, start)
        except subprocess.TimeoutExpired as late:
            if waiting.wait():
                continue
            result = _result(None, late.stdout or b"", late.stderr or b"", start)
        result["stuck"] = waits_for(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
        return result


def kill_group(pid: int) -> None:
    """Send SIGKILL to a process group, if it is there."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def waits_for(process: subprocess.Popen[bytes]) -> str:
    """Why a command whose group got SIGKILL has not ended."""
    if process.poll() is not None:
        return "a process outside the group holds its output open"
    try:
        with open(f"/proc/{process.pid}/wchan") as file:
            return f"pid {process.pid} waits in {file.read().strip() or '?'}"
    except OSError:
        return f"pid {process.pid} does not end"


def _result(rc: int | None, stdout: bytes, stderr: bytes, start: float) -> dict[str, Any]:
    return {"rc": rc, "stdout": stdout, "stderr": stderr, "duration": time.monotonic() - start, "stuck": ""}
