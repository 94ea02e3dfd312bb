"""Runs Vagrant so that it ends in time and with us, and keeps what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.guarded import guarded
from pytest_kernelfs.machines.vagrant.complaint import explain
from pytest_kernelfs.machines.verdict import tail

# Interrupted once, Vagrant takes back what it has begun, if it is let.
_GRACE_S = 15.0
_POLL_S = 0.02
_LOOK_EVERY_S = 0.5

Watch = Callable[[], str | None]


def hopeful() -> str | None:
    """Nothing is known that a command should not be waited for."""
    return None


@dataclass(frozen=True)
class Bounds:
    """How Vagrant is run: in ``folder``, with ``env`` as its whole environment, for ``timeout`` seconds.

    ``watch`` is asked all the while: what it gives is an error, after which there is no use to wait.
    """

    folder: Path
    env: Mapping[str, str]
    timeout: float
    watch: Watch = hopeful

    def run(self, command: Sequence[str]) -> str:
        """What the command prints on standard output.

        Raises: InfrastructureError if it does not end in time; what ``complaint.explain`` makes of a failure.
        """
        with (
            explain_os_errors("run vagrant", self.folder),
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            process = subprocess.Popen(
                # Where we were told to ignore interrupts, Vagrant is not: it is ended with one.
                guarded(["env", "--default-signal=INT", *command]),
                cwd=self.folder,
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            try:
                hopeless = self._wait(process)
            except BaseException:
                end_group(process, signal.SIGINT)
                raise
            printed, complaint = _text(out), _text(err)
        if hopeless is not None:
            raise InfrastructureError(hopeless.replace("{printed}", tail(f"{printed}\n{complaint}")))
        if process.returncode:
            raise explain(" ".join(["vagrant", *command[1:]]), printed, complaint)
        return printed

    def _wait(self, process: subprocess.Popen[bytes]) -> str | None:
        """Wait for the command's end; else gives why it was ended, with {printed} for what it printed."""
        start = looked = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            if now > start + self.timeout:
                end_group(process, signal.SIGINT)
                return (
                    f"vagrant did not end within {self.timeout:g} s; if it was only slow, give it more time "
                    "with --kernelfs-boot-timeout SECONDS. It printed last:\n{printed}"
                )
            if now > looked + _LOOK_EVERY_S:
                looked = now
                seen = self.watch()
                if seen is not None:
                    end_group(process, signal.SIGINT)
                    return seen
            time.sleep(_POLL_S)
        return None


def end_group(process: subprocess.Popen[bytes], politely: signal.Signals) -> None:
    """End a process and the group that it leads: by that signal, by force if it takes too long."""
    for number, patience in ((politely, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        return


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").replace("\r", "\n")
