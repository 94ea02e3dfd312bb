"""Whole runs with machines that are wedged on purpose: the right verdict, a folder for each, nothing left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.vm.inner import InnerRun

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("newest_only")]

WEDGED = """
import os
from pathlib import Path

import pytest

group = "/sys/fs/cgroup/ice"

def gather(group):
    group = Path(group)
    group.mkdir()
    others = [path.name for path in Path("/proc").glob("[0-9]*") if path.name != str(os.getpid())]
    for pid in [*others, str(os.getpid())]:
        try:
            (group / "cgroup.procs").write_text(pid)
        except OSError:
            continue

def freeze(group):
    Path(group, "cgroup.freeze").write_text("1")

def test_frozen(vm):
    vm.call(gather, group)
    # A busy host may need a moment for it; what is left of the time is spent in the ice.
    vm.call(freeze, group, timeout=10)

def test_panic(vm):
    vm.run("echo c > /proc/sysrq-trigger; sleep 100")

def test_oom(vm):
    vm.run("echo f > /proc/sysrq-trigger; until dmesg | grep -q oom-kill; do sleep 0.1; done")
    assert vm.run(["true"]).succeeded

def test_memory(vm):
    vm.run("mount -t tmpfs -o size=100% none /mnt; dd if=/dev/zero of=/mnt/x bs=1M; free", timeout=240)
    raise AssertionError("there was room")

@pytest.mark.vm(memory="512M")
def test_bomb(vm):
    vm.run("b() { b | b & }; b; sleep 300", timeout=20)

def test_innocent(vm):
    assert vm.run(["true"]).succeeded
"""
# The commands' own time, for each a bundle of 25 s and a boot, all on a busy host: none waits for ever.
MOST_S = 800.0


def test_each_wedge_has_its_verdict_and_its_folder(inner: InnerRun) -> None:
    inner.write(WEDGED)
    start = time.monotonic()
    code, output = inner.run("-n", "2")
    assert time.monotonic() - start < MOST_S
    assert code == 1, output
    assert "5 failed, 2 passed" in output, output
    assert "error" not in output.splitlines()[-1]
    assert "artifacts of 5 tests: " in output
    folders = {
        path.parent.name.split("-")[1]: path for path in Path(inner.folder).glob("kernelfs-artifacts/*/*")
    }
    told = {name: (path / "index.md").read_text() for name, path in folders.items()}
    assert set(told) == {"test_frozen", "test_panic", "test_oom", "test_memory", "test_bomb"}
    assert all(text.startswith("# failed: ") for text in told.values())
    assert "the guest did not answer a call of collect" in told["test_frozen"]
    assert "task:init" in (folders["test_frozen"] / "sysrq-t.txt").read_text()
    assert "sysrq triggered crash" in (folders["test_panic"] / "console.log").read_text()
    assert "oom-kill" in told["test_oom"]
    assert "phase: teardown" in told["test_oom"]
    assert "panic" in told["test_memory"] or "memory ran out" in told["test_memory"]
    # It ends in the deadline, or first in a lack of memory.
    assert any(word in told["test_bomb"] for word in ("did not end within", "did not answer", "memory"))
    assert inner.leftovers() == []
    assert inner.machines() == []
