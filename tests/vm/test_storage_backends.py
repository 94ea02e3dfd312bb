"""Images, containers and commits on every storage backend: who sees what, and what is given back."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, StorageBackend, StorageBackendFactory
from pytest_kernelfs.errors import UsageError

# To start and to translate a machine anew for each would take longer than the tests.
pytestmark = pytest.mark.isolation("module")

MIB = 1 << 20
HALF = 512 << 10
APP = bytes(range(256)) * (2 * HALF // 256)
CONTENTS: dict[str, str | bytes] = {"bin/app": APP, "etc/name": "image", "etc/gone": "", "empty/": ""}


@pytest.mark.parametrize("storage_backend", ["overlay-ext4", "btrfs", "thin-loop-ext4"], indirect=True)
def test_containers_are_apart_and_commits_last(vm: VM, storage_backend: StorageBackend) -> None:
    check_containers(vm, storage_backend)
    check_removal(storage_backend)


@pytest.mark.parametrize("storage_backend", ["overlay-xfs", "thin-ext4"], indirect=True)
@pytest.mark.usefixtures("oldest_or_newest")
def test_the_same_where_little_else_is_different(vm: VM, storage_backend: StorageBackend) -> None:
    check_containers(vm, storage_backend)
    check_removal(storage_backend)


def check_containers(vm: VM, backend: StorageBackend) -> None:
    """Each has what it wrote itself, and what its image had when it was made."""
    image = backend.image(CONTENTS)
    one = backend.container(image)
    one.write("bin/app", "64K", offset="512K")
    one.write("new", "64K")
    vm.run(["rm", f"{one.path}/etc/gone"], check=True)
    vm.put(b"one", f"{one.path}/etc/name")

    # What one does, neither the image nor others have.
    start = backend.used()
    two = backend.container(image)
    assert (backend.used() - start).total < len(APP)
    assert two.read("bin/app") == APP
    assert names(vm, two.path) == ["bin/app", "empty", "etc/gone", "etc/name"]

    # A commit has it, and nothing of what comes later.
    committed = one.commit()
    one.write("late", "64K")
    assert one.read("new") != b""
    three = backend.container(committed)
    assert names(vm, three.path) == ["bin/app", "empty", "etc/name", "new"]
    assert three.read("etc/name") == b"one"
    changed = three.read("bin/app")
    assert (len(changed), changed[:HALF], changed[HALF + 65536 :]) == (
        len(APP),
        APP[:HALF],
        APP[HALF + 65536 :],
    )
    assert changed != APP

    # A commit of a commit is complete, too.
    vm.run(["rm", f"{three.path}/new"], check=True)
    four = backend.container(three.commit())
    assert names(vm, four.path) == ["bin/app", "empty", "etc/name"]
    assert names(vm, backend.container(committed).path) == ["bin/app", "empty", "etc/name", "new"]


def names(vm: VM, path: str) -> list[str]:
    """Files and empty folders below a path, but what mkfs leaves."""
    found = vm.run(["find", path, "!", "-type", "d", "-o", "-empty", "-type", "d"], check=True).stdout
    return sorted(line.removeprefix(f"{path}/") for line in found.split() if "lost+found" not in line)


def check_removal(backend: StorageBackend) -> None:
    """What is removed is given back, whatever else there is."""
    before = backend.used()
    image = backend.image({})
    container = backend.container(image)
    container.write("large", "8M")
    committed = container.commit()
    with pytest.raises(UsageError, match="in use by 2"):
        image.remove()
    full = backend.used()
    assert full.data - before.data >= 8 * MIB
    for kept in (container, committed, image):
        kept.remove()
    after = backend.used()
    assert after.data - before.data < MIB
    if full.backing is not None:
        assert after.backing is not None
        assert full.backing - after.backing >= 8 * MIB


@pytest.mark.parametrize("storage_backend", ["thin-xfs"], indirect=True)
@pytest.mark.usefixtures("oldest_or_newest")
def test_xfs_is_mounted_beside_its_snapshots(storage_backend: StorageBackend) -> None:
    container = storage_backend.container(storage_backend.image(CONTENTS))
    container.write("new", "64K")
    again = storage_backend.container(container.commit())
    assert (again.read("bin/app"), len(again.read("new"))) == (APP, 65536)


@pytest.mark.kernel_needs("module:dm_thin_pool", "filesystem:ext4")
@pytest.mark.usefixtures("oldest_or_newest")
def test_without_discards_sparse_files_do_not_shrink(storage_backend_factory: StorageBackendFactory) -> None:
    backend = storage_backend_factory("thin-loop-ext4", discard=False, size="128M")
    container = backend.container(backend.image({}))
    container.write("data", "8M")
    full = backend.used()
    container.remove()
    freed = full - backend.used()
    assert freed.data >= 8 * MIB
    assert freed.backing is not None
    assert freed.backing < MIB
