"""Device-mapper's ioctl, against a kernel that answers as it was told."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import dm, kmsg
from pytest_kernelfs.guest.dispatch import GuestError

HEADER = struct.Struct("<3I3Ii3IQ128s129s7x")
NAMES = {
    3: "create",
    4: "remove",
    6: "suspend",
    7: "status",
    9: "load",
    12: "table",
    13: "versions",
    14: "message",
}


class FakeKernel:
    """Notes requests as (command, name, flags, data); ``refuse`` maps commands to an errno."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int, bytes]] = []
        self.refuse: dict[str, int] = {}
        self.answer = b""
        self.targets = 0
        self.flags = 0

    def ioctl(self, handle: int, request: int, buffer: bytearray) -> int:
        fields = HEADER.unpack_from(buffer)
        assert (request & ~0xFF, fields[0], fields[3]) == (0xC138FD00, 4, len(buffer))
        command = NAMES[request & 0xFF]
        data = bytes(buffer[HEADER.size :]).rstrip(b"\0")
        self.requests.append((command, fields[11].rstrip(b"\0").decode(), fields[7], data))
        if command in self.refuse:
            raise OSError(self.refuse[command], "Refused")
        new = list(fields)
        new[5], new[6], new[7], new[10] = self.targets, 2, self.flags, (254 << 8) | 7
        HEADER.pack_into(buffer, 0, *new)
        buffer[HEADER.size : HEADER.size + len(self.answer)] = self.answer
        return 0

    @property
    def commands(self) -> list[str]:
        return [request[0] for request in self.requests]


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    fake = FakeKernel()
    (tmp_path / "control").touch()
    monkeypatch.setattr(dm, "_CONTROL", str(tmp_path / "control"))
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    monkeypatch.setattr(kmsg, "open_at_end", lambda: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(kmsg, "read_from", lambda handle, most=0: said())
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    return fake


def said() -> list[dict[str, Any]]:
    return [{"text": "device-mapper: table: too small"}]


def test_a_device_is_made_loaded_and_started(control: FakeKernel) -> None:
    assert dm.create("one", [(0, 8, "linear", "/dev/vda 0"), (8, 8, "error", "")]) == "/dev/dm-7"
    assert control.commands == ["create", "load", "suspend"]
    _, name, flags, data = control.requests[1]
    assert (name, flags) == ("one", 0)
    start, length, _, following, target = struct.unpack_from("<QQiI16s", data)
    assert (start, length, following, target.rstrip(b"\0")) == (0, 8, 40 + 16, b"linear")
    assert data[40:].startswith(b"/dev/vda 0\0")
    assert struct.unpack_from("<QQ", data, following) == (8, 8)
    assert control.requests[2][2] == 0


def test_what_the_kernel_refuses_leaves_no_device(control: FakeKernel) -> None:
    control.refuse = {"load": errno.EINVAL}
    with pytest.raises(GuestError, match=r"load the table '0 8 linear x 0' into one: Refused; .*too small"):
        dm.create("one", [(0, 8, "linear", "x 0")])
    assert control.commands == ["create", "load", "remove"]


def test_a_name_that_is_taken_is_told(control: FakeKernel) -> None:
    control.refuse = {"create": errno.EBUSY}
    with pytest.raises(GuestError, match=r"create the device one: .*; there is a device of that name"):
        dm.create("one", [(0, 8, "error", "")])
    assert control.commands == ["create"]


def test_a_table_is_swapped_without_flushing_or_freezing(control: FakeKernel) -> None:
    assert dm.swap("one", [(0, 8, "error", "")])
    assert [(command, flags) for command, _, flags, _ in control.requests] == [
        ("load", 0),
        ("suspend", 1 << 1 | 1 << 10 | 1 << 11),
        ("suspend", 0),
    ]


def test_what_is_gone_is_no_error_where_that_is_allowed(control: FakeKernel) -> None:
    control.refuse = {"status": errno.ENXIO, "remove": errno.ENXIO}
    assert not dm.swap("one", [(0, 8, "error", "")], True)
    assert not dm.resume("one", True)
    assert not dm.remove("one")


def test_what_is_in_use_is_told(control: FakeKernel) -> None:
    control.refuse = {"remove": errno.EBUSY}
    with pytest.raises(GuestError, match=r"cannot remove the device one: it is still open .*\(2 times"):
        dm.remove("one", 0)


def test_a_table_is_read(control: FakeKernel) -> None:
    lines = [(0, 8, "linear", "254:0 0"), (8, 16, "error", "")]
    packed = [dm._packed(line) for line in lines]
    second = struct.pack("<QQiI16s", 8, 16, 0, 0, b"error") + b"\0"
    first = struct.pack("<QQiI16s", 0, 8, 0, len(packed[0]), b"linear") + packed[0][40:]
    control.answer, control.targets = first + second, 2
    assert dm.table("one") == lines
    dm.table("one", True)
    assert [flags for _, _, flags, _ in control.requests] == [1 << 4, 0]


def test_targets_are_listed(control: FakeKernel) -> None:
    control.answer = (
        struct.pack("<4I", 24, 1, 0, 0) + b"delay\0\0\0" + struct.pack("<4I", 0, 1, 2, 3) + b"error\0"
    )
    assert dm.available_targets() == ["delay", "error"]


def test_a_message_and_its_answer(control: FakeKernel) -> None:
    control.answer = b"fine\0"
    assert dm.message("one", "hello", 8) == ""
    assert control.requests[0][3] == struct.pack("<Q", 8) + b"hello"
    control.flags = 1 << 16
    assert dm.message("one", "hello") == "fine"


def test_an_origin_is_resumed_though_the_pool_refuses(control: FakeKernel) -> None:
    control.refuse = {"message": errno.EEXIST}
    with pytest.raises(GuestError, match="cannot send the message 'create_snap 2 1' to pool"):
        dm.make_thin("pool", "create_snap 2 1", "thin-2", [], "thin-1")
    assert control.commands == ["suspend", "message", "suspend"]
    assert [flags for _, _, flags, _ in control.requests[::2]] == [1 << 1, 0]
