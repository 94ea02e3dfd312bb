"""Programs of the host are found, or it is said what is missing and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs import tools
from pytest_kernelfs.errors import ProviderUnavailable


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A host with one folder of programs, not in PATH."""
    (tmp_path / "sbin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(tools, "_ALSO_SEARCHED", (str(tmp_path / "sbin"),))
    tools.find.cache_clear()
    yield tmp_path
    tools.find.cache_clear()


def program(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch(0o755)
    return path


def test_a_program_is_found_in_path(folder: Path) -> None:
    path = program(folder / "bin" / "mkfs.xfs")
    assert tools.need("mkfs.xfs") == path


def test_a_program_is_found_in_sbin_though_path_lacks_it(folder: Path) -> None:
    path = program(folder / "sbin" / "mkfs.xfs")
    assert tools.find("mkfs.xfs") == path


def test_path_goes_before_sbin(folder: Path) -> None:
    program(folder / "sbin" / "ip")
    path = program(folder / "bin" / "ip")
    assert tools.find("ip") == path


def test_a_file_that_cannot_be_run_is_no_program(folder: Path) -> None:
    (folder / "sbin" / "ip").touch(0o644)
    assert tools.find("ip") is None


def test_a_known_program_that_is_missing_is_told_with_its_packages(folder: Path) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        tools.need("mkfs.btrfs")
    assert str(caught.value) == (
        "the program 'mkfs.btrfs' (for btrfs file systems) is not on this host; run 'kernelfs setup', or "
        "install the package 'btrfs-progs' (Debian, Ubuntu) or 'btrfs-progs' (Fedora)"
    )


def test_an_unknown_program_that_is_missing_is_told_too(folder: Path) -> None:
    with pytest.raises(ProviderUnavailable, match="'frobnicate' is not on this host; install it"):
        tools.need("frobnicate")


def test_a_machine_that_lacks_what_this_host_has_is_told_from_one_that_takes_it_from_here(
    folder: Path,
) -> None:
    assert tools.missing_in_machine("mkfs.btrfs").startswith(
        "the machine lacks a program: the program 'mkfs.btrfs' (for btrfs file systems) is not on this host;"
    )
    program(folder / "sbin" / "mkfs.btrfs")
    tools.find.cache_clear()
    assert tools.missing_in_machine("mkfs.btrfs") == (
        "the machine has no 'mkfs.btrfs' (for btrfs file systems), though this host has; install the package "
        "'btrfs-progs' (Debian, Ubuntu) or 'btrfs-progs' (Fedora) in the machine"
    )


def test_each_tool_is_listed_once() -> None:
    commands = [tool.command for tool in tools.TOOLS]
    assert len(commands) == len(set(commands))


def test_nothing_boots_without_the_required_tools() -> None:
    required = {tool.command for tool in tools.TOOLS if tool.required}
    assert required >= {"qemu-system-x86_64", "modprobe", "sh"}
