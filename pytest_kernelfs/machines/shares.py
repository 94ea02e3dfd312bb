"""Folders of the host that machines get a copy of: which, and where they are in the guest."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest.sharing import PLACE

_FORM = "write --kernelfs-share DIR, or DIR:GUEST with an absolute path in the guest"


@dataclass(frozen=True)
class Share:
    """The folder ``host`` appears at ``guest``; its content lies at ``content``, which may be the same."""

    host: Path
    guest: str
    content: str

    def __str__(self) -> str:
        return f"{self.host} at {self.guest}"


def parse_shares(texts: Sequence[str], folder: Path | None = None) -> tuple[Share, ...]:
    """The shares that texts DIR[:GUEST] mean; DIR is relative to ``folder``, by default the current one.

    Raises: UsageError if a folder is not there, a path in the guest is none, or two shares get into each
    other's way.
    """
    shares: list[Share] = []
    for text in texts:
        host, guest = _split(text, folder or Path())
        content = f"{PLACE}/{_unused(host.name or 'root', shares)}"
        share = Share(host, guest or content, content)
        for other in shares:
            _check_apart(share, other)
        shares.append(share)
    return tuple(shares)


def _split(text: str, folder: Path) -> tuple[Path, str]:
    """The folder, and the path in the guest, or "" if the text names none."""
    # The name of a folder may hold a colon.
    named, colon, guest = text, "", ""
    if not (folder / Path(text).expanduser()).is_dir():
        named, colon, guest = text.rpartition(":")
        if not colon:
            named, guest = text, ""
    if not named or (colon and not guest):
        raise UsageError(f"--kernelfs-share: {text!r} is incomplete; {_FORM}")
    host = Path(os.path.normpath((folder / Path(named).expanduser()).absolute()))
    if not host.is_dir():
        seen = (
            "is no folder; bring a single file with vm.put or vm.install" if host.exists() else "is not there"
        )
        raise UsageError(f"--kernelfs-share: {host} {seen}; {_FORM}")
    return host, _guest_path(text, guest) if guest else ""


def _guest_path(text: str, guest: str) -> str:
    if not guest.startswith("/") or "\0" in guest or ".." in guest.split("/"):
        raise UsageError(f"--kernelfs-share: {guest!r} in {text!r} is no absolute path without '..'; {_FORM}")
    path = "/" + posixpath.normpath(guest).strip("/")
    if path == "/" or _is_below(path, "/run/kernelfs"):
        raise UsageError(
            f"--kernelfs-share: a folder cannot appear at {path} in the guest; name a path that is free "
            "there, such as /src"
        )
    return path


def _unused(name: str, shares: Sequence[Share]) -> str:
    """A name for the content below our place; only one share can have the folder's own name there."""
    taken = {posixpath.basename(share.content) for share in shares}
    number, unused = 1, name
    while unused in taken:
        number += 1
        unused = f"{name}-{number}"
    return unused


def _check_apart(share: Share, other: Share) -> None:
    if share.guest == other.guest:
        raise UsageError(f"--kernelfs-share: {share.host} and {other.host} would both be at {share.guest}")
    if _is_below(share.guest, other.guest) or _is_below(other.guest, share.guest):
        raise UsageError(
            f"--kernelfs-share: one share would lie within another: {share}, and {other}; give them paths "
            "beside each other"
        )
    if share.host == other.host:
        raise UsageError(f"--kernelfs-share: {share.host} is shared twice")


def guest_path(path: Path, table: Sequence[tuple[str, str]]) -> str:
    """Where a file or folder of the host is in the guest.

    ``table`` pairs the folders that are shared with their paths there.
    Raises: UsageError if it lies in none of the folders.
    """
    for seen, folders in (
        (os.path.normpath(path.absolute()), [host for host, _ in table]),
        (str(path.resolve()), [str(Path(host).resolve()) for host, _ in table]),
    ):
        for folder, (_, guest) in zip(folders, table, strict=True):
            if _is_below(seen, folder):
                return posixpath.join(guest, os.path.relpath(seen, folder)) if seen != folder else guest
    known = ", ".join(host for host, _ in table) or "nothing is"
    raise UsageError(
        f"vm.shared: {path} is not shared with the machine ({known}); share its folder: --kernelfs-share DIR"
    )


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
