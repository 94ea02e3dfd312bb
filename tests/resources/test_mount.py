"""What every mounted thing can do."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.filesystem import Xfs
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


@pytest.fixture
def xfs(xfs_factory: XfsFactory) -> Xfs:
    return xfs_factory()


def unmounted(seconds: float) -> dict[str, Any]:
    return {
        "seconds": [seconds],
        "errors": [""],
        "written": {},
        "watch": [(0.0, 0, 0), (0.1, 0, 0)],
        "holders": [[]],
        "waited": [{}],
    }


def test_data_is_written_below_its_path(xfs: Xfs, machine: FakeMachine) -> None:
    assert xfs.write("folder/app.bin", "8M") == 0.25
    assert machine.arguments("write") == [(f"{xfs.path}/folder/app.bin", 8 << 20)]


@pytest.mark.parametrize("path", ["/etc/passwd", "../other", "a/../../b", ".."])
def test_data_is_not_written_elsewhere(xfs: Xfs, machine: FakeMachine, path: str) -> None:
    with pytest.raises(UsageError, match=f"is no path below {xfs.path}"):
        xfs.write(path, "1M")
    assert machine.arguments("write") == []


def test_dots_in_a_name_are_fine(xfs: Xfs, machine: FakeMachine) -> None:
    xfs.write("..data..", 1)
    assert machine.arguments("write") == [(f"{xfs.path}/..data..", 1)]


def test_it_is_synced(xfs: Xfs, machine: FakeMachine) -> None:
    xfs.sync()
    assert machine.arguments("sync_file_system") == [(xfs.path,)]


def test_once_unmounted_it_is_not_meant_any_more(xfs: Xfs, resources: Resources) -> None:
    xfs.umount()
    assert resources.default_mounts() == []


def test_a_quick_unmount_is_measured(xfs: Xfs, machine: FakeMachine, resources: Resources) -> None:
    machine.answers["umount_timed"] = unmounted(0.25)
    assert xfs.assert_umount_under(0.5).measurement.max == 0.25
    assert machine.arguments("umount_timed") == [([xfs.path], [xfs.path], False)]
    assert resources.default_mounts() == []


def test_a_slow_unmount_fails_the_test(xfs: Xfs, machine: FakeMachine) -> None:
    machine.answers["umount_timed"] = unmounted(0.75)
    with pytest.raises(AssertionError, match=r"1 of 1 umounts took longer than 0\.5 s, at most 0\.750 s"):
        xfs.assert_umount_under(0.5)


@pytest.mark.parametrize("path", ["", "folder/"])
def test_data_is_written_to_files(xfs: Xfs, machine: FakeMachine, path: str) -> None:
    with pytest.raises(UsageError, match="is no path below"):
        xfs.write(path, 1)
    assert machine.arguments("write") == []


def test_nothing_is_written_to_the_folder_of_one_that_is_not_mounted(xfs: Xfs, machine: FakeMachine) -> None:
    machine.answers["is_mounted"] = False
    xfs.write("file", 1)
    xfs.umount()
    machine.calls.clear()
    for use in (lambda: xfs.write("file", 1), xfs.sync):
        with pytest.raises(UsageError, match=r"xfs\.(write|sync): <xfs .*> is not mounted; mount it again"):
            use()
    assert set(machine.names) == {"is_mounted"}


def test_who_mounted_it_again_does_not_matter(xfs: Xfs, machine: FakeMachine) -> None:
    xfs.umount()
    machine.answers["is_mounted"] = True
    assert xfs.write("file", 1) == 0.25


def test_options_are_a_list(xfs: Xfs, machine: FakeMachine) -> None:
    machine.calls.clear()
    with pytest.raises(UsageError, match=r"xfs\.remount: options: 'ro' is one text, not a list of them"):
        xfs.remount("ro")
    with pytest.raises(UsageError, match=r"xfs\.mount: options: 'ro' is one text"):
        xfs.mount("ro")
    assert machine.calls == []
