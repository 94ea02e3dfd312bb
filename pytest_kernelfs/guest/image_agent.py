"""Our agent in the system of a disk image: waits until that is up, then serves hosts as PID 1 does elsewhere.

It runs on our own Python, out of the archive below /run, beside the image's init: that needs neither Python
nor a network. What it starts for tests are programs of the image, in a clean environment.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import NoReturn

from pytest_kernelfs.guest import cgroups, conversation, dying, image_boot, image_units, init, syscalls

COMING_UP = "the image's init is coming up: "
_POLL_S = 0.2
_TELL_S = 5.0
_ASK_S = 30.0
_SETTLE_S = 20
_UP = ("running", "degraded")
_LOST = ("maintenance", "stopping")
_OURS = "agent"


def main() -> NoReturn:
    init.set_environment()
    with open("/proc/self/comm", "w") as file:
        file.write("kernelfs")
    conversation.import_all()
    _wait_for_init()
    _settle()
    init.switch_on_loopback()
    init.serve()


def _wait_for_init() -> None:
    """Return when the image's init has come up: systemd says so of itself, others are when they run."""
    while _comm(1) == image_boot.NAME:
        time.sleep(_POLL_S)
    if os.path.basename(_program(1)) != "systemd":
        return
    told = time.monotonic()
    while True:
        state = _ask("is-system-running")
        if state in _UP:
            # What udev still does for the devices it found would go on in every fork.
            _run("udevadm", "settle", f"--timeout={_SETTLE_S}")
            if state != "running":
                failed = " ".join(line.split()[0] for line in _list("units", "--state=failed"))
                init.log(f"the image's systemd is {state}: {failed} failed")
            return
        if state in _LOST:
            init.log(f"{image_boot.FAILED}its systemd is in the state {state!r}; its messages stand above")
            syscalls.power_off()
        if time.monotonic() > told + _TELL_S:
            told = time.monotonic()
            jobs = [line.split()[1] for line in _list("jobs") if line.endswith("running")]
            init.log(f"{COMING_UP}systemd is {state or 'silent'}, {' '.join(jobs) or 'no job'} running")
        time.sleep(_POLL_S)


def _comm(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def _program(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/exe")


def _list(what: str, *options: str) -> list[str]:
    text = _ask(f"list-{what}", "--no-legend", "--plain", "--no-pager", *options)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _ask(*words: str) -> str:
    """What systemctl prints, of which an error is nothing."""
    return _run("systemctl", *words)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ASK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def _settle() -> None:
    """Have the cgroups of tests made where systemd lets us: in a subtree of its hierarchy that is ours."""
    top = dying.hierarchies().get("")
    folder = f"{top}{image_units.CGROUP}"
    if top is None or not os.path.isdir(folder):
        return
    # What has children with controllers holds no processes itself.
    os.makedirs(f"{folder}/{_OURS}", exist_ok=True)
    with open(f"{folder}/cgroup.procs") as file:
        pids = file.read().split()
    for pid in [*pids, str(os.getpid())]:
        cgroups.write(f"{folder}/{_OURS}/cgroup.procs", pid)
    cgroups.settle(folder, _OURS)
