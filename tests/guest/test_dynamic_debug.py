"""Debug messages: which changed, and how they are changed back."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.guest import attributes, dynamic_debug
from pytest_kernelfs.guest.dispatch import GuestError

OFF = (
    "# filename:lineno [module]function flags format\n"
    'fs/xfs/xfs_log.c:12 [xfs]xfs_force =_ "text [x]y =p\\012"\n'
    'fs/xfs/xfs_buf.c:34 [xfs]xfs_read =pf "other\\012"\n'
)


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "control"
    path.write_text(OFF)
    monkeypatch.setattr(dynamic_debug, "_PLACES", (str(path),))
    return path


def test_what_changed_is_given_with_its_former_flags(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "write", lambda path, query: control.write_text(OFF.replace("=_", "=p")))
    assert dynamic_debug.apply("module xfs +p") == [(("xfs", "fs/xfs/xfs_log.c", "12", "xfs_force"), "_")]


def test_a_query_that_changes_nothing_is_an_error(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "write", lambda path, query: None)
    with pytest.raises(GuestError, match="changed none of 2 messages"):
        dynamic_debug.apply("module nothing +p")


def test_each_site_is_given_its_flags_back(control: Path) -> None:
    dynamic_debug.restore([(("xfs", "fs/xfs/xfs_log.c", "12", "xfs_force"), "_")])
    assert control.read_text().startswith("module xfs file fs/xfs/xfs_log.c line 12 func xfs_force =_")


def test_many_sites_are_restored_in_writes_that_the_kernel_takes(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(attributes, "write", lambda path, query: written.append(query))
    dynamic_debug.restore([(("xfs", "fs/xfs/xfs_log.c", str(line), "f"), "_") for line in range(200)])
    assert len(written) > 1
    assert all(len(text) < 4096 for text in written)
    assert sum(text.count("\n") + 1 for text in written) == 200


def test_a_kernel_without_it_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_debug, "_PLACES", ("/nowhere",))
    with pytest.raises(GuestError, match="CONFIG_DYNAMIC_DEBUG=y"):
        dynamic_debug.apply("module xfs +p")
