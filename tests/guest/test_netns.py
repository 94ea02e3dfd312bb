"""Network namespaces, as far as no kernel is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import journal, netns
from pytest_kernelfs.guest.dispatch import GuestError


def test_a_namespace_of_somebody_else_is_let_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Any] = []
    monkeypatch.setattr(netns, "FOLDER", str(tmp_path))
    monkeypatch.setattr(journal, "note", lambda *what: noted.append(what))
    (tmp_path / "left").touch()
    with pytest.raises(GuestError, match="a network namespace left already, which is not of this test"):
        netns.create_pair("left", "right", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["left"]
    assert noted == []
