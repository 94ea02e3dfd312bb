"""Starting threads, on hosts that may have enough of them."""

from __future__ import annotations

import threading

from pytest_kernelfs.shortage import Shortage


def start(thread: threading.Thread) -> None:
    """Raises: Shortage, with what to do, if the host allows no more threads."""
    try:
        thread.start()
    except RuntimeError as error:
        raise no_more(error) from error


def no_more(error: RuntimeError) -> Shortage:
    """What is to be said of a thread that could not be started."""
    return Shortage(
        f"a thread could not be started ({error}): this user, container or host has as many processes as it "
        "may have, or no memory for one more; run fewer tests at once (-n), end what else runs here, or "
        "raise the limit (ulimit -u, pids.max of the container's cgroup)"
    )
