"""Pairs of network namespaces: what the guest is asked for, and what is refused before."""

from __future__ import annotations

import copy
from array import array
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.resources.netns import NetnsPair, NetnsPairFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine, ran

NAMES = ("netns-1-left", "netns-1-right")


def probed(*rtts: float | None) -> dict[str, Any]:
    """What the guest gives of a probe every 10 ms."""
    sent = [100 + 0.01 * number for number in range(len(rtts))]
    answered = [at + rtt if rtt is not None else 0.0 for at, rtt in zip(sent, rtts, strict=True)]
    return {
        "start": 100.0,
        "sent": array("d", sent).tobytes(),
        "answered": array("d", answered).tobytes(),
        "softirq": {"ran": 0.0, "waited": 0.0, "squeezed": 0, "dropped": 0},
    }


@pytest.fixture
def machine() -> FakeMachine:
    known: dict[str, Any] = dict.fromkeys(("create_pair", "netem", "stall"), True)
    return FakeMachine(
        **known, run=ran(stdout="out"), start={"pid": 7}, stop=probed(0.001), measure=probed(0.001, 0.3)
    )


@pytest.fixture
def factory(resources: Resources) -> NetnsPairFactory:
    return NetnsPairFactory(resources)


@pytest.fixture
def pair(factory: NetnsPairFactory) -> NetnsPair:
    return factory()


def test_a_pair_is_made_in_one_call_and_removed_after_the_test(
    pair: NetnsPair, machine: FakeMachine, resources: Resources
) -> None:
    assert machine.calls == [("create_pair", (*NAMES, 1))]
    assert (pair.left.name, pair.right.name) == NAMES
    assert (pair.left.address, pair.right.address) == ("10.0.0.1", "10.0.0.2")
    resources.close()
    assert machine.arguments("remove") == [([*NAMES],)]


def test_a_kernel_that_does_not_know_veth_is_brought_the_module() -> None:
    answers = iter([False, True])
    machine = FakeMachine(create_pair=lambda *_: next(answers))
    NetnsPairFactory(Resources(VM(machine)))()
    assert machine.names == ["create_pair", "run", "create_pair"]
    assert machine.arguments("run")[0][0] == ["modprobe", "veth"]


def test_a_kernel_without_veth_is_told() -> None:
    machine = FakeMachine(create_pair=False, run=ran(rc=1, stderr="not found"))
    with pytest.raises(GuestCommandError, match=r"has no module veth .*not found"):
        NetnsPairFactory(Resources(VM(machine)))()
    machine = FakeMachine(create_pair=False)
    with pytest.raises(GuestCommandError, match="makes no veth pair"):
        NetnsPairFactory(Resources(VM(machine)))()


def test_what_is_asked_of_netem_is_told_in_nanoseconds_and_in_words(
    factory: NetnsPairFactory, machine: FakeMachine
) -> None:
    pair = factory(delay="100ms", jitter=0.01, loss="10%", rate="1M")
    assert machine.arguments("netem") == [(NAMES[0], 100_000_000, 10_000_000, 0.1, 1 << 20, 1000)]
    assert pair.left.shaped == "delay 100 ms jitter 10 ms loss 0.1 rate 1.0 MiB/s"
    assert "netem delay 100 ms" in repr(pair)
    assert pair.right.shaped == ""
    pair.netem()
    assert machine.arguments("clear") == [(NAMES[0],)]
    assert pair.left.shaped == ""


