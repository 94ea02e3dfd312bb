"""A QEMU process: started so that it cannot outlive us, ended at once."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.guarded import guarded

_OOM_SCORE = "500"
_STDERR = "qemu.stderr"
_FREEZE_S = 5.0


class QemuProcess:
    """A running QEMU whose files lie in ``folder``.

    The kernel sends it SIGKILL when the thread that started it ends, so it
    has to be started from a thread that lives as long as the run.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        """Raises: InfrastructureError if it cannot be started."""
        self._folder = folder
        self._ending = threading.Lock()
        with explain_os_errors("start a machine", folder), (folder / _STDERR).open("wb") as stderr:
            self._process = subprocess.Popen(
                guarded(command),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd="/",
                start_new_session=True,
            )
        try:
            lease.write(folder, self._process.pid)
            self._offer_to_oom_killer()
        except BaseException:
            self.kill()  # nobody else knows of it
            raise

    def _offer_to_oom_killer(self) -> None:
        """If the host runs out of memory after all, a machine goes before what the user works with."""
        try:
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text(_OOM_SCORE)
        except OSError:
            pass  # it has ended already; whoever waits for it will say so

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self, within: float = 0.0) -> bool:
        """Whether it has ended, waiting up to ``within`` seconds for it."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def was_killed(self) -> bool:
        return self._process.poll() == -signal.SIGKILL

    def complaint(self) -> str:
        """What QEMU printed, and its exit code if it has one."""
        text = (self._folder / _STDERR).read_text(errors="replace").strip() if self._folder.exists() else ""
        code = self._process.poll()
        return f"exit code {code}{': ' + text if text else ''}" if code is not None else text

    def freeze(self) -> None:
        """Stop all its threads, each after the system call it is in: no write is left half done.

        Raises: InfrastructureError if one does not stop.
        """
        deadline = time.monotonic() + _FREEZE_S
        self._process.send_signal(signal.SIGSTOP)
        while not all(_stopped(task) for task in Path(f"/proc/{self._process.pid}/task").glob("*")):
            if time.monotonic() > deadline:
                raise InfrastructureError(f"QEMU does not stop within {_FREEZE_S:g} s")
            time.sleep(0.001)

    def kill(self) -> None:
        """End it at once and wait for it."""
        with self._ending:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()


def _stopped(task: Path) -> bool:
    try:
        state = (task / "stat").read_bytes().rsplit(b")", 1)[1].split()[0]
    except (OSError, IndexError):
        return True  # it has ended
    return state in (b"T", b"t", b"Z", b"X")
