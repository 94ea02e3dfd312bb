"""Leases: what a dead owner left is ended and removed, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.lease import ProcessId

pytestmark = pytest.mark.usefixtures("temporary")

Child = subprocess.Popen[bytes]


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """Start programs that are ended with the test."""
    children: list[Child] = []

    def popen(*command: str) -> Child:
        children.append(subprocess.Popen(command))
        return children[-1]

    yield popen
    for child in children:
        child.kill()
        child.wait()


@pytest.fixture
def sleeper(start: Callable[..., Child]) -> Child:
    return start("sleep", "600")


@pytest.fixture
def gone(start: Callable[..., Child]) -> ProcessId:
    """A process that has ended."""
    child = start("sleep", "600")
    process = ProcessId.of(child.pid)
    child.kill()
    child.wait()
    return process


# The PID namespace, as folders are named after it.
HERE = f"{Path('/proc/self/ns/pid').stat().st_ino:x}"


def leased(owner: ProcessId, machine: ProcessId | None) -> Path:
    """A machine's folder with that lease."""
    folder = lease.base_folder() / f"{owner.pid}-{HERE}-abc"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(b"data")
    record = {"owner": asdict(owner), "machine": asdict(machine) if machine else None}
    (folder / "lease.json").write_text(json.dumps(record))
    return folder


def test_the_base_folder_is_ours_alone(temporary: Path) -> None:
    base = lease.base_folder()
    assert base == temporary / f"kernelfs-{os.getuid()}"
    assert base.stat().st_mode & 0o777 == 0o700
    assert lease.base_folder() == base


def test_the_base_folder_is_ours_alone_whatever_the_umask() -> None:
    before = os.umask(0)
    try:
        assert lease.base_folder().stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_sockets_need_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 60)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert lease.base_folder() == Path(f"/tmp/kernelfs-{os.getuid()}")


@pytest.mark.parametrize("name", ["${HOME}", "a\nb", "\udcff"])
def test_sockets_need_a_path_that_ssh_takes_as_it_is(
    name: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / name))
    assert lease.base_folder() == Path(f"/tmp/kernelfs-{os.getuid()}")


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_a_folder_that_others_may_enter_is_refused(mode: int) -> None:
    lease.base_folder().chmod(mode)
    with pytest.raises(InfrastructureError, match=f"is not ours alone .*mode {mode:o}"):
        lease.base_folder()


