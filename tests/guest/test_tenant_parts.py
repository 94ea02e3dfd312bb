"""What an agent on a machine that is not ours finds there and makes of it: facts, cgroups, disks, keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.guest import (
    blocks,
    cgroups,
    journal,
    kmsg,
    loops,
    meminfo,
    syscalls,
    tenant_cgroups,
    tenant_disks,
    tenant_facts,
    tenant_keys,
    tenant_room,
)
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.tenant_cgroups import Own
from tests.guest.test_patience import stand_still

MIB = 1 << 20


def test_the_facts_are_those_of_the_running_kernel() -> None:
    facts = tenant_facts.read()
    assert facts["release"] == os.uname().release
    assert facts["build"] == os.uname().version
    assert isinstance(facts["config"], str)


def test_a_kernel_without_its_config_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_args: object, **_options: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    monkeypatch.setattr("gzip.open", missing)
    assert tenant_facts._config("6.1") == ""


def test_dirty_data_is_counted_in_the_tests_own_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meminfo, "_account", "")
    total = meminfo.read("MemTotal")
    for text in ("file_dirty 7\nfile_writeback 8\n", "dirty 1\ntotal_dirty 7\ntotal_writeback 8\n"):
        (tmp_path / "memory.stat").write_text(text)
        tenant_cgroups.count_dirty(str(tmp_path))
        assert meminfo.read("Dirty", "Writeback", "MemTotal") == {"Dirty": 7, "Writeback": 8, **total}
        assert meminfo.read("Dirty") == {"Dirty": 7}
    assert meminfo.read("MemTotal") == total


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cgroup of each version, for disks to be slowed down in."""
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
    (tmp_path / "v2" / "io.max").touch()
    for kind in ("write_bps", "read_bps", "read_iops", "write_iops"):
        (tmp_path / "v1" / f"blkio.throttle.{kind}_device").touch()
    monkeypatch.setattr(tenant_disks, "_doors", [])
    yield tmp_path
    for _, handle, _ in tenant_disks._doors:
        os.close(handle)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[list[object]]:
    entries: list[list[object]] = []
    monkeypatch.setattr(journal, "note", lambda *entry: entries.append(list(entry)))
    return entries


def test_limits_are_set_in_the_words_of_each_version(doors: Path, noted: list[list[object]]) -> None:
    tenant_disks.slow_down(1, str(doors / "v1"))
    tenant_disks.slow_down(2, str(doors / "v2"))
    assert tenant_disks.throttle("/dev/null", {"write_bps": 5, "read_bps": 0, "iops": 9}) == (None, "")
    v1 = {path.name.partition(".throttle.")[2]: path.read_text() for path in (doors / "v1").iterdir()}
    assert v1 == {
        "write_bps_device": "1:3 5",
        "read_bps_device": "1:3 0",
        "read_iops_device": "1:3 9",
        "write_iops_device": "1:3 9",
    }
    assert (doors / "v2" / "io.max").read_text() == "1:3 wbps=5 rbps=max riops=9 wiops=9"
    assert len([entry for entry in noted if entry[0] == "throttle"]) == 4


@pytest.mark.usefixtures("doors")
def test_a_machine_that_cannot_slow_disks_down_says_so() -> None:
    made = tenant_disks.attach(MIB, 512, "writeback", {"write_bps": 5})
    assert made[0] is None
    assert "no block controller" in made[1]
    assert "no block controller" in tenant_disks.throttle("/dev/null", {"iops": 1})[1]
    assert tenant_disks.throttle("/dev/null", {"iops": 0}) == (None, "")


def test_disks_lie_in_memory_as_long_as_it_holds_them_twice(
    noted: list[list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: list[str] = []

    def attach(backing: str, *, sector_size: int) -> str:
        assert Path(backing).stat().st_size == 10 * MIB
        attached.append(str(Path(backing).parent))
        return f"/dev/loop{len(attached)}"

    monkeypatch.setattr(tenant_disks, "_doors", [])
    monkeypatch.setattr(tenant_disks, "_in_memory", {})
    monkeypatch.setattr(tenant_disks, "_IN_MEMORY", str(tmp_path / "memory"))
    monkeypatch.setattr(tenant_disks, "_ON_DISK", str(tmp_path / "disk"))
    monkeypatch.setattr(tenant_disks, "_announce", lambda path, cache: None)
    monkeypatch.setattr(tenant_disks, "_set_limits", lambda path, limits: None)
    monkeypatch.setattr(meminfo, "read", lambda name: {name: 40 * MIB})
    monkeypatch.setattr(blocks, "attach_loop", attach)
    monkeypatch.setattr(blocks, "detach_loop", lambda path: None)
    monkeypatch.setattr(loops, "ours", lambda entries: ["/dev/loop1"])
    for _ in range(3):
        tenant_disks.attach(10 * MIB, 512, "writeback", {})
    tenant_disks.detach("/dev/loop1")
    tenant_disks.attach(10 * MIB, 512, "writeback", {})
    memory, disk = str(tmp_path / "memory"), str(tmp_path / "disk")
    assert attached == [memory, memory, disk, memory]
    assert not list(Path(memory).iterdir()), "the files have no names"
    assert len([entry for entry in noted if entry[0] == "file"]) == 4


def test_a_disk_that_is_ours_no_more_is_let_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "ours", lambda entries: [])
    assert tenant_disks.detach("/dev/loop0") == (None, "")


def test_cgroups_are_made_where_they_can_be(
    tmp_path: Path, noted: list[list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    v2, v1 = tmp_path / "v2", tmp_path / "pids"
    for folder in (v2, v1):
        folder.mkdir()
    (v2 / "cgroup.controllers").write_text("memory io\n")
    (v2 / "cgroup.subtree_control").write_text("memory\n")
    places = [
        Own(2, str(v2), "", f"{v2}/own"),
        Own(1, str(v1), "pids", f"{v1}/own"),
        Own(1, "/nowhere", "cpu", "/nowhere/own"),
    ]
    monkeypatch.setattr(tenant_cgroups, "_places", lambda name: places)
    assert tenant_cgroups.make("own") == places[:2]
    assert (v2 / "own" / "agent").is_dir()
    assert (v1 / "own").is_dir()
    assert ["controller", f"{v2}/cgroup.subtree_control", "io"] in noted
    assert (v2 / "cgroup.subtree_control").read_text().startswith("+io")


@pytest.mark.parametrize(
    ("theirs", "answer"),
    [({}, "-io"), ({"io.max": "8:0 wbps=1"}, "io"), ({"io.pressure": "x", "memory.max": "1"}, "-io")],
)
def test_a_controller_that_others_use_by_now_is_not_taken_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str], answer: str
) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("io")
    plain = {"io.max": "", "io.weight": "default 100", "io.pressure": "", "memory.max": "max"}
    made: list[str] = []
    plainly = os.mkdir

    def mkdir(path: str) -> None:
        plainly(path)
        for name, value in {**plain, **(theirs if path.endswith("/theirs") else {})}.items():
            (Path(path) / name).write_text(value)
        made.append(path)

    mkdir(f"{tmp_path}/theirs")
    mkdir(f"{tmp_path}/others")
    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "rmdir", lambda path: Path(path).rename(f"{tmp_path}-gone"))
    tenant_cgroups.take_back(f"{tmp_path}/cgroup.subtree_control", "io")
    assert (tmp_path / "cgroup.subtree_control").read_text().startswith(answer)
    assert not Path(made[-1]).exists()


