"""Counting dying cgroups, and making some, on folders that look like a hierarchy."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pytest_kernelfs.guest import dying, patience, reading
from pytest_kernelfs.guest.dispatch import GuestError
from tests.guest.test_patience import Clock


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 2 at "v2" and pids of version 1 at "v1"."""
    places = {"": str(tmp_path / "v2"), "pids": str(tmp_path / "v1")}
    monkeypatch.setattr(dying, "hierarchies", lambda: places)
    monkeypatch.setattr(dying, "controllers", lambda: {"pids": (5, 7)})
    monkeypatch.setattr(dying, "_is_whole", lambda mount: True)
    (tmp_path / "v1" / "a" / "b").mkdir(parents=True)
    (tmp_path / "v2").mkdir()
    set_dying(tmp_path, 3)
    return tmp_path


def set_dying(mounts: Path, number: int) -> None:
    (mounts / "v2" / "cgroup.stat").write_text(
        f"nr_descendants 1\nnr_subsys_memory 2\nnr_dying_descendants {number}\n"
        f"nr_dying_subsys_memory {number}\nnr_dying_subsys_io 0\n"
    )


def test_both_versions_are_counted(mounts: Path) -> None:
    v2, v1 = dying.counts()
    assert (v2["name"], v2["dying"], v2["controllers"]) == ("v2", 3, {"memory": 3})
    # Seven cgroups, three of them with a folder.
    assert (v1["name"], v1["dying"], v1["controllers"]) == ("v1 pids", 4, {})
    assert dying.total() == 7
    assert dying.count(2, f"{mounts}/v2") == 3
    assert dying.count(1, f"{mounts}/v1/a") == 4


def test_a_kernel_before_4_14_is_counted_as_version_1_is(
    mounts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mounts / "v2" / "cgroup.stat").unlink()
    (mounts / "v2" / "a").mkdir()
    monkeypatch.setattr(dying, "controllers", lambda: {"memory": (0, 6), "io": (0, 6), "pids": (5, 7)})
    assert [(each["name"], each["dying"]) for each in dying.counts()] == [("v2", 4), ("v1 pids", 4)]


def test_a_part_of_a_version_1_hierarchy_is_not_counted(
    mounts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dying, "_is_whole", lambda mount: False)
    assert [each["name"] for each in dying.counts()] == ["v2"]
    assert dying.parts() == [f"{mounts}/v1"]
    with pytest.raises(GuestError, match="in a cgroup namespace, the kernel tells only of all"):
        dying.count(1, f"{mounts}/v1/a")


