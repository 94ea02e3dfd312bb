"""Dying cgroups that were there before a test are noted when it begins, where it asks for them."""

from __future__ import annotations

from .conftest import Runner

ONE = ("--kernel", "6.1")
WATCH = """
import pytest

def watch(at_most, within, before):
    known = before.get("v2", 0)
    counts = [{"path": "/c", "name": "v2", "dying": 5, "controllers": {}, "before": known}]
    return {"seconds": 0.0, "counts": counts, "pins": {}}

"""


def test_what_earlier_tests_left_is_not_the_tests(run: Runner) -> None:
    source = """
def test_does_not_ask(vm):
    assert vm.machine.arguments("at_rest") == []
    vm.machine.answers.update(at_rest={"v2": 5}, watch=watch)

def test_asks(vm, drop_caches, assert_no_dying_cgroups):
    assert assert_no_dying_cgroups().total == 0
    # What has gone since can hide nothing any more.
    vm.machine.answers["at_rest"] = {"v2": 2}
    drop_caches()
    run = assert_no_dying_cgroups(at_most=3)
    assert (run.total, run.before) == (3, 2)
    with pytest.raises(AssertionError, match="3 cgroups are still dying"):
        assert_no_dying_cgroups()

def test_asks_late(vm, request):
    vm.machine.answers["at_rest"] = {"v2": 4}
    assert request.getfixturevalue("assert_no_dying_cgroups")(at_most=1).before == 4

def test_loses_its_machine(vm, kernelfs_resources, assert_no_dying_cgroups):
    assert kernelfs_resources.dying_before == {"v2": 4}
    for tell in vm.after_power_cut:
        tell()
    assert assert_no_dying_cgroups(at_most=5).before == 0
"""
    run(WATCH + source, *ONE, "--kernelfs-isolation", "session").assert_outcomes(passed=4)


def test_what_was_prepared_is_what_the_test_is_about(run: Runner) -> None:
    source = """
from pytest_kernelfs.machines.vm import Checkpoint

@pytest.fixture(scope="session")
def checkpoint(kernel):
    return Checkpoint(kernel, {})

def test_asks(vm, assert_no_dying_cgroups):
    assert vm.machine.arguments("at_rest") == []
    vm.machine.answers["watch"] = watch
    assert assert_no_dying_cgroups(at_most=5).total == 5
"""
    run(WATCH + source, *ONE).assert_outcomes(passed=1)
