"""Round trips: how probes are grouped into stalls, and how a failure reads."""

from __future__ import annotations

import itertools
import random
from array import array
from dataclasses import replace

import pytest

from pytest_kernelfs.assertions.rtt import describe_rtt, rtt_under
from pytest_kernelfs.probes.rtt import RttRun, RttSample, SoftirqLoad, decode

QUIET = SoftirqLoad(0.001, 0.0, 0, 0)
WAY = "netns-1-left to netns-1-right"


def run_of(*rtts: float | None, late: float = 0.0, kind: str = "icmp", threshold: float = 0.1) -> RttRun:
    """A probe every 10 ms."""
    samples = tuple(RttSample(number * 0.01 + late, late, rtt) for number, rtt in enumerate(rtts))
    return RttRun(kind, 0.01, threshold, samples, QUIET, WAY)


def judge(run: RttRun, budget: float = 0.1, lost: int = 0) -> str:
    return describe_rtt(run, budget, lost=lost, kernel="6.1.176")


def backlog(seconds: float) -> list[float]:
    """The round trips through a queue that stands still for so long, and is then emptied at once."""
    return [seconds - 0.01 * number for number in range(round(seconds / 0.01))]


def test_a_queue_that_stood_still_is_one_burst_in_order() -> None:
    run = run_of(*[0.001] * 20, *backlog(0.155), *[0.001] * 20)
    (burst,) = run.bursts
    assert (burst.slow, burst.quick, burst.lost, burst.in_order) == (6, 0, 0, True)
    assert (burst.start, burst.worst) == (0.2, 0.155)
    assert burst.length == pytest.approx(0.155)


def test_one_queue_of_several_is_one_burst_with_quick_ones_between() -> None:
    stalled = [rtt if number % 3 == 0 else 0.001 for number, rtt in enumerate(backlog(0.205))]
    (burst,) = run_of(*[0.001] * 5, *stalled, *[0.001] * 5, kind="tcp").bursts
    assert (burst.slow, burst.quick, burst.in_order) == (4, 6, False)


def test_two_stalls_are_two_bursts() -> None:
    run = run_of(*backlog(0.155), *[0.001] * 20, *backlog(0.205))
    assert [burst.slow for burst in run.bursts] == [6, 11]


def test_a_constant_delay_is_one_long_burst() -> None:
    (burst,) = run_of(*[0.1] * 50).bursts
    assert (burst.slow, burst.in_order) == (50, True)
    assert burst.length == pytest.approx(0.59)


def test_lost_probes_within_a_burst_are_counted_there() -> None:
    (burst,) = run_of(0.15, None, 0.13, None).bursts
    assert (burst.slow, burst.lost) == (2, 1)


def test_a_machine_that_stood_still_is_no_stall_of_the_network() -> None:
    # One question is under way when it stops; the next ones, due meanwhile, are sent when it goes on.
    on_time = [RttSample(number * 0.01, 0.0, 0.001) for number in range(10)]
    stopped = RttSample(0.1, 0.0, 0.8)
    caught_up = [RttSample(0.9, 0.9 - number * 0.01, 0.002) for number in range(11, 90)]
    run = RttRun("icmp", 0.01, 0.1, (*on_time, stopped, *caught_up), QUIET, WAY)
    (burst,) = run.bursts
    assert (burst.slow, burst.worst, burst.on_time) == (1, 0.8, False)
    assert burst.late == pytest.approx(0.79)
    assert run.stalls == ()
    assert "the processor, not the network alone, stood still" in judge(run)


def test_a_stall_that_the_probe_went_on_in_is_one_of_the_network() -> None:
    run = run_of(*[0.001] * 5, *backlog(0.3), *[0.001] * 5, late=0.02)
    assert run.stalls == run.bursts
    assert run.samples[5].waited == pytest.approx(0.32)
    assert run_of(None).samples[0].waited is None


def test_of_a_stall_at_the_very_end_nobody_knows() -> None:
    assert [burst.slow for burst in run_of(0.001, *backlog(0.305)).stalls] == [21]
    (burst,) = run_of(0.001, 0.3).bursts
    assert (burst.late, burst.on_time) == (0.0, False)


def test_another_threshold_finds_other_bursts() -> None:
    run = run_of(*backlog(0.155))
    assert [burst.slow for burst in run.bursts_from(0.05)] == [11]
    assert run.bursts_from(0.2) == ()


def test_lost_probes_are_counted_and_the_longest_row_of_them() -> None:
    run = run_of(0.001, None, None, 0.001, None, None, None, 0.001)
    assert (run.lost, run.lost_in_a_row) == (5, 3)
    assert run.measurement.samples == (0.001,) * 3


def test_without_any_answer_there_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="no samples"):
        run_of(None, None).measurement  # noqa: B018


