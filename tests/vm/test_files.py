"""Files to and from the guest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs import VM
from pytest_kernelfs.errors import GuestCommandError, UsageError


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_content_goes_there_and_back(vm: VM, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    vm.put(content, "/tmp/deep/folder/file")
    assert vm.get("/tmp/deep/folder/file", tmp_path / "back") == content
    assert (tmp_path / "back").read_bytes() == content


def test_a_host_file_keeps_its_mode(vm: VM, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    vm.put(script, "/tmp/script")
    assert vm.run(["/tmp/script"], check=True).stdout == "ran\n"


def test_a_file_that_is_not_there(vm: VM, tmp_path: Path) -> None:
    with pytest.raises(GuestCommandError, match="No such file"):
        vm.get("/nowhere")
    with pytest.raises(UsageError, match="cannot read"):
        vm.put(tmp_path / "nothing", "/tmp/x")
