"""Round-trip times: every probe that was sent, and the stalls they fall into."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_kernelfs.measure import Measurement


@dataclass(frozen=True)
class RttSample:
    """One probe; times in seconds.

    ``sent`` counts from the begin of the run, ``late`` is how long after its time on the schedule that was,
    ``rtt`` None if no answer came.
    """

    sent: float
    late: float
    rtt: float | None

    @property
    def waited(self) -> float | None:
        """From its time on the schedule to the answer: no shorter for a probe that was sent late."""
        return None if self.rtt is None else self.late + self.rtt


@dataclass(frozen=True)
class RttBurst:
    """Slow answers that belong together: each probe was sent before the answers to those before it were in.

    ``start`` is when the first of them was sent, ``length`` the time from then to the last answer,
    ``worst`` the longest round trip, all in seconds; ``slow`` how many probes were slow. Of those sent
    between the first and the last slow one, ``quick`` were not slow and ``lost`` not answered; ``in_order``
    tells whether their answers came in the order of sending. ``late`` is how late the latest was sent, of
    all that were due in that time, also of one that was sent when it was over.
    """

    start: float
    length: float
    worst: float
    slow: int
    quick: int
    lost: int
    in_order: bool
    late: float
    on_time: bool
    """Whether the probe was seen to go on by the clock meanwhile, so that the network alone stood still.

    It was not if nothing was sent for half the time that the worst round trip took: then the processor
    stood still, or the whole machine, as it does when its host is too busy.
    """


@dataclass(frozen=True)
class SoftirqLoad:
    """What the kernel counted during a run, over all processors.

    Seconds that ksoftirqd ``ran``, and ``waited`` for a processor while it had work; rounds of network
    softirq that ended with work left (``squeezed``); packets that the backlog ``dropped``.
    """

    ran: float
    waited: float
    squeezed: int
    dropped: int


@dataclass(frozen=True)
class RttRun:
    """All probes of one run: ``kind`` is "icmp" or "tcp", ``interval`` and ``threshold`` are seconds.

    ``way`` tells what the packets went through: the two ends, and netem.
    """

    kind: str
    interval: float
    threshold: float
    samples: tuple[RttSample, ...]
    softirq: SoftirqLoad
    way: str = ""

    @property
    def lost(self) -> int:
        """How many probes were not answered."""
        return sum(sample.rtt is None for sample in self.samples)

    @property
    def lost_in_a_row(self) -> int:
        """The longest row of probes, one sent after the other, that were not answered."""
        longest = now = 0
        for sample in self.samples:
            now = now + 1 if sample.rtt is None else 0
            longest = max(longest, now)
        return longest

    @property
    def late(self) -> float:
        """How late the latest probe was sent, in seconds: more than that, the machine did not stand still."""
        return max(sample.late for sample in self.samples)

    @property
    def measurement(self) -> Measurement:
        """The round trips that ended. Raises: ValueError if no probe was answered."""
        return Measurement.of(f"rtt {self.kind}", "s", (s.rtt for s in self.samples if s.rtt is not None))

    @property
    def bursts(self) -> tuple[RttBurst, ...]:
        """The stalls with round trips of ``threshold`` or more."""
        return self.bursts_from(self.threshold)

    def bursts_from(self, threshold: float) -> tuple[RttBurst, ...]:
        """The stalls with round trips of so many seconds or more."""
        groups: list[list[int]] = []
        until = float("-inf")
        for number, sample in enumerate(self.samples):
            if sample.rtt is None or sample.rtt < threshold:
                continue
            if sample.sent > until + self.interval:
                groups.append([])
            groups[-1].append(number)
            until = max(until, sample.sent + sample.rtt)
        return tuple(
            _burst(self.samples[group[0] : group[-1] + 1], len(group), *self._late(group[0], group[-1]))
            for group in groups
        )

    @property
    def stalls(self) -> tuple[RttBurst, ...]:
        """Those of ``bursts`` that are the network's own: during them the probe was ``on_time``."""
        return tuple(burst for burst in self.bursts if burst.on_time)

    def _late(self, first: int, last: int) -> tuple[float, float]:
        """How late the latest was sent of those due from one probe until all up to another were answered.

        And for how long before that none was due, because the run was at its end. A machine that stands
        still has one question under way, and sends the next when it goes on: that one is late.
        """
        span = self.samples[first : last + 1]
        over = max(sample.sent + sample.rtt for sample in span if sample.rtt is not None)
        due = [one for one in self.samples[first:] if one.sent - one.late <= over]
        unseen = 0.0
        if due[-1] is self.samples[-1]:
            unseen = over - (due[-1].sent - due[-1].late) - self.interval
        return max(one.late for one in due), unseen


def decode(kind: str, interval: float, threshold: float, raw: Mapping[str, Any], way: str = "") -> RttRun:
    """A run from what ``guest.rtt.stop`` gives."""
    start = float(raw["start"])
    samples = []
    for number, (sent, answered) in enumerate(
        zip(_doubles(raw["sent"]), _doubles(raw["answered"]), strict=True)
    ):
        late = max(0.0, sent - start - number * interval)
        samples.append(RttSample(sent - start, late, answered - sent if answered else None))
    load = raw["softirq"]
    softirq = SoftirqLoad(
        max(0.0, load["ran"]), max(0.0, load["waited"]), int(load["squeezed"]), int(load["dropped"])
    )
    return RttRun(kind, interval, threshold, tuple(samples), softirq, way)


def _doubles(packed: bytes) -> Iterable[float]:
    numbers = array("d")
    numbers.frombytes(packed)
    return numbers


def _burst(span: Sequence[RttSample], slow: int, late: float, unseen: float) -> RttBurst:
    """``span`` are the probes from the first slow one to the last; for the times see ``RttRun._late``."""
    worst = max(sample.rtt for sample in span if sample.rtt is not None)
    arrivals = [sample.sent + sample.rtt for sample in span if sample.rtt is not None]
    return RttBurst(
        start=span[0].sent,
        length=max(arrivals) - span[0].sent,
        worst=worst,
        slow=slow,
        quick=len(arrivals) - slow,
        lost=len(span) - len(arrivals),
        in_order=arrivals == sorted(arrivals),
        late=late,
        on_time=max(late, unseen) <= worst / 2,
    )
