"""Umounts one after another: the first pays for all that lies on one file system, and only for that."""

from __future__ import annotations

import pytest

from pytest_kernelfs import AssertSerialShape, AssertUmountUnder, DiskFactory, OverlayFactory, XfsFactory

pytestmark = pytest.mark.usefixtures("oldest_or_newest")


def test_the_first_umount_pays_for_all_and_others_for_themselves(
    disk_factory: DiskFactory,
    xfs_factory: XfsFactory,
    overlay_factory: OverlayFactory,
    assert_umount_under: AssertUmountUnder,
    assert_serial_shape: AssertSerialShape,
) -> None:
    shared, *others = [xfs_factory(on=disk_factory(size="512M", write_bps="8M")) for _ in range(3)]
    overlays = [overlay_factory(on=shared) for _ in range(3)]
    for overlay in overlays:
        overlay.write("data", "4M")
    assert_serial_shape(assert_umount_under(60, *overlays))

    apart = [overlay_factory(on=xfs) for xfs in others]
    for overlay in apart:
        overlay.write("data", "4M")
    with pytest.raises(AssertionError, match="the first umount does not pay for all: ") as caught:
        assert_serial_shape(assert_umount_under(60, *apart))
    assert "each pays for itself" in str(caught.value)
