"""What a machine that can be saved is made of, and who is to blame if that cannot be copied."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.qemu.command import KERNEL_HEAD
from pytest_kernelfs.machines.qemu.saved import copy_memory
from pytest_kernelfs.machines.qemu.template import MEMORY, Unusable


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A template, by its two files that are copied."""
    folder = tmp_path / "0123abcd"
    folder.mkdir()
    (folder / MEMORY).write_bytes(b"memory")
    os.truncate(folder / MEMORY, 1 << 20)
    (folder / KERNEL_HEAD).write_bytes(b"head")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "machine"
    made.mkdir()
    return made


def test_the_memory_is_copied_with_its_holes_and_the_head_of_the_kernel(template: Path, folder: Path) -> None:
    copy = copy_memory(template, folder)
    assert copy == folder / MEMORY
    assert copy.read_bytes() == (template / MEMORY).read_bytes()
    assert copy.stat().st_blocks * 512 < copy.stat().st_size
    assert (folder / KERNEL_HEAD).read_bytes() == b"head"


@pytest.mark.parametrize("name", [MEMORY, KERNEL_HEAD])
def test_a_template_that_cannot_be_read_is_unusable(template: Path, folder: Path, name: str) -> None:
    (template / name).unlink()
    with pytest.raises(Unusable, match=f"cannot copy a machine's memory: .*{name}"):
        copy_memory(template, folder)


def test_a_folder_that_cannot_be_written_says_nothing_of_the_template(template: Path, folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(InfrastructureError, match=f"make room in {folder}") as caught:
        copy_memory(template, folder)
    assert not isinstance(caught.value, Unusable)


@pytest.mark.parametrize(
    "told", ["error writing '{folder}/memory': No space left on device", "failed to extend '{folder}/memory'"]
)
def test_a_full_disk_says_nothing_of_the_template(
    template: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    said = told.format(folder=folder)
    (tmp_path / "cp").write_text(f'#!/bin/sh\necho "cp: {said}" >&2\nexit 1\n')
    (tmp_path / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert shutil.which("cp") == str(tmp_path / "cp")
    with pytest.raises(InfrastructureError, match="; make room in") as caught:
        copy_memory(template, folder)
    assert not isinstance(caught.value, Unusable)
