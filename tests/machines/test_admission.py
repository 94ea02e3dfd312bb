"""Machines wait for room: no more live at once than fit, over all processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines import admission
from pytest_kernelfs.machines.admission import (
    NO_SLOT,
    Admission,
    Slot,
    available_memory,
    default_limit,
    somebody_waits,
)
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from pytest_kernelfs.news import heard_by

GIB = 1 << 30
HOLD_A_SLOT = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from pytest_kernelfs.machines.admission import Admission
slot = Admission(1 << 30, 1, print).try_enter()
print("held" if slot else "full", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR of the test's own, on a host with memory enough."""
    folder = Path(tempfile.mkdtemp(prefix="kfs-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(admission, "available_memory", lambda: 8 * GIB)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def notices() -> list[str]:
    return []


def room_for(count: int, notices: list[str]) -> Admission:
    return Admission(GIB, count, notices.append)


@contextmanager
def somebody_waiting() -> Iterator[None]:
    handle = admission._open(admission._WAITING)
    assert admission._lock(handle)
    yield
    os.close(handle)


def test_so_many_machines_have_room_and_no_more(notices: list[str]) -> None:
    door = room_for(2, notices)
    slots = [door.try_enter() for _ in range(3)]
    assert [slot is not None for slot in slots] == [True, True, False]


def test_a_slot_that_was_given_back_is_free(notices: list[str]) -> None:
    door = room_for(1, notices)
    slot = door.enter(0)
    slot.release()
    slot.release()
    assert door.try_enter() is not None


def test_giving_back_what_was_never_held_harms_nobody(notices: list[str]) -> None:
    door = room_for(1, notices)
    held = door.enter(0)
    NO_SLOT.release()
    assert door.try_enter() is None
    held.release()


def test_several_runs_share_the_room(notices: list[str]) -> None:
    held = room_for(1, notices).enter(0)
    assert room_for(1, notices).try_enter() is None
    held.release()


def test_the_room_of_a_process_that_died_is_free(temporary: Path, notices: list[str]) -> None:
    command = [sys.executable, "-c", HOLD_A_SLOT, str(temporary)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert room_for(1, notices).try_enter() is None
        other.kill()
        other.wait()
    assert room_for(1, notices).try_enter() is not None


def test_who_finds_no_room_waits_for_it_and_says_so_once(notices: list[str]) -> None:
    def note(text: str) -> None:
        notices.append(text)
        slot.release()

    door = Admission(GIB, 1, note)
    slot = door.enter(0)
    slot = door.enter(120)
    threading.Timer(0.02, slot.release).start()
    door.enter(120).release()
    assert notices == [
        "waiting for room for a machine: 1 machines are running, the most for this host (--kernelfs-max-vms)"
    ]


def test_who_finds_no_room_in_time_is_told_what_to_do(notices: list[str]) -> None:
    door = room_for(1, notices)
    held = door.enter(0)
    with pytest.raises(InfrastructureError, match=r"no room for a machine within 0 s: 1 machines .*\(-n\)"):
        door.enter(0)
    held.release()


def test_who_waits_is_overtaken_by_nobody(notices: list[str]) -> None:
    waiting = threading.Event()
    first, second = room_for(1, notices), Admission(GIB, 1, lambda _: waiting.set())
    held = first.enter(0)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(second.enter, 120)
        assert waiting.wait(120)
        assert somebody_waits()
        held.release()
        assert first.try_enter() is None
        slot = coming.result()
    assert not somebody_waits()
    assert first.try_enter() is None
    slot.release()
    assert first.try_enter() is not None


def test_who_comes_while_others_wait_lets_them_have_a_look_first(
    notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    door = room_for(1, notices)
    looked: list[Slot | None] = []

    def look(_: float) -> None:
        looked.append(other._claim())

    other = room_for(1, notices)
    monkeypatch.setattr(admission.time, "sleep", look)  # type: ignore[attr-defined]
    with somebody_waiting(), pytest.raises(InfrastructureError, match="no room for a machine within 0 s"):
        door.enter(0)
    (slot,) = looked
    assert slot is not None


def test_who_asks_whether_somebody_waits_is_not_taken_for_one() -> None:
    handle = admission._open(admission._WAITING)
    assert admission._lock(handle, fcntl.LOCK_SH)
    assert not somebody_waits()
    os.close(handle)


def test_who_waited_for_others_only_says_nothing(notices: list[str]) -> None:
    with somebody_waiting():
        room_for(1, notices).enter(0).release()
    assert notices == []


def test_without_memory_there_is_no_room(notices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "available_memory", lambda: 100 << 20)
    with pytest.raises(InfrastructureError, match="100 MiB of memory are available, a machine needs 256"):
        room_for(4, notices).enter(0)


@pytest.mark.parametrize(
    ("total", "machine", "cores", "limit"),
    [(10 * GIB, GIB, 4, 8), (1000 * GIB, GIB, 2, 16), (GIB, GIB, 8, 2), (10 * GIB, 4 * GIB, 8, 2)],
    ids=["memory decides", "cores decide", "never fewer than two", "large machines"],
)
def test_the_limit_comes_from_memory_and_cores(
    monkeypatch: pytest.MonkeyPatch, total: int, machine: int, cores: int, limit: int
) -> None:
    monkeypatch.setattr(admission, "_meminfo", lambda name: total)
    monkeypatch.setattr(admission.os, "cpu_count", lambda: cores)  # type: ignore[attr-defined]
    assert default_limit(machine) == limit


def test_memory_of_the_host_is_read() -> None:
    assert 1 << 20 < available_memory() < 1 << 60


@pytest.mark.filterwarnings("error")
def test_that_a_provider_waits_for_room_is_news_and_no_warning(temporary: Path) -> None:
    provider = QemuProvider(Settings(temporary, boot_timeout=0.0, max_vms=1))
    heard: list[str] = []
    first, second = (provider._room(MachineSpec(GIB, 1)) for _ in range(2))
    no_room = pytest.raises(InfrastructureError, match="there was no room for a machine within 0 s")
    with heard_by(heard.append), first, no_room, second:
        pytest.fail("there was room")
    assert len(heard) == 1
    assert heard[0].startswith("waiting for room for a machine: 1 machines are running")
