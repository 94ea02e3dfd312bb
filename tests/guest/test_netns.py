"""Network namespaces, as far as no kernel is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import journal, netns, patience
from pytest_kernelfs.guest.dispatch import GuestError
from tests.guest.test_patience import Clock


def test_a_namespace_of_somebody_else_is_let_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Any] = []
    monkeypatch.setattr(netns, "FOLDER", str(tmp_path))
    monkeypatch.setattr(journal, "note", lambda *what: noted.append(what))
    (tmp_path / "left").touch()
    with pytest.raises(GuestError, match="a network namespace left already, which is not of this test"):
        netns.create_pair("left", "right", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["left"]
    assert noted == []


def test_a_stall_goes_on_when_the_machine_stood_still_for_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(stall=10.0)
    begun = clock.now
    monkeypatch.setattr(patience, "time", clock)
    monkeypatch.setattr(netns, "_if_known", lambda name, change: True)
    monkeypatch.setattr(netns, "inside", lambda name, function: None)
    assert netns.stall("left", 0.3, 1 << 20, -1)
    assert clock.now - begun > 10.25
