"""However few machines may live at once, tests wait for each other, and all of them end."""

from __future__ import annotations

import pytest

from tests.vm.inner import InnerRun

pytestmark = [pytest.mark.vm, pytest.mark.kernel(">=6.1,<6.2")]

# More than a machine ever waits here, also on a busy host, and less than a run may take.
_PATIENCE = ("--kernelfs-boot-timeout", "240")

SEVERAL = """
import pytest

@pytest.mark.parametrize("number", range(5))
def test_alone(vm, number):
    assert vm.run(["true"]).succeeded

@pytest.mark.isolation("class")
class TestShared:
    @pytest.mark.parametrize("number", range(3))
    def test_shared(self, vm, number):
        assert vm.run(["true"]).succeeded
"""

# The checkpoint is made while the machine, or the spares, of the module before still live.
BEFORE = """
import pytest

pytestmark = pytest.mark.isolation("{isolation}")

@pytest.mark.parametrize("number", range(2))
def test_before(vm, number):
    assert vm.run(["true"]).succeeded
"""
PREPARED = """
import pytest

@pytest.fixture(scope="module")
def checkpoint(prepare):
    machine = prepare()
    machine.vm.run("touch /prepared", check=True)
    return machine.checkpoint()

@pytest.mark.parametrize("number", range(3))
def test_prepared(vm, number):
    assert vm.run(["test", "-e", "/prepared"]).succeeded
"""


@pytest.mark.parametrize("limit", [1, 2])
def test_workers_wait_for_each_other(inner: InnerRun, limit: int) -> None:
    inner.write(SEVERAL)
    code, output = inner.run("-n", "2", "--kernelfs-max-vms", str(limit), *_PATIENCE)
    assert code == 0, output
    assert "8 passed" in output
    assert inner.machines() == []


@pytest.mark.parametrize("isolation", ["test", "module"])
def test_a_checkpoint_finds_room_whatever_went_before(inner: InnerRun, isolation: str) -> None:
    before = inner.folder / "test_before.py"
    before.write_text(BEFORE.format(isolation=isolation))
    inner.write(PREPARED)
    code, output = inner.run("--kernelfs-max-vms", "1", *_PATIENCE, str(before))
    assert code == 0, output
    assert "5 passed" in output
