"""Downloads as they go on: bars on a terminal, a line per file elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING

from pytest_kernelfs.kernels.settings import Progress
from pytest_kernelfs.sizes import format_size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


@contextmanager
def shown_progress(file: IO[str]) -> Iterator[Progress]:
    """A callable for ``KernelSettings.progress`` that writes to ``file`` until the block ends."""
    if not file.isatty():
        yield _line_per_file(file)
        return
    with ExitStack() as stack:
        bars: list[Progress] = []
        lock = threading.Lock()

        def show(what: str, done: int, total: int) -> None:
            with lock:
                if not bars:  # most often there is nothing to download
                    bars.append(stack.enter_context(_bars(file)))
            bars[0](what, done, total)

        yield show


@contextmanager
def _bars(file: IO[str]) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn
    from rich.progress import Progress as RichBars
    from rich.table import Column

    name = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    amount = DownloadColumn(binary_units=True, table_column=Column(no_wrap=True))
    columns = (TextColumn("{task.description}", table_column=name), BarColumn(bar_width=20), amount)
    with RichBars(*columns, console=Console(file=file), expand=True, transient=True) as bars:
        yield _bar_per_file(bars)


def _line_per_file(file: IO[str]) -> Progress:
    seen: set[str] = set()
    lock = threading.Lock()

    def show(what: str, done: int, total: int) -> None:  # noqa: ARG001  (the protocol's)
        with lock:
            if what not in seen:
                seen.add(what)
                print(f"downloading {what} ({format_size(total)})", file=file, flush=True)

    return show


def _bar_per_file(bars: Bars) -> Progress:
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()

    def show(what: str, done: int, total: int) -> None:
        with lock:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total, visible=done < total)

    return show
