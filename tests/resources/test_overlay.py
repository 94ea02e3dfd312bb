"""Overlays: the options that the kernel is given, and the folders behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.overlay import OverlayFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine
from tests.resources.conftest import mounted


@pytest.fixture
def overlay_factory(resources: Resources) -> OverlayFactory:
    """Makes overlays on a mount at /mnt/base."""
    base = mounted(resources, "/mnt/base")
    return OverlayFactory(resources, lambda: base)


def options(machine: FakeMachine) -> list[str]:
    """The options of the overlays that were mounted."""
    return [arguments[5] for arguments in machine.arguments("mount_overlay")]


def test_all_folders_are_named(overlay_factory: OverlayFactory, machine: FakeMachine) -> None:
    overlay = overlay_factory()
    assert machine.arguments("mount_overlay") == [
        (overlay.path, overlay.lower, [], overlay.upper, overlay.work, "", "auto")
    ]


def test_all_folders_lie_on_the_same_file_system(overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory()
    assert all(path.startswith("/mnt/base/") for path in [*overlay.lower, overlay.upper, overlay.work])
    assert not overlay.path.startswith("/mnt/base/")


def test_each_overlay_has_upper_and_work_folders_of_its_own(overlay_factory: OverlayFactory) -> None:
    overlays = [overlay_factory() for _ in range(3)]
    folders = [path for overlay in overlays for path in (overlay.path, overlay.upper, overlay.work)]
    assert len(set(folders)) == 9


def test_volatile_comes_after_the_tests_own_options(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    overlay_factory(volatile=True, options=["index=off", "metacopy=on"])
    assert options(machine) == ["index=off,metacopy=on,volatile"]


def test_switches_are_written_as_the_kernel_reads_them(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    overlay_factory(
        metacopy=True, redirect_dir="nofollow", index=False, nfs_export=False, xino="auto", userxattr=True
    )
    assert options(machine) == [
        "metacopy=on,redirect_dir=nofollow,index=off,nfs_export=off,xino=auto,userxattr"
    ]


@pytest.mark.parametrize("value", ["on,ro", "", 1, "a=b"])
def test_a_switch_that_is_none_is_refused(
    overlay_factory: OverlayFactory, machine: FakeMachine, value: Any
) -> None:
    with pytest.raises(UsageError, match="neither True, False nor a word"):
        overlay_factory(redirect_dir=value)
    assert machine.calls == []


def test_layers_are_in_the_order_given_topmost_first(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    overlay = overlay_factory(lower=[{"a": b"top"}, {"a": b"bottom", "empty/": ""}])
    assert machine.arguments("mount_overlay")[0][1] == overlay.lower
    assert machine.arguments("make_layers") == [
        ([(overlay.lower[0], {"a": b"top"}), (overlay.lower[1], {"a": b"bottom", "empty/": ""})], 0)
    ]


def test_equal_layers_are_shared(overlay_factory: OverlayFactory, machine: FakeMachine) -> None:
    first = overlay_factory(lower=[{"a": b"1"}, {"b": b"2"}])
    second = overlay_factory(lower=[{"b": b"2"}])
    assert second.lower == first.lower[1:]
    assert len(machine.arguments("make_layers")) == 1


def test_equal_layers_of_one_overlay_are_one_folder(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    overlay = overlay_factory(lower=[{"a": b"1"}], data_lower=[{"a": b"1"}])
    assert overlay.lower == overlay.data_lower
    ((made, _),) = machine.arguments("make_layers")
    assert len(made) == 1


def test_layers_that_could_not_be_made_are_made_the_next_time(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    machine.answers["make_layers"] = GuestCommandError("no space left")
    with pytest.raises(GuestCommandError):
        overlay_factory()
    del machine.answers["make_layers"]
    overlay_factory()
    assert len(machine.arguments("make_layers")) == 2


def test_mounts_and_paths_can_be_layers(
    overlay_factory: OverlayFactory, resources: Resources, machine: FakeMachine
) -> None:
    below = overlay_factory()
    mount = mounted(resources, "/mnt/other")
    overlay = overlay_factory(lower=[below, mount, "/usr"], data_lower=[{"a": "1"}], lower_on=mount)
    assert overlay.lower == [below.path, "/mnt/other", "/usr"]
    (data,) = overlay.data_lower
    assert data.startswith("/mnt/other/")
    assert overlay.upper.startswith("/mnt/base/")
    assert repr(overlay).endswith("lower=3 data_lower=1>")


def test_what_it_lies_on_has_to_be_mounted(
    overlay_factory: OverlayFactory, resources: Resources, machine: FakeMachine
) -> None:
    mount = mounted(resources, "/mnt/other")
    mount.umount()
    machine.calls.clear()
    attempts: list[Callable[[], object]] = [
        lambda: overlay_factory(on=mount),
        lambda: overlay_factory(lower_on=mount),
        lambda: overlay_factory(lower=[{"a": "1"}, mount]),
        lambda: overlay_factory(data_lower=[mount]),
        lambda: overlay_factory.in_user_namespace(on=mount),
        lambda: overlay_factory.in_user_namespace(lower=[mount]),
    ]
    for attempt in attempts:
        with pytest.raises(UsageError, match=r"is not mounted; mount it again with mount\(\)"):
            attempt()
    assert machine.calls == []


def test_so_has_the_tests_own_file_system_after_a_power_cut(
    overlay_factory: OverlayFactory, resources: Resources
) -> None:
    overlay_factory()
    resources._after_power_cut()
    with pytest.raises(UsageError, match=r"overlay_factory, on: .* is not mounted"):
        overlay_factory()


def test_a_read_only_overlay_has_no_upper_folder(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    overlay = overlay_factory(lower=[{"a": "1"}, {"b": "2"}], upper=False)
    assert (overlay.upper, overlay.work) == ("", "")
    assert overlay.backing == "/mnt/base"
    assert "read-only" in repr(overlay)
    with pytest.raises(UsageError, match="nothing to be volatile"):
        overlay_factory(upper=False, volatile=True)


def test_the_mount_api_can_be_chosen(overlay_factory: OverlayFactory, machine: FakeMachine) -> None:
    machine.answers["mount_overlay"] = "new"
    assert overlay_factory(api="new").api == "new"
    assert machine.arguments("mount_overlay")[0][6] == "new"
    with pytest.raises(UsageError, match="'fsopen' is none of auto, old, new"):
        overlay_factory(api="fsopen")


def test_a_layer_is_an_absolute_path(overlay_factory: OverlayFactory) -> None:
    with pytest.raises(UsageError, match="'etc' is no absolute path"):
        overlay_factory(lower=["etc"])


def test_it_can_be_mounted_again_once_it_is_unmounted(
    overlay_factory: OverlayFactory, resources: Resources, machine: FakeMachine
) -> None:
    overlay = overlay_factory()
    with pytest.raises(UsageError, match="is mounted; unmount it"):
        overlay.mount()
    overlay.umount()
    overlay.mount()
    first, second = machine.arguments("mount_overlay")
    assert first == second
    assert resources.mounts[1:] == [overlay]


def test_an_overlay_in_a_user_namespace_is_held_by_a_process(
    overlay_factory: OverlayFactory, resources: Resources, machine: FakeMachine
) -> None:
    machine.answers["hold_overlay"] = 4711
    outside = overlay_factory()
    overlay = overlay_factory.in_user_namespace(options=["xino=off"])
    assert overlay.lower != outside.lower
    assert [owner for _, owner in machine.arguments("make_layers")] == [0, 100000]
    (arguments,) = machine.arguments("hold_overlay")
    assert arguments[:2] == (overlay.path, overlay.lower)
    assert arguments[5:] == ("xino=off,userxattr", "auto", 100000, 65536)
    overlay.run("id -u")
    words = machine.arguments("run")[-1][0]
    assert words[:3] == ["nsenter", "-t", "4711"]
    assert words[-3:] == ["/bin/sh", "-c", "id -u"]
    assert "4711" in repr(overlay)
    resources.close()
    assert machine.arguments("end") == [(4711,)]


def test_text_and_bytes_are_different_layers(overlay_factory: OverlayFactory) -> None:
    assert overlay_factory(lower=[{"a": "1"}]).lower != overlay_factory(lower=[{"a": b"1"}]).lower


def test_layers_on_different_file_systems_are_not_shared(
    overlay_factory: OverlayFactory, resources: Resources
) -> None:
    other = mounted(resources, "/mnt/other")
    assert overlay_factory().lower != overlay_factory(on=other).lower


def test_the_tests_own_file_system_is_asked_for_only_when_it_is_needed(resources: Resources) -> None:
    def default_on() -> Mount:
        raise AssertionError("nobody asked for it")

    factory = OverlayFactory(resources, default_on)
    factory(on=mounted(resources, "/mnt/other"))
    with pytest.raises(AssertionError, match="nobody asked"):
        factory()


def test_an_overlay_without_lower_layer_is_refused(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    with pytest.raises(UsageError, match="at least one lower layer"):
        overlay_factory(lower=[])
    assert machine.calls == []


def test_overlays_go_before_the_file_system_below(
    resources: Resources, xfs_factory: XfsFactory, machine: FakeMachine
) -> None:
    xfs = xfs_factory()
    factory = OverlayFactory(resources, lambda: xfs)
    first, second = factory(), factory()
    machine.calls.clear()
    resources.close()
    assert machine.arguments("umount") == [(second.path,), (first.path,), (xfs.path,)]


def test_an_assertion_without_mounts_means_all_overlays(
    resources: Resources, xfs_factory: XfsFactory
) -> None:
    xfs = xfs_factory()
    assert resources.default_mounts() == [xfs]
    overlays = [OverlayFactory(resources, lambda: xfs)() for _ in range(2)]
    assert resources.default_mounts() == overlays


def test_an_overlay_says_what_it_is(overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory(lower=[{"a": b"1"}, {"b": b"2"}])
    assert repr(overlay) == f"<overlay {overlay.path} upper={overlay.upper} lower=2>"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"on": "/mnt"}, "overlay_factory, on: '/mnt' is no mount"),
        ({"lower_on": "/mnt"}, "overlay_factory, lower_on: '/mnt' is no mount"),
        ({"lower": {"a": "x"}}, r"lower={'a': 'x'} is no list of layers; write \[{'a': 'x'}\]"),
        ({"lower": "/mnt"}, r"lower='/mnt' is no list of layers; write \['/mnt'\]"),
        ({"data_lower": {"a": "x"}}, "data_lower={'a': 'x'} is no list of layers"),
        ({"lower": [5]}, "the layer 5 is no mapping of files, mount, or path"),
        ({"lower": [{"../x": ""}]}, "the layer's '../x' is no path below it"),
        ({"lower": [{"/etc/x": ""}]}, "the layer's '/etc/x' is no path below it"),
        ({"lower": [{"": ""}]}, "the layer's '' is no path below it"),
        ({"lower": [{"x": 5}]}, "what is in 'x', 5, is neither text nor bytes"),
        ({"upper": "/mnt/upper"}, "upper='/mnt/upper' is neither True nor False"),
        ({"options": "xino=on"}, "options: 'xino=on' is one text, not a list of them"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_made(
    overlay_factory: OverlayFactory, machine: FakeMachine, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        overlay_factory(**wrong)
    assert machine.calls == []


def test_layers_may_come_from_any_collection(overlay_factory: OverlayFactory, machine: FakeMachine) -> None:
    layers: Any = {"top": {"a": b"1"}, "bottom": {"folder/": None}}
    overlay = overlay_factory(lower=layers.values())
    (made, _) = machine.arguments("make_layers")[0]
    assert made == [(overlay.lower[0], {"a": b"1"}), (overlay.lower[1], {"folder/": None})]
