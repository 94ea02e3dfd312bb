"""How a need is written: ``overlay:volatile``, ``config:XFS_QUOTA``, ``cgroup:v1:memory`` and so on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import needs as guest

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_CONFIG = re.compile(r"(CONFIG_)?[A-Za-z0-9_]+(=.*)?")
_OVERLAY_PAIR = re.compile(r"[a-z_+]+=[^,:\s]+")


@dataclass(frozen=True)
class Need:
    """One need: its kind and what is needed of that kind."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @property
    def depends_on_boot(self) -> bool:
        """Whether the kernel's boot parameters can change it."""
        return self.kind == "cgroup"


def parse(text: object, *, lifted: bool = True) -> Need:
    """Read a need; ``lifted`` tells that machines have programs of this host, and of those only some.

    Raises: UsageError, naming what is known, for what is no need.
    """
    if not isinstance(text, str):
        raise UsageError(f"a need is text such as 'overlay:volatile', not {text!r}")
    kind, colon, value = text.partition(":")
    if kind not in _CHECKS or not colon or not value:
        shown = ", ".join(f"{name}:{example}" for name, (_, example) in sorted(_CHECKS.items()))
        raise UsageError(f"the need {text!r} is of no known kind{_near(kind, _CHECKS)}; known are {shown}")
    check = _CHECKS[kind][0] if lifted or kind != "command" else _check_name
    check(text, value)
    return Need(kind, value)


def _check_overlay(text: str, value: str) -> None:
    known = sorted([*guest.OVERLAY_OPTIONS, *guest.OVERLAY_FEATURES])
    if value not in known and not _OVERLAY_PAIR.fullmatch(value):
        raise UsageError(
            f"the need {text!r} names nothing of overlay{_near(value, known)}; known are {', '.join(known)}, "
            "and any option with a value, such as overlay:redirect_dir=nofollow"
        )


def _check_cgroup(text: str, value: str) -> None:
    if value in ("v1", "v2"):
        return
    version, _, name = value.rpartition(":")
    known = guest.V1_CONTROLLERS if version == "v1" else guest.V2_CONTROLLERS
    controller, dot, file = name.partition(".")
    accepted = (*known, "cgroup") if dot and version != "v1" else known
    if version not in ("", "v1", "v2") or controller not in accepted or (dot and not _NAME.fullmatch(file)):
        raise UsageError(
            f"the need {text!r} names nothing of cgroups{_near(controller, known)}; known are cgroup:v1, "
            "cgroup:v2, cgroup:CONTROLLER, cgroup:v1:CONTROLLER and files such as cgroup:memory.peak, with a "
            f"controller of {', '.join(known)}"
        )


def _check_config(text: str, value: str) -> None:
    if not _CONFIG.fullmatch(value):
        raise UsageError(f"the need {text!r} names no build setting; write config:XFS_QUOTA or config:HZ=250")


def _check_command(text: str, value: str) -> None:
    from pytest_kernelfs.machines.initramfs.userland import lifted_commands

    known = lifted_commands()
    if value not in known:
        raise UsageError(
            f"the need {text!r}: machines are never given a program {value!r}{_near(value, known)}; bring it "
            "into the machine in the test, and ask for no more than what machines are given"
        )


def _check_name(text: str, value: str) -> None:
    if not _NAME.fullmatch(value):
        raise UsageError(f"the need {text!r}: {value!r} is no name")


def _near(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


_CHECKS: dict[str, tuple[Callable[[str, str], None], str]] = {
    "cgroup": (_check_cgroup, "v1:memory"),
    "command": (_check_command, "mkfs.btrfs"),
    "config": (_check_config, "XFS_QUOTA"),
    "filesystem": (_check_name, "btrfs"),
    "module": (_check_name, "dm_delay"),
    "overlay": (_check_overlay, "volatile"),
}
