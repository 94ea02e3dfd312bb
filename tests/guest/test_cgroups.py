"""The guest's part of cgroups, on folders that look like a hierarchy."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_kernelfs.guest import (
    attributes,
    cgroup_processes,
    cgroups,
    commands,
    dying,
    syscalls,
)
from pytest_kernelfs.guest.dispatch import GuestError
from tests.guest.test_patience import stand_still


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of version 2; a write to cgroup.subtree_control adds to it, as the kernel does."""
    monkeypatch.setattr(dying, "hierarchies", lambda: {"": str(tmp_path)})
    monkeypatch.setattr(dying, "controllers", lambda: {"memory": (0, 1), "pids": (0, 1)})
    group(tmp_path, "memory pids")

    def write(path: str, text: str) -> None:
        if path.endswith("subtree_control"):
            names = set(Path(path).read_text().split())
            names = names | {text[1:]} if text[0] == "+" else names - {text[1:]}
            text = " ".join(sorted(names))
        elif not os.path.exists(path):  # noqa: PTH110
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        Path(path).write_text(text)

    monkeypatch.setattr(attributes, "write", write)
    return tmp_path


def group(path: Path, controllers: str = "", processes: str = "") -> Path:
    path.mkdir(exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.subtree_control").write_text("")
    (path / "cgroup.procs").write_text(processes)
    return path


def given(path: Path) -> str:
    return (path / "cgroup.subtree_control").read_text()


def test_controllers_are_enabled_all_the_way_down(top: Path) -> None:
    inner = group(group(top / "a", "memory pids") / "b", "memory pids")
    cgroups.enable(str(inner), ["memory"])
    assert [given(path) for path in (top, top / "a", inner)] == ["memory"] * 3


def test_a_controller_that_is_missing_is_named_with_those_that_are_there(top: Path) -> None:
    with pytest.raises(GuestError, match=r"has no controller rdma for .* version 2; it has memory, pids"):
        cgroups.enable(str(top), ["rdma"])


def test_a_controller_that_version_1_has_is_told(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dying, "hierarchies", lambda: {"": str(top), "cpu": "/v1/cpu"})
    with pytest.raises(GuestError, match=r"a version 1 hierarchy at /v1/cpu has it"):
        cgroups.enable(str(top), ["cpu"])


def test_a_controller_that_all_cgroups_have_needs_no_enabling(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [["memory", "0", "1", "1"], ["freezer", "0", "1", "1"], ["perf_event", "0", "1", "1"]]
    monkeypatch.setattr(dying, "_table", lambda: rows)
    cgroups.enable(str(top), ["memory", "perf_event"])
    assert given(top) == "memory"
    with pytest.raises(GuestError, match="has no controller freezer"):
        cgroups.enable(str(top), ["freezer"])
    for row in (["perf_event", "3", "1", "1"], ["perf_event", "0", "1", "0"]):
        rows[-1] = row
        with pytest.raises(GuestError, match="has no controller perf_event"):
            cgroups.enable(str(top), ["perf_event"])


def test_processes_in_the_way_are_named(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = group(top / "full", "memory", f"{os.getpid()}\n")
    (top / "cgroup.subtree_control").write_text("memory")

    def refuse(path: str, text: str) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", path)

    monkeypatch.setattr(attributes, "write", refuse)
    with pytest.raises(GuestError, match=rf"holds processes \({os.getpid()} \(.*move_processes=True"):
        cgroups.enable(str(full), ["memory"])


def test_processes_are_in_the_way_whichever_controller_comes_first(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel lets cpu and pids be enabled beside processes; the next one then is "not supported"."""
    full = group(top / "full", "memory pids", f"{os.getpid()}\n")
    (top / "cgroup.subtree_control").write_text("memory pids")
    told = attributes.write

    def refuse(path: str, text: str) -> None:
        if text == "+memory" and given(full) == "pids":
            raise OSError(errno.EOPNOTSUPP, "Operation not supported", path)
        told(path, text)

    monkeypatch.setattr(attributes, "write", refuse)
    with pytest.raises(GuestError, match=r"enable memory below .*holds processes .*move_processes=True"):
        cgroups.enable(str(full), ["pids", "memory"])
    assert given(full) == "", "with pids alone, every child is invalid"


def test_a_limit_for_a_device_that_is_not_there_names_it(top: Path) -> None:
    with pytest.raises(GuestError, match=r"a limit for /dev/vdz: No such file or directory"):
        cgroups.write(str(top / "io.max"), "wbps=1", "/dev/vdz")


def test_the_process_that_answers_calls_enters_no_cgroup(top: Path) -> None:
    with pytest.raises(GuestError, match=rf"process {os.getpid()} serves this machine's calls"):
        cgroup_processes.add([str(top)], os.getpid())
    cgroup_processes.add([str(top)], os.getpid() + 1)
    assert (top / "cgroup.procs").read_text() == str(os.getpid() + 1)


def test_dying_cgroups_are_waited_for_as_long_as_they_become_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch of waiting has two looks here; three of them are needed until none is left."""
    counts = [3, 3, 2, 2, 1, 1, 0]

    class TwoLooks:
        def __init__(self, *_: float) -> None:
            self.left = 2

        def wait(self) -> bool:
            self.left -= 1
            return self.left >= 0

    monkeypatch.setattr(dying, "count_v1", lambda controller, target: counts.pop(0))
    monkeypatch.setattr(cgroups, "Patience", TwoLooks)
    assert cgroups._wait_for_dying("memory", "/v1/memory", 3.0) == 0
    counts[:] = [2, 2, 2, 1]
    assert cgroups._wait_for_dying("memory", "/v1/memory", 3.0) == 2


def test_a_cgroup_that_cannot_be_made_leaves_no_folder(top: Path) -> None:
    with pytest.raises(GuestError, match=r"no controller rdma"):
        cgroups.make(2, [str(top / "new")], ["rdma"])
    assert not (top / "new").exists()
    with pytest.raises(GuestError, match=r"cannot make the cgroup .*gone/new: No such file"):
        cgroups.make(2, [str(top / "gone" / "new")], [])


def test_what_the_root_gives_is_taken_back(top: Path) -> None:
    cgroups.enable(str(top), ["memory", "pids"])
    (top / "a").mkdir()
    cgroups.restore(["memory"])
    assert given(top) == "memory pids", "others use them"
    (top / "a").rmdir()
    cgroups.restore(["memory"])
    assert given(top) == "memory"


def test_a_new_cpuset_of_version_1_has_what_its_parent_has(top: Path) -> None:
    for folder in (top, top / "new"):
        folder.mkdir(exist_ok=True)
        for name, text in (("cpus", "0-1\n"), ("mems", "0\n")):
            (folder / f"cpuset.{name}").write_text(text if folder == top else "")
    cgroups.inherit_cpuset(str(top / "new"))
    assert (top / "new" / "cpuset.cpus").read_text() == "0-1"


def test_a_file_that_is_missing_is_told_by_its_reason(top: Path) -> None:
    (top / "memory.max").write_text("max\n")
    assert cgroups.read(f"{top}/memory.max") == "max\n"
    with pytest.raises(GuestError, match=r"no file memory.peak in .* does not have it, only memory.max"):
        cgroups.read(f"{top}/memory.peak")
    with pytest.raises(GuestError, match=r"no file pids.max in .*: it has no controller pids; name it"):
        cgroups.write(f"{top}/pids.max", "3")
    with pytest.raises(GuestError, match=r"the cgroup .*/gone is gone"):
        cgroups.read(f"{top}/gone/memory.max")
    assert cgroups.read_some([str(top)], ["memory.max", "pids.max"]) == {"memory.max": "max\n"}


def test_a_refused_value_is_told_with_the_kernels_reason(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, text: str) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", path)

    monkeypatch.setattr(attributes, "write", refuse)
    with pytest.raises(GuestError, match=r"refuses 'soon' in .*memory.max: Invalid argument"):
        cgroups.write_all([[f"{top}/memory.max", "soon", ""]])


def test_devices_are_written_by_number(top: Path) -> None:
    (top / "io.max").write_text("")
    cgroups.write(f"{top}/io.max", "wbps=1", "/dev/null")
    assert (top / "io.max").read_text() == "1:3 wbps=1"


def test_a_busy_cgroup_is_tried_again_and_counted(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = top / "outer"
    (outer / "inner").mkdir(parents=True)
    answers = iter([False, False, True, True])
    seen: list[str] = []

    def rmdir(path: str) -> bool:
        seen.append(Path(path).name)
        return next(answers)

    monkeypatch.setattr(cgroups, "_rmdir", rmdir)
    assert cgroups.remove([str(outer), str(top / "gone")]) == {"killed": 0, "retries": 2}
    assert seen == ["inner", "inner", "inner", "outer"]
    monkeypatch.setattr(cgroups, "_rmdir", lambda path: False)
    with pytest.raises(GuestError, match=r"still busy after 0 s and 1 retries; in it: no process"):
        cgroups.remove([str(outer)], 0.0)


def test_a_hierarchy_that_is_there_is_used(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dying, "hierarchies", lambda: {"pids": "/v1/pids"})
    assert cgroups.claim("pids", True) == ["/v1/pids", False]


def refuse_mounts(monkeypatch: pytest.MonkeyPatch, place: Path, code: int) -> None:
    def mount(*_args: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(syscalls, "mount", mount)
    monkeypatch.setattr(cgroups, "V1", str(place))


def test_a_hierarchy_that_cannot_be_mounted_is_explained(
    top: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path_factory.mktemp("v1")
    refuse_mounts(monkeypatch, place, errno.EINVAL)
    assert cgroups.claim("freezer", False) == [None, False]
    with pytest.raises(GuestError, match=r"no controller memory for .*it has pids, and for version 2 memory"):
        cgroups.claim("memory", True)
    refuse_mounts(monkeypatch, place, errno.EBUSY)
    group(top / "a").joinpath("cgroup.subtree_control").write_text("memory")
    with pytest.raises(GuestError, match=r"enabled below .*/a; remove those first"):
        cgroups.claim("memory", True)
    assert list(place.iterdir()) == []


def pretend_kill(top: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> list[tuple[int, int]]:
    """A cgroup whose processes go when each was killed; gives the signals."""
    signals: list[tuple[int, int]] = []
    for name, text in files.items():
        (top / name.replace("_", ".")).write_text(text)

    def kill(pid: int, number: int) -> None:
        signals.append((pid, number))
        (top / "cgroup.procs").write_text("")

    monkeypatch.setattr(os, "kill", kill)
    return signals


def test_without_cgroup_kill_all_are_frozen_and_killed(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals = pretend_kill(top, monkeypatch, freezer_state="THAWED", cgroup_procs="77\n")
    assert cgroup_processes.kill([str(top)]) == 1
    assert signals == [(77, 9)]
    assert (top / "freezer.state").read_text() == "THAWED"


def test_what_does_not_end_is_named(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "cgroup.procs").write_text(f"{os.getpid()}\n")
    (top / "cgroup.kill").write_text("")
    with pytest.raises(GuestError, match=rf"SIGKILL did not end .* within 0.05 s: {os.getpid()} \("):
        cgroup_processes.kill([str(top)], 0.05)
    assert (top / "cgroup.kill").read_text() == "1"
    with pytest.raises(GuestError, match=r"still holds processes after 0.01 s"):
        cgroup_processes.wait_until_empty([str(top)], 0.01)


def test_freezing_is_waited_for(top: Path) -> None:
    with pytest.raises(GuestError, match=r"cannot be frozen: it has neither cgroup.freeze"):
        cgroup_processes.freeze([str(top)], True, 1.0)
    (top / "cgroup.freeze").write_text("0")
    (top / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(GuestError, match=r"was not frozen within 0.01 s"):
        cgroup_processes.freeze([str(top)], True, 0.01)
    assert (top / "cgroup.freeze").read_text() == "1"
    (top / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    cgroup_processes.freeze([str(top)], True, 0.0)


def test_a_command_enters_before_it_begins(top: Path) -> None:
    inside = f"cat {top}/cgroup.procs"
    done = commands.run(inside, 30.0, cgroups=[str(top)])
    assert done["stdout"] == b"0", "which stands for the process that writes it"


@pytest.mark.parametrize("start", ["run", "start"])
def test_a_cgroup_that_cannot_be_entered_is_told(top: Path, start: str) -> None:
    calls: dict[str, Callable[[str], Any]] = {
        "run": lambda folder: commands.run("true", 30.0, cgroups=[folder]),
        "start": lambda folder: cgroup_processes.start([folder], "true", f"{top}/out", None, None),
    }
    with pytest.raises(GuestError, match=r"no process can enter the cgroup .*/gone: No such file"):
        calls[start](f"{top}/gone")
    full = group(top / "full", "memory")
    (full / "cgroup.procs").unlink()
    (full / "cgroup.procs").symlink_to("/dev/full")
    (full / "cgroup.subtree_control").write_text("memory")
    with pytest.raises(GuestError, match=r"/full: No space left on device; in version 2 one that gives"):
        calls[start](str(full))


def test_a_started_process_is_waited_for_and_forgotten(top: Path) -> None:
    output = f"{top}/out/process"
    pid = cgroup_processes.start([str(top)], "echo out; echo err >&2; exit 3", output, None, {"A": "b"})
    rc, seconds = cgroup_processes.wait(pid, 30.0)
    assert rc == 3
    assert seconds is not None
    assert Path(output + ".out").read_text() == "out\n"
    assert Path(output + ".err").read_text() == "err\n"
    cgroup_processes.forget(pid, output)
    assert list((top / "out").iterdir()) == []
    assert pid not in cgroup_processes._started

    pid = cgroup_processes.start([str(top)], ["sleep", "60"], output, None, None)
    assert cgroup_processes.wait(pid, 0.0)[0] is None
    cgroup_processes.forget(pid, output)
    deadline = time.monotonic() + 30
    while cgroup_processes._forgotten:
        assert time.monotonic() < deadline
        cgroup_processes.wait_until_empty([str(top / "none")], 30.0)
    assert pid not in cgroup_processes._started
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(GuestError, match=r"was not started by this conversation"):
        cgroup_processes.wait(1, 0.0)


def test_what_ends_late_because_the_machine_stood_still_is_waited_for(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = stand_still(monkeypatch)
    monkeypatch.setattr(cgroup_processes, "_await_end", lambda process, seconds: clock.sleep(seconds))
    codes = iter([None, None, 0])
    monkeypatch.setitem(cgroup_processes._started, 4711, SimpleNamespace(poll=lambda: next(codes, 0)))
    assert cgroup_processes.wait(4711, 2.0)[0] == 0
    stand_still(monkeypatch)
    pids = iter([[7], [7], []])
    monkeypatch.setattr(cgroup_processes, "all_pids", lambda folders: next(pids))
    cgroup_processes.wait_until_empty([str(top)], 2.0)


def test_processes_are_described_with_their_state() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        deadline = time.monotonic() + 30
        while cgroup_processes.describe([child.pid]) != f"{child.pid} (sleep, S)":
            assert time.monotonic() < deadline
    finally:
        child.kill()
        child.wait()
    assert cgroup_processes.describe([child.pid]) == f"{child.pid} (?, gone)"
    assert cgroup_processes.describe(list(range(1 << 30, (1 << 30) + 12))).endswith(" and 2 more")
