"""Gathers what a machine tells of itself: through the agent if it answers, from outside in any case."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_kernelfs.errors import GuestTimeout, KernelPanic
from pytest_kernelfs.guest import bundle, versions
from pytest_kernelfs.machines.vm import VM

# All of it. An idle machine is through after less than a second, emulated too.
DEADLINE_S = 25.0
# One call to the guest, which gives up by itself some seconds before we do.
_GUEST_S = 5.0
_CALL_S = 8.0
# Key, file, what it is, and the most seconds it may take; the shortest first. A kernel that is still busy
# with one key takes no other, so the longer ones may take all the time that is left.
_SYSRQ = (
    ("l", "sysrq-l.txt", "what each processor does", 10.0),
    ("w", "sysrq-w.txt", "tasks in uninterruptible sleep", DEADLINE_S),
    ("t", "sysrq-t.txt", "all tasks", DEADLINE_S),
)
_LEAST_S = 0.5
# As sched_show_task() prints a task: "task:sync state:D stack:0 pid:88 tgid:88 ppid:1 …" (5.10 and newer).
_TASK = re.compile(r"task:(?P<comm>.{1,16}?)\s+state:D\s.*?\bpid:\s*(?P<pid>\d+)")

TOOLS = "tools.txt"
DESCRIPTIONS = {
    "failure.txt": "the failure as pytest shows it",
    "console.log": "the serial console since this machine started, with what sysrq printed",
    "dmesg.txt": "the kernel's log: level (4 warning, 3 error), seconds since boot, text",
    "blocked-tasks.txt": "tasks in uninterruptible sleep, with their kernel stacks",
    **{name: f"sysrq {key}: {what}" for key, name, what, _ in _SYSRQ},
    "processes.txt": "all tasks: state, memory, what they wait in",
    "mounts.txt": "mountinfo",
    "cgroups.txt": "the tree of cgroups with what each counts",
    "meminfo.txt": "memory",
    "vmstat.txt": "counters of the memory management",
    "slabinfo.txt": "the kernel's own objects",
    "disks.txt": "disk statistics, block devices and what backs them",
    "system.txt": "version, command line, load, pressure, taint, locks, modules, interrupts",
    "kernel-config.txt": "what the kernel was built with",
    TOOLS: "versions of the tools in the machine and of those that ran it",
    "measurements.json": "all samples of what was measured",
    "host.txt": "the host and the run",
}


@dataclass
class Evidence:
    """What was gathered: ``files`` (name -> text), ``problems`` (name -> why there is no such file).

    ``blocked`` are the tasks in uninterruptible sleep, a line each; None if nobody could tell. ``loud`` are
    the warnings and worse in the kernel's log since the machine started. ``seconds`` is what it took.
    """

    files: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    blocked: list[str] | None = None
    loud: list[str] | None = None
    seconds: float = 0.0


def gather(
    vm: VM,
    deadline: float = DEADLINE_S,
    *,
    failed: bool = True,
    programs: Sequence[tuple[str, str]] = (),
) -> Evidence:
    """All that can be had within so many seconds; what cannot is a problem in the result, never an error.

    After a test that ``failed``, a guest that does not answer is asked no more: its teardown would wait, too.
    ``programs`` of a machine that has its own are asked for their versions: each with the option for that.
    """
    start = time.monotonic()
    evidence = Evidence()
    failure = _from_guest(vm, evidence)
    if programs and failure is None:
        failure = _attempt(evidence, TOOLS, lambda: _versions(vm, programs))
    if failed and isinstance(failure, GuestTimeout):
        vm.give_up()
    if isinstance(failure, KernelPanic):
        evidence.problems.update(dict.fromkeys((name for _, name, _, _ in _SYSRQ), "the kernel panicked"))
    else:
        _from_outside(vm, evidence, start + deadline)
    _attempt(evidence, "console.log", vm.machine.console)
    _attempt(evidence, "kernel-config.txt", lambda: _config(vm))
    _conclude(evidence)
    evidence.seconds = time.monotonic() - start
    return evidence


def _from_guest(vm: VM, evidence: Evidence) -> Exception | None:
    """What the agent can tell; gives the reason if it does not answer."""
    try:
        told: dict[str, Any] = vm.machine.call(
            bundle.collect, _GUEST_S, vm.machine.log_start, timeout=_CALL_S
        )
        evidence.files.update(told["files"])
        evidence.problems.update(told["problems"])
        if told["blocked"] is not None:
            evidence.blocked = [
                f"{task['comm']} (pid {task['pid']}, tid {task['tid']}) waits in {task['wchan'] or '?'}"
                for task in told["blocked"]
            ]
        evidence.loud = told["loud"]
    except Exception as error:
        evidence.problems["all that is read in the guest"] = _first_line(error)
        return error
    return None


def _from_outside(vm: VM, evidence: Evidence, limit: float) -> None:
    """Ask the kernel itself, key by key; one that did not take a key is asked no more."""
    gone = ""
    for key, name, _, most in _SYSRQ:
        left = min(most, limit - time.monotonic())
        if gone or left < _LEAST_S:
            evidence.problems[name] = gone or "there was no time left for it"
            continue
        try:
            evidence.files[name] = vm.machine.sysrq(key, left)
        except Exception as error:
            gone = _first_line(error)
            evidence.problems[name] = gone


def _attempt(evidence: Evidence, name: str, read: Callable[[], str]) -> Exception | None:
    """Read one file; gives the reason if that cannot be had."""
    try:
        evidence.files[name] = read()
    except Exception as error:
        evidence.problems[name] = _first_line(error)
        return error
    return None


def _versions(vm: VM, programs: Sequence[tuple[str, str]]) -> str:
    asked = [list(program) for program in programs]
    return str(vm.machine.call(versions.told, asked, _GUEST_S, timeout=_CALL_S))


def _config(vm: VM) -> str:
    path = vm.kernel.config
    if path is None:
        raise FileNotFoundError("this kernel came without its config")
    return path.read_text(errors="replace")


def _conclude(evidence: Evidence) -> None:
    """Read out of the files what is to be seen at once."""
    if evidence.blocked is None and "sysrq-w.txt" in evidence.files:
        tasks = _TASK.finditer(evidence.files["sysrq-w.txt"])
        evidence.blocked = [f"{task['comm'].strip()} (pid {task['pid']})" for task in tasks]
    if evidence.loud is None:
        evidence.loud = _quiet_part(evidence.files.get("console.log", ""))


def _quiet_part(console: str) -> list[str]:
    """The console up to our own keys: what it printed by itself, which is warnings and worse."""
    lines = console.splitlines()
    ours = (number for number, line in enumerate(lines) if "Changing Loglevel" in line)
    return [line for line in lines[: next(ours, len(lines))] if line.strip()]


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(":")