def test_tests_work_in_the_cgroups_that_were_made_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    (own / "agent").mkdir(parents=True)
    (own / "agent" / "cgroup.procs").touch()
    (own / "io.max").touch()
    (tmp_path / "blkio.throttle.write_bps_device").touch()
    settled: list[tuple[str, str]] = []
    slowed: list[tuple[int, str]] = []
    monkeypatch.setattr(cgroups, "settle", lambda folder, ours: settled.append((folder, ours)))
    monkeypatch.setattr(tenant_disks, "slow_down", lambda version, folder: slowed.append((version, folder)))
    tenant_cgroups.settle([Own(2, "/x", "", str(own)), Own(1, str(tmp_path), "blkio", f"{tmp_path}/none")])
    assert settled == [(str(own), "agent")]
    assert (own / "agent" / "cgroup.procs").read_text() == "0"
    assert slowed == [(2, str(own)), (1, str(tmp_path))]


def test_keys_are_pressed_and_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[{"seconds": 1.0, "text": "Show Blocked State"}], []])
    monkeypatch.setattr(kmsg, "open_at_end", lambda: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(kmsg, "read_from", lambda log: next(answers, []))
    monkeypatch.setattr(tenant_keys, "_QUIET_S", 0.01)
    monkeypatch.setattr(tenant_keys, "_TRIGGER", str(tmp_path / "trigger"))
    assert tenant_keys.press("w") == ("[    1.000000] Show Blocked State", "")
    assert (tmp_path / "trigger").read_text() == "w"
    monkeypatch.setattr(tenant_keys, "_TRIGGER", str(tmp_path / "nowhere" / "trigger"))
    said, refusal = tenant_keys.press("w")
    assert said is None
    assert refusal.startswith("has no sysrq keys")


def test_a_kernel_that_stood_still_after_a_key_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_still(monkeypatch)
    answers = iter([[], [], [{"seconds": 1.0, "text": "Show Blocked State"}]])
    monkeypatch.setattr(kmsg, "read_from", lambda log: next(answers, []))
    assert tenant_keys._heard(0) == ["[    1.000000] Show Blocked State"]


def test_what_is_mounted_in_the_way_of_our_folder_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "mount_points", lambda _mounts: [(1, "/run"), (2, "/run/kernelfs/theirs")])
    with pytest.raises(GuestError, match="something is mounted on /run/kernelfs/theirs already"):
        tenant_room.take_folders([])


def test_all_mounts_at_our_places_are_let_go_in_our_view(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[str] = []
    points = [(1, "/run"), (2, "/run/My Disk"), (3, "/running"), (4, "/tmp")]
    monkeypatch.setattr(loops, "mount_points", lambda _mounts: points)
    monkeypatch.setattr(syscalls, "umount", lambda point, _flags: dropped.append(point))
    tenant_room._drop(["/run", "/tmp"])
    assert dropped == ["/tmp", "/run/My Disk", "/run"]


def test_a_place_is_noted_before_it_is_mounted(
    monkeypatch: pytest.MonkeyPatch, noted: list[list[object]], tmp_path: Path
) -> None:
    def refuse(*_args: object) -> None:
        assert noted == [["place", str(tmp_path), 0]]
        raise OSError(1, os.strerror(1))

    monkeypatch.setattr(tenant_room, "ROOT", str(tmp_path))
    monkeypatch.setattr(loops, "mount_points", lambda _mounts: [])
    monkeypatch.setattr(syscalls, "mount", refuse)
    with pytest.raises(GuestError, match="cannot mount a tmpfs"):
        tenant_room.take_folders([])
