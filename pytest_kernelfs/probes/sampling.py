"""Probes that sample the machine beside the test's body."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from pytest_kernelfs.arguments import check_seconds
from pytest_kernelfs.assertions.dstate import describe_stuck
from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.guest import sampler
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.dstate import StuckTask, stuck_tasks
from pytest_kernelfs.resources.stack import Resources

PROBES = ("meminfo", "psi", "disk_io", "run_queue", "dstate")
# Below this the sampler has hardly any time between two samples when the processor is emulated.
_LEAST_INTERVAL_S = 0.005
_MOST_SAMPLES = 2000
# How often is looked whether any task is in state D at all.
_POLL_S = 0.05


@final
class Sampled:
    """What probes saw in a block, complete once the block has ended.

    Each series is a Measurement: ``sampled["Dirty"].max``. See docs for the names.
    """

    def __init__(self, names: Sequence[str], stuck_after: float, kernel: str) -> None:
        self.names = tuple(names)
        self.complete = False
        """True once the block has ended and the machine could be asked."""
        self.start = 0.0
        """CLOCK_MONOTONIC of the machine at the first sample."""
        self.seconds = 0.0
        """From the first to the last sample."""
        self.samples = 0
        """How often the machine was looked at."""
        self.processor = 0.0
        """The processor time that sampling itself took, in seconds."""
        self.stuck: tuple[StuckTask, ...] = ()
        """The tasks that were stuck in state D, each as it was when it was found to be."""
        self.not_described = 0
        """How many more were stuck than are described in ``stuck``, none of them for longer than those."""
        self._stuck_after = stuck_after
        self._kernel = kernel
        self._series: dict[str, dict[str, Any]] = {}
        self._grown: dict[str, float] = {}

    def __repr__(self) -> str:
        state = f"{self.samples} samples in {self.seconds:.2f} s" if self.complete else "not complete"
        return f"<sampled {', '.join(self.names)}: {state}>"

    @property
    def measurements(self) -> list[Measurement]:
        """One for each series."""
        return [self[name] for name in self._series]

    def __contains__(self, series: str) -> bool:
        return series in self._series

    def __getitem__(self, series: str) -> Measurement:
        """Raises: UsageError for a series that there is not."""
        unit = self._one(series, self._series)["unit"]
        return Measurement.of(series, unit, (value for _, value in self.points(series)))

    def points(self, series: str) -> list[tuple[float, float]]:
        """The samples with their times: (seconds since the first sample, value). Raises: UsageError."""
        samples = self._one(series, self._series)["samples"]
        return [(seconds - self.start, value) for seconds, value in samples]

    def total(self, series: str) -> float:
        """What a rate adds up to in the whole block, whatever lies between two samples: bytes, operations,
        for psi and ``run_queue.waiting`` seconds. Raises: UsageError for a series that is no rate.
        """
        if series in self._series and series not in self._grown:
            rates = ", ".join(self._grown) or "none of what was sampled"
            raise UsageError(f"{series!r} is no rate, and adds up to nothing; rates are {rates}")
        return float(self._one(series, self._grown))

    def assert_no_dstate(self, longer_than: float | None = None) -> None:
        """Demand that no task was stuck in state D for ``longer_than`` seconds (by default ``stuck_after``).

        Raises: AssertionError, naming each, where it waited and its kernel stack; UsageError if the probe
        dstate was not asked for, or describes only tasks that are stuck for longer.
        """
        __tracebackhide__ = True
        limit = self._stuck_after if longer_than is None else longer_than
        if "dstate" not in self.names:
            raise UsageError("assert_no_dstate: name the probe 'dstate' among those that sample")
        self._finished("assert_no_dstate")
        if limit < self._stuck_after:
            raise UsageError(
                f"assert_no_dstate: tasks are described from {self._stuck_after:g} s on, so nothing is known "
                f"of {limit:g} s; sample with stuck_after={limit:g}"
            )
        found = [task for task in self.stuck if task.seconds >= limit]
        if found:
            raise AssertionError(describe_stuck(found, limit, self._kernel))

    def _one(self, series: str, known: dict[str, Any]) -> Any:
        self._finished(repr(series))
        if series not in known:
            close = difflib.get_close_matches(series, known, 3, 0.5)
            raise UsageError(
                f"the probes {', '.join(self.names)} saw nothing called {series!r}; "
                + (f"did you mean {' or '.join(close)}?" if close else f"they saw {', '.join(known)}")
            )
        return known[series]

    def _finished(self, what: str) -> None:
        if not self.complete:
            raise UsageError(f"{what} is known only after the block that samples has ended")

    def _take(self, raw: dict[str, Any]) -> None:
        self.start = raw["start"]
        self.seconds = raw["end"] - raw["start"]
        self.samples = raw["samples"]
        self.processor = raw["processor"]
        self.stuck = tuple(_stuck_task(task) for task in raw["stuck"])
        self.not_described = raw["not_described"]
        self._series = raw["series"]
        self._grown = raw["grown"]
        self.complete = True


def _stuck_task(raw: dict[str, Any]) -> StuckTask:
    known = {name: raw[name] for name in ("pid", "tid", "comm", "seconds", "wchan", "syscall")}
    return StuckTask(**known, stack=tuple(raw["stack"]))


@final
class Probes:
    """Samples the machine beside the test's body: the ``probes`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    @contextmanager
    def sampling(
        self,
        *names: str,
        interval: float = 0.1,
        most: int = _MOST_SAMPLES,
        stuck_after: float = 1.0,
        kernel_threads: bool = False,
    ) -> Iterator[Sampled]:
        """Sample with the named probes (without names: all) every ``interval`` seconds while a block runs.

        Of each series at most ``most`` samples are kept, over the whole block; the largest and the smallest
        are always among them. ``stuck_after`` and ``kernel_threads`` are for dstate: after how many seconds
        a task is described as stuck, and whether the kernel's own count. All series are kept with the
        test's report, also when the block fails.

        Raises: UsageError; GuestCommandError if this kernel lacks what a probe reads.
        """
        with sampling(
            self.resources,
            names or PROBES,
            interval=interval,
            most=most,
            stuck_after=stuck_after,
            kernel_threads=kernel_threads,
        ) as sampled:
            yield sampled

    def until_stuck(
        self,
        number: int = 1,
        *,
        longer_than: float = 0.5,
        within: float = 60.0,
        kernel_threads: bool = False,
    ) -> list[StuckTask]:
        """Wait until so many tasks have been stuck in D for ``longer_than`` seconds; gives all that are.

        For a test that has planted what they wait for, and wants to go on when they do.

        Raises: AssertionError if there are fewer ``within`` seconds; UsageError.
        """
        __tracebackhide__ = True
        if type(number) is not int or number < 1 or longer_than <= 0 or within < 0:
            raise UsageError(
                f"until_stuck: {number!r} tasks, stuck for {longer_than} s, within {within} s, cannot be had"
            )
        vm = self.resources.vm
        deadline = time.monotonic() + within
        while True:
            found = stuck_tasks(vm, longer_than, kernel_threads)
            if len(found) >= number:
                return found
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        told = describe_stuck(found, longer_than, str(vm.kernel.version)) if found else "none was, at last"
        raise AssertionError(
            f"{number} tasks were to be stuck in uninterruptible sleep (D) for {longer_than:g} s, and were "
            f"not within {within:g} s: {told}"
        )


