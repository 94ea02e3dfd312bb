"""Needs that only the machine itself can tell: its programs, and modules of a kernel without files here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs.guest.needs import MET, UNMET, settle


def test_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "frob"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert settle("command", "frob") == (UNMET, "runs on a machine without the program frob")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert settle("command", "frob") == (MET, "")


def test_a_module_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/sys/module/dm_mod")
    assert settle("module", "dm-mod") == (MET, "")


def test_a_module_that_modprobe_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modprobe = tmp_path / "modprobe"
    modprobe.write_text('#!/bin/sh\n[ "$*" = "-n -q dm_frob" ]\n')
    modprobe.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert settle("module", "dm_frob") == (MET, "")
    assert settle("module", "dm_frobber")[0] == UNMET
