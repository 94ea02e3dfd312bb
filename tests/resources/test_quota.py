"""Quotas by user, group and project."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.filesystem import Xfs
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.quota import QuotaUsage
from tests.fake_machine import FakeMachine

USED = {
    "id": 42,
    "bytes": 4096,
    "inodes": 1,
    "blocks_soft": 0,
    "blocks_hard": 8 << 20,
    "inodes_soft": 0,
    "inodes_hard": 100,
}


@pytest.fixture
def xfs(xfs_factory: XfsFactory) -> Xfs:
    return xfs_factory(quota=["user", "group", "project"])


def test_a_project_is_a_folder_with_limits(xfs: Xfs, machine: FakeMachine) -> None:
    machine.answers["usage"] = USED
    project = xfs.quota.project(42, "images/one").limit(blocks_hard="8M", inodes_hard=100)
    assert project.path == f"{xfs.path}/images/one"
    assert machine.arguments("set_project") == [(project.path, 42)]
    limits = {"blocks_hard": 8 << 20, "inodes_hard": 100}
    assert machine.arguments("set_limits") == [("/dev/loop0", "project", 42, limits)]
    assert project.usage() == QuotaUsage(42, 4096, 1, 0, 8 << 20, 0, 100)
    assert repr(project) == f"<quota of project 42 on {xfs.path}>"


def test_its_path_may_be_absolute(xfs: Xfs) -> None:
    assert xfs.quota.project(1, f"{xfs.path}/x").path == f"{xfs.path}/x"
    assert xfs.quota.project(1).path is None


def test_users_and_groups_have_limits_too(xfs: Xfs, machine: FakeMachine) -> None:
    xfs.quota.user(1000).limit(blocks_soft=0, inodes_soft=5)
    xfs.quota.group(7).limit(blocks_hard=1024)
    assert machine.arguments("set_limits") == [
        ("/dev/loop0", "user", 1000, {"blocks_soft": 0, "inodes_soft": 5}),
        ("/dev/loop0", "group", 7, {"blocks_hard": 1024}),
    ]


def test_the_report_is_by_id(xfs: Xfs, machine: FakeMachine) -> None:
    machine.answers["report"] = [USED]
    assert xfs.quota.report("project") == {42: QuotaUsage(**USED)}
    assert machine.arguments("report") == [("/dev/loop0", "project")]


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda quota: quota.project(42, "../other"), "is no path below"),
        (lambda quota: quota.project(-1), "-1 is no id"),
        (lambda quota: quota.user("root"), "'root' is no id"),
        (lambda quota: quota.report("users"), "'users' is none of user, group, project"),
        (lambda quota: quota.user(1).limit(), "name one of blocks_hard"),
        (lambda quota: quota.user(1).limit(blocks_hard=1000), "no multiple of 1.0 KiB"),
        (lambda quota: quota.user(1).limit(inodes_hard="8M"), "is no count of inodes"),
    ],
)
def test_what_makes_no_sense_is_refused(xfs: Xfs, machine: FakeMachine, ask: Any, text: str) -> None:
    machine.calls.clear()
    with pytest.raises(UsageError, match=text):
        ask(xfs.quota)
    assert machine.calls == []


def test_a_copy_speaks_of_the_copied_device(xfs: Xfs) -> None:
    twin = copy.copy(xfs)
    assert twin.quota.project(1).filesystem is twin