@contextmanager
def sampling(
    resources: Resources,
    names: Sequence[str],
    *,
    interval: float,
    most: int = _MOST_SAMPLES,
    stuck_after: float = 1.0,
    kernel_threads: bool = False,
    record: bool = True,
) -> Iterator[Sampled]:
    """See ``Probes.sampling``; without ``record`` the report gets nothing of it."""
    interval, stuck_after = _check(names, interval, most, stuck_after)
    vm = resources.vm
    machine = vm.machine
    sampled = Sampled(names, stuck_after, str(vm.kernel.version))
    unique = list(dict.fromkeys(names))
    handle = vm.guest(sampler.start, unique, interval, most, stuck_after, kernel_threads)
    try:
        yield sampled
    finally:
        if vm.is_still(machine):
            _collect(sampled, vm.guest(sampler.stop, *handle))
            if record and resources.record is not None:
                for measurement in sampled.measurements:
                    resources.record(measurement)


def _collect(sampled: Sampled, text: str) -> None:
    raw = json.loads(text)
    if "error" in raw:
        raise InfrastructureError(f"the sampler in the machine failed: {raw['error']}")
    sampled._take(raw)


def _check(names: Iterable[str], interval: float, most: int, stuck_after: float) -> tuple[float, float]:
    """The two times, in seconds. Raises: UsageError."""
    unknown = [name for name in names if name not in PROBES]
    if unknown:
        raise UsageError(f"there is no probe {', '.join(map(repr, unknown))}; there are {', '.join(PROBES)}")
    stuck_after = check_seconds("probes.sampling: stuck_after", stuck_after)
    interval = check_seconds("probes.sampling: interval", interval)
    if interval < _LEAST_INTERVAL_S:
        raise UsageError(f"probes.sampling: an interval of {interval} s is below {_LEAST_INTERVAL_S} s")
    if most < 2 or stuck_after <= 0:
        raise UsageError("probes.sampling: keep at least 2 samples, and give stuck_after in seconds above 0")
    return interval, stuck_after
