"""The host's end of a conversation with a guest: calls with deadlines over execnet."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from pytest_kernelfs.errors import GuestCommandError, GuestTimeout, KernelfsError, UsageError
from pytest_kernelfs.guest.dispatch import CALL
from pytest_kernelfs.guest.exchange import Inbox
from pytest_kernelfs.machines.importing import module_for_guest
from pytest_kernelfs.machines.socket_io import SocketIO
from pytest_kernelfs.machines.threads import no_more

_numbers = itertools.count(1)
_PLAIN = "None, bool, int, float, str, bytes, list, tuple, dict and set only"


class ChannelLost(KernelfsError):
    """The other end has gone; the machine knows why."""


class GuestChannel:
    """One conversation with a guest, over a connected stream socket that is closed with it."""

    def __init__(self, connection: socket.socket) -> None:
        """Nothing is said yet: the guest shows that it is there by answering the first call.

        Raises: InfrastructureError if no thread can be started to listen to it.
        """
        import execnet

        self._io = SocketIO(connection)
        name = f"kernelfs-{next(_numbers)}"
        try:
            self._gateway = execnet.Gateway(self._io, execnet.XSpec(f"socket=guest//id={name}"))
        except RuntimeError as error:
            self._io.close()
            raise no_more(error) from error

    def call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> Any:
        """Make one call and wait ``timeout`` seconds for its value, from when the guest has taken the call.

        Raises: GuestCommandError if it raised in the guest; UsageError for arguments that are not plain;
        GuestTimeout; ChannelLost; InfrastructureError if it could not be sent.
        """
        from execnet import RemoteError

        try:
            channel = self._begin(kind, payload, args, kwargs)
            answer = self._last_answer(channel, timeout)
        except RemoteError as error:
            # What is no Exception passes by our own end in the guest: KeyboardInterrupt, pytest.fail().
            told = error.formatted.strip()
            ending = told.splitlines()[-1]
            text = f"{payload[1]} was ended in the guest: {ending}"
            raise GuestCommandError(text if told == ending else f"{text}\n{told}") from None
        except (EOFError, OSError) as error:
            if isinstance(error, channel_timeout()):
                raise GuestTimeout(
                    f"the guest did not answer a call of {payload[1]} within {timeout:g} s"
                ) from None
            raise ChannelLost(f"the channel to the guest closed during a call of {payload[1]}") from error
        return _value(answer, payload[1])

    def exchange(
        self, function: Callable[..., Any], args: Any, explain: Callable[[str], KernelfsError]
    ) -> GuestExchange:
        """Begin a call whose function has an ``Exchange`` for its first argument.

        ``explain`` gives what to raise when the other end has gone. Raises: that; UsageError.
        """
        payload = call_payload(function)
        try:
            channel = self._begin("exchange", payload, args, {})
        except OSError:
            raise explain(f"the channel to the guest closed before a call of {payload[1]}") from None
        return GuestExchange(channel, payload[1], explain, self._io.check)

    def _begin(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any) -> Any:
        """Raises: UsageError; OSError if the other end has gone; InfrastructureError if it is not sent."""
        from execnet import DumpError

        channel = self._gateway.remote_exec(CALL)
        try:
            channel.send((kind, payload, list(args), dict(kwargs)))
        except (DumpError, struct.error) as error:
            channel.close()
            raise UsageError(
                f"the arguments of {payload[1]} cannot be sent to the guest ({error}); give it {_PLAIN}"
            ) from None
        self._io.check()
        return channel

    def _last_answer(self, channel: Any, timeout: float) -> Any:
        """What a call ends with; modules that it asks for meanwhile are sent.

        Raises: execnet's own TimeoutError; OSError, EOFError if the other end has gone.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer = channel.receive(max(deadline - time.monotonic(), 0.0))
            except channel_timeout():
                # What is large takes a while to arrive, which is no silence.
                if self._io.took_at + timeout <= deadline:
                    raise
                deadline = self._io.took_at + timeout
                continue
            if answer[0] != "import":
                return answer
            channel.send(module_for_guest(*answer[1:]))

    def close(self) -> None:
        """End the conversation; the guest goes back to waiting for the next."""
        self._io.close_write()
        self._gateway.join(timeout=2.0)
        self._io.close()


class GuestExchange:
    """A call that is under way: items go both ways until its function gives its value.

    ``fileno`` is readable when there is something to take.
    """

    def __init__(
        self,
        channel: Any,
        name: str,
        explain: Callable[[str], KernelfsError],
        check: Callable[[], None],
    ) -> None:
        """``check`` raises what keeps something from being sent."""
        self._check = check
        self._channel = channel
        self._name = name
        self._explain = explain
        self._inbox = Inbox(channel)
        self._answer: Any = None

    def fileno(self) -> int:
        return self._inbox.fileno()

    def send(self, item: Any) -> None:
        """Give the function an item; one that has ended meanwhile gets no more.

        Raises: InfrastructureError if it cannot be sent.
        """
        try:
            self._channel.send(item)
        except OSError:
            pass  # ``value`` tells how it ended
        self._check()

    def take(self) -> list[Any]:
        """The items that the function has sent since, without waiting for more."""
        items = []
        for kind, *rest in self._inbox.take():
            if kind == "item":
                items.append(rest[0])
            else:
                self._answer = (kind, *rest)
        return items

    @property
    def finished(self) -> bool:
        """Whether the function has ended, or the other end has gone, and all that was sent is taken."""
        return self._answer is not None or self._inbox.ended

    @property
    def value(self) -> Any:
        """What the function gave, once it has ended.

        Raises: GuestCommandError if it raised; what explains it, if the other end has gone.
        """
        if self._answer is None:
            raise self._explain(f"the channel to the guest closed during a call of {self._name}")
        return _value(self._answer, self._name)

    def close(self) -> None:
        """Take no more; the function is told, if it is still there."""
        try:
            self._channel.close()
        except OSError:
            pass  # the other end went first
        self._inbox.close()


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
    if kind == "DumpError" and not trace:  # it ran to its end
        raise GuestCommandError(f"{message}; have it give {_PLAIN}")
    raise GuestCommandError(f"{name} raised {kind} in the guest: {message}\n{trace}".rstrip())
