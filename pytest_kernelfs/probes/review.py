"""What is looked at after every test: the kernel's log, its taint, and what the test left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_kernelfs.guest import audit
from pytest_kernelfs.machines.vm import VM, LogRecord

# A namespace or a loop device may take a moment to go after the last process that held it.
PATIENCE_S = 2.0

# Documentation/admin-guide/tainted-kernels.rst: the bits that tell of a kernel in trouble. The others
# say how it was built, or what was loaded into it.
_TROUBLE = {
    4: ("M", "the processor reported a machine check"),
    5: ("B", "a page was released in a bad state"),
    7: ("D", "the kernel died: an oops or a BUG"),
    9: ("W", "the kernel issued a warning"),
    14: ("L", "a soft lockup occurred"),
}


@dataclass(frozen=True)
class Review:
    """What was seen since the test began.

    ``log`` has the records that tell of a failure, each followed by its trace; ``last`` the last records of
    all, where none tells of a failure; ``early`` those that do and came before what was asked for: since the
    machine was copied; ``lost`` counts records that were overwritten before they could be read; ``taint`` are
    the taint bits set meanwhile; ``leaks`` names what was not there before.
    """

    log: tuple[tuple[LogRecord, ...], ...]
    last: tuple[LogRecord, ...]
    early: tuple[tuple[LogRecord, ...], ...]
    lost: int
    taint: int
    leaks: tuple[str, ...]

    @property
    def trouble(self) -> list[str]:
        """The taint bits that tell of trouble, as "W: the kernel issued a warning"."""
        return [f"{letter}: {text}" for bit, (letter, text) in _TROUBLE.items() if self.taint >> bit & 1]


def review(
    vm: VM,
    since: int,
    *,
    allowed: Sequence[str] = (),
    also: Sequence[str] = (),
    leaks: bool = True,
    patience: float = PATIENCE_S,
) -> Review:
    """Look at the machine; see ``guest.audit.review``. ``patience`` is in seconds."""
    arguments = (since, list(allowed), leaks, patience, list(also))
    raw = vm.guest(audit.review, *arguments, timeout=60.0 + patience)
    return Review(
        log=tuple(_records(story) for story in raw["log"]),
        last=_records(raw["last"]),
        early=tuple(_records(story) for story in raw["early"]),
        lost=int(raw["lost"]),
        taint=int(raw["taint"]),
        leaks=tuple(raw["leaks"]),
    )


def _records(story: Iterable[dict[str, object]]) -> tuple[LogRecord, ...]:
    return tuple(LogRecord(**record) for record in story)  # type: ignore[arg-type]
