"""Sysctls, module parameters, debug messages and caches: set in the kernel, and set back."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs import VM, DropCaches, Overlay, Sysctl
from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.resources.knobs import DynamicDebug, ModuleParameter
from pytest_kernelfs.resources.stack import Resources

PAIR = ("vm.dirty_ratio", "vm.dirty_bytes")
KNOBS = ("vm.swappiness", *PAIR, "vm.dirty_background_ratio", "vm.dirty_background_bytes")


def values(sysctl: Sysctl, *names: str) -> tuple[object, ...]:
    return tuple(sysctl[name] for name in names)


def cached() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Cached:"))


def test_knobs_are_read_set_refused_and_set_back(vm: VM, sysctl: Sysctl) -> None:
    before = values(sysctl, *KNOBS)
    assert before[:3] == (60, 20, 0)
    assert isinstance(sysctl["net.ipv4.tcp_rmem"], tuple)
    assert sysctl["kernel.osrelease"] == vm.kernel.release

    resources = Resources(vm)
    own = Sysctl(resources)
    own["vm.swappiness"] = 7
    own["vm.dirty_bytes"] = 64 << 20
    own["vm.dirty_bytes"] = 32 << 20
    own.update({"vm.dirty_background_bytes": 1 << 20, "vm.dirty_background_ratio": 3})
    assert values(own, "vm.swappiness", *PAIR) == (7, 0, 32 << 20)
    with own.changed({"vm.dirty_ratio": 30, "vm.swappiness": 8}):
        assert values(own, "vm.swappiness", *PAIR) == (8, 30, 0)
    assert values(own, "vm.swappiness", *PAIR) == (7, 0, 32 << 20)
    resources.close()
    assert values(sysctl, *KNOBS) == before

    with pytest.raises(GuestCommandError, match=r"no sysctl vm\.swapiness; did you mean vm\.swappiness"):
        sysctl.get("vm.swapiness")
    with pytest.raises(GuestCommandError, match=r"vm\.swappiness = 'much' was refused: .* \(EINVAL\)"):
        sysctl.update({"vm.dirty_bytes": 1 << 20, "vm.swappiness": "much"})
    with pytest.raises(GuestCommandError, match=r"EACCES|EPERM"):
        sysctl["kernel.osrelease"] = "1.0"
    assert values(sysctl, *KNOBS) == before


@pytest.mark.usefixtures("oldest_or_newest")
def test_other_knobs_are_set_and_set_back(vm: VM, overlay: Overlay, drop_caches: DropCaches) -> None:
    resources = Resources(vm)
    parameter = ModuleParameter(resources)
    before = parameter("overlay", "metacopy")
    assert isinstance(before, bool)
    assert parameter("overlay", "metacopy", not before) is not before
    changed = DynamicDebug(resources)("file lib/kobject.c +p")
    count = ["grep", "-cE", r"^lib/kobject\.c:.* =p", "/proc/dynamic_debug/control"]
    assert changed == int(vm.run(count).stdout) > 0
    start = vm.mark_dmesg("kobjects")
    vm.modprobe("brd", rd_nr=1, rd_size=1024)
    assert any("kobject_add_internal" in record.text and record.level == 7 for record in vm.dmesg(start))

    resources.close()
    assert vm.run(count).stdout.strip() == "0"
    assert parameter("overlay", "metacopy") is before
    with pytest.raises(UsageError, match="the test that this was made for is over"):
        parameter("overlay", "metacopy", not before)

    overlay.write("file", "24M")
    overlay.sync()
    full = vm.call(cached)
    drop_caches()
    assert full - vm.call(cached) > 20 << 10


@pytest.mark.usefixtures("oldest_or_newest")
def test_what_a_knob_is_not_set_to(
    overlay: Overlay, module_parameter: ModuleParameter, dynamic_debug: DynamicDebug
) -> None:
    assert overlay.path  # its module is loaded
    for module, name, value, match in (
        ("overlay", "metacoppy", None, r"no parameter metacoppy; it has .*metacopy"),
        ("dm-nothing", "x", None, r"module dm_nothing is not loaded"),
        ("overlay", "metacopy", "perhaps", r"refused: .*EINVAL"),
    ):
        with pytest.raises(GuestCommandError, match=match):
            module_parameter(module, name, value)
    for query, match in (("module no_such_module +p", "changed none of"), ("nonsense", "was refused")):
        with pytest.raises(GuestCommandError, match=match):
            dynamic_debug(query)
