"""Whether a file system is sound, in the words of its own checker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from pytest_kernelfs.guest import fsck
from pytest_kernelfs.resources.stack import ROOT

if TYPE_CHECKING:
    from pytest_kernelfs.resources.filesystem import Filesystem

# None of them changes anything. xfs_repair reads ahead in threads unless told not to, which costs an emulated
# processor more than it saves.
COMMANDS = {
    "xfs": ("xfs_repair", "-n", "-P"),
    "ext4": ("e2fsck", "-f", "-n"),
    "btrfs": ("btrfs", "check", "--readonly"),
    "f2fs": ("fsck.f2fs", "--dry-run"),
}
_TIMEOUT_S = 300.0
_MOST_LINES = 12
# The course of a check, which the tools print whether or not they find anything.
_CHATTER = re.compile(
    r"\s*- |Phase \d|No modify flag|\.+$|\s*$"  # xfs_repair
    r"|Pass \d|e2fsck \d"
    r"|\[\d+/\d+\]|Opening filesystem|Checking filesystem|UUID:|found \d+ bytes used|total |btree space"
    r"|file data blocks| referenced \d"  # btrfs check
    r"|Info:"  # fsck.f2fs
)
# How a line begins that says why the tool could not judge: the device fails, or the tool is older than the
# file system, or has no memory. Elsewhere such words mean nothing: the tools print names of files, and btrfs
# says "Input/output error" of blocks with a wrong checksum.
_NO_JUDGEMENT = {
    "xfs": r"xfs_repair: read failed: |superblock read failed, offset |fatal error -- Input/output error"
    r"|xfs_repair: .*: Cannot allocate memory|Found unsupported filesystem features"
    r"|(fatal error -- )?This filesystem has an external log|fatal error -- .*(memory|malloc failed)",
    "ext4": r"Error reading block \d+ \(Input/output error\)|/\S+ has unsupported feature\(s\)"
    r"|e2fsck: (Input/output error|Memory allocation failed) while ",
    "btrfs": r"Error reading \d+, -\d|couldn't open because of unsupported option features"
    r"|warning, device \d+ is missing|ERROR: .*: Cannot allocate memory",
}


@final
@dataclass(frozen=True)
class Verdict:
    """What is known of a file system after a check, in words; all are "" if it is sound."""

    damage: str = ""
    unable: str = ""
    """Why the checker came to no judgement that means anything."""
    skipped: str = ""
    """Why there was nothing that could be checked."""


def check(filesystem: Filesystem) -> Verdict:
    """Check a file system that is not mounted."""
    vm = filesystem.resources.vm
    command = list(COMMANDS[filesystem.kind])
    options = ",".join(filesystem.options)
    scratch = f"{ROOT}/fsck/{filesystem.resources.name('check')}"
    raw = vm.guest(
        fsck.check,
        filesystem.kind,
        filesystem.device,
        command,
        options,
        scratch,
        _TIMEOUT_S,
        timeout=3 * _TIMEOUT_S,
    )
    verdict = judge(filesystem.kind, raw)
    if not verdict.damage:
        return verdict
    tool = "mounting it again" if raw["replay"] else " ".join(command)
    return Verdict(
        f"the {filesystem.kind} on {filesystem.device} (of {filesystem.path}) is damaged on kernel "
        f"{vm.kernel.version}; {tool} says:\n{verdict.damage}"
    )


def judge(kind: str, raw: dict[str, Any]) -> Verdict:
    """What ``guest.fsck.check`` gave means, with the checker's complaints trimmed."""
    if raw["replay"]:
        return Verdict(damage=f"  {raw['replay']}")
    if raw["skipped"] or raw["unable"]:
        return Verdict(unable=raw["unable"], skipped=raw["skipped"])
    if not raw["rc"]:
        return Verdict()
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", raw["output"]) if not _CHATTER.match(line)]
    for line in lines:
        if kind in _NO_JUDGEMENT and re.match(_NO_JUDGEMENT[kind], line):
            return Verdict(unable=f"its checker says {line!r}")
    shown = lines[:_MOST_LINES] or [f"(exit code {raw['rc']}, no words)"]
    if len(lines) > _MOST_LINES:
        shown.append(f"... and {len(lines) - _MOST_LINES} more lines")
    return Verdict(damage="\n".join(f"  {line}" for line in shown))
