"""Logs of writes: marks and replays, as asked of the guest."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.dm_factory import DmFactory
from pytest_kernelfs.resources.dm_log_writes import LogWrites
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


@pytest.fixture
def machine() -> FakeMachine:
    machine = FakeMachine(
        available_targets=["error", "log-writes"],
        create="/dev/dm-0",
        message="",
        wait_for_mark=(3, 4096),
        replay=(2, 8192),
    )
    machine.answers["attach_loop"] = lambda *_: f"/dev/loop{len(machine.arguments('attach_loop')) - 1}"
    return machine


@pytest.fixture
def device(resources: Resources, loop_device_factory: LoopDeviceFactory) -> LogWrites:
    factory = DmFactory(resources)
    return factory.log_writes(on=loop_device_factory(size="1M"), log=loop_device_factory(size="2M"))


def test_a_mark_is_waited_for_from_where_the_last_was(device: LogWrites, machine: FakeMachine) -> None:
    assert machine.arguments("create")[0][1] == [(0, 2048, "log-writes", "/dev/loop0 /dev/loop1")]
    device.mark("one")
    device.mark("two")
    assert machine.arguments("message") == [(device.name, "mark one", 0), (device.name, "mark two", 0)]
    assert [call[:4] for call in machine.arguments("wait_for_mark")] == [
        ("/dev/loop1", "one", 0, 0),
        ("/dev/loop1", "two", 3, 4096),
    ]


@pytest.mark.parametrize("name", ["", "two words", "x" * 257, "é"])
def test_a_mark_is_a_word(device: LogWrites, machine: FakeMachine, name: str) -> None:
    with pytest.raises(UsageError, match="is no word of 1 to 256"):
        device.mark(name)
    assert "message" not in machine.names


def test_a_replay_goes_to_another_device(
    device: LogWrites, loop_device_factory: LoopDeviceFactory, machine: FakeMachine
) -> None:
    target = loop_device_factory(size="1M")
    assert device.replay(to="one", onto=target, blank=False) == 8192
    assert machine.arguments("replay") == [("/dev/loop1", "/dev/loop2", "one", False)]
    for wrong, said in (
        (loop_device_factory(size="512K"), "is smaller than"),
        (device.on[0], "is in use by"),
        (device.log, "is in use by"),
        (device, "is in use by"),
    ):
        with pytest.raises(UsageError, match=said):
            device.replay(to="one", onto=wrong)


def test_a_log_cannot_be_made_to_fail(device: LogWrites) -> None:
    with pytest.raises(UsageError, match="put it on a device that can fail"):
        device.fail()
