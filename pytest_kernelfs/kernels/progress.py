"""A progress bar on the terminal for downloads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from pytest_kernelfs.kernels.settings import Progress


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Show a bar on stderr for each file that is being downloaded; give what this yields to KernelSettings.

    Nothing is shown where stderr is no terminal, or nothing is downloaded.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    bars = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
    tasks: dict[str, TaskID] = {}
    lock = Lock()

    def report(what: str, done: int, total: int) -> None:
        with lock:
            if not tasks:
                bars.start()  # only now: a run that finds everything in the cache shows nothing
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)
            if done >= total:
                bars.update(tasks[what], visible=False)

    try:
        yield report
    finally:
        bars.stop()
