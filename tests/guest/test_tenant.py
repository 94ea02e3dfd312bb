"""The supervisor's own parts: the lock, what a killed one left, how an agent ended."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.guest import loops, tenant, tidy
from pytest_kernelfs.guest.dispatch import GuestError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where supervisors keep their journals."""
    monkeypatch.setattr(tenant, "FOLDER", str(tmp_path))
    monkeypatch.setattr(tenant, "_LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host that has not hung up."""
    reader, writer = os.pipe()
    before = os.dup(0)
    os.dup2(reader, 0)
    yield
    os.dup2(before, 0)
    for handle in (reader, writer, before):
        os.close(handle)


@pytest.mark.usefixtures("standard_input")
def test_there_is_one_supervisor_at_a_time(folder: Path) -> None:
    lock = tenant._take_lock(0.1, "one")
    assert (folder / "lock").read_text() == f"{os.getpid()} one"
    for run in ("", "another"):
        with pytest.raises(GuestError, match=rf"run work there \(process {os.getpid()}\), .* within 0.1 s"):
            tenant._take_lock(0.1, run)
    os.close(lock)
    os.close(tenant._take_lock(0.1, ""))


@pytest.mark.usefixtures("standard_input")
def test_workers_of_one_run_wait_for_each_other_as_long_as_it_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tenant._take_lock(0.1, "one")
    told: list[dict[str, object]] = []

    def tell(facts: dict[str, object]) -> None:
        told.append(facts)
        if len(told) == 3:
            os.close(lock)

    monkeypatch.setattr(tenant, "_TELL_S", 0.05)
    monkeypatch.setattr(tenant, "_answer", tell)
    os.close(tenant._take_lock(0.0, "one"))
    assert told == 3 * [{"waiting": str(os.getpid())}]


def test_what_a_killed_supervisor_left_is_undone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "disk"
    file.touch()
    stale = folder / "123"
    stale.mkdir()
    (stale / "journal").write_text(f'["boot", "{tenant._boot_id()}"]\n["file", "{file}"]\n')
    monkeypatch.setattr(loops, "ours", lambda entries, mounts: [])
    assert tenant.collect() == [f"file {file}"]
    assert not stale.exists()
    assert tenant.collect() == []


def test_what_could_not_be_undone_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = folder / "123"
    stale.mkdir()
    (stale / "journal").write_text(f'["boot", "{tenant._boot_id()}"]\n')
    monkeypatch.setattr(loops, "ours", lambda entries, mounts: [])
    monkeypatch.setattr(tidy, "tidy", lambda *_: ([], ["device x (in use)"]))
    assert tenant.collect() == ["could not remove device x (in use)"]
    assert tenant.collect() == ["could not remove device x (in use)"]


def test_a_journal_of_before_the_last_boot_is_only_removed(folder: Path) -> None:
    stale = folder / "123"
    stale.mkdir()
    file = folder / "disk"
    file.touch()
    (stale / "journal").write_text(f'["boot", "another"]\n["file", "{file}"]\n')
    (folder / "124").mkdir()
    assert tenant.collect() == []
    assert not stale.exists()
    assert not (folder / "124").exists()
    assert file.exists()


def test_nothing_is_undone_beside_a_supervisor(folder: Path) -> None:
    (folder / "123").mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert tenant.collect() == []
    assert (folder / "123").exists()
    assert tenant.collect() == []
    assert not (folder / "123").exists()


def test_an_ordinary_user_has_nothing_to_collect(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "123").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert tenant.collect() == []
    assert (folder / "123").exists()


def test_to_wait_takes_no_time_of_a_processor() -> None:
    code = (
        "import os, time\n"
        "from pytest_kernelfs.guest import tenant\n"
        "supervisor = tenant._Supervisor.__new__(tenant._Supervisor)\n"
        "_, supervisor._woken = tenant._wake_on_signals()\n"
        "supervisor._told, tell = os.pipe()\n"
        "child = os.fork()\n"
        "os.close(tell)\n"
        "if not child:\n"
        "    time.sleep(1)\n"
        "    os._exit(0)\n"
        "before = time.process_time()\n"
        "assert supervisor._wait_for(child) == ''\n"
        "assert time.process_time() - before < 0.1\n"
    )
    subprocess.run([sys.executable, "-c", code], stdin=subprocess.PIPE, timeout=300, check=True)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, ""),
        (1 << 8, ""),
        (signal.SIGKILL, "was ended by SIGKILL"),
        (signal.SIGSEGV, "was ended by SIGSEGV"),
        (64 + 50, "was ended by signal 114"),
    ],
)
def test_how_an_agent_ended_is_told(status: int, said: str) -> None:
    assert tenant._how_it_ended(status) == said
