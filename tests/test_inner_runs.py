"""What inner runs of the tests of machines take from the cache of the outer one."""

from __future__ import annotations

from pathlib import Path

from tests.vm.inner import copy_entries


def test_entries_that_are_being_made_are_left_out(tmp_path: Path) -> None:
    for path in (".key.build/file", "key/file", "key/.hidden"):
        (tmp_path / "kernels" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kernels" / path).touch()
    copy_entries(tmp_path / "kernels", tmp_path / "copy")
    copied = sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*"))
    assert copied == ["key", "key/.hidden", "key/file"]
