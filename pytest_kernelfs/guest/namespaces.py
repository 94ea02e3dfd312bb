"""A user namespace with a mount namespace of its own, held open by a process that does nothing else."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
from typing import Any, NoReturn

from pytest_kernelfs.guest import descriptors, files, kmsg, overlay, syscalls
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

# linux/sched.h
_NEW_MOUNTS = 0x00020000
_NEW_USERS = 0x10000000
# linux/fs.h
_DETACH = 2
# What every machine has mounted; see ``init``.
_SYSTEM = ("/", "/proc", "/sys", "/dev", "/run", "/tmp")

_libc = ctypes.CDLL(None, use_errno=True)


class NoNamespace(GuestError):
    """The kernel gives no user namespace, or does not let overlay be mounted in one; ``reason`` in short."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def hold_overlay(
    target: str,
    lower: list[str],
    data: list[str],
    upper: str,
    work: str,
    options: str,
    api: str,
    first_id: int,
    ids: int,
) -> int:
    """Mount an overlay in a user namespace of its own, as that namespace's root; gives its process.

    Its users 0 to ``ids`` - 1 are those from ``first_id`` on outside; upper and work folder are made theirs.
    The mount is seen in that namespace only, and lives as long as the process.

    Raises: NoNamespace; GuestError with the kernel's words.
    """
    plan = overlay.Plan(target, lower, data, upper, work, options, api)
    files.make_folders([target, upper, work] if upper else [target])
    for path in (upper, work) if upper else ():
        os.chown(path, first_id, first_id)
    log = kmsg.open_at_end()  # only root outside may read it
    told, tell = os.pipe()
    waits, go = os.pipe()
    process = os.fork()
    if not process:
        _hold(plan, tell, waits)
    os.close(tell)
    os.close(waits)
    try:
        heard = _hear(told)
        if heard["step"] == "ready":
            _map(process, first_id, ids)
            os.write(go, b"go")
            heard = _hear(told)
        if heard["step"] != "mounted":
            end(process)
            _tell(plan, heard, log)
        return process
    finally:
        for handle in (told, go, log):
            os.close(handle)


def end(process: int, patience: float = 5.0) -> None:
    """End the process that holds a namespace; one that is gone already is no error."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return
    waiting = Patience(patience, 0.002)
    while True:
        try:
            if os.waitpid(process, os.WNOHANG)[0]:
                return
        except ChildProcessError:  # of an earlier conversation, so that init waits for it
            if not os.path.exists(f"/proc/{process}"):
                return
        if not waiting.wait():
            raise GuestError(f"process {process}, which holds a user namespace, does not end")


def _map(process: int, first_id: int, ids: int) -> None:
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{process}/{name}", "w") as file:
            file.write(f"0 {first_id} {ids}")


def _hear(told: int) -> dict[str, Any]:
    line = os.read(told, 65536)
    heard: dict[str, Any] = json.loads(line) if line else {"step": "error", "text": "it died"}
    return heard


def _tell(plan: overlay.Plan, heard: dict[str, Any], log: int) -> NoReturn:
    if heard["step"] == "refused":
        refused = overlay.Refused(heard["api"], heard["number"], heard["said"])
        text = f"in a user namespace: {overlay.explain(plan, refused, log)}"
        if heard["number"] == errno.EPERM:
            raise NoNamespace(
                f"{text}; overlay can be mounted there from Linux 5.11 on", os.strerror(errno.EPERM)
            )
        raise GuestError(text)
    if heard["step"] == "unshare":
        reason = f"the kernel gives no user namespace: {os.strerror(heard['number'])}"
        raise NoNamespace(reason, reason)
    raise GuestError(f"the process that was to hold a user namespace failed: {heard['text']}")


def _hold(plan: overlay.Plan, tell: int, waits: int) -> NoReturn:
    """The process of the namespace: enter it, be mapped, mount, and stay."""

    def say(step: str, **facts: Any) -> None:
        os.write(tell, json.dumps({"step": step, **facts}).encode())

    try:
        _let_go_of_all_but(tell, waits)
        if _libc.unshare(_NEW_MOUNTS) == 0:
            _drop_other_mounts([*plan.lower, *plan.data, plan.upper, plan.work])
        if _libc.unshare(_NEW_USERS | _NEW_MOUNTS):
            say("unshare", number=ctypes.get_errno())
            os._exit(1)
        say("ready")
        if not os.read(waits, 8):
            os._exit(1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        overlay.attempt(plan)
        say("mounted")
        _let_go_of_all_but()
        while True:
            signal.pause()
    except overlay.Refused as refused:
        say("refused", api=refused.api, number=refused.number, said=refused.said)
    except Exception as error:
        say("error", text=str(error))
    finally:
        os._exit(1)


def _drop_other_mounts(needed: list[str]) -> None:
    """Keep no copies of mounts that this one does not need: to unmount those outside would not end them.

    It has to be done before the user namespace is entered: the mounts that come with one are locked.
    """
    with open("/proc/self/mountinfo", errors="replace") as file:
        targets = [line.split(" ")[4] for line in file]
    for target in reversed(targets):
        if target in _SYSTEM or target.startswith(("/proc/", "/sys/", "/dev/")):
            continue
        if not any((path + "/").startswith(target + "/") for path in needed):
            try:
                syscalls.umount(target, _DETACH)
            except OSError:
                continue  # it went with one above it


def _let_go_of_all_but(*kept: int) -> None:
    """Be apart from the conversation that started us: the channel's port can be opened once only."""
    if kept:
        os.setsid()
    nothing = os.open("/dev/null", os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    descriptors.close_all_but(*kept)
