"""testinfra's modules on machines that run already; tests/vm/test_testinfra.py has what is asked of them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.vm.inner import InnerRun
from tests.vm.providers.sshd import SshdMachine

_MODULES = Path(__file__).parents[1] / "test_testinfra.py"
# Those that the way to the machine, or other things on it, could disturb.
_DISTURBED = "commands or processes or other_users or mount_points or addresses or block_devices"


def test_modules_work_over_ssh(inner: InnerRun, sshd_machine: SshdMachine) -> None:
    options = (
        "--kernelfs-provider=ssh",
        "--kernelfs-ssh=notours",
        f"--kernelfs-ssh-config={sshd_machine.config}",
    )
    shutil.copyfile(_MODULES, inner.folder / "test_inner.py")
    code, output = inner.run(*options, "-W", "error", "-k", _DISTURBED)
    assert code == 0, output
    assert re.search(r"\b6 passed", output), output


@pytest.mark.usefixtures("newest_only", "this_host")
def test_modules_work_on_this_host(inner: InnerRun) -> None:
    shutil.copyfile(_MODULES, inner.folder / "test_inner.py")
    options = ("--kernelfs-provider=local", "--kernelfs-allow-local")
    code, output = inner.run(*options, "-W", "error", kernel=os.uname().release)
    assert code == 0, output
    assert "skipped" not in output
