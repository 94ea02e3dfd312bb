"""Controllers of cgroups that a machine's tests had given to all, taken back from a real kernel."""

from __future__ import annotations

from pytest_kernelfs import VM
from pytest_kernelfs.guest import tenant_cgroups

# A hierarchy that has no other children than these.
_ROOT = "/sys/fs/cgroup"


def test_a_controller_goes_unless_somebody_uses_it(vm: VM) -> None:
    mounted = f"mountpoint -q {_ROOT} || mount -t cgroup2 none {_ROOT}"
    vm.run(f"{mounted}; mkdir {_ROOT}/one {_ROOT}/two; echo +memory +pids > {_ROOT}/cgroup.subtree_control")
    vm.run(f"echo 7 > {_ROOT}/two/pids.max", check=True)
    for controller in ("memory", "pids"):
        vm.guest(tenant_cgroups.take_back, f"{_ROOT}/cgroup.subtree_control", controller)
    given = vm.run(f"cat {_ROOT}/cgroup.subtree_control", check=True).stdout.split()
    limit = vm.run(f"cat {_ROOT}/two/pids.max", check=True).stdout
    vm.run(f"echo max > {_ROOT}/two/pids.max", check=True)
    vm.guest(tenant_cgroups.take_back, f"{_ROOT}/cgroup.subtree_control", "pids")
    left = vm.run(f"cat {_ROOT}/cgroup.subtree_control; rmdir {_ROOT}/one {_ROOT}/two", check=True).stdout
    assert ("memory" in given, "pids" in given, limit) == (False, True, "7\n")
    assert "pids" not in left.split()
