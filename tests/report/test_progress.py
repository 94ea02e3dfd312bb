"""Downloads shown on a terminal and elsewhere."""

from __future__ import annotations

import io
import threading

import pytest

from pytest_kernelfs.report.progress import shown_progress


class Terminal(io.StringIO):
    """Text that was written to something that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_elsewhere_there_is_one_line_per_file() -> None:
    out = io.StringIO()
    with shown_progress(out) as progress:
        for done in (0, 1 << 20, 2 << 20):
            progress("linux-image", done, 2 << 20)
        progress("linux-base", 0, 100)
    assert out.getvalue() == "downloading linux-image (2.0 MiB)\ndownloading linux-base (100 B)\n"


def test_a_terminal_gets_a_bar_for_each_file_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with shown_progress(out) as progress:
        threads = [threading.Thread(target=progress, args=(f"file-{n}", 5, 10)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(f"file-{n}" in out.getvalue() for n in range(4))
