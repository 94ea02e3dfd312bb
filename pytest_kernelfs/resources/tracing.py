"""Tracing the kernel: its events, and calls of its functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import tracing
from pytest_kernelfs.resources.stack import Resources

_MOST = 20_000
_BUFFER_KB = 2048
# To read many events takes an emulated processor on a busy host a minute.
_STOP_S = 300.0
# "              dd-123     [001] d..2.  1234.567890: block_rq_issue: 254,0 W 4096 () 0 + 8 [dd]"
_LINE = re.compile(r"\s*(.*)-(\d+)\s+(?:\(.{7}\)\s+)?\[(\d+)\]\s+(?:\S+\s+)?(\d+\.\d+): (.*)")
_FIELD = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True)
class TraceEvent:
    """One traced event: when (``seconds``, CLOCK_MONOTONIC), on which ``cpu``, by which ``task`` and ``pid``.

    ``name`` is the event's name, or the function's; ``text`` all that the kernel says of it, of a function
    who called it.
    """

    seconds: float
    cpu: int
    task: str
    pid: int
    name: str
    text: str

    @property
    def fields(self) -> dict[str, str]:
        """What ``text`` says as ``name=value``."""
        return dict(_FIELD.findall(self.text))


@final
class Trace:
    """What was traced in a block, complete once the block has ended."""

    def __init__(self) -> None:
        self.events: list[TraceEvent] = []
        """In the order of time."""
        self.lost = 0
        """How many events are missing: the buffer was full, or there were more than were asked for."""

    def __repr__(self) -> str:
        return f"<trace of {len(self.events)} events, {self.lost} lost>"

    def named(self, name: str) -> list[TraceEvent]:
        """The events (``"block_rq_issue"``), or calls of the function, of that name."""
        return [event for event in self.events if event.name == name]


@final
class Tracing:
    """Traces the kernel for the length of a block: the ``tracing`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    @contextmanager
    def events(
        self,
        *events: str,
        filter: str = "",  # noqa: A002
        most: int = _MOST,
        buffer_kb: int = _BUFFER_KB,
    ) -> Iterator[Trace]:
        """Trace events: ``"block:block_rq_issue"``, or ``"writeback:*"`` for all of a system.

        ``filter`` is the kernel's condition on an event's fields (``"bytes > 4096"``), the same for all of
        them. The first ``most`` events are kept; the buffer has ``buffer_kb`` KiB for each processor,
        and overwrites the oldest when it is full.

        Raises: UsageError; GuestCommandError for an event that this kernel lacks, or a filter it refuses.
        """
        if not events or not all(re.fullmatch(r"[\w-]+:([\w-]+|\*)", event) for event in events):
            raise UsageError(
                f"tracing.events: {', '.join(map(repr, events)) or 'nothing'} is not all of the form "
                "'system:event' or 'system:*'"
            )
        with self._trace([(event, filter) for event in events], [], most, buffer_kb) as trace:
            yield trace

    @contextmanager
    def functions(self, *functions: str, most: int = _MOST, buffer_kb: int = _BUFFER_KB) -> Iterator[Trace]:
        """Trace the calls of kernel functions: ``"vfs_fsync_range"``, or ``"xfs_log_*"``.

        An event's ``text`` names who called. Raises: UsageError; GuestCommandError without
        CONFIG_FUNCTION_TRACER, or if there is no such function that can be traced.
        """
        if not functions or not all(re.fullmatch(r"[\w.*?]+", function) for function in functions):
            raise UsageError(
                "tracing.functions: give the names of kernel functions, such as 'vfs_fsync_range'"
            )
        with self._trace([], functions, most, buffer_kb) as trace:
            yield trace

    @contextmanager
    def _trace(
        self, events: list[tuple[str, str]], functions: Sequence[str], most: int, buffer_kb: int
    ) -> Iterator[Trace]:
        vm = self.resources.vm
        name = self.resources.name("kernelfs")
        trace = Trace()
        machine = vm.machine
        vm.guest(tracing.start, name, events, list(functions), buffer_kb)
        try:
            yield trace
        finally:
            if vm.is_still(machine):
                raw = vm.guest(tracing.stop, name, most, timeout=_STOP_S)
                trace.events += sorted(parse(raw["text"]), key=lambda event: event.seconds)
                trace.lost = raw["lost"] + raw["left_out"]


def parse(text: str) -> list[TraceEvent]:
    """The lines of a trace file; those that are no events (comments, lost events) are passed over."""
    return [_event(match) for match in map(_LINE.fullmatch, text.splitlines()) if match]


def _event(match: re.Match[str]) -> TraceEvent:
    task, pid, cpu, seconds, said = match.groups()
    name, colon, rest = said.partition(": ")
    if not colon or " <-" in name:
        name, _, rest = said.partition(" <-")
    return TraceEvent(float(seconds), int(cpu), task.strip(), int(pid), name.rstrip(":"), rest.strip())
