"""A process beside the test that samples the machine until it is told to stop.

It is no part of the conversation with the host: a call that takes long, or takes its conversation with it,
does not disturb it. It reads /proc and /sys and writes one file in memory at the end; it touches no disk and
no file system under test. It is an ordinary task, without any priority, so that its own late wake-ups tell
how long a task waits for a processor.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any, NoReturn

from pytest_kernelfs.guest import descriptors, sources
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

FOLDER = "/run/kernelfs/probes"
_STOP = {signal.SIGTERM}
_POLL_S = 0.004


class Series:
    """The samples of one quantity, over all the time, at most ``most`` of them.

    When there are more, every second one goes, and from then on only every second one is kept; the
    largest and the smallest that were ever seen stay.
    """

    def __init__(self, unit: str, most: int) -> None:
        self.unit = unit
        self.n = 0
        self._most = most
        self._stride = 1
        self._kept: list[tuple[float, float]] = []
        self._ends: list[tuple[float, float]] = []

    def add(self, seconds: float, value: float) -> None:
        sample = (seconds, value)
        if not self._ends:
            self._ends = [sample, sample]
        if value < self._ends[0][1]:
            self._ends[0] = sample
        if value > self._ends[1][1]:
            self._ends[1] = sample
        if self.n % self._stride == 0:
            self._kept.append(sample)
        self.n += 1
        if len(self._kept) > self._most:
            self._kept = self._kept[::2]
            self._stride *= 2

    def samples(self) -> list[tuple[float, float]]:
        """(seconds, value), in the order of time."""
        return sorted({*self._kept, *self._ends})


class Sampler:
    """Asks its sources again and again, and keeps what they say."""

    def __init__(self, found: list[sources.Source], interval: float, most: int) -> None:
        self._sources = found
        self._interval = interval
        self._most = most
        self._series: dict[str, Series] = {}
        self._start = self._last = time.monotonic()
        self._samples = 0

    def sample(self) -> None:
        for source in self._sources:
            now = time.monotonic()
            for name, unit, value in source.sample(now):
                self._note(now, name, unit, value)
            self._last = now
        self._samples += 1

    def run(self) -> None:
        """Sample until SIGTERM, which must be blocked, and once more then.

        However long a sample takes, at least as much time lies between two: the sampler never takes more
        than half of a processor.
        """
        due = time.monotonic() + self._interval
        wakes = any(isinstance(source, sources.RunQueue) for source in self._sources)
        while signal.sigtimedwait(_STOP, max(due - time.monotonic(), 0.0)) is None:
            woken = time.monotonic()
            if wakes:
                self._note(woken, "run_queue.wakeup", "ms", 1000 * max(woken - due, 0.0))
            self.sample()
            now = time.monotonic()
            due = max(due + self._interval, now + (now - woken))
        self.sample()

    def result(self) -> dict[str, Any]:
        """All as plain values; times are in seconds of CLOCK_MONOTONIC."""
        described: list[dict[str, Any]] = []
        more = 0
        for source in self._sources:
            if isinstance(source, sources.Dstate):
                described, more = source.stuck, source.not_described
        return {
            "start": self._start,
            "end": self._last,
            "samples": self._samples,
            "processor": time.process_time(),
            "series": {
                name: {"unit": series.unit, "n": series.n, "samples": series.samples()}
                for name, series in self._series.items()
            },
            "grown": {name: value for source in self._sources for name, value in source.grown.items()},
            "stuck": described,
            "not_described": more,
        }

    def _note(self, now: float, name: str, unit: str, value: float) -> None:
        if name not in self._series:
            self._series[name] = Series(unit, self._most)
        self._series[name].add(now, value)


def start(
    names: list[str], interval: float, most: int, stuck_after: float, kernel_threads: bool
) -> tuple[int, str]:
    """Take the first sample, and leave a process behind that goes on; gives what ``stop`` is to be given.

    Raises: GuestError if this kernel lacks what a probe reads.
    """
    os.makedirs(FOLDER, exist_ok=True)
    path = f"{FOLDER}/{os.urandom(8).hex()}"
    sampler = Sampler(sources.make(names, interval / 2, stuck_after, kernel_threads), interval, most)
    sampler.sample()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    try:
        pid = os.fork()
        if pid == 0:
            _run_and_exit(sampler, path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid, path


def _run_and_exit(sampler: Sampler, path: str) -> NoReturn:
    try:
        os.setsid()
        descriptors.close_all_but()
        _outlive_the_oom_killer()
        sampler.run()
        _save(sampler.result(), path)
    except BaseException as error:
        _save({"error": f"{type(error).__name__}: {error}"}, path)
    finally:
        os._exit(0)


def _outlive_the_oom_killer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
    except OSError:
        pass  # only root may


def _save(result: dict[str, Any], path: str) -> None:
    with open(path + ".new", "w") as file:
        json.dump(result, file)
    os.rename(path + ".new", path)


def stop(pid: int, path: str, timeout: float = 30.0) -> str:
    """End a sampler; gives what it saw, as JSON.

    Raises: GuestError if it left nothing, or does not end.
    """
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    waiting = Patience(timeout, _POLL_S)
    while not _ended(pid):
        if not waiting.wait():
            raise GuestError(f"the sampler (pid {pid}) did not end within {timeout:g} s")
    try:
        with open(path) as file:
            result = file.read()
    except FileNotFoundError:
        raise GuestError(
            f"the sampler (pid {pid}) was killed, or what it saw was taken already; a test that ends "
            "all processes called python ends it, too"
        ) from None
    os.unlink(path)
    return result


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        # It was left behind by a conversation that is over; init has taken it in.
        return not os.path.exists(f"/proc/{pid}")
