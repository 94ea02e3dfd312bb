"""Overlay mounts."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Overlay, OverlayFactory
from pytest_kernelfs.errors import GuestCommandError


def test_writing_copies_up_and_leaves_the_lower_layer(vm: VM, overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory(lower=[{"etc/name": "lower"}])
    vm.run(f"printf upper > {overlay.path}/etc/name", check=True)
    assert vm.get(f"{overlay.upper}/etc/name") == b"upper"
    assert vm.get(f"{overlay.lower[0]}/etc/name") == b"lower"


def test_the_topmost_lower_layer_wins(vm: VM, overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory(lower=[{"a": b"top"}, {"a": b"bottom", "b": b"only", "empty/": b""}])
    assert vm.get(f"{overlay.path}/a") == b"top"
    assert vm.get(f"{overlay.path}/b") == b"only"
    assert vm.run(f"test -d {overlay.path}/empty").succeeded


def test_equal_layers_are_shared(overlay_factory: OverlayFactory) -> None:
    one, other, third = overlay_factory(), overlay_factory(), overlay_factory(lower=[{"x": ""}])
    assert one.lower == other.lower != third.lower
    assert one.upper != other.upper


def test_volatile_is_passed_on(vm: VM, overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory(volatile=True)
    line = next(line for line in vm.run("cat /proc/mounts").stdout.splitlines() if overlay.path in line)
    assert "volatile" in line


def test_an_option_the_kernel_refuses_carries_its_reason(overlay_factory: OverlayFactory) -> None:
    with pytest.raises(GuestCommandError, match=r"the kernel said: .*nonsense"):
        overlay_factory(options=["nonsense"])


def test_a_mount_the_test_ended_itself_is_no_error(vm: VM, overlay: Overlay) -> None:
    vm.run(["umount", overlay.path], check=True)
