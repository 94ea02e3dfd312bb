"""Why a machine died, read from what its console printed last."""

from __future__ import annotations

import re

_PANIC = re.compile(r"Kernel panic - not syncing")
# Where the story of a panic begins: the first of these within the last stretch of the console.
_BEGIN = re.compile(
    r"\bBUG:|kernel BUG at|\bOops|general protection fault|sysrq: Trigger a crash|Kernel panic|"
    r"Unable to handle|watchdog: BUG|Internal error"
)
_STRETCH = 120
_SHOWN = 30


def panic_text(console: str) -> str | None:
    """The lines that tell of a panic, from its cause to its end; None if the console shows none."""
    lines = console.splitlines()
    last = max((index for index, line in enumerate(lines) if _PANIC.search(line)), default=None)
    if last is None:
        return None
    start = max(0, last - _STRETCH)
    first = next(index for index in range(start, last + 1) if _BEGIN.search(lines[index]))
    told = lines[first : last + 1]
    if len(told) > _SHOWN:
        told = [*told[: _SHOWN - 4], f"... {len(told) - _SHOWN + 1} more lines ...", *told[-3:]]
    return "\n".join(told)


def tail(console: str, lines: int = 20) -> str:
    """The last lines of a console, indented, or a word that it is empty."""
    kept = [line for line in console.splitlines() if line.strip()][-lines:]
    if not kept:
        return "  (the console is empty)"
    return "\n".join(f"  {line}" for line in kept)
