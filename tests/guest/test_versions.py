"""What programs say of their versions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_kernelfs.guest import versions


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, script in {
        "good": "echo 'good 1.2'; echo more",
        "loud": "echo 'loud 3' >&2",
        "bad": "echo oops; exit 1",
        "mute": "exit 0",
        "stuck": "exec sleep 600",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_each_has_a_line(programs: Path) -> None:
    names = ("good", "loud", "bad", "mute", "no-such-program")
    assert versions.told([[name, "-V"] for name in names], 60).splitlines() == [
        f"good: {programs}/good good 1.2",
        f"loud: {programs}/loud loud 3",
        f"bad: {programs}/bad (does not tell)",
        f"mute: {programs}/mute (does not tell)",
        "no-such-program: not there",
    ]


def test_one_that_does_not_end_keeps_nobody(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 0.5, 1.0))
    monkeypatch.setattr(versions, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(versions, "_EACH_S", 0.05)
    told = versions.told([["stuck", "-V"], ["good", "-V"]], 1.0).splitlines()
    assert told[0].startswith(f"stuck: {programs}/stuck (does not tell: ")
    assert told[1] == f"good: {programs}/good (not asked: there was no time left)"
