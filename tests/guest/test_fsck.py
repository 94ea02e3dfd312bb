"""A file system is checked once its log is empty; what cannot be checked is left alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import commands, fsck, kmsg, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

DIRTY = b"ALERT: The filesystem has valuable metadata changes in a log which is being\nignored\n"


def ran(rc: int | None, stdout: bytes = b"") -> dict[str, Any]:
    return {"rc": rc, "stdout": stdout, "stderr": b"", "duration": 0.1, "stuck": ""}


class Guest:
    """The commands that are run, with what each gives, and the mounts that are made."""

    def __init__(self, *results: dict[str, Any]) -> None:
        self.results = list(results)
        self.calls: list[str] = []
        self.refusal: OSError | None = None

    def run(self, command: list[str], timeout: float) -> dict[str, Any]:
        self.calls.append(" ".join(command))
        return self.results.pop(0)

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        self.calls.append(f"mount {fstype} {data}")
        if self.refusal is not None:
            raise self.refusal


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    guest = Guest()
    monkeypatch.setattr(commands, "run", guest.run)
    monkeypatch.setattr(syscalls, "mount", guest.mount)
    monkeypatch.setattr(syscalls, "umount", lambda target: None)
    monkeypatch.setattr(kmsg, "open_at_end", lambda: os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(kmsg, "read_from", lambda log: [{"text": "log mismatch"}])
    return guest


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device"
    path.write_bytes(bytes(1 << 17))
    return path


def check(kind: str, device: Path) -> dict[str, Any]:
    return fsck.check(kind, str(device), ["tool"], "noatime,nouuid", str(device.parent / "scratch"), 5.0)


def write(device: Path, offset: int, data: bytes) -> None:
    with device.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_the_tools_words_and_exit_code_are_given(guest: Guest, device: Path) -> None:
    guest.results = [ran(4, b"bad things\n")]
    assert check("ext4", device) == {"rc": 4, "output": "bad things\n", "replay": "", "skipped": ""}
    assert guest.calls == [f"tool {device}"]


def test_the_log_of_xfs_is_replayed_when_its_tool_says_so(guest: Guest, device: Path) -> None:
    guest.results = [ran(1, DIRTY), ran(0)]
    assert check("xfs", device)["rc"] == 0
    assert guest.calls == [f"tool {device}", "mount xfs nouuid", f"tool {device}"]


@pytest.mark.parametrize(
    ("kind", "magic", "dirty"),
    [
        ("ext4", (1024 + 0x38, b"\x53\xef"), (1024 + 0x60, b"\x04")),
        ("btrfs", (65536 + 64, b"_BHRfS_M"), (65536 + 96, b"\x01")),
    ],
)
def test_the_superblock_tells_of_a_log(
    guest: Guest, device: Path, kind: str, magic: tuple[int, bytes], dirty: tuple[int, bytes]
) -> None:
    guest.results = [ran(0), ran(0)]
    write(device, *magic)
    check(kind, device)
    assert guest.calls == [f"tool {device}"]
    write(device, *dirty)
    check(kind, device)
    assert guest.calls[1:] == [f"mount {kind} nouuid", f"tool {device}"]


def test_a_log_that_cannot_be_replayed_is_a_finding(guest: Guest, device: Path) -> None:
    guest.results = [ran(1, DIRTY)]
    guest.refusal = OSError(errno.EUCLEAN, "Structure needs cleaning")
    assert check("xfs", device)["replay"] == "Structure needs cleaning; the kernel said: log mismatch"


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS])
def test_a_device_that_takes_no_writes_cannot_be_judged(guest: Guest, device: Path, code: int) -> None:
    guest.results = [ran(1, DIRTY)]
    guest.refusal = OSError(code, "no writes")
    assert (check("xfs", device)["rc"], check("xfs", device.parent / "gone")["rc"]) == (None, None)


def test_a_device_that_is_gone_or_a_missing_tool_is_nothing_to_be_run(guest: Guest, device: Path) -> None:
    assert "No such file" in check("xfs", device.parent / "gone")["skipped"]
    guest.results = [ran(127)]
    assert check("xfs", device)["skipped"] == "the guest has no tool"


def test_a_check_that_does_not_end_is_an_error(guest: Guest, device: Path) -> None:
    guest.results = [ran(None, b"Phase 1")]
    with pytest.raises(GuestError, match="did not end within 5 s; it said: Phase 1"):
        check("xfs", device)
