"""Where threads are seen to wait."""

from __future__ import annotations

import pytest

from pytest_kernelfs.guest import waiting

STACK = "[<0>] folio_wait_bit+0x1/0x2\n[<0>] sync_inodes_sb+0x1/0x2\n[<0>] umount+0x1/0x2\n"


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the files of every thread say."""
    files = {"stat": "1 (a) b) D 1 1", "wchan": "folio_wait_bit", "stack": STACK}
    monkeypatch.setattr(waiting, "_read", lambda path: files[path.rpartition("/")[2]])
    return files


def test_the_place_that_was_seen_most_is_told(task: dict[str, str]) -> None:
    waits = waiting.Waits()
    waits.begin(3)
    waits.look()
    waits.look()
    task["wchan"] = "sync_inodes_sb"
    waits.look()
    waits.end(3)
    waits.look()
    callers = ["sync_inodes_sb", "umount"]
    assert waits.most(3) == {"place": "folio_wait_bit", "times": 2, "looks": 3, "callers": callers}
    assert waits.most(0) == {}


def test_a_kernel_that_names_no_place_tells_it_in_the_stack(task: dict[str, str]) -> None:
    task["wchan"] = "0"
    assert _seen(waiting.Waits()) == "folio_wait_bit"


def test_a_thread_that_runs_waits_nowhere(task: dict[str, str]) -> None:
    task["stat"] = "1 (a) b) R 1 1"
    assert _seen(waiting.Waits()) == "no function: it was running"


def test_a_thread_that_waits_for_the_interpreter_is_not_seen(task: dict[str, str]) -> None:
    task["wchan"] = "futex_wait_queue_me"
    assert _seen(waiting.Waits()) is None


def test_of_many_threads_each_has_its_turn(task: dict[str, str]) -> None:
    waits = waiting.Waits()
    for number in range(20):
        waits.begin(number)
    for _ in range(5):
        waits.look()
    looks = [waits.most(number)["looks"] for number in range(20)]
    assert set(looks) == {2}


def _seen(waits: waiting.Waits) -> object:
    waits.begin(0)
    waits.look()
    return waits.most(0).get("place")
