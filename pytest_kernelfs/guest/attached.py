"""Runs a command that the host is attached to: its input, output and signals pass while it runs.

The host sends ``("in", bytes)``, ``("eof",)``, ``("signal", number)``, ``("size", rows, columns)``,
``("end",)`` to have it killed, and ``("took", count)`` for output it has got rid of. It is sent
``("out", bytes)``, ``("err", bytes)``, and ``("took", count)`` for input that the command was given. Neither
end sends more than ``WINDOW`` bytes before it hears that some were taken.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import struct
import subprocess
import termios
import threading
from typing import Any

from pytest_kernelfs.guest import oom
from pytest_kernelfs.guest.commands import kill_group, refusal_code, waits_for
from pytest_kernelfs.guest.exchange import Exchange
from pytest_kernelfs.guest.patience import Patience

WINDOW = 256 << 10
CHUNK = 32 << 10
_GRACE_S = 2.0
# What a command wrote before it ended is all sent; what others go on writing has an end.
_LAST_WORDS = 1 << 20
# Input flag of Linux that Python's termios does not name: the terminal erases whole characters of UTF-8.
_IUTF8 = 0o40000
_LONG_S = 3600.0
_OURS = "ours"


def run(
    exchange: Exchange,
    command: list[str],
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Run a command until it ends; with ``size`` (rows, columns) in a terminal of its own.

    Gives a dict: ``rc`` (negative for a signal, None if even SIGKILL did not end it), ``stuck`` (what the
    process waits for then).
    """
    environment = dict(os.environ)
    if cwd is not None:
        environment["PWD"] = cwd  # shells call their folder by this name, if it is one of its names
    environment.update(env or {})
    pipes = _Terminal(size) if size is not None else _Pipes()
    try:
        try:
            with oom.expendable():
                process = subprocess.Popen(
                    command,
                    stdin=pipes.theirs[0],
                    stdout=pipes.theirs[1],
                    stderr=pipes.theirs[2],
                    cwd=cwd,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=pipes.adopt,
                )
        except OSError as error:
            rc = refusal_code(error, command, cwd)
            exchange.send(("err", str(error).encode() + b"\n"))
            return {"rc": rc, "stuck": ""}
        pipes.close_theirs()
        return _Attached(exchange, process, pipes).serve()
    finally:
        pipes.close()