def test_a_folder_of_somebody_else_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "kernelfs-54321").mkdir(mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(InfrastructureError, match=rf"is not ours alone \(owner {owner}"):
        lease.base_folder()


def test_a_symlink_is_refused(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir(mode=0o700)
    (temporary / f"kernelfs-{os.getuid()}").symlink_to("elsewhere")
    with pytest.raises(InfrastructureError, match="is not ours alone"):
        lease.base_folder()


@pytest.mark.parametrize("kind", ["file", "dangling symlink"])
def test_what_is_no_folder_is_refused(temporary: Path, kind: str) -> None:
    path = temporary / f"kernelfs-{os.getuid()}"
    if kind == "file":
        path.touch(0o600)
    else:
        path.symlink_to("nowhere")
    with pytest.raises(InfrastructureError, match="is not ours alone"):
        lease.base_folder()


def test_a_temporary_folder_that_is_none_is_told(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "file"))
    with pytest.raises(InfrastructureError, match="a part of the path is not a folder"):
        lease.make_folder()


def test_a_new_folder_is_leased_to_this_process() -> None:
    folder = lease.make_folder()
    assert lease.machines() == [(folder, ProcessId.of(os.getpid()), None)]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_machine_is_noted_in_its_lease(sleeper: Child) -> None:
    folder = lease.make_folder()
    lease.write(folder, sleeper.pid)
    assert lease.machines() == [(folder, ProcessId.of(os.getpid()), ProcessId.of(sleeper.pid))]
    assert [path.name for path in folder.iterdir()] == ["lease.json"]


def test_a_machine_without_its_owner_is_ended_and_its_folder_removed(gone: ProcessId, sleeper: Child) -> None:
    folder = leased(gone, ProcessId.of(sleeper.pid))
    lines = lease.collect()
    assert sleeper.wait(120) == -9
    assert not folder.exists()
    assert lines == [
        f"ended machine process {sleeper.pid}, whose owner {gone.pid} is gone",
        f"removed {folder}",
    ]


def test_a_later_process_with_the_machines_number_is_left_alone(gone: ProcessId, sleeper: Child) -> None:
    same_number = ProcessId(sleeper.pid, ProcessId.of(sleeper.pid).start - 1)
    folder = leased(gone, same_number)
    assert lease.collect() == [f"removed {folder}"]
    assert sleeper.poll() is None


def test_a_later_process_with_the_owners_number_is_not_the_owner(sleeper: Child) -> None:
    folder = leased(ProcessId(sleeper.pid, ProcessId.of(sleeper.pid).start - 1), None)
    assert lease.collect() == [f"removed {folder}"]
    assert sleeper.poll() is None


def test_a_machine_whose_owner_lives_is_left_alone(sleeper: Child, start: Callable[..., Child]) -> None:
    machine = start("sleep", "600")
    folder = leased(ProcessId.of(sleeper.pid), ProcessId.of(machine.pid))
    assert lease.collect() == []
    assert machine.poll() is None
    assert (folder / "disk.raw").exists()


def test_our_own_machines_are_left_alone() -> None:
    folder = lease.make_folder()
    assert lease.collect() == []
    assert folder.exists()


def test_an_owner_that_is_a_zombie_is_gone(start: Callable[..., Child]) -> None:
    child = start("sleep", "600")
    owner = ProcessId.of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.alive
    folder = leased(owner, None)
    assert lease.collect() == [f"removed {folder}"]


def test_a_machine_that_is_gone_already_is_no_error(gone: ProcessId) -> None:
    folder = leased(gone, gone)
    assert lease.collect() == [f"removed {folder}"]


BROKEN = [
    "",
    "{",
    '{"owner": {"pid"',
    "null",
    "[]",
    '{"owner": null}',
    '{"owner": {}, "machine": null}',
    "\0",
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_lease_of_a_dead_process_is_removed(gone: ProcessId, text: str) -> None:
    folder = leased(gone, None)
    (folder / "lease.json").write_text(text)
    assert lease.collect() == [f"removed {folder}"]
    assert not folder.exists()


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_lease_of_a_living_process_is_left_alone(sleeper: Child, text: str) -> None:
    folder = leased(ProcessId.of(sleeper.pid), None)
    (folder / "lease.json").write_text(text)
    assert lease.collect() == []
    assert folder.exists()


def test_a_folder_without_lease_goes_when_its_process_is_gone(gone: ProcessId, sleeper: Child) -> None:
    for pid in (gone.pid, sleeper.pid):
        (lease.base_folder() / f"{pid}-{HERE}-abc").mkdir()
    lease.collect()
    assert [path.name for path in lease.base_folder().iterdir()] == [f"{sleeper.pid}-{HERE}-abc"]


def test_what_is_no_machines_folder_is_left_alone(gone: ProcessId) -> None:
    base = lease.base_folder()
    (base / "notes.txt").touch()
    (base / f"{gone.pid}-{HERE}-file").touch()
    (base / "other").mkdir()
    assert lease.collect() == []
    assert len(list(base.iterdir())) == 3


def test_folders_of_other_pid_namespaces_are_left_alone(gone: ProcessId, temporary: Path) -> None:
    foreign = leased(gone, None).rename(lease.base_folder() / f"{gone.pid}-abc123-abc")
    scratch = temporary / "scratch"
    data = scratch / f"{gone.pid}-{gone.start}-abc123-abc"
    data.mkdir(parents=True)
    assert lease.collect(scratch) == []
    assert foreign.is_dir()
    assert data.is_dir()


def test_a_data_folder_goes_with_its_owner(gone: ProcessId, temporary: Path) -> None:
    scratch = temporary / "scratch"
    mine = lease.make_data_folder(scratch)
    data = scratch / f"{gone.pid}-{gone.start}-{HERE}-abc"
    data.mkdir()
    assert lease.collect(scratch) == [f"removed {data}"]
    assert mine.is_dir()


def test_a_process_is_told_by_its_start_time_whatever_its_name(
    start: Callable[..., Child], sleeper: Child, temporary: Path
) -> None:
    sleep = shutil.which("sleep")
    assert sleep
    odd = shutil.copy(sleep, temporary / "a) S 1 (b")
    there = ProcessId.of(start(odd, "600").pid)
    assert there.alive
    assert 0 <= there.start - ProcessId.of(sleeper.pid).start < 60 * os.sysconf("SC_CLK_TCK")


def test_a_process_that_is_gone_is_not_killed(gone: ProcessId) -> None:
    assert not gone.kill()


def test_killing_ends_the_process(sleeper: Child) -> None:
    assert ProcessId.of(sleeper.pid).kill()
    assert sleeper.wait(120) == -9


def test_running_machines_are_those_whose_kernel_is_noted(
    sleeper: Child, start: Callable[..., Child]
) -> None:
    folder, other, dead = lease.make_folder(), lease.make_folder(), lease.make_folder()
    lease.write(folder, sleeper.pid)
    lease.note_kernel(folder, "6.1.0-50-amd64")
    lease.write(other, start("sleep", "600").pid)  # a process, but no machine
    lease.write(dead, None)
    lease.note_kernel(dead, "6.12.48")
    assert lease.running() == [("6.1.0-50-amd64", ProcessId.of(os.getpid()), ProcessId.of(sleeper.pid))]
    assert 0 <= ProcessId.of(sleeper.pid).age < 600
