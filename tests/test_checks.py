"""What is judged after a test, and what not."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest

from pytest_kernelfs import news
from pytest_kernelfs.checks import conclude, fail, note_before_power_cut
from pytest_kernelfs.errors import (
    GuestCommandError,
    InfrastructureError,
    KernelfsWarning,
    KernelMisbehaved,
    KernelPanic,
    warn,
)
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine

BAD = {
    "log": [[{"seq": 1, "level": 4, "seconds": 1.0, "text": "BUG: x"}]],
    "lost": 0,
    "taint": 1 << 9,
    "last": [],
    "early": [],
    "leaks": ["cgroup: /a"],
}


def resources(*checks: str, **answers: Any) -> Resources:
    made = Resources(VM(FakeMachine(**{"review": BAD, **answers})))
    made.checks = frozenset(checks)
    return made


def headlines(made: Resources) -> list[str]:
    return [text.splitlines()[0].split(" (")[0] for text in conclude(made, ())]


def test_everything_is_told() -> None:
    made = resources("dmesg", "taint", "leaks", "fsck")
    made.findings.append("xfs_repair found damage")
    assert headlines(made) == [
        "xfs_repair found damage",
        "the kernel logged 1 line of trouble",
        "the kernel is tainted since this test",
        "1 thing was left behind that the test began without",
    ]


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ("dmesg", "the kernel logged 1 line of trouble"),
        ("taint", "the kernel is tainted since this test"),
        ("leaks", "1 thing was left behind that the test began without"),
    ],
)
def test_only_what_is_on_is_judged(check: str, told: str) -> None:
    assert headlines(resources(check)) == [told]


def test_nothing_is_asked_of_the_machine_when_all_is_off() -> None:
    made = resources("fsck")
    assert conclude(made, ()) == []
    assert made.vm.machine.names == ["check_alive"]  # type: ignore[attr-defined]


def test_a_machine_that_is_gone_is_asked_nothing() -> None:
    made = resources("dmesg")
    made.vm.machine.destroy()
    made.findings.append("it was seen before")
    assert conclude(made, ()) == ["it was seen before"]


def test_a_machine_that_died_unnoticed_is_a_misbehaviour() -> None:
    made = resources("dmesg", check_alive=KernelPanic("kernel 6.1.176 panicked"))
    made.vm.machine.alive = False  # type: ignore[misc]
    made.on_teardown("mount", lambda: pytest.fail("there is nothing to take down"))
    made.findings.append("it was damaged before")
    with pytest.raises(KernelPanic, match=r"^kernel 6\.1\.176 panicked\nit was damaged before$"):
        conclude(made, ())


def refuse() -> None:
    raise GuestCommandError("it is busy")


def test_what_will_not_go_is_our_error_if_the_kernel_is_well() -> None:
    made = resources("dmesg", "leaks", review={**BAD, "log": []})
    made.on_teardown("mount /mnt/a", refuse)
    with pytest.raises(InfrastructureError, match=r"mount /mnt/a was not taken down .* it is busy"):
        conclude(made, ())
    # What was not taken down is there still, and no leak.
    assert made.vm.machine.arguments("review") == [(0, [], False, 2.0, [])]  # type: ignore[attr-defined]


def test_what_will_not_go_is_told_with_what_is_wrong_with_the_kernel() -> None:
    made = resources("dmesg")
    made.on_teardown("mount /mnt/a", refuse)
    assert headlines(made)[0] == "the kernel logged 1 line of trouble"
    made = resources("dmesg")
    made.on_teardown("mount /mnt/a", refuse)
    assert "mount /mnt/a was not taken down" in conclude(made, ())[-1]


def test_allowed_lines_and_the_start_of_the_test_reach_the_machine() -> None:
    made = resources("dmesg", "leaks")
    made.vm.machine.log_start = 42
    conclude(made, ("oom",))
    assert made.vm.machine.arguments("review") == [(42, ["oom"], True, 2.0, [])]  # type: ignore[attr-defined]


LOST = {"log": [], "last": [], "early": [], "lost": 17, "taint": 0, "leaks": []}


def test_lost_records_are_a_warning() -> None:
    with pytest.warns(KernelfsWarning, match="17 records of the kernel's log were overwritten"):
        assert conclude(resources("dmesg", review=LOST), ()) == []


@pytest.mark.filterwarnings("error")
def test_a_log_that_goes_with_the_power_is_judged_first_and_its_gaps_are_a_warning() -> None:
    made = resources("dmesg", review={**BAD, "lost": 17})
    with pytest.raises(KernelfsWarning, match="17 records of the kernel's log were overwritten"):
        note_before_power_cut(made, ())
    assert "BUG: x" in made.findings[0]
    made = resources("taint", review=LOST)
    note_before_power_cut(made, ())
    assert made.findings == []


def test_trouble_before_the_test_is_news_and_not_the_tests() -> None:
    heard: list[str] = []
    early = {"log": [], "last": [], "early": BAD["log"], "lost": 0, "taint": 0, "leaks": []}
    with news.heard_by(heard.append):
        assert conclude(resources("dmesg", review=early), ()) == []
        assert conclude(resources("taint", review=early), ()) == []
    assert len(heard) == 1
    assert "logged trouble as its machine started, before the test began: " in heard[0]
    assert "BUG: x" in heard[0]


@pytest.mark.filterwarnings("error")
def test_warnings_that_are_errors_come_after_all_was_taken_down_and_hide_no_finding() -> None:
    made = resources("dmesg", review=LOST)
    undone = []
    made.on_teardown("the first", lambda: undone.append("the first"))
    made.on_teardown("a file system", lambda: warn("it may be sound or not"))
    with pytest.raises(KernelfsWarning, match="it may be sound or not"):
        conclude(made, ())
    assert undone == ["the first"]
    found = conclude(resources("leaks", "dmesg", review={**BAD, "lost": 17}), ())
    assert "BUG: x" in found[0]
    assert "17 records of the kernel's log were overwritten" in found[-1]


def warn_and_die(made: Resources) -> None:
    """A teardown that is in doubt of something; then the kernel fails, or we do."""
    made.on_teardown("disk", refuse)
    made.on_teardown("a file system", lambda: warn("it may be sound or not"))


@pytest.mark.parametrize("mode", ["default", "error"])
def test_warnings_are_told_with_what_kept_all_else_from_being_told(mode: str) -> None:
    made = resources("dmesg", review={**BAD, "log": []})
    warn_and_die(made)
    with warnings.catch_warnings():
        warnings.simplefilter(mode)  # type: ignore[arg-type]
        with pytest.raises(InfrastructureError, match=r"(?s)the disk was not taken down.*\nit may be sound"):
            conclude(made, ())


def test_a_kernel_that_fails_in_the_middle_hides_neither_findings_nor_doubts() -> None:
    panic = KernelPanic("kernel 6.1.176 panicked")
    made = resources("dmesg", review=panic)
    warn_and_die(made)
    made.findings.append("it was damaged before")
    with pytest.raises(KernelPanic) as caught:
        conclude(made, ())
    assert str(caught.value).splitlines() == [
        "kernel 6.1.176 panicked",
        "it was damaged before",
        "the disk was not taken down after the test, so no other goes on from there: it is busy",
        "it may be sound or not",
    ]
    assert str(panic) == "kernel 6.1.176 panicked", "others may be told of it, too"


def test_warnings_of_others_are_heard_beside_a_failure() -> None:
    made = resources("dmesg", review=KernelPanic("kernel 6.1.176 panicked"))
    made.on_teardown("a file system", lambda: warnings.warn("somebody's own", stacklevel=1))
    with pytest.warns(UserWarning, match="somebody's own"), pytest.raises(KernelPanic) as caught:
        conclude(made, ())
    assert str(caught.value) == "kernel 6.1.176 panicked"


def test_what_a_larger_log_takes_is_said_for_kernels_that_run_already() -> None:
    made = resources("dmesg", review=LOST)
    with pytest.warns(KernelfsWarning, match=r'one: vm\(boot_parameters="log_buf_len=4M"\)'):
        conclude(made, ())
    made = resources("dmesg", review=LOST)
    made.vm.machine.kernel = replace(made.vm.kernel, image=None)
    with pytest.warns(KernelfsWarning, match="log_buf_len=4M on that machine's own kernel command line"):
        conclude(made, ())


def test_findings_are_a_misbehaviour_of_the_kernel() -> None:
    fail([])
    with pytest.raises(KernelMisbehaved, match=r"^after the test, the first\nthe second$"):
        fail(["the first", "the second"])
