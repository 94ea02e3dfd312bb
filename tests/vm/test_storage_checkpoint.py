"""A storage backend is prepared once, and each fork starts containers of its own."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Checkpoint, Preparer

MIB = 1 << 20
APP = bytes(range(256)) * 256


@pytest.fixture(scope="module")
def checkpoint(prepare: Preparer) -> Checkpoint:
    machine = prepare()
    backend = machine.storage_backend_factory("thin-ext4", size="128M")
    image = backend.image({"bin/app": APP})
    container = backend.container(image)
    container.write("data", "64K")
    return machine.checkpoint(image=image, container=container)


@pytest.mark.kernel(">=7.0")
def test_a_fork_goes_on(vm: VM) -> None:
    image, container = vm.kept["image"], vm.kept["container"]
    backend = image.backend
    assert container.backend is backend
    again = backend.container(container.commit())
    assert (again.read("bin/app"), len(again.read("data"))) == (APP, 65536)
    before = backend.used()
    other = backend.container(image)
    other.write("data", "2M")
    assert backend.used().data - before.data >= 2 * MIB
    other.remove()
    assert backend.used().data - before.data < MIB
