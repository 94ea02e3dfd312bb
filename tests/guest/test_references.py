"""References to modules: those that something explains, and those that nothing does."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pytest_kernelfs.guest import cgroups, filesystems, journal, references

MODULES = """\
null_blk 69632 {null_blk} - Live 0x0
driver 16384 {driver} - Live 0x0 (OE)
brought 16384 {brought} - Live 0x0
sch_netem 24576 {sch_netem} - Live 0x0
configfs 61440 3 null_blk, Live 0x0
crc32c_generic 16384 1 - Live 0x0
libcrc32c 16384 2 xfs,btrfs, Live 0x0
xfs 1900544 {xfs} - Live 0x0
endless 16384 1 [permanent],other, Live 0x0
coming 16384 1 - Loading 0x0
old 16384 - - Live 0x0
"""
DEP = """\
kernel/drivers/block/null_blk/null_blk.ko: kernel/fs/configfs/configfs.ko
kernel/net/sched/sch_netem.ko:
kernel/crypto/crc32c_generic.ko:
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "modules"
    monkeypatch.setattr(references, "_MODULES", str(path))
    monkeypatch.setattr(filesystems, "kinds", lambda: {"xfs", "configfs", "proc"})
    monkeypatch.setattr(references, "_some_process_may_hold_them", lambda: False)
    known = dict(line.partition(":")[::2] for line in DEP.splitlines())
    paths = {Path(name).stem: name for name in known} | {"brought": "kernel/lib/brought.ko"}
    monkeypatch.setattr(references, "_paths", lambda: paths)
    return path


def write(modules: Path, **counts: int) -> None:
    names = ("null_blk", "driver", "brought", "sch_netem", "xfs")
    modules.write_text(MODULES.format(**dict.fromkeys(names, 0) | counts))


def test_what_other_modules_hold_is_not_counted(modules: Path) -> None:
    write(modules, null_blk=2, xfs=1)
    found = references.counted()
    assert (found["null_blk"], found["libcrc32c"], found["endless"], found["configfs"]) == (2, 0, 0, 2)
    assert not {"coming", "old"} & set(found)


def test_every_superblock_counts_but_not_what_modules_pin(modules: Path) -> None:
    write(modules, xfs=2)
    assert references.of_filesystems() == {"xfs": 2}


def test_what_nothing_explains_is_told(modules: Path) -> None:
    write(modules)
    before = references.counted()
    write(modules, null_blk=2, driver=1)
    explanation = "and no module, mount, device or process to be seen that holds it)"
    assert references.unexplained(before) == [
        f"module still in use: driver (1 reference more than before, {explanation}",
        f"module still in use: null_blk (2 references more than before, {explanation}",
    ]


def test_a_module_that_was_held_as_often_before_is_not(modules: Path) -> None:
    write(modules, null_blk=2)
    before = references.counted()
    assert references.unexplained(before) == []
    write(modules, null_blk=1)
    assert references.unexplained(before) == []


def test_only_modules_of_file_systems_and_disks_and_the_users_own_are_judged(modules: Path) -> None:
    write(modules, sch_netem=1, brought=1, xfs=1)
    assert references.unexplained({}) == []


def test_a_process_that_may_hold_them_explains_them(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(modules, driver=1)
    monkeypatch.setattr(references, "_some_process_may_hold_them", lambda: True)
    assert references.unexplained({}) == []


def test_where_others_may_hold_them_nothing_is_told(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(modules, driver=1)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "is_kept", lambda: True)
        assert references.unexplained({}) == []
    monkeypatch.setattr(cgroups, "home", lambda: "/sys/fs/cgroup/ours")
    assert references.unexplained({}) == []


def test_paths_are_those_of_the_machine_and_what_was_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "BROUGHT", str(tmp_path))
    place = tmp_path / "kernel/fs/smb/client/nls-x.ko"
    place.parent.mkdir(parents=True)
    place.touch()
    assert references._paths()["nls_x"] == "kernel/fs/smb/client/nls-x.ko"


def test_ordinary_files_pipes_and_terminals_hold_nothing(tmp_path: Path) -> None:
    link = tmp_path / "link"
    for target, special in {
        "/dev/null": False,
        str(tmp_path): False,
        "pipe:[7]": False,
        "socket:[8]": True,
        "anon_inode:bpf-prog": True,
        "/sys/kernel/config/x": True,
    }.items():
        link.symlink_to(target)
        assert references._is_special(str(link)) is special, target
        link.unlink()


def test_one_file_that_is_closed_meanwhile_hides_no_other() -> None:
    """To list our own files takes one, which has gone when they are looked at."""
    with socket.socket() as ours:
        high = os.dup2(ours.fileno(), 500)
    try:
        assert references._holds(str(os.getpid()))
    finally:
        os.close(high)


def test_a_process_with_a_socket_may_hold_modules() -> None:
    with socket.socket():
        assert references._holds(str(os.getpid()))
    assert not references._holds("no process")
