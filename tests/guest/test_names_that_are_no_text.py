"""The kernel cuts names after so many bytes, in the middle of a character too: they are read all the same."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pytest_kernelfs.guest import needs, tasks


@pytest.fixture
def name(tmp_path: Path) -> Path:
    path = tmp_path / "name"
    path.write_bytes("fünfzehn Bytesä".encode()[:16] + b"\xc3\n")
    return path


def test_of_a_task(name: Path) -> None:
    assert tasks._first_line(str(name)).startswith("fünfzehn Bytes")


def test_of_what_a_machine_has(name: Path) -> None:
    assert needs._read(str(name)).startswith("fünfzehn Bytes")


def test_a_task_with_such_a_name_is_looked_at_like_others() -> None:
    """Its status holds the name, too."""
    seen: list[tuple[str, ...]] = []

    def look() -> None:
        Path("/proc/thread-self/comm").write_bytes(b"k\xc3")
        seen.append(tasks._switches("/proc/thread-self"))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert len(seen[0]) == 2
