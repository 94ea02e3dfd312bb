"""The sampler: a process beside the test, whose samples are bounded."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path

import pytest

from pytest_kernelfs.guest import sampler, sources
from pytest_kernelfs.guest.dispatch import GuestError
from tests.guest.test_patience import stand_still

# Python 3.12 and newer say so where pytest-xdist has threads; the guest's samplers are made as here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sampler, "FOLDER", str(tmp_path / "probes"))
    return tmp_path / "probes"


def test_all_samples_are_kept_while_there_is_room() -> None:
    series = sampler.Series("B", 4)
    for number in range(4):
        series.add(number, 10 * number)
    assert series.samples() == [(0, 0), (1, 10), (2, 20), (3, 30)]


def test_samples_are_thinned_over_all_the_time_and_the_extremes_stay() -> None:
    series = sampler.Series("B", 16)
    for number in range(1000):
        series.add(number, {501: 99.0, 777: -5.0}.get(number, 1.0))
    kept = series.samples()
    assert 8 <= len(kept) <= 18
    assert (501, 99.0) in kept
    assert (777, -5.0) in kept
    assert kept == sorted(kept)
    steps = {later - earlier for (earlier, _), (later, _) in itertools.pairwise(kept)}
    assert max(steps) <= 128
    assert series.n == 1000


def wait_until_it_slept(pid: int, times: int) -> None:
    """Each sample is followed by a sleep, but for the last."""
    deadline = time.monotonic() + 120
    status = Path(f"/proc/{pid}/status")
    while int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0]) < times:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sampler_samples_until_it_is_stopped() -> None:
    pid, path = sampler.start(["meminfo"], 0.01, 50, 1.0, False)
    wait_until_it_slept(pid, 4)
    result = json.loads(sampler.stop(pid, path))
    assert result["samples"] > 2
    assert result["series"]["Dirty"]["unit"] == "B"
    times = [seconds for seconds, _ in result["series"]["Dirty"]["samples"]]
    assert times == sorted(times)
    assert result["start"] <= times[0] <= times[-1] <= result["end"]
    assert not Path(f"/proc/{pid}").exists()


def test_a_sampler_that_is_stopped_at_once_has_sampled_before_and_after(folder: Path) -> None:
    result = json.loads(sampler.stop(*sampler.start(["meminfo", "dstate"], 60.0, 50, 1.0, False)))
    assert result["samples"] == 2
    assert result["stuck"] == []
    assert list(folder.iterdir()) == []


def test_a_sampler_that_was_killed_is_told() -> None:
    pid, path = sampler.start(["meminfo"], 60.0, 50, 1.0, False)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(GuestError, match=f"the sampler \\(pid {pid}\\) was killed"):
        sampler.stop(pid, path)


def test_one_that_ends_late_because_the_machine_stood_still_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    stand_still(monkeypatch)
    looks = iter([False, False, True])
    monkeypatch.setattr(sampler, "_ended", lambda pid: next(looks))
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    folder.mkdir()
    path = folder / "seen"
    path.write_text("{}")
    assert sampler.stop(4711, str(path)) == "{}"
    monkeypatch.setattr(sampler, "_ended", lambda pid: False)
    with pytest.raises(GuestError, match=r"the sampler \(pid 4711\) did not end within 30 s"):
        sampler.stop(4711, str(path))


def test_what_was_taken_already_is_not_there_again() -> None:
    handle = sampler.start(["meminfo"], 60.0, 50, 1.0, False)
    assert sampler.stop(*handle)
    with pytest.raises(GuestError, match="was taken already"):
        sampler.stop(*handle)


def test_what_a_probe_lacks_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def nothing() -> tuple[float, float]:
        raise GuestError("it needs CONFIG_SCHEDSTATS=y")

    monkeypatch.setattr(sources, "_schedstat", nothing)
    with pytest.raises(GuestError, match="CONFIG_SCHEDSTATS"):
        sampler.start(["meminfo", "run_queue"], 0.01, 50, 1.0, False)
    assert list(folder.iterdir()) == []


def test_what_goes_wrong_meanwhile_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[("Dirty", "B", 1.0)]])
    monkeypatch.setattr(sources.Meminfo, "sample", lambda self, now: next(looks))
    result = json.loads(sampler.stop(*sampler.start(["meminfo"], 60.0, 50, 1.0, False)))
    assert result == {"error": "StopIteration: "}


def test_the_first_wake_up_is_not_late_because_the_process_was_made_meanwhile() -> None:
    found = sources.make(["meminfo"], 0.001, 1.0, False)
    assert isinstance(found[0], sources.Meminfo)
    own = sampler.Sampler(found, 0.01, 10)
    own.sample()
    assert own.result()["samples"] == 1
    assert own.result()["processor"] > 0
