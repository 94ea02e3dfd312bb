"""Commands on another machine, as root, over one ssh connection that is opened once and shared."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable, UsageError
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.guarded import guarded
from pytest_kernelfs.machines.ssh.complaint import explain, trial, words
from pytest_kernelfs.machines.ssh.greeting import GREETING, Greeting
from pytest_kernelfs.tools import need

CONNECT_TIMEOUT_S = 15.0
# A machine under a test's load may leave keep-alives unanswered for a while; one that is gone does for good.
SILENCE_S = 30.0
_KEEP_ALIVES = 3
# For what ssh's own ConnectTimeout does not cover: proxies, log-in, the first command.
_LOGIN_S = 45.0
_END_S = 2.0
_KEEP_ALIVE_GRACE_S = 5.0
_POLL_S = 0.005
_SOCKET = "ssh"
_STDERR = "ssh.stderr"


@final
class SshTransport:
    """Leads to one machine: ``destination`` as for ssh (``user@host``, an alias, ``ssh://user@host:port``).

    ssh's own configuration holds, or that of ``config_file`` alone. Whatever it says, nobody is asked
    anything, and a host key that is not known is refused, unless ``strict`` is false, as for machines of our
    own making: then the configuration decides. ``silence`` is how many seconds without an answer mean that
    the machine is gone.

    Not connected until ``open``; may be closed and opened again.
    """

    def __init__(
        self,
        destination: str,
        *,
        config_file: Path | None = None,
        strict: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT_S,
        silence: float = SILENCE_S,
    ) -> None:
        """Raises: UsageError for what is no destination."""
        if not destination or destination.startswith("-") or any(map(str.isspace, destination)):
            raise UsageError(
                f"{destination!r} is no destination for ssh; give user@host, a name from ~/.ssh/config, "
                "or ssh://user@host:port"
            )
        self.destination = destination
        self._config_file = config_file
        self._strict = strict
        self._connect_timeout = connect_timeout
        self._silence = silence
        self._folder: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._greeting: Greeting | None = None
        self._last_words = ""
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<SshTransport {self.destination} {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as this end knows."""
        return self._master is not None and self._master.poll() is None

    def open(self) -> None:
        """Connect, and see that commands can run as root with a Python there; does nothing if it is open.

        Raises: ProviderUnavailable, with the reason and what to do; InfrastructureError.
        """
        with self._lock:
            if self.is_open and self._greeting is not None:
                return
            self.close()
            try:
                self._connect()
                self._greeting = self._greet()
            except BaseException:
                self.close()
                raise

    def prefix(self) -> tuple[str, ...]:
        """What goes before a command, quoted for a shell, to run it there as root with streams of its own.

        It holds until ``close``. Raises: as ``open``.
        """
        self.open()
        assert self._greeting is not None
        return (*self._ssh(), *self._greeting.become_root)

    def run(self, words: Sequence[str], *, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a command there, as root, to its end.

        Raises: InfrastructureError if it does not end in time; as ``open``.
        """
        return self._run([*self.prefix(), shlex.join(words)], timeout)

    def answers(self) -> bool:
        """Whether the machine is there: it runs a command, or at least keeps the connection up.

        It is given up after ``silence`` seconds without a sign of life.
        """
        if not self.is_open:
            return False
        process = subprocess.Popen(
            guarded([*self._ssh(), "true"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + self._silence + _KEEP_ALIVE_GRACE_S
        try:
            # One that hangs may start no command, yet its sshd answers keep-alives.
            while self.is_open and process.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if process.poll():
                self._wait_for_the_end(_END_S)
            return self.is_open
        finally:
            process.kill()
            process.wait()

    def heard(self) -> str:
        """What ssh printed about the connection, as a sentence."""
        return words(self._heard())

    def complaint(self, stderr: str = "") -> str:
        """What ssh printed of a connection that ended: the shared one's words, and a command's ``stderr``."""
        return "\n".join(part for part in (self._heard(), stderr.strip()) if part)

    def explain(self, stderr: str = "") -> str:
        """A complete sentence on why the machine cannot be reached, with what to do."""
        return explain(self.destination, self.complaint(stderr), self._config_file)

    def close(self) -> None:
        """End the connection and all commands over it; may be called again."""
        with self._lock:
            self._last_words = self._heard()
            if self._master is not None:
                _end(self._master)
            self._master = self._greeting = None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _connect(self) -> None:
        self._last_words = ""
        self._folder = lease.make_folder()
        command = self._ssh(shared=True)
        with explain_os_errors("start ssh", self._folder), (self._folder / _STDERR).open("wb") as stderr:
            self._master = subprocess.Popen(
                guarded(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd="/",
                start_new_session=True,
            )
        lease.write(self._folder, self._master.pid)
        deadline = time.monotonic() + self._connect_timeout + _LOGIN_S
        # ssh makes the socket as soon as it is logged in.
        while not (self._folder / _SOCKET).exists():
            if self._master.poll() is not None:
                raise ProviderUnavailable(self.explain())
            if time.monotonic() > deadline:
                raise ProviderUnavailable(
                    f"cannot reach {self.destination} over ssh: nobody was logged in after "
                    f"{self._connect_timeout + _LOGIN_S:g} s; see that "
                    f"'{trial(self.destination, self._config_file)}' works. {words(self._heard())}"
                )
            time.sleep(_POLL_S)

    def _greet(self) -> Greeting:
        done = self._run([*self._ssh(), GREETING], self._connect_timeout + _LOGIN_S)
        return Greeting.read(self.destination, done.stdout, self.complaint(done.stderr))

    def _run(self, command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                guarded(command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise InfrastructureError(
                f"{self.destination} let a command wait for more than {timeout:g} s; see that "
                f"'{trial(self.destination, self._config_file)}' works. {words(self._heard())}"
            ) from None

    def _ssh(self, *, shared: bool = False) -> list[str]:
        """ssh with our options, which go before any configuration, up to the command; or what is shared."""
        assert self._folder is not None
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": f"{max(1, round(self._connect_timeout))}",
            "ServerAliveInterval": f"{max(1, round(self._silence / _KEEP_ALIVES))}",
            "ServerAliveCountMax": f"{_KEEP_ALIVES}",
            "ControlMaster": "yes" if shared else "no",
            "ControlPersist": "no",
            "ControlPath": as_value(self._folder / _SOCKET),
            # What the user's configuration may ask for is meant for people at a terminal.
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "RequestTTY": "no",
            # Keep-alives that are not answered are told as information, like the machine's banner.
            "LogLevel": "INFO" if shared else "ERROR",
        }
        if self._strict:
            options["StrictHostKeyChecking"] = "yes"
        config = ["-F", str(self._config_file)] if self._config_file is not None else []
        named = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [str(need("ssh")), *config, *named, *(["-N"] if shared else []), "--", self.destination]

    def _wait_for_the_end(self, within: float) -> None:
        """Commands learn of a lost connection a moment before what is shared has ended."""
        assert self._master is not None
        try:
            self._master.wait(within)
        except subprocess.TimeoutExpired:
            pass  # it was only the command that failed

    def _heard(self) -> str:
        if self._folder is None:
            return self._last_words
        try:
            return (self._folder / _STDERR).read_text(errors="replace").replace("\r", "").strip()
        except OSError:
            return ""


def as_value(path: Path) -> str:
    """A path as ssh's configuration wants it: it knows quotes, and takes a percent sign for a pattern.

    Nothing helps against a ``${`` in it, which names a variable.
    """
    text = str(path).replace("%", "%%")
    if not re.search(r"[\s\"'\\#=]", text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let ssh say good-bye, which ends the other side's commands at once."""
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
