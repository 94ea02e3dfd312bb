"""What a test holds of the samples that were taken beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestTimeout, InfrastructureError, UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.sampling import PROBES, Probes, Sampled
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine

STUCK = {
    "pid": 101,
    "tid": 102,
    "comm": "dd",
    "seconds": 2.5,
    "since": 100.5,
    "wchan": "percpu_rwsem_wait",
    "syscall": "1 0x1",
    "stack": ["percpu_rwsem_wait+0x1/0x2"],
}


def seen(**changes: Any) -> dict[str, Any]:
    """What a sampler says at its end."""
    return {
        "start": 100.0,
        "end": 104.0,
        "samples": 3,
        "processor": 0.25,
        "series": {
            "Dirty": {"unit": "B", "n": 3, "samples": [[100.0, 0], [102.0, 4096], [104.0, 1024]]},
            "dstate": {"unit": "tasks", "n": 1, "samples": [[100.0, 1]]},
        },
        "grown": {"vda.written": 8192.0},
        "stuck": [],
        "not_described": 0,
        **changes,
    }


def machine(**changes: Any) -> FakeMachine:
    return FakeMachine(start=(77, "/run/x"), stop=json.dumps(seen(**changes)))


def sample(fake: FakeMachine, *names: str, **options: Any) -> Sampled:
    with Probes(Resources(VM(fake))).sampling(*names, **options) as sampled:
        pass
    return sampled


def test_the_guest_samples_with_what_was_named_for_the_length_of_the_block() -> None:
    fake = machine()
    with Probes(Resources(VM(fake))).sampling("meminfo", "dstate", interval=0.5, most=9, stuck_after=2):
        assert fake.arguments("start") == [(["meminfo", "dstate"], 0.5, 9, 2.0, False)]
        assert fake.arguments("stop") == []
    assert fake.arguments("stop") == [(77, "/run/x")]


def test_without_names_all_probes_sample() -> None:
    fake = machine()
    sample(fake)
    assert fake.arguments("start")[0][0] == list(PROBES)


def test_series_are_measurements_and_points_in_time() -> None:
    sampled = sample(machine(), "meminfo")
    assert sampled["Dirty"] == Measurement("Dirty", "B", (0.0, 4096.0, 1024.0))
    assert sampled.points("Dirty") == [(0.0, 0), (2.0, 4096), (4.0, 1024)]
    assert sampled.total("vda.written") == 8192
    assert (sampled.seconds, sampled.samples, sampled.processor) == (4.0, 3, 0.25)
    assert [measurement.name for measurement in sampled.measurements] == ["Dirty", "dstate"]
    assert "Dirty" in sampled
    assert repr(sampled) == "<sampled meminfo: 3 samples in 4.00 s>"


def test_a_series_that_there_is_not_is_told_with_what_comes_close() -> None:
    sampled = sample(machine(), "meminfo")
    with pytest.raises(UsageError, match="saw nothing called 'dirty'; did you mean Dirty"):
        sampled["dirty"]
    with pytest.raises(UsageError, match=r"saw nothing called 'zzz'; they saw vda\.written"):
        sampled.total("zzz")


def test_what_is_no_rate_adds_up_to_nothing() -> None:
    with pytest.raises(
        UsageError, match=r"'Dirty' is no rate, and adds up to nothing; rates are vda\.written"
    ):
        sample(machine(), "meminfo").total("Dirty")


def test_nothing_is_known_before_the_block_has_ended() -> None:
    with Probes(Resources(VM(machine()))).sampling("meminfo") as sampled:
        assert repr(sampled) == "<sampled meminfo: not complete>"
        with pytest.raises(UsageError, match="only after the block"):
            sampled["Dirty"]


def test_all_series_go_to_the_report_also_of_a_block_that_fails() -> None:
    recorded: list[Measurement] = []
    resources = Resources(VM(machine()))
    resources.record = recorded.append
    with pytest.raises(AssertionError, match="no"), Probes(resources).sampling("meminfo"):
        raise AssertionError("no")
    assert [measurement.name for measurement in recorded] == ["Dirty", "dstate"]


def test_a_machine_that_is_gone_is_not_asked() -> None:
    fake = machine()
    vm = VM(fake)
    with Probes(Resources(vm)).sampling("meminfo") as sampled:
        fake.alive = False
    assert not sampled.complete
    assert fake.arguments("stop") == []


def test_what_ended_the_block_is_told_not_that_the_machine_does_not_answer() -> None:
    fake = machine()
    fake.answers["sync"] = GuestTimeout("no answer")

    def sync() -> None:
        raise NotImplementedError

    vm = VM(fake)
    with pytest.raises(GuestTimeout), Probes(Resources(vm)).sampling("meminfo"):
        vm.guest(sync)
    assert fake.arguments("stop") == []


def test_a_sampler_that_failed_is_our_fault() -> None:
    fake = FakeMachine(start=(77, "/run/x"), stop=json.dumps({"error": "OSError: no"}))
    with pytest.raises(InfrastructureError, match="OSError: no"):
        sample(fake, "meminfo")


@pytest.mark.parametrize(
    ("names", "options", "match"),
    [
        (["memory"], {}, "no probe 'memory'; there are meminfo, psi"),
        (["meminfo"], {"interval": 0.001}, "is below 0.005 s"),
        (["meminfo"], {"most": 1}, "at least 2 samples"),
        (["dstate"], {"stuck_after": 0}, "in seconds above 0"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_anything_starts(
    names: list[str], options: dict[str, Any], match: str
) -> None:
    fake = machine()
    with pytest.raises(UsageError, match=match):
        sample(fake, *names, **options)
    assert fake.calls == []


def test_a_stuck_task_fails_with_where_it_waited() -> None:
    sampled = sample(machine(stuck=[STUCK]), "dstate")
    with pytest.raises(AssertionError) as caught:
        sampled.assert_no_dstate()
    assert str(caught.value) == (
        "1 task has been in uninterruptible sleep (D) for longer than 1 s without being scheduled "
        "(kernel 6.1.176)\n"
        "  dd (pid 101, tid 102): 2.50 s, waits in percpu_rwsem_wait, syscall 1 0x1\n"
        "      percpu_rwsem_wait+0x1/0x2"
    )
    sampled.assert_no_dstate(longer_than=3.0)


def test_without_stuck_tasks_nothing_is_said() -> None:
    sample(machine(), "dstate").assert_no_dstate()


def test_what_was_not_looked_for_cannot_be_judged() -> None:
    with pytest.raises(UsageError, match="name the probe 'dstate'"):
        sample(machine(), "meminfo").assert_no_dstate()
    with pytest.raises(UsageError, match=r"sample with stuck_after=0\.5"):
        sample(machine(), "dstate").assert_no_dstate(longer_than=0.5)


def test_what_is_to_be_stuck_is_waited_for() -> None:
    task = {name: value for name, value in STUCK.items() if name != "since"}
    looks = iter([[], [task], [task, {**task, "tid": 103}]])
    fake = FakeMachine(stuck=lambda *_: next(looks))
    found = Probes(Resources(VM(fake))).until_stuck(2, longer_than=1.5)
    assert [one.tid for one in found] == [102, 103]
    assert fake.arguments("stuck")[0] == (1.5, 0.05, False)


def test_what_is_not_stuck_in_time_fails_the_test() -> None:
    task = {name: value for name, value in STUCK.items() if name != "since"}
    with pytest.raises(AssertionError, match=r"2 tasks were to be stuck .* within 0 s: 1 task has been"):
        Probes(Resources(VM(FakeMachine(stuck=[task])))).until_stuck(2, within=0)
    with pytest.raises(AssertionError, match="none was, at last"):
        Probes(Resources(VM(FakeMachine(stuck=[])))).until_stuck(within=0)


@pytest.mark.parametrize("wrong", [{"number": 0}, {"number": True}, {"longer_than": 0}, {"within": -1}])
def test_what_cannot_be_waited_for_is_refused(wrong: dict[str, Any]) -> None:
    fake = FakeMachine()
    with pytest.raises(UsageError, match="until_stuck"):
        Probes(Resources(VM(fake))).until_stuck(**wrong)
    assert fake.calls == []
