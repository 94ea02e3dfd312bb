"""A file system is checked once its log is empty; what cannot be checked is left alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import commands, fsck, kmsg, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

DIRTY = b"ALERT: The filesystem has valuable metadata changes in a log which is being\nignored\n"
# Where each kind has its magic number, and where a log that is not empty shows.
IN_SUPERBLOCK = [
    ("ext4", (1024 + 0x38, b"\x53\xef"), (1024 + 0x60, b"\x04")),
    ("btrfs", (65536 + 64, b"_BHRfS_M"), (65536 + 96, b"\x01")),
]


def ran(rc: int | None, stdout: bytes = b"") -> dict[str, Any]:
    return {"rc": rc, "stdout": stdout, "stderr": b"", "duration": 0.1, "stuck": ""}


class Guest:
    """The commands that are run, with what each gives, and the mounts that are made."""

    def __init__(self, *results: dict[str, Any]) -> None:
        self.results = list(results)
        self.calls: list[str] = []
        self.refusal: OSError | None = None
        self.flags: list[int] = []
        self.on_mount: Callable[[], None] = lambda: None
        self.log = ["log mismatch"]
        self.later_log: list[str] | None = None

    def read_log(self, handle: int) -> list[dict[str, Any]]:
        """What is new in the kernel's log."""
        said = self.log
        self.log = self.later_log or said
        return [{"text": text} for text in said]

    def run(self, command: list[str], timeout: float) -> dict[str, Any]:
        self.calls.append(" ".join(command))
        return self.results.pop(0)

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        self.calls.append(f"mount {fstype} {data}")
        self.flags.append(flags)
        if self.refusal is not None:
            raise self.refusal
        self.on_mount()


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    guest = Guest()
    monkeypatch.setattr(commands, "run", guest.run)
    monkeypatch.setattr(syscalls, "mount", guest.mount)
    monkeypatch.setattr(syscalls, "umount", lambda target: None)
    monkeypatch.setattr(kmsg, "open_at_end", lambda: os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(kmsg, "read_from", guest.read_log)
    monkeypatch.setattr(fsck, "_QUIET_S", 0.0)
    return guest


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device"
    path.write_bytes(bytes(1 << 17))
    return path


def check(kind: str, device: Path, options: str = "noatime,nouuid") -> dict[str, Any]:
    return fsck.check(kind, str(device), ["tool"], options, str(device.parent / "scratch"), 5.0)


def write(device: Path, offset: int, data: bytes) -> None:
    with device.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_the_tools_words_and_exit_code_are_given(guest: Guest, device: Path) -> None:
    guest.results = [ran(4, b"bad things\n")]
    assert check("ext4", device) == {
        "rc": 4,
        "output": "bad things\n",
        **dict.fromkeys(("replay", "skipped", "unable"), ""),
    }
    assert guest.calls == [f"tool {device}"]


def test_the_log_of_xfs_is_replayed_when_its_tool_says_so(guest: Guest, device: Path) -> None:
    guest.results = [ran(1, DIRTY), ran(0)]
    assert check("xfs", device)["rc"] == 0
    assert guest.calls == [f"tool {device}", "mount xfs nouuid", f"tool {device}"]


@pytest.mark.parametrize(("kind", "magic", "dirty"), IN_SUPERBLOCK)
def test_the_superblock_tells_of_a_log(
    guest: Guest, device: Path, kind: str, magic: tuple[int, bytes], dirty: tuple[int, bytes]
) -> None:
    guest.results = [ran(0), ran(0)]
    write(device, *magic)
    check(kind, device)
    assert guest.calls == [f"tool {device}"]
    write(device, *dirty)
    guest.on_mount = lambda: write(device, dirty[0], b"\0")
    check(kind, device)
    assert guest.calls[1:] == [f"mount {kind} nouuid", f"tool {device}"]


@pytest.mark.parametrize(("kind", "magic", "dirty"), IN_SUPERBLOCK)
def test_a_log_that_stays_allows_no_judgement(
    guest: Guest, device: Path, kind: str, magic: tuple[int, bytes], dirty: tuple[int, bytes]
) -> None:
    write(device, *magic)
    write(device, *dirty)
    found = check(kind, device)
    assert guest.calls == [f"mount {kind} nouuid"]
    assert (found["rc"], "log is not empty" in found["unable"]) == (None, True)


def test_nor_does_a_log_of_xfs_that_stays(guest: Guest, device: Path) -> None:
    guest.results = [ran(1, DIRTY), ran(1, DIRTY)]
    found = check("xfs", device)
    assert (found["rc"], "log is not empty" in found["unable"]) == (None, True)


@pytest.mark.parametrize("option", ["ro", "norecovery", "noload", "nologreplay", "rescue=nologreplay"])
def test_options_that_keep_the_log_are_left_out(guest: Guest, device: Path, option: str) -> None:
    guest.results = [ran(1, DIRTY), ran(0)]
    check("xfs", device, f"nouuid,{option},noatime,discard")
    assert guest.calls[1] == "mount xfs nouuid,discard"
    assert guest.flags == [1024], "noatime, and not ro"


def test_a_log_that_cannot_be_replayed_is_a_finding(guest: Guest, device: Path) -> None:
    guest.results = [ran(1, DIRTY)]
    guest.refusal = OSError(errno.EUCLEAN, "Structure needs cleaning")
    assert check("xfs", device)["replay"] == "Structure needs cleaning; the kernel said: log mismatch"


def test_a_device_that_takes_no_writes_cannot_be_judged(guest: Guest, device: Path) -> None:
    guest.results = [ran(1, DIRTY)]
    guest.refusal = OSError(errno.EROFS, "no writes")
    assert check("xfs", device)["skipped"] == f"{device}: no writes"


@pytest.mark.parametrize(
    "said",
    [
        "blk_update_request: I/O error, dev device, sector 8 op 0x1:(WRITE)",
        "critical medium error, dev device, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "Buffer I/O error on dev device, logical block 1, lost sync page write",
        'XFS (device): metadata I/O error in "xfs_buf_ioend+0x1" at daddr 0x1 len 1 error 5',
        "XFS (device): log recovery read I/O error at daddr 0x0 len 8 error -5",
        "JBD2: Failed to read block at offset 6",
        "BTRFS error (device device): bdev /dev/device errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
        "BTRFS error (device device state E): bdev /dev/device errs: wr 0, rd 2, flush 0, corrupt 0, gen 0",
    ],
)
def test_nor_can_one_that_failed_meanwhile(guest: Guest, device: Path, said: str) -> None:
    guest.results = [ran(1, DIRTY)]
    guest.refusal = OSError(errno.EIO, "Input/output error")
    guest.log = ["Starting recovery", said, *["Failed to recover log tree"] * 5]
    assert check("xfs", device)["skipped"] == f"{device}: Input/output error"


def test_a_kernel_that_had_said_too_much_is_asked_again(guest: Guest, device: Path) -> None:
    guest.results = [ran(1, DIRTY)]
    guest.refusal = OSError(errno.EIO, "Input/output error")
    guest.log = ["JBD2: recovery failed"]
    guest.later_log = ["Buffer I/O error on dev device, logical block 1, lost async page write"]
    assert check("xfs", device)["skipped"] == f"{device}: Input/output error"
    assert guest.calls.count("mount xfs nouuid") == 2


@pytest.mark.parametrize(
    "said",
    [
        ["BTRFS error (device device): bdev /dev/device errs: wr 0, rd 0, flush 0, corrupt 1, gen 0"],
        [
            "BTRFS info (device device): bdev /dev/device errs: wr 3, rd 0, flush 0, corrupt 0, gen 0",
            "BTRFS error (device device): bdev /dev/device errs: wr 3, rd 0, flush 0, corrupt 1, gen 0",
        ],
        ['XFS (device): metadata I/O error in "xfs_buf_ioend+0x1" at daddr 0x1 len 1 error 117'],
        ["XFS (device1): log I/O error -5", "I/O error, dev device1, sector 8 op 0x1:(WRITE)"],
    ],
)
def test_where_the_device_works_the_log_is_damaged_whatever_the_errno(
    guest: Guest, device: Path, said: list[str]
) -> None:
    guest.results = [ran(1, DIRTY)]
    guest.refusal = OSError(errno.EIO, "Input/output error")
    guest.log = said
    assert check("xfs", device)["replay"] == f"Input/output error; the kernel said: {' | '.join(said)}"


def test_a_device_that_is_gone_is_nothing_to_be_run(guest: Guest, device: Path) -> None:
    assert "No such file" in check("xfs", device.parent / "gone")["skipped"]


@pytest.mark.parametrize(
    ("rc", "reason"),
    [
        (-9, "tool was killed by SIGKILL before it came to an end"),
        (-99, "tool was killed by signal 99 before it came to an end"),
        (126, "tool cannot be run in the guest: words"),
        (127, "the guest has no tool, or not all that it needs: words"),
    ],
)
def test_a_checker_that_did_not_run_to_its_end_has_judged_nothing(
    guest: Guest, device: Path, rc: int, reason: str
) -> None:
    guest.results = [ran(rc, b"words\n")]
    assert check("ext4", device)["unable"] == reason


def test_a_check_that_does_not_end_is_an_error(guest: Guest, device: Path) -> None:
    guest.results = [ran(None, b"Phase 1")]
    with pytest.raises(GuestError, match="did not end within 5 s; it said: Phase 1"):
        check("xfs", device)
