"""Serves one conversation with the host, over a file descriptor of this machine."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn


class DescriptorIO:
    """File descriptors that are read and written, in the form that execnet asks for."""

    def __init__(self, descriptor: int, written: int | None = None) -> None:
        """``written`` is another one to write to, if it is not the same."""
        from execnet.gateway_base import get_execmodel

        self.descriptor = descriptor
        self._written = written
        self._writing = threading.Lock()
        self.execmodel = get_execmodel("thread")

    def read(self, numbytes: int) -> bytes:
        """Exactly that many bytes. The conversation ends with the process when the host has gone."""
        parts = []
        while numbytes:
            part = os.read(self.descriptor, numbytes)
            if not part:
                os._exit(0)
            parts.append(part)
            numbytes -= len(part)
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        target = self.descriptor if self._written is None else self._written
        with self._writing:  # or two messages of two threads get into one another
            while view:
                view = view[os.write(target, view) :]

    def close_read(self) -> None:
        os._exit(0)

    close_write = kill = close_read

    def wait(self) -> int | None:
        return None


def import_all(modules: Sequence[str] = ()) -> None:
    """Import what conversations use, once: each inherits it, and so does every fork of this machine.

    ``modules`` are the names of the guest's own, where they cannot be found in a folder.
    """
    import pytest_kernelfs.guest as package

    for name in ("execnet.gateway_base", "queue", "subprocess", "threading", "json", "tempfile", "shutil"):
        importlib.import_module(name)
    found = (module.name for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."))
    for name in modules or found:
        importlib.import_module(name)
    from pytest_kernelfs.guest import dispatch, files

    files.pregenerate()
    dispatch.compile_once(dispatch.CALL + "\n", "<remote exec>", "exec")


def converse_and_exit(io: DescriptorIO, log: Callable[[str], None]) -> NoReturn:
    """Serve the host until it goes; ``log`` takes a line for whoever looks into why a machine failed."""
    from execnet import gateway_base

    from pytest_kernelfs.guest import dispatch, installing, oom

    os.setsid()
    os.environ["PATH"] = os.pathsep.join([installing.BIN, os.environ.get("PATH", os.defpath)])
    oom.protect()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _remember(log)
        # execnet compiles what it is sent, which for us is always the same line.
        vars(gateway_base)["compile"] = dispatch.compile_once
        gateway_base.serve(io, id="guest")
    except BaseException as error:
        log(f"conversation ended: {error!r}")
    finally:
        os._exit(0)


def _remember(log: Callable[[str], None]) -> None:
    """Note what is there before the test; what goes wrong with that must not keep a kernel from its tests."""
    from pytest_kernelfs.guest import audit

    try:
        audit.remember()
    except Exception as error:
        log(f"cannot note what is there before the test: {error!r}")
