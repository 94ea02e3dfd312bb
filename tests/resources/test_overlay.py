"""Overlays: the options that the kernel is given, and the folders behind them."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.overlay import OverlayFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


@pytest.fixture
def overlay_factory(resources: Resources) -> OverlayFactory:
    """Makes overlays on a mount at /mnt/base."""
    base = Mount(resources, "/mnt/base", "/mnt/base", None)
    return OverlayFactory(resources, lambda: base)


def options(machine: FakeMachine) -> list[str]:
    """The options of the overlays that were mounted."""
    return [arguments[3] for arguments in machine.arguments("mount") if arguments[2] == "overlay"]


def test_lower_upper_and_work_folder_are_named(overlay_factory: OverlayFactory, machine: FakeMachine) -> None:
    overlay = overlay_factory()
    assert options(machine) == [
        f"lowerdir={overlay.lower[0]},upperdir={overlay.upper},workdir={overlay.work}"
    ]
    assert machine.arguments("mount")[0][:3] == ("overlay", overlay.path, "overlay")


def test_all_folders_lie_on_the_same_file_system(overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory()
    assert all(path.startswith("/mnt/base/") for path in [*overlay.lower, overlay.upper, overlay.work])
    assert not overlay.path.startswith("/mnt/base/")


def test_upper_and_work_folder_are_made_before_mounting(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    overlay = overlay_factory()
    assert machine.arguments("make_folders") == [([overlay.upper, overlay.work],)]
    assert machine.names.index("make_folders") < machine.names.index("mount")


def test_each_overlay_has_upper_and_work_folders_of_its_own(overlay_factory: OverlayFactory) -> None:
    overlays = [overlay_factory() for _ in range(3)]
    folders = [path for overlay in overlays for path in (overlay.path, overlay.upper, overlay.work)]
    assert len(set(folders)) == 9


def test_volatile_comes_after_the_tests_own_options(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    overlay_factory(volatile=True, options=["index=off", "metacopy=on"])
    assert options(machine)[0].endswith(",index=off,metacopy=on,volatile")


def test_layers_are_in_the_order_given_topmost_first(
    overlay_factory: OverlayFactory, machine: FakeMachine
) -> None:
    overlay = overlay_factory(lower=[{"a": b"top"}, {"a": b"bottom", "empty/": ""}])
    assert options(machine)[0].startswith(f"lowerdir={overlay.lower[0]}:{overlay.lower[1]},")
    assert machine.arguments("make_tree") == [
        (overlay.lower[0], {"a": b"top"}),
        (overlay.lower[1], {"a": b"bottom", "empty/": ""}),
    ]


def test_equal_layers_are_shared(overlay_factory: OverlayFactory, machine: FakeMachine) -> None:
    first = overlay_factory(lower=[{"a": b"1"}, {"b": b"2"}])
    second = overlay_factory(lower=[{"b": b"2"}])
    assert second.lower == first.lower[1:]
    assert len(machine.arguments("make_tree")) == 2


def test_text_and_bytes_are_different_layers(overlay_factory: OverlayFactory) -> None:
    assert overlay_factory(lower=[{"a": "1"}]).lower != overlay_factory(lower=[{"a": b"1"}]).lower


def test_layers_on_different_file_systems_are_not_shared(
    overlay_factory: OverlayFactory, resources: Resources
) -> None:
    other = Mount(resources, "/mnt/other", "/mnt/other", None)
    assert overlay_factory().lower != overlay_factory(on=other).lower


def test_the_tests_own_file_system_is_asked_for_only_when_it_is_needed(resources: Resources) -> None:
    def default_on() -> Mount:
        raise AssertionError("nobody asked for it")

    factory = OverlayFactory(resources, default_on)
    factory(on=Mount(resources, "/mnt/other", "/mnt/other", None))
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
