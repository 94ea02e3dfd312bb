"""A reader of cpio archives in the "newc" format, written from the format's description alone."""

from __future__ import annotations

import stat
from dataclasses import dataclass

_HEADER = 110


@dataclass(frozen=True)
class Member:
    """One member; ``device`` is what a device node stands for."""

    name: str
    mode: int
    content: bytes
    inode: int
    owner: tuple[int, int]
    links: int
    time: int
    device: tuple[int, int]

    @property
    def kind(self) -> str:
        return stat.filemode(self.mode)[0]

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)


@dataclass(frozen=True)
class Archive:
    """The members in their order, and where the archive ends."""

    members: tuple[Member, ...]
    end: int

    def __getitem__(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.members]


def read(data: bytes, start: int = 0) -> Archive:
    """The archive that begins at ``start``, up to its trailer."""
    members: list[Member] = []
    position = start
    while True:
        member, position = _member(data, position)
        if member.name == "TRAILER!!!":
            return Archive(tuple(members), position)
        members.append(member)


def _member(data: bytes, start: int) -> tuple[Member, int]:
    assert data[start : start + 6] == b"070701"
    digits = data[start + 6 : start + _HEADER].decode()
    fields = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    inode, mode, uid, gid, links, time, size, _, _, major, minor, name_size, _ = fields
    name_end = start + _HEADER + name_size
    assert data[name_end - 1] == 0
    content = _aligned(name_end)
    assert len(data) >= content + size
    member = Member(
        name=data[start + _HEADER : name_end - 1].decode(),
        mode=mode,
        content=data[content : content + size],
        inode=inode,
        owner=(uid, gid),
        links=links,
        time=time,
        device=(major, minor),
    )
    return member, _aligned(content + size)


def _aligned(position: int) -> int:
    return position + -position % 4
