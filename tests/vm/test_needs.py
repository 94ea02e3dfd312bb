"""What the kernels say of themselves when they are asked for needs, and what runs make of it."""

from __future__ import annotations

import json
import re

import pytest

from pytest_kernelfs import VM, Kernel
from pytest_kernelfs.guest import needs
from tests.vm.inner import InnerRun

INNER = """
import pytest

@pytest.mark.kernel_needs("overlay:volatile", "cgroup:v2")
def test_met(vm): assert vm.run("true").succeeded

@pytest.mark.kernel_needs("overlay:no_such=on")
def test_unmet(vm): pass

@pytest.mark.kernel_needs("config:NO_SUCH_SETTING", "overlay:metacopy")
def test_config(vm): pass

@pytest.mark.kernel_needs("module:no_such_module")
def test_module(vm): pass

@pytest.mark.kernel("<1")
@pytest.mark.kernel_needs("overlay:index")
def test_version(vm): pass
"""


def settle(vm: VM, kind: str, *values: str) -> dict[str, bool]:
    """Whether each need is met; the probe must tell."""
    answers = {value: vm.guest(needs.settle, kind, value) for value in values}
    assert all(state != needs.UNCLEAR for state, _ in answers.values()), answers
    assert all(bool(reason) is (state == needs.UNMET) for state, reason in answers.values())
    return {value: state == needs.MET for value, (state, _) in answers.items()}


# The version that each came with. Here it must agree; what tests are told never comes from a version.
SINCE = {
    **dict.fromkeys(
        ("default_permissions", "index", "metacopy", "nfs_export", "redirect_dir", "xino"), "5.0"
    ),
    "volatile": "5.10",
    "userns": "5.11",
    "userxattr": "5.11",
    "uuid": "5.14",
    "data_only": "6.5",
    "verity": "6.6",
    "datadir+": "6.7",
    "lowerdir+": "6.7",
    "override_creds": "6.15",
    "metacopy=nonsense": "99",
    "nonsense=on": "99",
}


def test_overlay_is_asked(vm: VM) -> None:
    assert set(SINCE) > {*needs.OVERLAY_OPTIONS, *needs.OVERLAY_FEATURES}
    found = settle(vm, "overlay", *SINCE)
    assert found == {name: vm.kernel.version.matches(f">={first}") for name, first in SINCE.items()}
    reason = vm.guest(needs.settle, "overlay", "nonsense=on")[1]
    assert re.match(r"does not know the overlay option nonsense=on: overlay.*nonsense", reason)
    assert "/run/probe-" not in vm.run("cat /proc/self/mounts").stdout


def test_cgroups_are_asked(vm: VM) -> None:
    there = dict.fromkeys(("v2", "memory", "io", "pids", "v2:cpu", "perf_event", "memory.max"), True)
    version = vm.kernel.version
    recent = {"memory.peak": version.matches(">=5.19"), "cgroup.kill": version.matches(">=5.14")}
    expected = {**there, **recent, "pids.no_such": False}
    assert settle(vm, "cgroup", *expected) == expected
    memory = version.matches("<6.11") or vm.kernel.config_option("MEMCG_V1") == "y"
    old = {**dict.fromkeys(("v1", "v1:freezer", "v1:perf_event"), True), "v1:freezer.no_such": False}
    old.update(dict.fromkeys(("v1:memory", "v1:memory.limit_in_bytes"), memory))
    assert settle(vm, "cgroup", *old) == old


@pytest.mark.vm(boot_parameters="cgroup_disable=memory")
@pytest.mark.kernel(">=7")
def test_what_was_switched_off_at_boot_is_not_there(vm: VM) -> None:
    state, reason = vm.guest(needs.settle, "cgroup", "memory")
    assert (state, reason) == (
        needs.UNMET,
        "has no controller memory in cgroup v2 (booted with cgroup_disable=memory)",
    )


@pytest.mark.kernel_needs("filesystem:cifs", "filesystem:xfs")
def test_a_file_system_that_a_module_brings(vm: VM) -> None:
    vm.modprobe("cifs")
    assert settle(vm, "filesystem", "cifs", "xfs", "aufs") == {"cifs": True, "xfs": True, "aufs": False}


@pytest.mark.usefixtures("newest_only")
def test_a_run_probes_once_and_boots_nothing_for_what_is_ruled_out(kernel: Kernel, inner: InnerRun) -> None:
    inner.write(INNER)
    code, output = inner.run("-rs", "-k", "not met and not unmet")
    assert "3 skipped" in output, output
    assert inner.templates() == []
    assert not (inner.cache / "needs").exists()
    code, output = inner.run("-rs")
    assert code == 0, output
    assert "1 passed, 4 skipped" in output
    assert f"kernel {kernel.version} was built without CONFIG_NO_SUCH_SETTING" in output
    assert f"kernel {kernel.version} has no module no_such_module" in output
    assert f"kernel {kernel.version} does not know the overlay option no_such=on: " in output
    (known,) = (inner.cache / "needs").glob("*.json")
    answers = json.loads(known.read_text())
    assert set(answers) == {"overlay:volatile", "cgroup:v2", "overlay:no_such=on"}
    # What is remembered is believed: nothing is asked again.
    known.write_text(json.dumps({**answers, "overlay:no_such=on": "", "overlay:volatile": "it is known"}))
    code, output = inner.run("-rs", "--kernelfs-require", "-k", "met")
    assert "1 passed, 1 error" in output.replace("3 deselected, ", ""), output
    assert "it is known; the test needs that, and --kernelfs-require makes it an error" in output
