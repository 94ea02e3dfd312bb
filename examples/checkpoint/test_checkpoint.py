"""Prepare an expensive state once, and let every test start from it.

An image of 1 GB is written once for each kernel. Twenty tests then get the
machine as it was at that moment: mounts, dirty pages, processes. Each may ruin
it; the next never notices.
"""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Checkpoint, Overlay, Preparer, Xfs

GIB = 1 << 30


@pytest.fixture(scope="module")
def checkpoint(prepare: Preparer) -> Checkpoint:
    """An XFS with a file of 1 GB, an overlay on it, and a process that runs."""
    machine = prepare()
    xfs = machine.xfs_factory(on=machine.disk_factory(size="3G"))
    xfs.write("image", "1G")
    xfs.sync()
    overlay = machine.overlay_factory(on=xfs)
    overlay.write("app.bin", "4M")
    machine.vm.run("sleep 100000 >/dev/null 2>&1 &", check=True)
    return machine.checkpoint(xfs=xfs, overlay=overlay)


@pytest.mark.parametrize("number", range(20))
def test_every_test_finds_the_image_and_may_ruin_it(vm: VM, number: int) -> None:
    xfs: Xfs = vm.kept["xfs"]
    overlay: Overlay = vm.kept["overlay"]
    seen = vm.run(f"ls {xfs.path} && stat -c %s {xfs.path}/image {overlay.path}/app.bin", check=True).stdout
    assert "ruined" not in seen
    assert f"{GIB}\n{4 << 20}" in seen
    assert vm.run("pkill sleep").succeeded
    xfs.write(f"ruined-{number}", "1M")
    vm.run(f"rm {xfs.path}/image", check=True)
    overlay.assert_umount_under(10.0)
