"""What a host may lack at one moment and have at the next."""

from __future__ import annotations

import errno

from pytest_kernelfs.errors import InfrastructureError

_LACKING = {
    errno.EMFILE: "this process has as many files open as it may (ulimit -n)",
    errno.ENFILE: "this host has as many files open as it may (fs.file-max)",
    errno.EAGAIN: "no more processes may be started (ulimit -u, pids.max of the container's cgroup)",
    errno.ENOMEM: "there is no memory for it",
}


class Shortage(InfrastructureError):
    """The host lacks something, be it time: that says nothing of what was being worked with."""


def shortage(action: str, error: OSError) -> Shortage | None:
    """What is to be raised if that is why ``action`` failed; None for any other error."""
    lacking = _LACKING.get(error.errno or 0)
    if lacking is None:
        return None
    return Shortage(f"cannot {action}: {lacking}; run fewer tests at once (-n), or raise the limit")
