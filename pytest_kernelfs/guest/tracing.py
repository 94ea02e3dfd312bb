"""The kernel's event and function tracer, through tracefs.

Each trace has an instance of its own: its buffer is nobody else's, and it goes with it.
"""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

from pytest_kernelfs.guest import journal, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

# The last is mounted by us, on a machine that goes on after the tests and has it at none of the others.
OWN = "/run/kernelfs/tracing"
_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing", OWN)


def start(name: str, events: list[tuple[str, str]], functions: list[str], buffer_kb: int) -> None:
    """Trace events, each (``"block:block_rq_issue"``, filter or ""), and calls of functions.

    Raises: GuestError, naming what this kernel lacks; nothing is traced then.
    """
    folder = f"{_root()}/instances/{name}"
    os.mkdir(folder)
    journal.note("trace", name)
    try:
        _write(folder + "/buffer_size_kb", str(buffer_kb))
        # The clock that all other times of a test are taken with.
        _write(folder + "/trace_clock", "mono")
        if functions:
            _trace_functions(folder, functions)
        for event, condition in events:
            _trace_event(folder, event, condition)
    except BaseException:
        _remove(folder)
        raise


def stop(name: str, most: int) -> dict[str, Any]:
    """End a trace; gives ``text`` (its first ``most`` lines), ``left_out`` (lines beyond) and ``lost``
    (events that no longer were in the buffer). Nothing of it for a trace that was ended before.
    """
    folder = f"{_root()}/instances/{name}"
    if not os.path.exists(folder):
        return {"text": "", "left_out": 0, "lost": 0}
    _write(folder + "/tracing_on", "0")
    lines: list[str] = []
    left_out = 0
    with open(folder + "/trace", errors="replace") as file:
        for line in file:
            if line.startswith("#"):
                continue
            if len(lines) < most:
                lines.append(line)
            else:
                left_out += 1
    lost = _lost(folder)
    _remove(folder)
    journal.forget("trace", name)
    return {"text": "".join(lines), "left_out": left_out, "lost": lost}


def drop(name: str) -> bool:
    """End a trace that nobody wants any more; False if it is gone already.

    It may have been made where tracefs was mounted, and be dropped where it is not.
    """
    mounted = not is_mounted()
    if mounted:
        syscalls.mount("tracefs", _PLACES[0], "tracefs")
    try:
        folder = f"{_root()}/instances/{name}"
        if not os.path.exists(folder):
            return False
        _remove(folder)
        return True
    finally:
        if mounted:
            syscalls.umount(_PLACES[0])


def is_mounted() -> bool:
    return any(os.path.exists(place + "/instances") for place in _PLACES)


def _root() -> str:
    for place in _PLACES:
        if os.path.exists(place + "/instances"):
            return place
    raise GuestError("this kernel has no tracefs: it needs CONFIG_FTRACE=y and CONFIG_EVENT_TRACING=y")


def _trace_event(folder: str, event: str, condition: str) -> None:
    system, _, name = event.partition(":")
    place = f"{folder}/events/{system}" + ("" if name == "*" else f"/{name}")
    if not name or not os.path.exists(place + "/enable"):
        _no_such_event(event)
    if condition:
        try:
            _write(place + "/filter", condition)
        except OSError as error:
            said = _read(place + "/filter").strip()
            raise GuestError(
                f"the filter {condition!r} of the event {event} was refused: {error.strerror}\n{said}"
            ) from None
    _write(place + "/enable", "1")


def _no_such_event(event: str) -> NoReturn:
    import difflib

    known = _read(_root() + "/available_events").split()
    close = difflib.get_close_matches(event, known, 3, 0.6)
    like = f"; did you mean {' or '.join(close)}?" if close else ""
    raise GuestError(
        f"this kernel has no event {event}{like} (those of a module are there once it is loaded)"
    )


def _trace_functions(folder: str, functions: list[str]) -> None:
    tracers = _read(folder + "/available_tracers").split()
    if "function" not in tracers:
        raise GuestError(
            f"this kernel cannot trace functions: it needs CONFIG_FUNCTION_TRACER=y "
            f"(it has {' '.join(tracers)})"
        )
    for function in functions:
        try:
            _write(folder + "/set_ftrace_filter", function + "\n", append=True)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise GuestError(
                f"this kernel cannot trace the function {function}: it has none of that name, "
                "has it inlined, or its module is not loaded"
            ) from None
    _write(folder + "/current_tracer", "function")


def _lost(folder: str) -> int:
    lost = 0
    for name in os.listdir(folder + "/per_cpu"):
        for line in _read(f"{folder}/per_cpu/{name}/stats").splitlines():
            kind, _, number = line.partition(":")
            if kind in ("overrun", "dropped events"):
                lost += int(number)
    return lost


def _remove(folder: str) -> None:
    for name, value in (("events/enable", "0"), ("current_tracer", "nop")):
        _write(f"{folder}/{name}", value)
    os.rmdir(folder)


def _read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def _write(path: str, text: str, append: bool = False) -> None:
    handle = os.open(path, os.O_WRONLY | (os.O_APPEND if append else os.O_TRUNC))
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