def test_version_2_is_counted_where_our_cgroups_are(mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = mounts / "v2" / "ours"
    ours.mkdir()
    (ours / "cgroup.stat").write_text("nr_dying_descendants 1\n")
    monkeypatch.setattr(dying, "_home", str(ours))
    assert [(each["path"], each["dying"]) for each in dying.counts() if each["name"] == "v2"] == [
        (str(ours), 1)
    ]


def test_the_hierarchies_are_found_among_the_mounts() -> None:
    found = dying.hierarchies()
    assert all(path.startswith("/") for path in found.values())
    assert set(found) - {""} <= set(dying.controllers())


def test_few_enough_are_not_waited_for(mounts: Path) -> None:
    seen = dying.watch(7, 60.0, {})
    assert seen["seconds"] < 30
    assert seen["pins"] == {}


def test_those_from_before_are_left_out(mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dying, "_QUIET_S", 0.02)
    before = dying.at_rest()
    assert before == {"v2": 3, "v1 pids": 4}
    set_dying(mounts, 5)
    seen = dying.watch(2, 60.0, before)
    assert [(each["dying"], each["before"]) for each in seen["counts"]] == [(5, 3), (4, 4)]
    assert seen["pins"] == {}
    assert dying.watch(1, 0.0, before)["pins"]


def test_what_has_gone_since_hides_nothing(mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there were none: what is dying now is all of the test."""
    monkeypatch.setattr(dying, "_QUIET_S", 0.02)
    numbers = iter([4, 0, 3, 3])
    monkeypatch.setattr(
        dying, "counts", lambda: [{"name": "v2", "path": "/c", "dying": next(numbers, 3), "controllers": {}}]
    )
    seen = dying.watch(0, 0.03, {"v2": 3})
    assert (seen["counts"][0]["dying"], seen["counts"][0]["before"]) == (0, 0)
    seen = dying.watch(0, 0.03, {"v2": seen["counts"][0]["before"]})
    assert seen["pins"]


def test_what_is_only_on_its_way_was_not_there_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "time", Clock())
    numbers = iter([6, 5, 2])
    monkeypatch.setattr(dying, "counts", lambda: [{"name": "v2", "dying": next(numbers, 2)}])
    assert dying.at_rest() == {"v2": 2}


def test_while_the_machine_stands_still_nothing_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "time", Clock(stall=100.0))
    counts = iter([3, 3, 1, 0])
    assert dying._settled(lambda: next(counts)) == 0


def test_what_goes_on_for_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "time", Clock())
    monkeypatch.setattr(dying, "_SETTLED_S", 0.0)
    counts = itertools.count(1)
    assert 1 < dying._settled(lambda: next(counts)) < 1000


def test_what_pins_is_found_by_taking_it_away(mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dying, "_QUIET_S", 0.02)
    monkeypatch.setattr(dying, "controllers", dict)
    monkeypatch.setattr("os.sync", lambda: set_dying(mounts, 30))
    monkeypatch.setattr(dying, "drop_caches", lambda what: set_dying(mounts, {1: 10, 2: 4}[what]))
    set_dying(mounts, 31)
    pins = dying.watch(0, 0.0, {})["pins"]
    assert [pins[name] for name in ("writeback", "page_cache", "dentries", "left")] == [1, 20, 6, 4]
    assert {"Shmem", "Dirty"} <= set(pins["memory"])


@pytest.mark.parametrize("kind", ["tmpfs", "dentry", "zombie"])
def test_each_cgroup_is_visited_and_removed(mounts: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    parent, place = mounts / "v2", mounts / "pins"
    entered = mounts / "entered"

    def enter(folder: str) -> None:
        with entered.open("a") as file:
            file.write(f"{Path(folder).name} ")

    monkeypatch.setattr(dying, "_QUIET_S", 0.02)
    monkeypatch.setattr(dying, "_enter", enter)
    done = dying.make(2, str(parent), 3, kind, str(place), 5000)
    assert done["dying"] == 0, "none more than before"
    assert entered.read_text().split()[:3] == ["dying-0", "dying-1", "dying-2"]
    assert [path.name for path in parent.iterdir()] == ["cgroup.stat"]
    assert bool(done["keeper"]) == (kind == "zombie")
    if kind == "tmpfs":
        assert [path.stat().st_size for path in place.iterdir()] == [5000] * 3
    if kind == "dentry":
        assert sum(1 for _ in place.glob("*/*")) == 3 * 32
    dying.release(str(place), done["keeper"])
    dying.release(str(place), done["keeper"])
    assert not place.exists()


def test_a_pin_that_cannot_be_made_is_told(mounts: Path) -> None:
    with pytest.raises(GuestError, match=r"cannot pin cgroups with tmpfs in .*cgroup.procs"):
        dying.make(2, str(mounts / "v2"), 1, "tmpfs", str(mounts / "pins"), 1)


def test_reads_are_timed_to_the_end_of_the_file(mounts: Path) -> None:
    path = mounts / "large"
    path.write_bytes(bytes(100_000))
    seen = reading.read_timed(str(path), 3, 60.0)
    assert (len(seen["seconds"]), seen["bytes"], seen["dying"]) == (3, 100_000, 7)
    assert len(reading.read_timed(str(path), 1000, 0.0)["seconds"]) == 1
    with pytest.raises(GuestError, match=r"cannot read .*/missing: No such file"):
        reading.read_timed(f"{mounts}/missing", 1, 60.0)
