"""cgroups: where they lie, what is asked of the machine, and what is taken down."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, GuestTimeout, InfrastructureError, UsageError
from pytest_kernelfs.machines.vm import VM, Checkpoint
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.resources.cgroup import Cgroup, CgroupFactory
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.preparation import unpack
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine, ran
from tests.resources.conftest import mounted


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(
        root="/sys/fs/cgroup",
        enabled=["cpu"],
        claim=lambda controller, needed: [f"/v1/{controller}", controller != "freezer"],
        remove={"killed": 0, "retries": 0},
    )


@pytest.fixture
def factory(resources: Resources) -> CgroupFactory:
    return CgroupFactory(resources)


def test_version_2_has_one_folder(factory: CgroupFactory, machine: FakeMachine) -> None:
    cgroup = factory(controllers=["io"], memory_max="1M", pids_max=3)
    assert cgroup.folders == ["/sys/fs/cgroup/cgroup-1"]
    assert cgroup.controllers == ("io", "memory", "pids")
    assert repr(cgroup) == "<cgroup v2 /sys/fs/cgroup/cgroup-1 io,memory,pids>"
    assert machine.arguments("make") == [(2, [cgroup.path], ["io", "memory", "pids"], False)]
    assert machine.arguments("write_all") == [
        ([[f"{cgroup.path}/memory.max", "1048576", ""], [f"{cgroup.path}/pids.max", "3", ""]],)
    ]


def test_version_1_has_one_in_each_hierarchy(factory: CgroupFactory, machine: FakeMachine) -> None:
    cgroup = factory(version=1, controllers=["memory"], io_max={"/dev/vda": {"wbps": 1}})
    assert cgroup.folders == ["/v1/memory/cgroup-1", "/v1/blkio/cgroup-1", "/v1/freezer/cgroup-1"]
    assert cgroup.path == "/v1/memory/cgroup-1"
    assert cgroup.file("blkio.throttle.io_serviced").startswith("/v1/blkio/")
    assert cgroup.file("cgroup.procs").startswith("/v1/memory/")
    factory(version=1, controllers=["memory"])
    assert machine.arguments("claim") == [("memory", True), ("blkio", True), ("freezer", False)]


def test_a_kernel_without_the_freezer_has_the_others(factory: CgroupFactory, machine: FakeMachine) -> None:
    machine.answers["claim"] = lambda controller, needed: [f"/v1/{controller}" if needed else None, needed]
    assert factory(version=1, controllers=["pids"]).folders == ["/v1/pids/cgroup-1"]


def test_everything_goes_in_the_reverse_order(
    factory: CgroupFactory, machine: FakeMachine, resources: Resources
) -> None:
    factory(controllers=["memory"])
    factory(version=1, controllers=["pids"])
    machine.calls.clear()
    resources.close()
    assert machine.names == ["remove", "release", "remove", "restore"]
    assert machine.arguments("release") == [("pids", "/v1/pids")]
    assert machine.arguments("restore") == [(["cpu"],)]


def test_a_cgroup_that_could_not_be_made_is_removed_all_the_same(
    factory: CgroupFactory, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["make"] = GuestCommandError("no controller memory")
    with pytest.raises(GuestCommandError):
        factory(controllers=["memory"])
    resources.close()
    assert machine.arguments("remove")[0][0] == ["/sys/fs/cgroup/cgroup-1"]


def test_retries_of_rmdir_are_recorded(
    factory: CgroupFactory, machine: FakeMachine, resources: Resources
) -> None:
    recorded: list[Measurement] = []
    resources.record = recorded.append
    machine.answers["remove"] = {"killed": 1, "retries": 4}
    factory(controllers=["memory"])
    resources.close()
    assert [(each.name, each.unit, each.max) for each in recorded] == [
        ("rmdir retries of /sys/fs/cgroup/cgroup-1", "retries", 4)
    ]


def test_what_stays_busy_is_an_error(
    factory: CgroupFactory, machine: FakeMachine, resources: Resources
) -> None:
    factory(controllers=["memory"])
    machine.answers["remove"] = GuestCommandError("rmdir: still busy")
    with pytest.raises(InfrastructureError, match=r"cgroup-1 was not taken down .*still busy"):
        resources.close()


def test_children_have_what_their_parent_has_unless_told_otherwise(
    factory: CgroupFactory, machine: FakeMachine
) -> None:
    outer = factory(controllers=["memory"])
    child = outer.create("child", pids_max=2, move_processes=True)
    assert child.path == f"{outer.path}/child"
    assert machine.arguments("make")[1] == (2, [child.path], ["memory", "pids"], True)
    assert outer.create("other", controllers=[]).controllers == ()
    old = factory(version=1, controllers=["pids"])
    assert old.create("child").folders == [f"{folder}/child" for folder in old.folders]
    with pytest.raises(UsageError, match="is not in the hierarchy of cpu"):
        old.create("second", cpu_max=1)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_names_are_single_parts_of_paths(factory: CgroupFactory, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a cgroup"):
        factory(controllers=["memory"]).create(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"version": 3}, "version is 1 or 2, not 3"),
        ({"version": 1}, "lies in the hierarchies of its controllers"),
        ({"controllers": "memory"}, "controllers is a list of names"),
        ({"memory_max": "huge"}, "memory_max 'huge' is no size"),
    ],
)
def test_what_is_wrong_is_said_before_anything_happens(
    factory: CgroupFactory, machine: FakeMachine, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        factory(**arguments)
    assert machine.calls == []


def test_commands_run_within_it(factory: CgroupFactory, machine: FakeMachine) -> None:
    cgroup = factory(controllers=["memory"])
    machine.answers["run"] = ran(stdout="here\n")
    assert cgroup.run(["cat"], input="x").stdout == "here\n"
    ((words, _, stdin, _, _, folders),) = machine.arguments("run")
    assert (words, stdin, folders) == (["cat"], b"x", [cgroup.path])


def test_a_started_process_is_waited_for(
    factory: CgroupFactory, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers.update(start=42, wait=[None, 0.0], get=b"text")
    process = factory(controllers=["memory"]).start("sleep 9")
    assert (process.pid, repr(process), process.running) == (42, "<process 42 'sleep 9'>", True)
    with pytest.raises(GuestTimeout, match=r"\(pid 42\) still runs after 2 s"):
        process.wait(2)
    machine.answers["wait"] = [-9, 0.5]
    done = process.wait()
    assert (done.rc, done.stdout, done.stderr, done.duration) == (-9, "text", "text", 0.5)
    resources.close()
    assert machine.names.index("forget") < machine.names.index("remove")


def test_events_of_both_versions(resources: Resources, machine: FakeMachine) -> None:
    cgroup = Cgroup(resources, 2, {"": "/c"}, [])
    machine.answers["read_some"] = {"memory.events": "oom_kill 1\n", "cgroup.events": "populated 0\n"}
    assert cgroup.events() == {"memory": {"oom_kill": 1}, "cgroup": {"populated": 0}}
    machine.answers["read_some"] = {"memory.oom_control": "oom_kill 2\n", "memory.failcnt": "7\n"}
    assert cgroup.events() == {"memory": {"oom_kill": 2, "max": 7}}


def test_pressure_is_of_version_2(resources: Resources, machine: FakeMachine) -> None:
    cgroup = Cgroup(resources, 2, {"": "/c"}, [])
    machine.answers["read"] = {"some": {"total": 1.0}}
    assert cgroup.pressure("io")["some"]["total"] == 1.0
    assert machine.arguments("read") == [("io", "/c/io.pressure")]
    with pytest.raises(UsageError, match="'disk' is none of cpu, memory, io"):
        cgroup.pressure("disk")
    with pytest.raises(GuestCommandError, match="version 1 keep no account of pressure"):
        Cgroup(resources, 1, {"memory": "/m"}, ["memory"]).pressure("io")


def test_the_guest_has_the_time_that_it_waits(resources: Resources, machine: FakeMachine) -> None:
    machine.answers.update(kill=3, wait_until_empty=0.1)
    cgroup = Cgroup(resources, 2, {"": "/c"}, [])
    assert cgroup.kill(timeout=100) == 3
    assert cgroup.wait_until_empty(200) == 0.1
    cgroup.freeze(timeout=300)
    cgroup.thaw(timeout=300)
    assert [timeout > least for timeout, least in zip(machine.timeouts, (100, 200, 300, 300), strict=True)]
    assert machine.arguments("freeze") == [(["/c"], True, 300), (["/c"], False, 300)]


def test_what_pins_dying_cgroups_lies_on_what_is_mounted(
    resources: Resources, factory: CgroupFactory
) -> None:
    gone = Mount(resources, "/mnt/x", "/mnt/x", None)
    with pytest.raises(UsageError, match=r"make_dying, on: .* is not mounted"):
        factory(controllers=["memory"]).make_dying(5, kind="page cache", on=gone)


def test_dying_cgroups_are_made_and_released(
    resources: Resources, factory: CgroupFactory, machine: FakeMachine
) -> None:
    cgroup = factory(controllers=["memory"])
    machine.answers["make"] = {"dying": 4, "keeper": 77}
    pinned = cgroup.make_dying(5, kind="page cache", on=mounted(resources, "/mnt/x"), size="4K")
    assert repr(pinned) == "<4 of 5 cgroups dying, pinned by page cache>"
    assert machine.arguments("enable") == [(cgroup.path, ["memory"])]
    assert machine.arguments("make")[1] == (2, cgroup.path, 5, "page cache", pinned.place, 4096)
    assert pinned.place.startswith("/mnt/x/")
    pinned.release()
    resources.close()
    assert machine.arguments("release") == [(pinned.place, 77), (pinned.place, 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 0}, "0 is no number of cgroups"),
        ({"kind": "magic"}, "kind is one of tmpfs, page cache, dentry, zombie"),
        ({"kind": "dentry"}, "dentry needs a file system to lie on: give on=xfs"),
        ({"on": True}, "tmpfs lies on no file system of the test's"),
        ({"size": "large"}, "size 'large' is no size"),
    ],
)
def test_what_cannot_be_made_dying_is_said(
    resources: Resources, machine: FakeMachine, arguments: dict[str, Any], message: str
) -> None:
    cgroup = Cgroup(resources, 2, {"": "/c"}, [])
    if arguments.get("on"):
        arguments = {"on": Mount(resources, "/mnt/x", "/mnt/x", None)}
    with pytest.raises(UsageError, match=message):
        cgroup.make_dying(**{"number": 2, **arguments})
    assert machine.calls == []


def test_what_pins_is_counted_by_memory(resources: Resources) -> None:
    with pytest.raises(UsageError, match="does not have the controller memory"):
        Cgroup(resources, 1, {"pids": "/p"}, ["pids"]).make_dying(2)


def test_a_fork_of_a_checkpoint_has_a_cgroup_of_its_own(resources: Resources) -> None:
    kept = Cgroup(resources, 1, {"pids": "/p/c", "freezer": "/f/c"}, ["pids"])
    machine = FakeMachine(all_pids=[5])
    fork = VM(machine)
    unpack(fork, Checkpoint(None, {"cgroup": kept}))  # type: ignore[arg-type]
    twin = fork.kept["cgroup"]
    assert twin.processes() == [5]
    assert machine.arguments("all_pids") == [(["/p/c", "/f/c"], False)]
    assert twin.controllers == ("pids",)


def test_a_command_of_the_machine_itself_names_no_cgroup(machine: FakeMachine) -> None:
    VM(machine).run("true")
    assert len(machine.arguments("run")[0]) == 5


@pytest.mark.parametrize("pid", [0, -1, "self", True, None])
def test_what_is_no_process_is_not_moved(factory: CgroupFactory, machine: FakeMachine, pid: Any) -> None:
    cgroup = factory(pids_max=5)
    with pytest.raises(UsageError, match=f"cgroup.add: {pid!r} is no number of a process"):
        cgroup.add(pid)
    assert machine.arguments("add") == []
