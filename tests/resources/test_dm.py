"""Device-mapper devices: their tables, and what is asked of the guest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.resources.block import BlockDevice
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.dm_factory import DmFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine, ran

KNOWN = ["error", "linear", "delay", "flakey", "zero", "log-writes", "snapshot", "snapshot-origin", "crypt"]
MIB = 1 << 20
SECTORS = MIB // 512


@pytest.fixture
def machine() -> FakeMachine:
    machine = FakeMachine(available_targets=KNOWN, exists=True)
    machine.answers["create"] = lambda name, table: f"/dev/dm-{len(machine.arguments('create')) - 1}"
    machine.answers["create_beside"] = "/dev/dm-9"
    return machine


@pytest.fixture
def dm_factory(resources: Resources) -> DmFactory:
    return DmFactory(resources)


@pytest.fixture
def below(loop_device_factory: LoopDeviceFactory) -> BlockDevice:
    return loop_device_factory(size="1M")


def tables(machine: FakeMachine, name: str = "create") -> list[list[tuple[Any, ...]]]:
    return [arguments[1] for arguments in machine.arguments(name)]


def test_tables_are_those_of_the_kernel(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine
) -> None:
    dm_factory.linear(on=below, offset="64K", size="128K")
    dm_factory.linear(on=below)
    dm_factory.delay(on=below, read_ms=1, write_ms=2, flush_ms=3)
    dm_factory.flakey(on=below, up=4, down=5)
    dm_factory.flakey(on=below, features=["drop_writes", "corrupt_bio_byte 32 r 1 0"])
    dm_factory.error(size="1M")
    dm_factory.zero(size="1T")
    dm_factory.crypt(on=below, key=b"\x01\xff")
    assert [lines for table in tables(machine) for lines in table] == [
        (0, 256, "linear", "/dev/loop0 128"),
        (0, SECTORS, "linear", "/dev/loop0 0"),
        (0, SECTORS, "delay", "/dev/loop0 0 1 /dev/loop0 0 2 /dev/loop0 0 3"),
        (0, SECTORS, "flakey", "/dev/loop0 0 4 5"),
        (0, SECTORS, "flakey", "/dev/loop0 0 1 0 6 drop_writes corrupt_bio_byte 32 r 1 0"),
        (0, SECTORS, "error", ""),
        (0, 1 << 31, "zero", ""),
        (0, SECTORS, "crypt", "aes-xts-plain64 01ff 0 /dev/loop0 0"),
    ]


def test_a_device_is_a_block_device_on_its_disk(dm_factory: DmFactory, disk_factory: DiskFactory) -> None:
    disk = disk_factory(size="1M")
    device = dm_factory.linear(on=dm_factory.delay(on=disk), offset="512K")
    assert isinstance(device, BlockDevice)
    assert (device.path, device.size, device.disk) == ("/dev/dm-1", MIB // 2, disk)
    assert repr(device) == "<dm linear /dev/dm-1 512.0 KiB on /dev/dm-0>"
    assert dm_factory.error(size=512).disk is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda dm, on: dm.linear(on="/dev/loop0"), "no block device"),
        (lambda dm, on: dm.linear(on=on, offset="2M"), "reach beyond"),
        (lambda dm, on: dm.linear(on=on, offset="1M"), "reach beyond"),
        (lambda dm, on: dm.linear(on=on, size=100), "no positive multiple of 512"),
        (lambda dm, on: dm.delay(on=on, read_ms=-1), "-1 is no number of milliseconds"),
        (lambda dm, on: dm.delay(on=on, read_ms=0.5), "0.5 is no number of milliseconds"),
        (lambda dm, on: dm.flakey(on=on, up=0), "not both 0"),
        (
            lambda dm, on: dm.flakey(on=on, features="drop_writes"),
            r"a list of texts, such as \['drop_writes'\]",
        ),
        (lambda dm, on: dm.error(size=0), "error size 0 is no positive multiple"),
        (lambda dm, on: dm.table("name", []), "it has no lines"),
        (lambda dm, on: dm.table("name", ["0 linear"]), "the line '0 linear' is not"),
        (lambda dm, on: dm.table("name", "0 1 error"), "table: '0 1 error' is one text, not a list"),
        (lambda dm, on: dm.log_writes(on=on, log=on), "on and log are both <loop device"),
        (lambda dm, on: dm.crypt(on=on, key="abc"), "the key 'abc' is not bytes"),
        (lambda dm, on: dm.table("a/b", ["0 1 error"]), "'a/b' is no name"),
        (lambda dm, on: dm.thin_pool(meta=on, data=on, block_size="4K"), "no multiple of 64K"),
        (lambda dm, on: dm.snapshot(origin=on, cow=on, chunk_size="12K"), "no power of two"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_made(
    dm_factory: DmFactory,
    below: BlockDevice,
    machine: FakeMachine,
    make: Callable[[DmFactory, BlockDevice], object],
    said: str,
) -> None:
    with pytest.raises(UsageError, match=said):
        make(dm_factory, below)
    assert not {"create", "message", "swap", "erase_start"} & set(machine.names)


def test_what_the_kernel_does_not_know_yet_is_loaded_once(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine
) -> None:
    machine.answers["available_targets"] = []
    machine.answers["run"] = ran()
    dm_factory.flakey(on=below)
    dm_factory.flakey(on=below)
    assert [arguments[0] for arguments in machine.arguments("run")] == [
        ["modprobe", "dm_mod"],
        ["modprobe", "dm_flakey"],
    ]


def test_what_the_kernel_lacks_is_named(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine
) -> None:
    machine.answers["run"] = ran(1, stderr="not found")
    with pytest.raises(
        GuestCommandError, match=r"the device-mapper target dust needs the module dm_dust \(CONFIG_DM_DUST\)"
    ):
        dm_factory.table("dusty", ["0 8 dust /dev/loop0 0 512"])
    assert "create" not in machine.names


def test_failing_and_healing(dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine) -> None:
    device = dm_factory.linear(on=below)
    device.fail()
    failing = [device.failing]
    device.heal()
    assert [*failing, device.failing] == [True, False]
    assert tables(machine, "swap") == [
        [(0, SECTORS, "error", "")],
        [(0, SECTORS, "linear", "/dev/loop0 0")],
    ]


def test_what_fails_is_healed_before_what_lies_on_it_goes(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine, resources: Resources
) -> None:
    device = dm_factory.linear(on=below)
    resources.on_teardown("mount", lambda: machine.calls.append(("umount", ())))
    device.fail()
    device.suspend()
    machine.calls.clear()
    resources.close()
    assert machine.names[:4] == ["resume", "swap", "umount", "remove"]
    assert machine.arguments("swap") == [(device.name, [(0, SECTORS, "linear", "/dev/loop0 0")], True)]


def test_a_delay_changes_in_use(dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine) -> None:
    device = dm_factory.delay(on=below, read_ms=5)
    device.set(write_ms=7)
    assert tables(machine, "swap") == [
        [(0, SECTORS, "delay", "/dev/loop0 0 5 /dev/loop0 0 7 /dev/loop0 0 0")]
    ]
    device.fail()
    device.set(read_ms=0)
    assert tables(machine, "swap")[1:] == [[(0, SECTORS, "error", "")]]
    device.heal()
    assert (device.read_ms, device.write_ms, device.flush_ms) == (0, 7, 0)
    assert tables(machine, "swap")[2][0][3] == "/dev/loop0 0 0 /dev/loop0 0 7 /dev/loop0 0 0"


def test_flakey_is_down_or_up_for_good(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine, resources: Resources
) -> None:
    device = dm_factory.flakey(on=below, up=3, down=4, features=["drop_writes"])
    device.fail()
    device.set(features=[], up=1, down=2)
    device.fail()
    resources.close()
    assert [table[0][3] for table in tables(machine, "swap")] == [
        "/dev/loop0 0 0 1 1 drop_writes",
        "/dev/loop0 0 1 2",
        "/dev/loop0 0 0 1",
        "/dev/loop0 0 1 0",
    ]


def test_what_the_kernel_refuses_changes_nothing(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine
) -> None:
    device = dm_factory.flakey(on=below)
    machine.answers["swap"] = GuestCommandError("no")
    with pytest.raises(GuestCommandError):
        device.set(features=["nonsense"], up=9)
    assert (device.up, device.features, device.failing) == (1, [], False)


def test_suspension_and_failing_end_before_their_victims_are_taken_down(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine, resources: Resources
) -> None:
    device = dm_factory.linear(on=below)
    device.fail()
    device.suspend()
    resources.on_teardown("cgroup", lambda: machine.calls.append(("kill", ())))
    machine.calls.clear()
    resources.close()
    assert machine.names[:4] == ["resume", "swap", "kill", "remove"]


def test_a_suspension_ends_with_its_block(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine
) -> None:
    device = dm_factory.linear(on=below)
    with pytest.raises(RuntimeError), device.suspended(freeze=False):
        raise RuntimeError
    assert machine.arguments("suspend") == [(device.name, True, False)]
    assert machine.arguments("resume") == [(device.name, True)]


def test_tables_are_shown_as_dmsetup_does(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine
) -> None:
    device = dm_factory.table("mine", ["0 8 error", f"8 8 linear {below.path} 0"], on=[below])
    assert (device.name, device.size) == ("mine", 16 * 512)
    machine.answers["table"] = [(0, 8, "error", ""), (8, 8, "linear", "7:0 0")]
    assert device.table() == ["0 8 error", "8 8 linear 7:0 0"]
    device.reload(["0 8 error"])
    assert device.size == 8 * 512


def test_an_origin_waits_while_its_snapshot_is_made(
    dm_factory: DmFactory, below: BlockDevice, loop_device_factory: LoopDeviceFactory, machine: FakeMachine
) -> None:
    origin = dm_factory.snapshot_origin(on=below)
    snapshot = dm_factory.snapshot(origin=origin, cow=loop_device_factory(size="64K"), persistent=False)
    line = (0, SECTORS, "snapshot", "/dev/loop0 /dev/loop0 N 8")
    assert machine.arguments("create_beside") == [(snapshot.name, [line], origin.name)]
    assert machine.arguments("erase_start") == [("/dev/loop0", 4096)]
    with pytest.raises(UsageError, match="put 'cow' on a device that can fail"):
        snapshot.fail()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("8/64 2", (True, 4096, 32768, 1024)), ("Invalid", (False, 0, 0, 0)), ("Overflow", (False, 0, 0, 0))],
)
def test_a_snapshot_says_how_full_it_is(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine, text: str, shown: tuple[object, ...]
) -> None:
    snapshot = dm_factory.snapshot(origin=below, cow=below)
    machine.answers["table"] = [(0, SECTORS, "snapshot", text)]
    status = snapshot.status()
    assert (status.valid, status.used, status.total, status.metadata) == shown


def test_a_snapshot_that_says_something_else(
    dm_factory: DmFactory, below: BlockDevice, machine: FakeMachine
) -> None:
    snapshot = dm_factory.snapshot(origin=below, cow=below)
    machine.answers["table"] = [(0, SECTORS, "snapshot", "Merge failed")]
    with pytest.raises(GuestCommandError, match="Merge failed"):
        snapshot.status()
