"""The command that leads to a machine: started, greeted, given our code, and waited for."""

from __future__ import annotations

import collections
import json
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.guest.tenant import REPORT
from pytest_kernelfs.machines.tenant.access import Access, Busy, Unreachable
from pytest_kernelfs.machines.tenant.parcel import BOOTSTRAP, MARK, pack
from pytest_kernelfs.machines.threads import start

# A login may print a message of the day first.
_MOST_NOISE = 64 << 10
_MOST_LINES = 200
_LAST_WORDS_S = 5.0


class Connection:
    """One run of our code on a machine, as root, over the standard streams of the command leading there."""

    def __init__(self, access: Access, settings: Mapping[str, Any], timeout: float) -> None:
        """Start it, and wait for its answer: ``facts``. It is to say something every ``timeout`` seconds.

        ``settings`` are for ``guest.tenant.main``.

        Raises: Unreachable, with what the command printed; Busy if another run works there;
        InfrastructureError with what else keeps our code from working there.
        """
        self.access = access
        self._report: dict[str, Any] | None = None
        self._said: collections.deque[str] = collections.deque(maxlen=_MOST_LINES)
        self._process, self.socket = self._start()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        try:
            start(self._listener)
            self.facts = self._greet(settings, time.monotonic() + timeout, timeout)
        except BaseException:
            self.close(0.0)
            raise

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        words = [self.access.python, "-IS", "-c", BOOTSTRAP]
        try:
            with theirs:
                process = subprocess.Popen(
                    self.access.command(words),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            program = self.access.command(words)[0]
            raise Unreachable(
                f"{self.access.label} cannot be reached: {program} cannot be started: {error.strerror}"
            ) from None
        return process, ours

    def _greet(self, settings: Mapping[str, Any], deadline: float, timeout: float) -> dict[str, Any]:
        try:
            magic = bytes.fromhex(self._read_line_after(MARK, deadline).decode())
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self.socket.sendall(pack(magic, settings))
            answer = json.loads(self._read_line_after(b"", deadline))
            while "waiting" in answer:
                deadline = time.monotonic() + timeout
                answer = json.loads(self._read_line_after(b"", deadline))
        except TimeoutError:
            raise Unreachable(
                f"{self.access.label} did not answer within {timeout:g} s{self._last_words()}",
                None,
                self.said(),
            ) from None
        except (OSError, EOFError, ValueError):
            self._gone()
        self.socket.settimeout(None)
        if "error" in answer:
            refused = Busy if answer.get("busy") else InfrastructureError
            raise refused(f"{self.access.label}: {answer['error']}")
        return dict(answer)

    def _gone(self) -> NoReturn:
        code = self.wait(_LAST_WORDS_S)
        command = " ".join(self.access.prefix) or self.access.python
        how = "it does not end" if code is None else f"it ended with exit code {code}"
        raise Unreachable(
            f"{self.access.label} cannot be used: {command!r} did not start {self.access.python} as root "
            f"there, {how}{self._last_words()}",
            code,
            self.said(),
        )

    def _read_line_after(self, mark: bytes, deadline: float) -> bytes:
        """The rest of the first line that begins with the mark. Not a byte more is read.

        Raises: EOFError, TimeoutError, OSError; ValueError if there is no such line in reasonable time.
        """
        line, total = bytearray(), 0
        while total < _MOST_NOISE or line:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            byte = self.socket.recv(1)
            if not byte:
                raise EOFError
            total += 1
            if byte != b"\n":
                line += byte
            elif line.startswith(mark) and line:
                return bytes(line[len(mark) :])
            else:
                line.clear()
        raise ValueError("nothing but noise")

    def _listen(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if not (line.startswith(REPORT) and self._take_report(line[len(REPORT) :])):
                    self._said.append(line)

    def _take_report(self, text: str) -> bool:
        """False for one that was cut short, because the connection broke."""
        try:
            self._report = json.loads(text)
        except ValueError:
            return False
        return True

    def said(self) -> str:
        """What the command printed as errors, its last lines."""
        return "\n".join(self._said)

    def _last_words(self) -> str:
        text = self.said().strip()
        return f"; it printed:\n{text}" if text else "; it printed no error"

    @property
    def pid(self) -> int:
        """The process of the command, on this host."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self, within: float) -> int | None:
        """The exit code, once it has ended and all that it printed is here; None if it runs on."""
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired:
            return None
        if self._listener.ident is not None:
            self._listener.join(_LAST_WORDS_S)
        return code

    @property
    def report(self) -> dict[str, Any] | None:
        """What the other side said last, when it had tidied up; None if it could not."""
        return self._report

    def close(self, patience: float) -> bool:
        """Hang up, and give the other side so many seconds to tidy up; False if it had to be cut off.

        May be called again.
        """
        try:
            # Only to send: ssh gives up all streams, and what is said at the end, when one takes no more.
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has gone
        in_time = self.wait(patience) is not None
        if not in_time:
            self._process.terminate()
            if self.wait(_LAST_WORDS_S) is None:
                self._process.kill()
                self.wait(_LAST_WORDS_S)
        try:
            self.socket.shutdown(socket.SHUT_RDWR)  # or who reads from it waits for ever
        except OSError:
            pass
        self.socket.close()
        if self._listener.ident is None and self._process.stderr is not None:
            self._process.stderr.close()  # nobody listened
        return in_time
