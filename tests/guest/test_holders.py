"""Who is found to keep a mount busy."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_kernelfs.guest import holders


def test_a_process_with_an_open_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with (tmp_path / "folder" / "file").open("w"):
        assert [text.split()[0] for text in holders.of(str(tmp_path / "folder"))] == [str(os.getpid())]
    assert holders.of(str(tmp_path / "folder")) == []


def test_a_name_that_only_begins_alike_is_another(tmp_path: Path) -> None:
    (tmp_path / "folder-2").mkdir()
    with (tmp_path / "folder-2" / "file").open("w"):
        assert holders.of(str(tmp_path / "folder")) == []


def test_what_is_mounted_below_is_named() -> None:
    found = holders.of("/")
    assert any(text.endswith("mounted on /proc") for text in found)
    assert not any(text.endswith("mounted on /") for text in found)
