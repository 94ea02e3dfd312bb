"""A forked process lets go of what it inherited, whatever its number."""

from __future__ import annotations

import fcntl
import os
import resource
from typing import NoReturn

from pytest_kernelfs.guest.descriptors import close_all_but

# As many open files as a process may have unless it asks for more.
_USUAL_LIMIT = 1024


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def _close_and_exit(reader: int, writer: int) -> NoReturn:
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        high = [fcntl.fcntl(reader, fcntl.F_DUPFD, _USUAL_LIMIT) for _ in range(2)]
        close_all_but(writer, high[1])
        seen = [_is_open(handle) for handle in (0, 1, 2, reader, writer, *high)]
        os.write(writer, repr(seen).encode())
    finally:
        os._exit(0)


def test_all_but_what_is_kept_is_closed() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _close_and_exit(reader, writer)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "[True, True, True, False, True, False, True]"
    os.waitpid(child, 0)
