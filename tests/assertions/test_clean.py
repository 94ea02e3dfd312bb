"""How a log of trouble, a taint and things left behind read."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.assertions.clean import dmesg_clean, no_leaks
from pytest_kernelfs.errors import KernelfsWarning, UsageError
from pytest_kernelfs.machines.vm import VM, LogRecord
from tests.fake_machine import FakeMachine


def seen(**found: Any) -> dict[str, Any]:
    return {"log": [], "last": [], "early": [], "lost": 0, "taint": 0, "leaks": [], **found}


def record(text: str) -> dict[str, Any]:
    return {"seq": 7, "level": 4, "seconds": 1.5, "text": text}


def test_a_clean_machine_passes() -> None:
    machine = FakeMachine(review=seen())
    dmesg_clean(VM(machine))
    no_leaks(VM(machine))
    assert machine.arguments("review") == [(0, [], False, 2.0, []), (0, [], True, 2.0, [])]


def test_lines_of_trouble_are_told_with_their_traces() -> None:
    machine = FakeMachine(review=seen(log=[[record("BUG: x"), record("Call Trace:")], [record("Oops: y")]]))
    with pytest.raises(AssertionError) as caught:
        dmesg_clean(VM(machine), since=5, allow=("z",), also=["w"], allowed=["m"])
    assert str(caught.value) == (
        "the kernel logged 2 lines of trouble (kernel 6.1.176)\n"
        "  [    1.500000] BUG: x\n"
        "      [    1.500000] Call Trace:\n"
        "  [    1.500000] Oops: y\n"
        '  (if a line is to be expected: @pytest.mark.dmesg_allow("regular expression"), or allow=("…",) of '
        "assert_dmesg_clean; for the check after the test to look at none: @pytest.mark.checks(dmesg=False))"
    )
    assert machine.arguments("review") == [(5, ["m", "z"], False, 2.0, ["w"])]


def test_a_taint_is_told_in_words_if_it_tells_of_trouble() -> None:
    with pytest.raises(AssertionError) as caught:
        dmesg_clean(VM(FakeMachine(review=seen(taint=1 << 9 | 1 << 7 | 1 << 12))))
    assert str(caught.value) == (
        "the kernel is tainted since this test (kernel 6.1.176)\n"
        "  D: the kernel died: an oops or a BUG\n"
        "  W: the kernel issued a warning\n"
        "  (if it is to be expected: @pytest.mark.checks(taint=False))"
    )
    dmesg_clean(VM(FakeMachine(review=seen(taint=1 << 12 | 1 << 13))))  # how it was built


def test_a_taint_is_left_out_where_a_marker_says_so_and_where_its_age_is_not_known() -> None:
    machine = FakeMachine(review=seen(taint=1 << 9))
    dmesg_clean(VM(machine), taint=False)
    dmesg_clean(VM(machine), since=5)


def test_a_log_that_lost_records_is_not_simply_clean() -> None:
    with pytest.warns(KernelfsWarning, match="17 records of the kernel's log were overwritten"):
        dmesg_clean(VM(FakeMachine(review=seen(lost=17))))


def test_what_was_left_is_named() -> None:
    machine = FakeMachine(review=seen(leaks=["cgroup: /sys/fs/cgroup/a", "mount: tmpfs on /mnt (from none)"]))
    with pytest.raises(AssertionError) as caught:
        no_leaks(VM(machine), within=0.5)
    assert str(caught.value) == (
        "2 things were left behind that the test began without (kernel 6.1.176)\n"
        "  cgroup: /sys/fs/cgroup/a\n"
        "  mount: tmpfs on /mnt (from none)\n"
        "  (if it is left there on purpose: @pytest.mark.checks(leaks=False))"
    )
    assert machine.arguments("review") == [(0, [], True, 0.5, [])]


@pytest.mark.parametrize(
    "options", [{"allow": ["("]}, {"also": ["*"]}, {"also": [7]}, {"allow": "text"}, {"also": "text"}]
)
def test_what_is_no_pattern_is_refused_before_anything_is_asked(options: Any) -> None:
    machine = FakeMachine()
    with pytest.raises(UsageError, match=r"assert_dmesg_clean: al(so|low)"):
        dmesg_clean(VM(machine), **options)
    assert machine.calls == []


def test_a_taint_that_the_log_does_not_explain_comes_with_its_last_lines() -> None:
    last = [{"seq": 7, "level": 6, "seconds": 2.5, "text": "all is well"}]
    with pytest.raises(AssertionError) as caught:
        dmesg_clean(VM(FakeMachine(review=seen(taint=1 << 9, last=last))))
    told = str(caught.value).splitlines()[1:4]
    assert [line.strip() for line in told] == [
        "W: the kernel issued a warning",
        "the log tells of nothing that is not allowed; its last lines:",
        str(LogRecord(**last[0])),  # type: ignore[arg-type]
    ]
    dmesg_clean(VM(FakeMachine(review=seen(last=last))))
