"""Programs that must not outlive us: started so that the kernel ends them with us."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pytest_kernelfs.tools import need

# An owner that died before its child asked for the signal will never send one.
_STILL_OURS = '[ "$PPID" = "$0" ] && exec "$@"'


def guarded(command: Sequence[str]) -> list[str]:
    """The same command, for this process to start: it gets SIGKILL when the thread that starts it ends."""
    alone = ["sh", "-c", _STILL_OURS, str(os.getpid()), *command]
    return [str(need("setpriv")), "--pdeathsig", "KILL", *alone]
