"""Space that comes back, and space that does not."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, AssertSpaceReclaimed, LoopDeviceFactory, XfsFactory
from pytest_kernelfs.errors import GuestCommandError

MIB = 1 << 20
# The kernel frees in the background, and the host may let the machine stand still.
LONG_S = 60.0

pytestmark = pytest.mark.usefixtures("oldest_or_newest")


def test_deleted_files_give_their_space_back_unless_held_open(
    vm: VM, xfs_factory: XfsFactory, assert_space_reclaimed: AssertSpaceReclaimed
) -> None:
    xfs = xfs_factory()
    xfs.write("images/one", "8M")
    xfs.write("other", "8M")
    with assert_space_reclaimed(f"{xfs.path}/images", at_least="7M", within=LONG_S) as seen:
        vm.run(["rm", "-r", f"{xfs.path}/images"], check=True)
    assert 7 * MIB <= seen.reclaimed < 12 * MIB
    assert 0 <= seen.seconds < LONG_S

    vm.run(f"sleep 600 <{xfs.path}/other >/dev/null 2>&1 &", check=True)
    vm.run("until pgrep -x sleep; do sleep 0.01; done", check=True)
    held = assert_space_reclaimed(xfs.path, at_least="7M", within=0.5)
    with pytest.raises(AssertionError) as caught, held:
        vm.run(["rm", f"{xfs.path}/other"], check=True)
    text = str(caught.value)
    assert f"of at least 7.0 MiB came back on {xfs.path} within" in text
    assert "(sleep): " in text
    assert f"{xfs.path}/other, 8.0 MiB" in text
    with assert_space_reclaimed(xfs, at_least="7M", within=LONG_S):
        vm.run(["pkill", "sleep"], check=True)


def test_a_backing_file_shrinks_only_with_discards(
    vm: VM,
    loop_device_factory: LoopDeviceFactory,
    xfs_factory: XfsFactory,
    assert_space_reclaimed: AssertSpaceReclaimed,
) -> None:
    loop = loop_device_factory()
    xfs = xfs_factory(on=loop)
    xfs.write("file", "16M")
    xfs.sync()
    kept = assert_space_reclaimed(loop, at_least="12M", within=0.5)
    # What the file system has not freed yet cannot be discarded.
    freed = assert_space_reclaimed(xfs, at_least="12M", within=LONG_S)
    with pytest.raises(AssertionError, match="shrinks only by discards"), kept, freed:
        vm.run(["rm", f"{xfs.path}/file"], check=True)
    by_its_path = assert_space_reclaimed(loop.path, at_least="12M")
    with pytest.raises(GuestCommandError, match="is a device, which does not tell what is used"), by_its_path:
        pass
    with assert_space_reclaimed(loop, at_least="12M", within=LONG_S):
        vm.run(["fstrim", xfs.path], check=True)
