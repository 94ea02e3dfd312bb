"""A machine without a kernel: it notes what it is asked, and answers as it was told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_kernelfs.kernels import Kernel, KernelVersion
from pytest_kernelfs.machines.machine import DiskSpec


def kernel(version: str = "6.1.176") -> Kernel:
    """A kernel that is nowhere."""
    parsed = KernelVersion.parse(version)
    return Kernel(parsed, f"{version}-test", "test", "a" * 64, Path("/boot/vmlinuz"))


def ran(rc: int | None = 0, stdout: str = "", stderr: str = "", stuck: str = "") -> dict[str, Any]:
    """What the guest says of a command."""
    return {
        "rc": rc,
        "stdout": stdout.encode(),
        "stderr": stderr.encode(),
        "duration": 0.5,
        "stuck": stuck,
    }


class FakeMachine:
    """Follows ``machines.machine.Machine``.

    ``answers`` maps a guest function's name to its value; an exception is raised, and a function is
    called with the arguments. ``calls`` are (name, arguments), in order, with those to the machine
    itself among them.
    """

    def __init__(self, version: str = "6.1.176", **answers: Any) -> None:
        self.kernel = kernel(version)
        self.alive = True
        self.log_start = 0
        self.mounts = "/mnt"
        self.spoiled = False
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.timeouts: list[float] = []
        self._serials = 0
        self.answers: dict[str, Any] = {
            "run": ran(stdout="mkfs.xfs version 6.1.0\n"),
            "find_disk": lambda serial, size: f"/dev/{serial}",
            "attach_loop": "/dev/loop0",
            "known": True,
            "read": [],
            "write": 0.25,
            "collect": {
                "files": {"dmesg.txt": "6 [    1.0] hm\n"},
                "problems": {},
                "blocked": [],
                "loud": [],
            },
            "review": {"log": [], "last": [], "early": [], "lost": 0, "taint": 0, "leaks": []},
            "begin": 1,
            "mark": 1,
            "at_rest": {},
            **answers,
        }

    def check_alive(self) -> None:
        self._answer("check_alive")

    def call(self, function: Callable[..., Any], *args: Any, timeout: float, **kwargs: Any) -> Any:
        self.timeouts.append(timeout)
        return self._answer(function.__name__, *args)

    def call_source(self, source: str, name: str, *args: Any, timeout: float) -> Any:
        return self._answer("call_source", source, name, *args)

    def exchange(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._answer(function.__name__, *args)

    def attach_disk(self, spec: DiskSpec) -> str:
        self._serials += 1
        self._answer("attach_disk", spec)
        return f"kfs{self._serials}"

    def detach_disk(self, serial: str) -> None:
        self._answer("detach_disk", serial)

    def throttle_disk(self, serial: str, spec: DiskSpec) -> None:
        self._answer("throttle_disk", serial, spec)

    def save(self) -> Any:
        return self._answer("save")

    def sysrq(self, keys: str, timeout: float) -> str:
        self.timeouts.append(timeout)
        return str(self._answer("sysrq", keys))

    def console(self) -> str:
        return ""

    def destroy(self) -> None:
        self.alive = False
        self.calls.append(("destroy", ()))

    def _answer(self, name: str, *args: Any) -> Any:
        self.calls.append((name, args))
        answer = self.answers.get(name)
        if isinstance(answer, BaseException):
            raise answer
        return answer(*args) if callable(answer) else answer

    def arguments(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of that name."""
        return [args for called, args in self.calls if called == name]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]
