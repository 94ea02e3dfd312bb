"""What is noted on a machine that goes on after the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.guest import journal


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a journal is kept for the length of the test."""
    monkeypatch.setattr(journal, "_handle", -1)
    journal.begin(str(tmp_path / "journal"))
    yield tmp_path / "journal"
    os.close(journal._handle)


def test_without_a_journal_nothing_is_noted() -> None:
    journal.note("sysctl", "vm.swappiness", "60")
    assert not journal.is_kept()
    assert journal.entries() == []
    assert journal.noted("sysctl") == set()


def test_what_was_noted_is_there_for_another(path: Path) -> None:
    journal.note("sysctl", "vm.swappiness", "60")
    journal.note("dm", "one")
    journal.note("dm", "two")
    assert journal.is_kept()
    assert journal.noted("dm") == {"one", "two"}
    handle = os.open(path, os.O_RDONLY)
    assert journal.entries(handle) == journal.entries()
    os.close(handle)
    assert journal.entries()[0] == ["sysctl", "vm.swappiness", "60"]


def test_what_is_undone_is_forgotten_until_it_is_done_again(path: Path) -> None:
    journal.note("zram", "/dev/zram0")
    journal.note("zram", "/dev/zram1")
    journal.forget("zram", "/dev/zram0")
    assert journal.noted("zram") == {"/dev/zram1"}
    journal.note("zram", "/dev/zram0")
    assert journal.noted("zram") == {"/dev/zram0", "/dev/zram1"}


def test_a_line_that_was_cut_short_was_not_done(path: Path) -> None:
    journal.note("dm", "one")
    with path.open("a") as file:
        file.write('["dm", "tw')
    assert journal.noted("dm") == {"one"}
    journal.note("dm", "three")
    assert journal.noted("dm") == {"one", "three"}