class _Pipes:
    """Three pipes between a command and us."""

    def __init__(self) -> None:
        read_in, self.input = os.pipe()
        out, write_out = os.pipe()
        err, write_err = os.pipe()
        self.outputs = {out: "out", err: "err"}
        self._ours = {self.input, out, err}
        self.theirs = [read_in, write_out, write_err]

    @staticmethod
    def adopt() -> None:
        """In the command's process: the agent ignores SIGINT, which would be inherited."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def end_input(self) -> None:
        """There is no more input to come."""
        self._ours.discard(self.input)
        os.close(self.input)

    def resize(self, rows: int, columns: int) -> None:
        """Pipes have no size."""

    def close_theirs(self) -> None:
        for descriptor in set(self.theirs):
            os.close(descriptor)
        self.theirs = []

    def close(self) -> None:
        self.close_theirs()
        for descriptor in self._ours:
            os.close(descriptor)


class _Terminal(_Pipes):
    """A terminal instead of the pipes."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.input, slave = os.openpty()
        self.outputs = {self.input: "out"}
        self._ours = {self.input}
        self.theirs = [slave, slave, slave]
        modes = termios.tcgetattr(slave)
        modes[0] |= _IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        self.resize(*size)

    @staticmethod
    def adopt() -> None:
        """In the command's process, which leads a session: have the terminal control it."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def end_input(self) -> None:
        """A terminal's input has no end but what is typed."""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.input, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class _Attached:
    """A command under way."""

    def __init__(self, exchange: Exchange, process: subprocess.Popen[bytes], pipes: _Pipes) -> None:
        self._exchange = exchange
        self._process = process
        self._pipes = pipes
        self._outputs = dict(pipes.outputs)
        self._room = WINDOW
        self._input = bytearray()
        self._takes_input, self._no_more_input = True, False
        self._patience: Patience | None = None
        self._selector = selectors.DefaultSelector()
        for descriptor in {pipes.input, *pipes.outputs}:
            os.set_blocking(descriptor, False)

    def serve(self) -> dict[str, Any]:
        done, says_done = os.pipe()
        threading.Thread(target=self._wait, args=(says_done,), daemon=True).start()
        self._selector.register(done, selectors.EVENT_READ)
        self._selector.register(self._exchange.inbox, selectors.EVENT_READ)
        try:
            self._pass_on(done)
        finally:
            self._selector.close()
            os.close(done)
        if self._process.returncode is None:
            return {"rc": None, "stuck": waits_for(self._process)}
        self._send_last_words()
        return {"rc": self._process.returncode, "stuck": ""}

    def _wait(self, says_done: int) -> None:
        self._process.wait()
        os.close(says_done)

    def _pass_on(self, done: int) -> None:
        """Until the command has ended, or nothing ends it."""
        while True:
            self._watch()
            most = _LONG_S if self._patience is None else 0.0
            ready = {key.fd: events for key, events in self._selector.select(most)}
            if done in ready or (self._patience is not None and not self._patience.wait()):
                return
            if self._exchange.inbox.fileno() in ready:
                self._obey()
            if ready.get(self._pipes.input, 0) & selectors.EVENT_WRITE:
                self._write()
            for descriptor in self._outputs.keys() & ready.keys():
                # Another may have taken up the room: to read nothing would look like the end.
                if ready[descriptor] & selectors.EVENT_READ and self._room > 0:
                    self._read(descriptor, min(CHUNK, self._room))

    def _watch(self) -> None:
        """Wait for what can be dealt with, and for nothing else."""
        wanted = dict.fromkeys(self._outputs, selectors.EVENT_READ) if self._room > 0 else {}
        if self._input:
            wanted[self._pipes.input] = wanted.get(self._pipes.input, 0) | selectors.EVENT_WRITE
        watched = {fd: key.events for fd, key in self._selector.get_map().items() if key.data == _OURS}
        for descriptor in watched.keys() - wanted.keys():
            self._selector.unregister(descriptor)
        for descriptor, events in wanted.items():
            if descriptor not in watched:
                self._selector.register(descriptor, events, _OURS)
            elif watched[descriptor] != events:
                self._selector.modify(descriptor, events, _OURS)

    def _obey(self) -> None:
        """Do what the host has asked for since."""
        for kind, *values in self._exchange.inbox.take():
            if kind == "in" and self._takes_input:
                self._input += values[0]
            elif kind == "eof":
                self._no_more_input = True
            elif kind == "took":
                self._room += values[0]
            elif kind == "signal":
                self._signal(values[0])
            elif kind == "size":
                self._pipes.resize(*values)
            elif kind == "end":
                self._kill()
        self._end_input_if_given()
        if self._exchange.inbox.ended:
            self._kill()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass  # it has just ended

    def _kill(self) -> None:
        kill_group(self._process.pid)
        if self._patience is None:
            self._patience = Patience(_GRACE_S)

    def _write(self) -> None:
        try:
            count = os.write(self._pipes.input, self._input)
        except BlockingIOError:
            return
        except OSError:
            # Nobody reads it any more: the host may keep the rest.
            self._input.clear()
            self._takes_input = False
            return
        del self._input[:count]
        self._exchange.send(("took", count))
        self._end_input_if_given()

    def _end_input_if_given(self) -> None:
        if self._no_more_input and not self._input:
            self._no_more_input = self._takes_input = False
            self._watch()
            self._pipes.end_input()

    def _read(self, descriptor: int, most: int) -> bool:
        """Pass on what there is; False if there is nothing now."""
        try:
            data = os.read(descriptor, most)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # a terminal that nobody holds open any more
        if not data:
            del self._outputs[descriptor]
            return False
        self._room -= len(data)
        self._exchange.send((self._pipes.outputs[descriptor], data))
        return True

    def _send_last_words(self) -> None:
        """What the command wrote before it ended, beyond what the host has room for."""
        for descriptor in list(self._outputs):
            left = _LAST_WORDS
            while left > 0 and self._read(descriptor, CHUNK):
                left -= CHUNK
