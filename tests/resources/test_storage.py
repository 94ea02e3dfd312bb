"""Storage backends: what is made for images and containers, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.storage import names
from pytest_kernelfs.resources.storage.backend import StorageBackend, StorageUsage
from pytest_kernelfs.resources.storage.factory import StorageBackendFactory
from tests.fake_machine import FakeMachine
from tests.resources.conftest import mounted

MIB = 1 << 20
POOL = "0 2048 thin-pool 1 5/4096 32/16384 - rw discard_passdown queue_if_no_space - 1024"


@pytest.fixture
def machine() -> FakeMachine:
    machine = FakeMachine(available_targets=["error", "thin-pool", "thin"], create="/dev/dm-0", message="")
    machine.answers["make_thin"] = lambda *_: f"/dev/dm-{len(machine.arguments('make_thin'))}"
    machine.answers["attach_loop"] = lambda *_: f"/dev/loop{len(machine.arguments('attach_loop')) - 1}"
    machine.answers["mount_overlay"] = "old"
    machine.answers["table"] = [(0, 2048, *POOL.split(" ", 3)[2:])]
    machine.answers["used"] = 5 * MIB
    machine.answers["btrfs_used"] = (4096, 65536)
    machine.answers["get"] = b"content"
    return machine


@pytest.fixture
def make(resources: Resources) -> StorageBackendFactory:
    return StorageBackendFactory(resources)


def options_of_mounts(machine: FakeMachine) -> list[tuple[str, str]]:
    """Device and options of each mount."""
    return [(arguments[0], arguments[3]) for arguments in machine.arguments("mount")]


@pytest.mark.parametrize("name", names.BACKENDS)
def test_each_has_its_name_and_needs(make: StorageBackendFactory, name: str) -> None:
    backend = make(name)
    kind, filesystem = names.BACKENDS[name]
    assert (backend.name, backend.filesystem) == (name, filesystem)
    assert repr(backend) == f"<storage backend {name}>"
    needs = names.needs(name)
    assert {f"filesystem:{filesystem}", f"command:mkfs.{filesystem}"} <= set(needs)
    assert ("module:dm_thin_pool" in needs) is kind.startswith("thin")


@pytest.mark.parametrize("name", names.BACKENDS)
def test_each_can_do_the_same(make: StorageBackendFactory, machine: FakeMachine, name: str) -> None:
    backend = make(name)
    image = backend.image({"bin/app": b"app"})
    container = backend.container(image)
    assert container.write("file", "64K") == 0.25
    assert container.write("bin/app", "64K", offset="1M") == 0.25
    path = container.path
    assert machine.arguments("write") == [
        (f"{path}/file", 64 << 10),
        (f"{path}/bin/app", 64 << 10, MIB),
    ]
    assert container.read("bin/app") == b"content"
    committed = container.commit()
    assert (committed.base, committed.backend, container.image) == (image, backend, image)
    again = backend.container(committed)
    assert again.path != container.path
    for one in (again, container, committed, image):
        assert backend.name in repr(one)
        one.remove()
        one.remove()


@pytest.mark.parametrize("name", names.BACKENDS)
def test_what_is_in_use_stays(make: StorageBackendFactory, name: str) -> None:
    backend = make(name)
    image = backend.image({})
    container = backend.container(image)
    committed = container.commit()
    with pytest.raises(UsageError, match="in use by 2 containers or images"):
        image.remove()
    container.remove()
    with pytest.raises(UsageError, match="in use by 1 "):
        image.remove()
    committed.remove()
    image.remove()
    with pytest.raises(UsageError, match="was removed"):
        backend.container(image)


def test_what_was_removed_is_used_no_more(make: StorageBackendFactory) -> None:
    backend = make("btrfs")
    container = backend.container(backend.image({}))
    container.remove()
    for use in (container.commit, lambda: container.write("a", 1), lambda: container.read("a")):
        with pytest.raises(UsageError, match="was removed"):
            use()


@pytest.mark.parametrize("path", ["/etc/passwd", "../other", "a/../../b"])
def test_paths_lie_below_the_root(make: StorageBackendFactory, machine: FakeMachine, path: str) -> None:
    backend = make("btrfs")
    container = backend.container(backend.image({}))
    before = len(machine.calls)
    for use in (
        lambda: container.write(path, 1),
        lambda: container.read(path),
        lambda: backend.image({path: ""}),
    ):
        with pytest.raises(UsageError, match="no path below its root"):
            use()
    assert len(machine.calls) == before


def test_images_of_others_are_refused(make: StorageBackendFactory) -> None:
    one, other = make("btrfs"), make("btrfs")
    with pytest.raises(UsageError, match="no image of its own"):
        one.container(other.image({}))


def test_a_commit_of_an_overlay_is_a_layer_of_its_own(
    make: StorageBackendFactory, machine: FakeMachine
) -> None:
    backend = make("overlay-ext4", options=["metacopy=on"])
    image = backend.image({"file": "content"})
    container = backend.container(image)
    committed = container.commit()
    commands = [arguments[0] for arguments in machine.arguments("run")]
    layer = commands[-1][-1]
    assert commands[-1] == ["cp", "-a", "--reflink=never", container.mount.upper, layer]  # type: ignore[union-attr]
    assert committed.place == [layer, *image.place]
    backend.container(committed)
    _, lower, _, upper, _, options, _ = machine.arguments("mount_overlay")[-1]
    assert (lower, options) == ([layer, *image.place], "metacopy=on")
    container.remove()
    removed = [path for (path,) in machine.arguments("remove_tree")]
    assert removed == [container.mount.upper.removesuffix("/upper")]  # type: ignore[union-attr]
    assert not upper.startswith(removed[0] + "/")


def test_btrfs_takes_its_options_for_the_file_system(
    make: StorageBackendFactory, machine: FakeMachine, disk_factory: DiskFactory
) -> None:
    disk = disk_factory(size="512M")
    backend = make("btrfs", on=disk, mkfs=["-d", "dup"], options=["compress=zstd"])
    assert options_of_mounts(machine) == [(disk.path, "compress=zstd")]
    assert ["mkfs.btrfs", "-q", "-f", "-d", "dup", disk.path] in [
        arguments[0] for arguments in machine.arguments("run")
    ]
    assert backend.used() == StorageUsage(4096, 65536)


def test_snapshots_of_xfs_share_their_identity(make: StorageBackendFactory, machine: FakeMachine) -> None:
    backend = make("thin-xfs", options=["noatime"])
    backend.container(backend.image({}))
    assert options_of_mounts(machine) == [
        ("/dev/dm-1", "nouuid"),
        ("/dev/dm-2", "nouuid,noatime"),
        ("/dev/dm-3", "nouuid,noatime"),
    ]
    assert [arguments[1] for arguments in machine.arguments("make_thin")] == [
        "create_thin 1",
        "create_snap 2 1",
        "create_snap 3 2",
    ]


@pytest.mark.parametrize(
    ("name", "asked", "discards"),
    [
        ("thin-ext4", None, False),
        ("thin-ext4", True, True),
        ("thin-loop-ext4", None, True),
        ("thin-loop-ext4", False, False),
    ],
)
def test_volumes_are_discarded_where_that_helps(
    make: StorageBackendFactory, machine: FakeMachine, name: str, asked: bool | None, discards: bool
) -> None:
    backend = make(name, discard=asked, size="64M")
    backend.container(backend.image({})).remove()
    assert machine.arguments("discard") == ([("/dev/dm-3", 64 * MIB)] if discards else [])
    assert ("delete 3") in [arguments[1] for arguments in machine.arguments("message")]


def test_only_mounted_volumes_of_the_pool_are_synced(
    make: StorageBackendFactory, machine: FakeMachine, resources: Resources
) -> None:
    mounted(resources, "/mnt/other")
    backend = make("thin-ext4")
    one = backend.container(backend.image({}))
    other = make("thin-ext4")
    other.container(other.image({}))
    assert backend.used() == StorageUsage(32 * 65536, 5 * 4096)
    assert machine.arguments("sync_all") == [([one.path],)]


def test_files_of_a_pool_are_counted(
    make: StorageBackendFactory, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["used"] = {"used": MIB, "how": "allocated blocks of the file"}
    backend = make("thin-loop-ext4", on=mounted(resources, "/mnt/base"))
    assert backend.used() == StorageUsage(32 * 65536, 5 * 4096, 2 * MIB)
    assert all(arguments[0].startswith("/mnt/base/") for arguments in machine.arguments("used"))


def test_images_and_what_was_removed_are_not_checked(
    make: StorageBackendFactory, machine: FakeMachine, resources: Resources
) -> None:
    resources.checks = frozenset({"fsck"})
    machine.answers["check"] = {"rc": 0, "output": "", "replay": "", "skipped": "", "unable": ""}
    backend = make("thin-ext4")
    image = backend.image({})
    backend.container(image).remove()
    kept = backend.container(image)
    resources.close()
    assert [arguments[1] for arguments in machine.arguments("check")] == [kept.mount.device]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("thin", {}, r"no storage backend 'thin' \(did you mean 'thin-"),
        ("aufs", {}, "there are overlay-xfs, overlay-ext4, btrfs"),
        ("btrfs", {"discard": True}, "for thin pools, not for btrfs"),
        ("overlay-xfs", {"block_size": "64K"}, "for thin pools, not for overlay-xfs"),
        ("btrfs", {"on": "disk", "size": "1G"}, "give one of the two"),
        ("btrfs", {"on": "mount"}, "is no block device"),
        ("thin-ext4", {"on": "mount"}, "is no block device"),
        ("thin-loop-ext4", {"on": "disk"}, "give a mounted file system"),
        ("thin-ext4", {"block_size": "5K"}, "no multiple of 64K"),
    ],
)
def test_what_cannot_be_is_refused(
    make: StorageBackendFactory,
    disk_factory: DiskFactory,
    resources: Resources,
    name: str,
    arguments: dict[str, Any],
    said: str,
) -> None:
    places = {"disk": disk_factory(), "mount": mounted(resources, "/mnt/base")}
    given: dict[str, Any] = {key: places.get(value, value) for key, value in arguments.items()}
    with pytest.raises(UsageError, match=said):
        make(name, **given)


def test_usages_are_compared() -> None:
    before, after = StorageUsage(4096, 8192, 100), StorageUsage(12288, 8192, 50)
    assert after - before == StorageUsage(8192, 0, -50)
    assert (after - before).total == 8192
    assert StorageUsage(5) - StorageUsage(3) == StorageUsage(2)
    assert StorageUsage(5, 1) - StorageUsage(3) == StorageUsage(2)
    assert StorageUsage(5, 1).total == 6


def test_backends_are_of_their_kind(
    make: StorageBackendFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    backend = make("overlay-xfs", on=loop_device_factory())
    assert isinstance(backend, StorageBackend)
    assert backend.used() == StorageUsage(5 * MIB)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (["file"], r"\['file'\] is no mapping of names of files"),
        ({"file": 5}, "what is in 'file', 5, is neither text nor bytes"),
        ({"": "x"}, "the image's '' is no path below its root"),
    ],
)
def test_an_image_is_made_of_files(
    make: StorageBackendFactory, machine: FakeMachine, contents: Any, said: str
) -> None:
    backend = make("btrfs")
    before = len(machine.calls)
    with pytest.raises(UsageError, match=said):
        backend.image(contents)
    assert len(machine.calls) == before
