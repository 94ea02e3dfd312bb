"""What a machine tells of itself: each part on its own, and all of it in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.guest import bundle, dying, kmsg, patience, tasks
from pytest_kernelfs.guest.patience import Patience
from tests.guest.test_patience import Clock

LONG = 30.0


@pytest.fixture(autouse=True)
def no_kernel_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own log may not be readable, and nobody knows what is in it."""
    records = [
        {"seq": 1, "level": 4, "seconds": 0.5, "text": "while it booted"},
        {"seq": 7, "level": 3, "seconds": 1.5, "text": "things are bad"},
        {"seq": 8, "level": 6, "seconds": 2.5, "text": "things are as ever"},
    ]
    monkeypatch.setattr(kmsg, "read", lambda: records)
    monkeypatch.setattr(tasks, "stuck", lambda *_args, **_kwargs: [])


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """Something to wait for that comes when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_all_parts_are_read() -> None:
    told = bundle.collect(LONG, since=5)
    assert {"dmesg.txt", "processes.txt", "mounts.txt", "meminfo.txt", "system.txt"} <= set(told["files"])
    assert "MemTotal" in told["files"]["meminfo.txt"]
    assert "Linux version" in told["files"]["system.txt"]
    assert " / " in told["files"]["mounts.txt"]
    assert set(told["files"]).isdisjoint(told["problems"])


def test_the_log_has_levels_and_what_is_loud_is_of_this_machine() -> None:
    told = bundle.collect(LONG, since=5)
    assert told["files"]["dmesg.txt"].splitlines()[1] == "3 [    1.500000] things are bad"
    assert told["loud"] == ["[    1.500000] things are bad"]


def test_blocked_tasks_have_their_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    task = {
        "pid": 7,
        "tid": 8,
        "comm": "sync",
        "wchan": "wait",
        "syscall": "162",
        "stack": ["[<0>] wait+0x1"],
    }
    ended = {**task, "comm": ""}
    monkeypatch.setattr(tasks, "stuck", lambda *_args, **_kwargs: [task, ended])
    told = bundle.collect(LONG, since=0)
    assert told["blocked"] == [task]
    assert "sync (pid 7, tid 8) waits in wait" in told["files"]["blocked-tasks.txt"]
    assert "[<0>] wait+0x1" in told["files"]["blocked-tasks.txt"]


def test_a_part_that_hangs_takes_no_other_along(
    monkeypatch: pytest.MonkeyPatch, never: threading.Event
) -> None:
    monkeypatch.setattr(tasks, "stuck", lambda *_args, **_kwargs: never.wait() and [])
    for seconds in (0.5, 5.0, LONG):  # which a busy host may need for all the others
        start = time.monotonic()
        told = bundle.collect(seconds, since=0)
        if "meminfo.txt" in told["files"]:
            break
    assert time.monotonic() - start < 10 * LONG
    problem = told["problems"]["blocked-tasks.txt"]
    assert problem.startswith(f"it was not read within {seconds:g} s; it waits in ")
    assert told["blocked"] is None
    assert "meminfo.txt" in told["files"]


class SlowThread:
    """It ends after so many looks; the machine stands still in the first."""

    def __init__(self, clock: Clock, looks: int) -> None:
        self.join = clock.sleep
        self._looks = iter([True] * looks)

    def is_alive(self) -> bool:
        return next(self._looks, False)


def test_a_part_that_is_late_because_the_machine_stood_still_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit, done in ((7.0, True), (5.0, False)):
        clock = Clock(stall=6.0)
        monkeypatch.setattr(patience, "time", clock)
        monkeypatch.setattr(bundle, "time", clock)
        part = bundle._Part("one", str)
        part._thread = SlowThread(clock, 4)  # type: ignore[assignment]
        part.wait(Patience(5.0, 0.1), clock.now + limit)
        assert part._thread.is_alive() is not done


def test_a_part_that_cannot_be_read_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[object]:
        raise PermissionError(13, "Permission denied", "/dev/kmsg")

    monkeypatch.setattr(kmsg, "read", refuse)
    told = bundle.collect(LONG, since=0)
    assert told["problems"]["dmesg.txt"].startswith("PermissionError: ")
    assert told["loud"] is None


def test_without_room_for_threads_all_is_read_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert "meminfo.txt" in bundle.collect(LONG, since=0)["files"]


def test_cgroups_of_both_versions_are_told_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second, memory, processor = (tmp_path / name for name in ("unified", "memory", "cpu,cpuacct"))
    (second / "a").mkdir(parents=True)
    (second / "a" / "memory.current").write_text("4096\n")
    (memory / "a").mkdir(parents=True)
    (memory / "a" / "cgroup.procs").write_text("7\n8\n")
    (memory / "a" / "tasks").write_text("7\n8\n")
    (memory / "a" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 1\n")
    processor.mkdir()
    (processor / "cpu.shares").write_text("1024\n")
    mounted = {"memory": memory, "cpu": processor, "cpuacct": processor, "": second}
    monkeypatch.setattr(dying, "hierarchies", lambda: {name: str(path) for name, path in mounted.items()})
    _all, _, told = bundle.collect(LONG, since=0)["files"]["cgroups.txt"].partition(str(second))
    assert f"{second}{told}" == (
        f"{second}/a/memory.current: 4096\n"
        f"{processor}/cpu.shares: 1024\n"
        f"{memory}/a/cgroup.procs: 7 8\n"
        f"==> {memory}/a/memory.oom_control <==\noom_kill_disable 0\nunder_oom 1\n"
    )
    monkeypatch.setattr(bundle, "_MOST_CGROUPS", 3)
    few = bundle.collect(LONG, since=0)["files"]["cgroups.txt"]
    assert (str(processor) in few, str(memory) in few) == (True, False)


def test_what_is_endless_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_MOST_CHARACTERS", 1000)
    text = bundle.collect(LONG, since=0)["files"]["system.txt"]
    assert len(text) < 1100
    assert "[cut off: " in text
