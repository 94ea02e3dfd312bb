"""Why a machine died, read from what its console printed last."""

from __future__ import annotations

import re

_PANIC = re.compile(r"Kernel panic - not syncing")
# Where the story of a panic begins: the first of these within the last stretch of the console.
_BEGIN = re.compile(
    r"\bBUG:|kernel BUG at|\bOops|general protection fault|sysrq: Trigger a crash|Kernel panic|"
    r"Unable to handle|watchdog: BUG|Internal error|INFO: task .* blocked for more than|rcu: INFO:"
)
# How a kernel ends its machine on request, and what it says of sysrq keys that do.
_SHUT_DOWN = re.compile(
    r"reboot: (Restarting system|Power down|System halted)|sysrq: (Resetting|Power Off)|"
    r"kexec_core: Starting new kernel"
)
_BEFORE = 120
_AFTER = 40
_SHOWN = 40


def panic_text(console: str) -> str | None:
    """The lines that tell of a panic, from its cause through its trace; None if the console shows none."""
    lines = console.splitlines()
    last = max((index for index, line in enumerate(lines) if _PANIC.search(line)), default=None)
    if last is None:
        return None
    start = max(0, last - _BEFORE)
    first = next(index for index in range(start, last + 1) if _BEGIN.search(lines[index]))
    told = lines[first : last + _AFTER]
    if len(told) <= _SHOWN:
        return "\n".join(told)
    # The cause and the panic itself are what is read; of a long story the middle can go.
    head, end = told[: last - first][: _SHOWN // 2], lines[last : last + _SHOWN // 2]
    left_out = len(told) - len(head) - len(end)
    return "\n".join([*head, f"... {left_out} more lines ...", *end])


def shut_down_text(console: str) -> str | None:
    """The lines up to where the kernel shut down or rebooted its machine; None if the console shows none."""
    lines = console.splitlines()
    last = max((index for index, line in enumerate(lines) if _SHUT_DOWN.search(line)), default=None)
    return None if last is None else tail("\n".join(lines[: last + 1]))


def tail(console: str, lines: int = 20) -> str:
    """The last lines of a console, indented, or a word that it is empty."""
    kept = [line for line in console.splitlines() if line.strip()][-lines:]
    if not kept:
        return "  (the console is empty)"
    return "\n".join(f"  {line}" for line in kept)
