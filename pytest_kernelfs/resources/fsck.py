"""Whether a file system is sound, in the words of its own checker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pytest_kernelfs.errors import warn
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
# The tool could not judge: it is older than the file system, or the device fails.
_NO_JUDGEMENT = re.compile(
    r"unsupported|Input/output error|external log|Cannot allocate memory|some devices missing", re.IGNORECASE
)


def check(filesystem: Filesystem) -> str:
    """What is wrong with a file system that is not mounted; "" if nothing, or if that cannot be told.

    Warns with KernelfsWarning if its checker came to no judgement that means anything.
    """
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
    if raw["unable"]:
        warn(f"the {filesystem.kind} on {filesystem.device} may be sound or not: {raw['unable']}")
    said = judge(raw)
    if not said:
        return ""
    tool = "mounting it again" if raw["replay"] else " ".join(command)
    return (
        f"the {filesystem.kind} on {filesystem.device} (of {filesystem.path}) is damaged on kernel "
        f"{vm.kernel.version}; {tool} says:\n{said}"
    )


def judge(raw: dict[str, Any]) -> str:
    """The complaints in what ``guest.fsck.check`` gave, trimmed; "" if there are none."""
    if raw["replay"]:
        return f"  {raw['replay']}"
    if not raw["rc"] or raw["unable"] or _NO_JUDGEMENT.search(raw["output"]):
        return ""
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", raw["output"]) if not _CHATTER.match(line)]
    shown = lines[:_MOST_LINES] or [f"(exit code {raw['rc']}, no words)"]
    if len(lines) > _MOST_LINES:
        shown.append(f"... and {len(lines) - _MOST_LINES} more lines")
    return "\n".join(f"  {line}" for line in shown)
