"""The host's end of a conversation with a guest: calls with deadlines over execnet."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Callable
from typing import Any

from pytest_kernelfs.errors import GuestCommandError, GuestTimeout, KernelfsError, UsageError
from pytest_kernelfs.guest.dispatch import CALL

_numbers = itertools.count(1)


class ChannelLost(KernelfsError):
    """The other end has gone; the machine knows why."""


class SocketIO:
    """A connected stream socket in the form that execnet asks for."""

    def __init__(self, connection: socket.socket) -> None:
        from execnet.gateway_base import get_execmodel

        self._socket = connection
        self.execmodel = get_execmodel("thread")

    def read(self, numbytes: int, /) -> bytes:
        parts = []
        while numbytes:
            try:
                part = self._socket.recv(min(numbytes, 1 << 20))
            except OSError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            parts.append(part)
            numbytes -= len(part)
        return b"".join(parts)

    def write(self, data: bytes, /) -> None:
        self._socket.sendall(data)

    def close_read(self) -> None:
        self.close_write()

    def close_write(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed already

    def wait(self) -> int | None:
        return None

    def kill(self) -> None:
        self.close_write()


class GuestChannel:
    """One conversation with a guest, over a connected stream socket that is closed with it."""

    def __init__(self, connection: socket.socket) -> None:
        """Nothing is said yet: the guest shows that it is there by answering the first call."""
        import execnet

        self._socket = connection
        name = f"kernelfs-{next(_numbers)}"
        self._gateway = execnet.Gateway(SocketIO(connection), execnet.XSpec(f"socket=guest//id={name}"))

    def call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> Any:
        """Make one call and wait ``timeout`` seconds for its value.

        Raises: GuestCommandError if it raised in the guest; UsageError for arguments that are not plain;
        GuestTimeout; ChannelLost.
        """
        from execnet import DumpError

        try:
            channel = self._gateway.remote_exec(CALL)
            try:
                channel.send((kind, payload, list(args), dict(kwargs)))
            except (DumpError, struct.error) as error:
                channel.close()
                raise UsageError(
                    f"the arguments of {payload[1]} cannot be sent to the guest ({error}); give it "
                    "None, bool, int, float, str, bytes, list, tuple, dict and set only"
                ) from None
            answer = channel.receive(timeout)
        except (EOFError, OSError) as error:
            if isinstance(error, channel_timeout()):
                raise GuestTimeout(
                    f"the guest did not answer a call of {payload[1]} within {timeout:g} s"
                ) from None
            raise ChannelLost(f"the channel to the guest closed during a call of {payload[1]}") from error
        return _value(answer, payload[1])

    def close(self) -> None:
        """End the conversation; the guest goes back to waiting for the next."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other end went first
        self._gateway.join(timeout=2.0)
        self._socket.close()


def channel_timeout() -> type[Exception]:
    """execnet's own TimeoutError, which is an OSError but not the built-in one."""
    from execnet.gateway_base import TimeoutError as ExecnetTimeoutError

    return ExecnetTimeoutError


def call_payload(function: Callable[..., Any]) -> tuple[str, str]:
    """How a function of the guest package is named over the channel."""
    return function.__module__, function.__name__


def _value(answer: Any, name: str) -> Any:
    if answer[0] == "ok":
        return answer[1]
    _, kind, message, trace = answer
    if kind == "GuestError":
        raise GuestCommandError(message)
    raise GuestCommandError(f"{name} raised {kind} in the guest: {message}\n{trace}".rstrip())
