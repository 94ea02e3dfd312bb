"""Round trips within a budget."""

from __future__ import annotations

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.probes.rtt import RttBurst, RttRun
from pytest_kernelfs.times import Time, parse_time

_MOST_BURSTS = 8


def budget_of(seconds: Time) -> float:
    """The budget in seconds. Raises: UsageError for one that cannot be met."""
    budget = parse_time(seconds, "assert_rtt_under: the budget")
    if budget <= 0:
        raise UsageError(f"assert_rtt_under: a budget of {seconds} cannot be met")
    return budget


def rtt_under(run: RttRun, seconds: float, *, lost: int, kernel: str) -> None:
    """Demand that no round trip took longer than ``seconds``, and that at most ``lost`` probes were lost.

    Raises: AssertionError.
    """
    __tracebackhide__ = True
    if run.lost > lost or _worst(run) > seconds:
        raise AssertionError(describe_rtt(run, seconds, lost=lost, kernel=kernel))


def describe_rtt(run: RttRun, budget: float, *, lost: int, kernel: str) -> str:
    """The failure text of a run."""
    bursts = run.bursts_from(budget)
    way = f"{run.way}, " if run.way else ""
    lines = [
        f"{_what_failed(run, budget, lost)} ({run.kind.upper()}, {way}"
        f"one probe every {run.interval * 1000:g} ms, kernel {kernel})",
        f"  {_figures(run)}",
    ]
    lines += [f"  {_describe_burst(burst)}" for burst in bursts[:_MOST_BURSTS]]
    if len(bursts) > _MOST_BURSTS:
        worst = max(burst.worst for burst in bursts[_MOST_BURSTS:])
        lines.append(f"  and {len(bursts) - _MOST_BURSTS} more stalls, round trips up to {_ms(worst)}")
    load = run.softirq
    lines.append(
        f"  meanwhile ksoftirqd ran for {_ms(load.ran)} and waited {_ms(load.waited)} for a processor; "
        f"softnet_stat: {load.squeezed} times squeezed, {load.dropped} dropped"
    )
    lines.append(f"  {_advice(run, budget, bursts)}")
    return "\n".join(lines)


def _what_failed(run: RttRun, budget: float, lost: int) -> str:
    parts = []
    slow = sum(sample.rtt is not None and sample.rtt > budget for sample in run.samples)
    if slow:
        worst = f"at most {_ms(_worst(run))}"
        parts.append(f"{slow} of {len(run.samples)} round trips took longer than {_ms(budget)}, {worst}")
    if run.lost > lost:
        allowed = f" where {lost} may be" if lost else ""
        parts.append(f"{run.lost} of {len(run.samples)} probes were lost{allowed}")
    return " and ".join(parts)


def _figures(run: RttRun) -> str:
    row = f", at most {run.lost_in_a_row} in a row" if run.lost else ""
    lost = f"lost {run.lost}{row}"
    if run.lost == len(run.samples):
        return f"none of {run.lost} probes was answered: the link is down, or what should answer is not there"
    measured = run.measurement
    return (
        f"max {_ms(measured.max)}, p99 {_ms(measured.p99)}, median {_ms(measured.median)}, "
        f"n {len(measured.samples)}, {lost}"
    )


def _describe_burst(burst: RttBurst) -> str:
    between = [f"{count} {name}" for name, count in (("quick", burst.quick), ("lost", burst.lost)) if count]
    among = f"{' and '.join(between)} between them, " if between else ""
    order = "answered in order" if burst.in_order else "answers interleaved"
    return (
        f"stall at {burst.start:.3f} s for {_ms(burst.length)}: {burst.slow} slow, up to {_ms(burst.worst)}, "
        f"{among}{order}; "
        f"the probe itself was sent at most {_ms(burst.late)} late"
    )


def _advice(run: RttRun, budget: float, bursts: tuple[RttBurst, ...]) -> str:
    if not bursts:
        return (
            "look at: netem and its limit, the queue of the interface (ip -s link), dropped in softnet_stat"
        )
    if run.measurement.median > budget:
        return (
            "most probes were slow: the way as a whole takes that long. Look at netem at both ends, at its "
            "rate and jitter, and at queues that are never empty"
        )
    worst = max(bursts, key=lambda burst: burst.worst)
    if worst.late > worst.worst / 2:
        return (
            "the probe did not run on time either: the processor, not the network alone, stood still. Look "
            "at what stays in the kernel for so long, and at the host's own load"
        )
    if not worst.in_order:
        return (
            "some packets passed while others waited: one of several queues or processors stood still, or "
            "netem reorders. Look at softirq time by processor (/proc/softirqs) and at which flows hash to it"
        )
    return (
        "all packets waited behind one another: one queue stood still, as when ksoftirqd does not run. Look "
        "at softirq time (/proc/softirqs), and at what kept ksoftirqd from its processor, such as long "
        "system calls"
    )


def _worst(run: RttRun) -> float:
    return max((sample.rtt for sample in run.samples if sample.rtt is not None), default=0.0)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
