"""Disk quotas of a file system: limits for users, groups and projects, and what they use."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import quota
from pytest_kernelfs.resources.mkfs import QUOTA_TYPES
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, format_size, parse_size

if TYPE_CHECKING:
    from pytest_kernelfs.resources.filesystem import Filesystem

_HIGHEST_ID = 0xFFFFFFFE
_UNIT = 1024


@dataclass(frozen=True)
class QuotaUsage:
    """What an id uses and may use: ``bytes`` and ``blocks_…`` in bytes, ``inodes`` counted; limit 0: none."""

    id: int
    bytes: int
    inodes: int
    blocks_soft: int
    blocks_hard: int
    inodes_soft: int
    inodes_hard: int


@final
class Quota:
    """The quota of one user, group or project; ``path`` is the project's folder, if one was named."""

    def __init__(self, filesystem: Filesystem, kind: str, number: int, path: str | None = None) -> None:
        self.resources: Resources = filesystem.resources
        self.filesystem = filesystem
        self.kind = kind
        self.id = number
        self.path = path

    def __repr__(self) -> str:
        return f"<quota of {self.kind} {self.id} on {self.filesystem.path}>"

    def limit(
        self,
        *,
        blocks_hard: Size | None = None,
        blocks_soft: Size | None = None,
        inodes_hard: int | None = None,
        inodes_soft: int | None = None,
    ) -> Quota:
        """Set the limits that are named, the others stay: space in bytes, inodes counted; 0 lifts one.

        Gives itself. Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        limits = {
            name: _blocks(name, size)
            for name, size in (("blocks_hard", blocks_hard), ("blocks_soft", blocks_soft))
            if size is not None
        }
        for name, count in (("inodes_hard", inodes_hard), ("inodes_soft", inodes_soft)):
            if count is not None:
                limits[name] = _inodes(name, count)
        if not limits:
            raise UsageError("quota.limit: name one of blocks_hard, blocks_soft, inodes_hard, inodes_soft")
        self.resources.vm.guest(quota.set_limits, self.filesystem.device, self.kind, self.id, limits)
        return self

    def usage(self) -> QuotaUsage:
        """What it uses now, and its limits. Raises: GuestCommandError with the kernel's reason."""
        return QuotaUsage(**self.resources.vm.guest(quota.usage, self.filesystem.device, self.kind, self.id))


@final
class Quotas:
    """The quotas of a mounted file system: the attribute ``quota`` of one made with ``quota=[…]``."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem

    def user(self, uid: int) -> Quota:
        """The quota of a user, by number."""
        return self._quota("user", uid)

    def group(self, gid: int) -> Quota:
        """The quota of a group, by number."""
        return self._quota("group", gid)

    def project(self, number: int, path: str | None = None) -> Quota:
        """The quota of a project.

        The folder ``path`` of the file system, made if it is not there, is put into it with all that is
        below and will be. Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        project = self._quota("project", number)
        if path is not None:
            root = self._filesystem.path
            project.path = posixpath.normpath(posixpath.join(root, path))
            if project.path != root and not project.path.startswith(root + "/"):
                raise UsageError(f"quota.project: {path!r} is no path below {root}")
            project.resources.vm.guest(quota.set_project, project.path, number)
        return project

    def report(self, kind: str) -> dict[int, QuotaUsage]:
        """What every id of the type "user", "group" or "project" uses.

        Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        if kind not in QUOTA_TYPES:
            raise UsageError(f"quota.report: {kind!r} is none of {', '.join(QUOTA_TYPES)}")
        found = self._filesystem.resources.vm.guest(quota.report, self._filesystem.device, kind)
        return {entry["id"]: QuotaUsage(**entry) for entry in found}

    def _quota(self, kind: str, number: int) -> Quota:
        if type(number) is not int or not 0 <= number <= _HIGHEST_ID:
            raise UsageError(f"quota.{kind}: {number!r} is no id; write a number from 0 to {_HIGHEST_ID}")
        return Quota(self._filesystem, kind, number)


def _blocks(name: str, size: Size) -> int:
    parsed = parse_size(size, name)
    if parsed % _UNIT:
        raise UsageError(f"quota.limit: {name}={size!r} is no multiple of {format_size(_UNIT)}")
    return parsed


def _inodes(name: str, count: int) -> int:
    if type(count) is not int or count < 0:
        raise UsageError(f"quota.limit: {name}={count!r} is no count of inodes")
    return count
