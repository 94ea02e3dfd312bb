"""Overlays of many layers, on other overlays, through either mount API, in user namespaces."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, OverlayFactory
from pytest_kernelfs.errors import GuestCommandError

# One more than every kernel takes.
TOO_MANY = 501


def layers(count: int) -> list[dict[str, str]]:
    return [{f"file-{number}": str(number)} for number in range(count)]


def test_hundreds_of_layers(vm: VM, overlay_factory: OverlayFactory) -> None:
    """A kernel that reads layers one by one is asked to; for others there is a short way to name them."""
    count = TOO_MANY - 2
    overlay = overlay_factory(lower=layers(count))
    assert overlay.api == ("new" if vm.kernel.version.matches(">=6.7") else "old")
    assert vm.run(f"ls {overlay.path} | wc -l").stdout.strip() == str(count)
    assert vm.get(f"{overlay.path}/file-{count - 1}") == str(count - 1).encode()
    overlay.umount()
    old = overlay_factory(lower=overlay.lower, api="old", upper=False)
    assert vm.get(f"{old.path}/file-{count - 1}") == str(count - 1).encode()
    with pytest.raises(GuestCommandError, match=r"the kernel said: .*(too many|500)"):
        overlay_factory(lower=[*overlay.lower, *layers(TOO_MANY)[-2:]], upper=False)


@pytest.mark.kernel("<6.5")
def test_the_new_api_of_an_old_kernel_takes_few_layers(overlay_factory: OverlayFactory) -> None:
    assert overlay_factory(lower=layers(20), api="new").api == "new"
    with pytest.raises(GuestCommandError, match=r'has no lowerdir\+ \(Linux 6\.7\) .*use api="old"'):
        overlay_factory(lower=layers(200), api="new")


def test_either_api_says_why_it_failed(vm: VM, overlay_factory: OverlayFactory) -> None:
    vm.run("mkdir '/run/a:b,c' && echo x > '/run/a:b,c/file'", check=True)
    for api in ("old", "new"):
        overlay = overlay_factory(lower=["/run/a:b,c"], api=api, options=["noatime", "nodev"])
        assert overlay.api == api
        assert vm.get(f"{overlay.path}/file") == b"x\n"
        shown = vm.run(["findmnt", "-no", "OPTIONS", overlay.path]).stdout.split(",")
        assert {"noatime", "nodev"} <= set(shown)
        with pytest.raises(GuestCommandError, match=rf"\({api} mount API\): .*the kernel said: .*nonsense"):
            overlay_factory(api=api, options=["nonsense"])


@pytest.mark.kernel_needs("overlay:lowerdir+")
def test_the_log_of_the_new_api_is_told(overlay_factory: OverlayFactory) -> None:
    with pytest.raises(GuestCommandError, match=r"the kernel said: e overlay: Unknown parameter 'nonsense'"):
        overlay_factory(api="new", options=["nonsense"])


def test_overlays_on_overlays(vm: VM, overlay_factory: OverlayFactory) -> None:
    """Below another one, but neither too deep nor as the place of its upper folder."""
    below = overlay_factory(lower=[{"below": "1"}])
    vm.run(f"echo changed > {below.path}/below", check=True)
    overlay = overlay_factory(lower=[{"above": "2"}, below])
    assert sorted(vm.run(["ls", overlay.path]).stdout.split()) == ["above", "below"]
    assert vm.get(f"{overlay.path}/below") == b"changed\n"
    with pytest.raises(GuestCommandError, match="maximum fs stacking depth exceeded"):
        overlay_factory(lower=[overlay])
    with pytest.raises(GuestCommandError, match=r"the kernel said: .*upper"):
        overlay_factory(on=below)


@pytest.mark.kernel_needs("overlay:userns")
def test_without_privileges_in_a_user_namespace(vm: VM, overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory.in_user_namespace(lower=[{"folder/file": "lower"}])
    assert vm.run(["ls", overlay.path]).stdout == ""
    done = overlay.run(f"id -u; cat /proc/self/uid_map {overlay.path}/folder/file", check=True)
    assert done.stdout.split() == ["0", "0", "100000", "65536", "lower"]
    overlay.run(f"echo inside > {overlay.path}/new && rm -r {overlay.path}/folder", check=True)
    assert vm.run(["stat", "-c", "%u", f"{overlay.upper}/new"]).stdout.strip() == "100000"
    assert "character special" in vm.run(["stat", "-c", "%F", f"{overlay.upper}/folder"]).stdout
    assert "denied" in overlay.run(["sysctl", "-w", "vm.swappiness=7"]).stderr.lower()
    with pytest.raises(GuestCommandError, match=r"in a user namespace: mount .*the kernel said: .*nonsense"):
        overlay_factory.in_user_namespace(options=["nonsense"])
    overlay.umount()
    assert overlay.run("true").failed


@pytest.mark.kernel("<5.11")
def test_a_kernel_that_lets_nobody_mount_it_there_says_so(overlay_factory: OverlayFactory) -> None:
    with pytest.raises(GuestCommandError, match=r"Operation not permitted; .*from Linux 5\.11 on"):
        overlay_factory.in_user_namespace(userxattr=False)
