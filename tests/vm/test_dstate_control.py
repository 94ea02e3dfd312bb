"""The D-state assertion: it sees what is stuck, where, and nothing else."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_kernelfs import VM, AssertNoDstate, Probes, Xfs


@pytest.fixture
def frozen(vm: VM, xfs: Xfs) -> Iterator[Xfs]:
    """A file system on which every write waits."""
    vm.run(["fsfreeze", "-f", xfs.path], check=True)
    yield xfs
    vm.run(["fsfreeze", "-u", xfs.path], check=True)


def _write_in_thread(path: str) -> int:
    """Leave behind a process whose leader sleeps and whose thread writes."""
    child = os.fork()
    if child == 0:
        os.setsid()
        threading.Thread(target=lambda: os.open(path, os.O_CREAT | os.O_WRONLY)).start()
        time.sleep(600)
        os._exit(0)
    return child


def _vfork_and_wait() -> None:
    """Leave behind a parent that waits in vfork(2) for its child to end."""
    if os.fork() == 0:
        os.setsid()
        libc = ctypes.CDLL(None)
        if libc.vfork() == 0:
            libc.sleep(600)
            libc._exit(0)
        os._exit(0)


def test_a_writer_on_a_frozen_file_system_is_caught(
    vm: VM, frozen: Xfs, probes: Probes, assert_no_dstate: AssertNoDstate
) -> None:
    vm.run(f"(echo x > {frozen.path}/file) >/dev/null 2>&1 &")
    probes.until_stuck(longer_than=0.1)
    with pytest.raises(AssertionError) as caught:
        assert_no_dstate(longer_than=0.5)
    text = str(caught.value)
    assert text.startswith("1 task has been in uninterruptible sleep (D) for longer than 0.5 s")
    assert "sh (pid " in text
    assert "waits in percpu_rwsem_wait" in text
    assert "mnt_want_write" in text


def test_a_thread_is_caught_that_is_not_the_leader(
    vm: VM, frozen: Xfs, probes: Probes, assert_no_dstate: AssertNoDstate
) -> None:
    child = vm.call(_write_in_thread, f"{frozen.path}/file")
    probes.until_stuck(longer_than=0.1)
    with pytest.raises(AssertionError, match=r"pid (\d+), tid (?!\1\b)\d+"):
        assert_no_dstate(longer_than=0.5)
    vm.run(["kill", "-9", str(child)], check=True)


def test_an_idle_machine_is_clean_and_quick(assert_no_dstate: AssertNoDstate) -> None:
    start = time.monotonic()
    assert_no_dstate(longer_than=300.0)
    assert time.monotonic() - start < 100.0


def test_a_busy_processor_and_a_vfork_parent_are_well(vm: VM, assert_no_dstate: AssertNoDstate) -> None:
    vm.run("while :; do :; done >/dev/null 2>&1 &")
    vm.call(_vfork_and_wait)
    assert_no_dstate(longer_than=0.3)


def test_a_writer_that_goes_on_is_well(vm: VM, xfs: Xfs, assert_no_dstate: AssertNoDstate) -> None:
    writer = f"while :; do dd if=/dev/zero of={xfs.path}/f bs=64k count=8 oflag=sync 2>/dev/null; done"
    vm.run(f"({writer}) >/dev/null 2>&1 &")
    assert_no_dstate(longer_than=0.5)
    vm.run("pkill sh; pkill dd")
