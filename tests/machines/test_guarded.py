"""What we start ends with us, and does not begin without us."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pytest_kernelfs.machines.guarded import guarded


def test_it_does_not_begin_when_its_owner_died_while_it_was_started(tmp_path: Path) -> None:
    began = tmp_path / "began"
    command = guarded(["touch", str(began)])
    assert subprocess.run(command, check=False).returncode == 0
    assert began.exists()
    began.unlink()
    # The shell between stands for whoever adopts a child whose parent is gone.
    subprocess.run(["sh", "-c", '"$@"; true', "sh", *command], check=True)
    assert not began.exists()