def test_each_end_may_have_its_own_netem(pair: NetnsPair, machine: FakeMachine) -> None:
    pair.right.netem(loss=0.5)
    assert machine.arguments("netem") == [(NAMES[1], 0, 0, 0.5, 0, 1000)]
    assert (pair.left.shaped, pair.right.shaped) == ("", "loss 0.5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delay": "soon"}, "delay 'soon' is no time"),
        ({"delay": 0.1, "jitter": 0.2}, "jitter of 0.2 needs a delay"),
        ({"loss": "all"}, "loss 'all' is no share"),
        ({"loss": 1.1}, "loss 1.1 is no share"),
        ({"loss": "-1%"}, "loss '-1%' is no share"),
        ({"loss": True}, "loss True is no share"),
        ({"rate": "fast"}, "rate 'fast' is no size"),
    ],
)
def test_what_netem_cannot_do_is_refused_and_nothing_is_made(
    factory: NetnsPairFactory, machine: FakeMachine, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        factory(**arguments)
    assert machine.calls == []


def test_a_kernel_without_netem_is_told(pair: NetnsPair, machine: FakeMachine) -> None:
    machine.answers.update(netem=False, run=ran(rc=1, stderr="not found"))
    with pytest.raises(GuestCommandError, match="has no module sch_netem"):
        pair.netem(delay=0.1)
    assert pair.left.shaped == ""


def test_a_stall_holds_what_leaves_one_end(pair: NetnsPair, machine: FakeMachine) -> None:
    pair.stall("300ms")
    pair.right.stall(90)
    assert [args[:2] for args in machine.arguments("stall")] == [(NAMES[0], 0.3), (NAMES[1], 90.0)]
    assert machine.timeouts[-1] > 90


def test_one_queue_of_several_may_stall_alone(factory: NetnsPairFactory, machine: FakeMachine) -> None:
    pair = factory(queues=4)
    assert machine.calls == [("create_pair", (*NAMES, 4))]
    pair.stall(0.1, queue=3)
    pair.stall(0.1)
    assert [args[3] for args in machine.arguments("stall")] == [3, -1]
    with pytest.raises(UsageError, match="has no queue 4 to stall alone, its queues being 4"):
        pair.stall(0.1, queue=4)


def test_the_only_queue_is_not_one_of_several(pair: NetnsPair) -> None:
    with pytest.raises(UsageError, match=r"no queue 0 to stall alone.* see netns_pair_factory\(queues=2\)"):
        pair.stall(0.1, queue=0)


@pytest.mark.parametrize("queues", [0, 65, "2", True])
def test_what_is_no_number_of_queues_is_refused(
    factory: NetnsPairFactory, machine: FakeMachine, queues: Any
) -> None:
    with pytest.raises(UsageError, match="queues is a number from 1 to 64"):
        factory(queues=queues)
    assert machine.calls == []


def test_netem_and_a_stall_do_not_go_together(pair: NetnsPair) -> None:
    pair.netem(delay=0.1)
    with pytest.raises(UsageError, match="cannot stall while netem is on"):
        pair.stall(0.1)
    pair.right.stall(0.1)


def test_commands_run_in_the_namespace(pair: NetnsPair, machine: FakeMachine) -> None:
    assert pair.right.run("ip addr | wc -l", timeout=5.0).stdout == "out"
    pair.left.run(["ip", "addr"])
    first, second = machine.arguments("run")
    enter = ["nsenter", "--net=/run/netns/netns-1-right", "--"]
    assert first[:2] == ([*enter, "sh", "-c", "ip addr | wc -l"], 5.0)
    assert second[0] == ["nsenter", "--net=/run/netns/netns-1-left", "--", "ip", "addr"]


def test_what_arrives_is_steered_to_a_processor_and_back(pair: NetnsPair, machine: FakeMachine) -> None:
    pair.right.steer(1)
    pair.right.steer(None)
    assert machine.arguments("steer") == [(NAMES[1], 1), (NAMES[1], -1)]


@pytest.mark.parametrize("processor", [-1, True, "1", 0.5])
def test_what_is_no_processor_is_refused(pair: NetnsPair, machine: FakeMachine, processor: Any) -> None:
    with pytest.raises(UsageError, match="no number of a processor"):
        pair.right.steer(processor)
    assert machine.names == ["create_pair"]


def double(number: int) -> int:
    return 2 * number


def test_functions_run_in_the_namespace(pair: NetnsPair, machine: FakeMachine) -> None:
    machine.answers["call_source"] = lambda namespace, source, name, args: (namespace, name, args)
    assert pair.right.call(double, 4) == (NAMES[1], "double", [4])


def test_probes_are_recorded_and_given(pair: NetnsPair, machine: FakeMachine, resources: Resources) -> None:
    recorded: list[Measurement] = []
    resources.record = recorded.append
    run = pair.rtt(kind="tcp", duration=1, interval="20ms", threshold=0.2, patience=5, port=80)
    (asked,) = machine.arguments("measure")
    assert asked == (NAMES[0], "tcp", "10.0.0.1", "10.0.0.2", 80, 0.02, 1.0, 5.0)
    assert machine.timeouts[-1] > 6
    assert [measurement.name for measurement in recorded] == ["rtt tcp"]
    assert recorded[0].samples == pytest.approx((0.001, 0.3))
    assert [burst.slow for burst in run.bursts] == [1]


def test_a_run_without_answers_is_not_recorded(
    pair: NetnsPair, machine: FakeMachine, resources: Resources
) -> None:
    recorded: list[Measurement] = []
    resources.record = recorded.append
    machine.answers["measure"] = probed(None)
    assert pair.rtt().lost == 1
    assert recorded == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "udp"}, "kind is .* not 'udp'"),
        ({"port": 0}, "port is a number"),
        ({"port": "http"}, "port is a number"),
        ({"interval": 0}, "interval of 0 is not above 0"),
        ({"interval": 3}, "within the duration, 2.0"),
        ({"threshold": 0}, "threshold of 0 is not above 0"),
        ({"threshold": 2.0}, "below the patience"),
        ({"duration": "long"}, "duration 'long' is no time"),
    ],
)
def test_probes_that_make_no_sense_are_refused(
    pair: NetnsPair, machine: FakeMachine, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pair.rtt(**arguments)
    assert machine.names == ["create_pair"]


def test_a_watch_probes_while_its_block_runs(pair: NetnsPair, machine: FakeMachine) -> None:
    with pair.rtt_watch(kind="tcp") as watch:
        assert machine.names[-1] == "start"
        with pytest.raises(UsageError, match="when the with-block has ended"):
            watch.run  # noqa: B018
    assert machine.calls[-1] == ("stop", ({"pid": 7}, True))
    assert watch.run.kind == "tcp"


def test_a_watch_ends_with_a_test_that_fails(pair: NetnsPair, machine: FakeMachine) -> None:
    with pytest.raises(ZeroDivisionError), pair.rtt_watch():
        raise ZeroDivisionError
    assert machine.names[-1] == "stop"


def test_a_watch_in_a_machine_that_died_is_not_asked(pair: NetnsPair, machine: FakeMachine) -> None:
    with pair.rtt_watch() as watch:
        machine.alive = False
    assert machine.names[-1] == "start"
    with pytest.raises(UsageError):
        watch.run  # noqa: B018


def test_a_slow_round_trip_fails_with_what_the_way_is(pair: NetnsPair) -> None:
    pair.netem(delay="300ms")
    with pytest.raises(AssertionError) as caught:
        pair.assert_rtt_under(0.1)
    assert "1 of 2 round trips took longer than 100.0 ms" in str(caught.value)
    assert "netns-1-left to netns-1-right, netem on netns-1-left: delay 300 ms" in str(caught.value)
    assert pair.assert_rtt_under("400ms").measurement.max == pytest.approx(0.3)


def test_a_run_tells_the_way_as_it_was_when_it_was_taken(pair: NetnsPair) -> None:
    pair.netem(delay="300ms")
    with pair.rtt_watch() as watch:
        pair.netem()
    pair.right.netem(loss=0.5)
    way = "netns-1-left to netns-1-right"
    assert watch.run.way == f"{way}, netem on netns-1-left: delay 300 ms, at the end no netem"
    assert pair.rtt().way == f"{way}, netem on netns-1-right: loss 0.5"


def test_the_probes_wait_for_longer_than_the_budget(pair: NetnsPair, machine: FakeMachine) -> None:
    pair.assert_rtt_under(5)
    assert machine.arguments("measure")[0][-1] == 10.0


def test_a_run_that_was_is_judged_without_another(pair: NetnsPair, machine: FakeMachine) -> None:
    run = pair.rtt()
    with pytest.raises(AssertionError):
        pair.assert_rtt_under(0.1, run=run)
    assert machine.names.count("measure") == 1


@pytest.mark.parametrize("seconds", [0, "soon", -1])
def test_a_budget_that_cannot_be_met_is_refused(pair: NetnsPair, seconds: Any) -> None:
    with pytest.raises(UsageError, match=r"the budget|cannot be met"):
        pair.assert_rtt_under(seconds)


def test_a_copy_for_a_fork_works_in_that_fork(pair: NetnsPair) -> None:
    other = FakeMachine(netem=True)
    twin = copy.copy(pair.left)
    twin.resources = Resources(VM(other))
    twin.netem(delay=0.1)
    assert (other.names, pair.left.shaped) == (["netem"], "")


def test_probes_may_go_the_other_way_and_to_another_address(pair: NetnsPair, machine: FakeMachine) -> None:
    other = pair.reversed
    assert (other.left, other.right) == (pair.right, pair.left)
    assert other.rtt().way == "netns-1-right to netns-1-left"
    other.netem(delay="1ms")
    assert pair.rtt(address="10.9.0.1").way == "netns-1-left to 10.9.0.1, netem on netns-1-right: delay 1 ms"
    arguments = machine.arguments("measure")
    assert [call[:4] for call in arguments] == [
        ("netns-1-right", "icmp", "10.0.0.2", "10.0.0.1"),
        ("netns-1-left", "icmp", "10.0.0.1", "10.9.0.1"),
    ]


@pytest.mark.parametrize("address", ["", "right", "::1", "10.0.0.256", 5.5])
def test_what_is_no_address_is_refused(pair: NetnsPair, address: Any) -> None:
    with pytest.raises(UsageError, match="is no IPv4 address"):
        pair.assert_rtt_under(1, address=address)