@pytest.mark.parametrize("seed", range(20))
def test_bursts_hold_every_slow_probe_once(seed: int) -> None:
    draw = random.Random(seed)
    rtts = [draw.choice([None, 0.001, 0.05, draw.uniform(0.1, 0.5)]) for _ in range(200)]
    run = run_of(*rtts)
    slow = sum(rtt is not None and rtt >= 0.1 for rtt in rtts)
    assert sum(burst.slow for burst in run.bursts) == slow
    ends = [(burst.start, burst.start + burst.length) for burst in run.bursts]
    assert all(first[1] < second[0] for first, second in itertools.pairwise(ends))


def test_what_the_guest_gives_is_put_against_the_schedule() -> None:
    raw = {
        "start": 100.0,
        "sent": array("d", [100.0, 100.013]).tobytes(),
        "answered": array("d", [100.25, 0.0]).tobytes(),
        "softirq": {"ran": 0.5, "waited": 0.25, "squeezed": 2.0, "dropped": 1.0},
    }
    run = decode("tcp", 0.01, 0.1, raw)
    assert run.samples[0] == RttSample(0.0, 0.0, 0.25)
    assert run.samples[1].late == pytest.approx(0.003)
    assert run.samples[1].rtt is None
    assert run.softirq == SoftirqLoad(0.5, 0.25, 2, 1)
    assert run.late == run.samples[1].late


def test_a_stall_is_told_as_an_expert_would_want_it() -> None:
    run = run_of(*[0.001] * 84, *backlog(0.155))
    run = replace(run, softirq=SoftirqLoad(0.004, 0.14, 3, 0))
    assert judge(run) == (
        "6 of 100 round trips took longer than 100.0 ms, at most 155.0 ms "
        "(ICMP, netns-1-left to netns-1-right, one probe every 10 ms, kernel 6.1.176)\n"
        "  max 155.0 ms, p99 145.0 ms, median 1.0 ms, n 100, lost 0\n"
        "  stall at 0.840 s for 155.0 ms: 6 slow, up to 155.0 ms, answered in order; "
        "the probe itself was sent at most 0.0 ms late\n"
        "  meanwhile ksoftirqd ran for 4.0 ms and waited 140.0 ms for a processor; "
        "softnet_stat: 3 times squeezed, 0 dropped\n"
        "  all packets waited behind one another: one queue stood still, as when ksoftirqd does not run. "
        "Look at softirq time (/proc/softirqs), and at what kept ksoftirqd from its processor, such as long "
        "system calls"
    )


def test_an_interleaved_stall_is_told_apart() -> None:
    stalled = [rtt if number % 3 == 0 else 0.001 for number, rtt in enumerate(backlog(0.205))]
    text = judge(run_of(*[0.001] * 50, *stalled, kind="tcp"))
    assert "4 slow, up to 205.0 ms, 6 quick between them, answers interleaved" in text
    assert "one of several queues or processors stood still" in text


def test_a_machine_that_stood_still_is_told_apart() -> None:
    run = run_of(*[0.001] * 50, *backlog(0.155))
    slow = tuple(replace(sample, late=0.12) if sample.rtt == 0.155 else sample for sample in run.samples)
    text = judge(replace(run, samples=slow))
    assert "the probe itself was sent at most 120.0 ms late" in text
    assert "the processor, not the network alone, stood still" in text


def test_a_slow_way_is_told_apart() -> None:
    assert "most probes were slow: the way as a whole takes that long" in judge(run_of(*[0.2] * 50))


def test_lost_probes_are_told_with_what_was_allowed() -> None:
    text = judge(run_of(*[0.001] * 7, None, None, None), lost=2)
    assert text.startswith("3 of 10 probes were lost where 2 may be (ICMP")
    assert "n 7, lost 3, at most 3 in a row" in text
    assert "look at: netem and its limit" in text


def test_slow_and_lost_ones_are_both_told() -> None:
    first = judge(run_of(0.001, 0.001, 0.3, None)).splitlines()[0]
    assert first.startswith(
        "1 of 4 round trips took longer than 100.0 ms, at most 300.0 ms and 1 of 4 probes"
    )


def test_a_dead_link_is_told() -> None:
    text = judge(run_of(None, None))
    assert text.startswith("2 of 2 probes were lost (ICMP")
    assert "none of 2 probes was answered: the link is down" in text


def test_of_many_stalls_the_first_are_told_and_the_others_counted() -> None:
    text = judge(run_of(*[*backlog(0.125), *[0.001] * 100] * 20))
    assert text.count("stall at") == 8
    assert "and 12 more stalls, round trips up to 125.0 ms" in text


@pytest.mark.parametrize(
    ("rtts", "lost"), [([0.1, 0.001], 0), ([0.05], 0), ([0.001, None, None], 2), ([None], 1)]
)
def test_what_meets_the_budget_passes(rtts: list[float | None], lost: int) -> None:
    rtt_under(run_of(*rtts), 0.1, lost=lost, kernel="6.1.176")


@pytest.mark.parametrize(("rtts", "lost"), [([0.101, 0.001], 0), ([0.001, None], 0), ([None] * 3, 2)])
def test_what_does_not_fails(rtts: list[float | None], lost: int) -> None:
    with pytest.raises(AssertionError):
        rtt_under(run_of(*rtts), 0.1, lost=lost, kernel="6.1.176")
