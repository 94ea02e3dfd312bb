"""Debian's general kernels, which have what those for clouds leave out: f2fs, made, used, checked."""

from __future__ import annotations

import pytest

from pytest_kernelfs.fixtures.machines import RUN
from tests.vm.inner import InnerRun

TESTS = """
def test_used(filesystem_factory, overlay_factory, disk, vm):
    on_disk = filesystem_factory("f2fs", on=disk)
    assert vm.run(["stat", "-f", "-c", "%T", on_disk.path]).stdout.strip() == "f2fs"
    on_disk.write("file", "5M")
    on_disk.sync()
    with on_disk.frozen():
        pass
    on_disk.umount()
    on_disk.mount()
    assert vm.run(["stat", "-c", "%s", f"{on_disk.path}/file"]).stdout.strip() == str(5 << 20)
    overlay_factory(on=filesystem_factory("f2fs")).write("app", "1M")


def test_damaged(filesystem_factory, disk, vm):
    made = filesystem_factory("f2fs", on=disk)
    made.write("file", "5M")
    made.umount()
    # Both checkpoints lie here, after the two superblocks.
    vm.run(["dd", "if=/dev/zero", f"of={disk.path}", "bs=4k", "seek=512", "count=2048"], check=True)
"""


@pytest.mark.usefixtures("newest_only")
def test_f2fs_is_used_and_its_damage_is_found(inner: InnerRun, request: pytest.FixtureRequest) -> None:
    inner.cache = request.config.stash[RUN].config.cache_root  # no kernel is fetched twice
    inner.write(TESTS)
    code, output = inner.run("--kernelfs-flavour=amd64", "-rA", kernel="6.1")
    assert code == 1, output
    assert "PASSED test_inner.py::test_used" in output
    assert "after the test, the f2fs on /dev/v" in output, output
    assert "Can't find valid checkpoint" in output
    assert "1 failed, 2 passed" in output  # the damaged one passed, before it was checked
