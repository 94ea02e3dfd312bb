"""What runs over libvirt's streams: the channel to the agent, and the serial console.

Streams are served by the thread that serves libvirt's events, so they work whatever the others wait for, and
through any transport that a connection has.
"""

from __future__ import annotations

import socket
import threading
from typing import Any, final

from pytest_kernelfs.machines.libvirt.api import library

_PIECE = 1 << 16
_LATER = -2


@final
class StreamSocket:
    """Carries all that a stream gives into a socket, and back: ``near`` is the end for the user.

    It ends when either side does.
    """

    def __init__(self, stream: Any) -> None:
        libvirt = library()
        self.near, self._far = socket.socketpair()
        self._far.setblocking(False)
        self._stream = stream
        self._to_guest = bytearray()
        self._to_host = bytearray()
        self._open = True
        self._wanted = (0, 0)
        # Both callbacks come from one thread, but the first may come before the second is there.
        self._lock = threading.RLock()
        with self._lock:
            stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE, self._on_stream, None)
            self._watch = libvirt.virEventAddHandle(
                self._far.fileno(), libvirt.VIR_EVENT_HANDLE_READABLE, self._on_socket, None
            )

    def _on_stream(self, _stream: Any, events: int, _opaque: Any) -> None:
        libvirt = library()
        with self._lock:
            if not self._open:
                return
            try:
                if events & ~libvirt.VIR_STREAM_EVENT_WRITABLE:
                    self._take_from_guest()
                self._pass_on()
            except (EOFError, OSError, libvirt.libvirtError):
                self._end()

    def _on_socket(self, _watch: int, _fd: int, events: int, _opaque: Any) -> None:
        libvirt = library()
        with self._lock:
            if not self._open:
                return
            try:
                if events & ~libvirt.VIR_EVENT_HANDLE_WRITABLE:
                    self._take_from_host()
                self._pass_on()
            except (EOFError, OSError, libvirt.libvirtError):
                self._end()

    def _take_from_host(self) -> None:
        """Raises: EOFError, OSError."""
        piece = self._far.recv(_PIECE)
        if not piece:
            raise EOFError
        self._to_guest += piece

    def _take_from_guest(self) -> None:
        """Raises: EOFError, libvirtError."""
        piece = self._stream.recv(_PIECE)
        if piece == _LATER:
            return
        if not piece:
            raise EOFError
        self._to_host += piece

    def _pass_on(self) -> None:
        """Pass on what can be, and ask to be told when there is more to do. Raises: OSError, libvirtError."""
        while self._to_guest:
            sent = self._stream.send(bytes(self._to_guest[:_PIECE]))
            if sent == _LATER:
                break
            del self._to_guest[:sent]
        while self._to_host:
            try:
                del self._to_host[: self._far.send(self._to_host)]
            except BlockingIOError:
                break
        self._ask()

    def _ask(self) -> None:
        """Of each side, more is taken only when the other has taken all that there was."""
        libvirt = library()
        from_stream = 0 if self._to_host else libvirt.VIR_STREAM_EVENT_READABLE
        from_socket = 0 if self._to_guest else libvirt.VIR_EVENT_HANDLE_READABLE
        to_stream = libvirt.VIR_STREAM_EVENT_WRITABLE if self._to_guest else 0
        to_socket = libvirt.VIR_EVENT_HANDLE_WRITABLE if self._to_host else 0
        wanted = (from_stream | to_stream, from_socket | to_socket)
        if wanted != self._wanted:
            self._wanted = wanted
            self._stream.eventUpdateCallback(wanted[0])
            libvirt.virEventUpdateHandle(self._watch, wanted[1])

    def close(self) -> None:
        """End it, whatever is on its way."""
        with self._lock:
            if self._open:
                self._end()

    def _end(self) -> None:
        self._open = False
        library().virEventRemoveHandle(self._watch)
        self._far.close()
        end_stream(self._stream)


@final
class ConsoleStream:
    """Keeps all that a serial console prints, and types on it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._printed = bytearray()
        self._ended = threading.Event()
        self._lock = threading.RLock()
        with self._lock:
            stream.eventAddCallback(library().VIR_STREAM_EVENT_READABLE, self._on_event, None)

    def _on_event(self, stream: Any, _events: int, _opaque: Any) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            try:
                piece = stream.recv(_PIECE)
            except library().libvirtError:
                piece = b""
            if piece == _LATER:
                return
            if piece:
                self._printed += piece
            else:
                self._end()

    @property
    def printed(self) -> bytes:
        """All that was printed."""
        return bytes(self._printed)

    def type(self, text: bytes) -> None:
        """Send characters: few, so that they need not wait. Raises: OSError if the console has ended."""
        with self._lock:
            if self._ended.is_set() or self._stream.send(text) != len(text):
                raise OSError("the console takes no key")

    def wait_end(self, timeout: float) -> None:
        """Wait until it prints no more because the machine has ended."""
        self._ended.wait(timeout)

    def close(self) -> None:
        """Keep what was printed, and listen no longer."""
        with self._lock:
            if not self._ended.is_set():
                self._end()

    def _end(self) -> None:
        self._ended.set()
        end_stream(self._stream)


def end_stream(stream: Any) -> None:
    """Take leave of a stream, which may have ended already."""
    libvirt = library()
    for leave in (stream.eventRemoveCallback, stream.abort):
        try:
            leave()
        except libvirt.libvirtError:
            pass
