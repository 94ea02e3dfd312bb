"""The disk with the root: layers on top of an image, of which only the last is written to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.machines.disk_image import DiskImage
from pytest_kernelfs.machines.qemu import root
from pytest_kernelfs.machines.qemu.command import Launch, qemu_command
from pytest_kernelfs.machines.qemu.template import template_key

IMAGE = DiskImage(Path("/images/a,b.raw"), "raw", 1 << 30, "the identity")


def nodes(layers: list[Path]) -> list[dict[str, Any]]:
    """The image and its layers as QEMU is told them, the top one first."""
    words = root.options(IMAGE, layers)
    found: list[dict[str, Any]] = [json.loads(words[words.index("-blockdev") + 1])]
    while "backing" in found[-1]:
        found.append(found[-1]["backing"])
    return found


def test_only_the_machines_own_layer_is_written_to() -> None:
    layers = [Path("/template/root.qcow2"), Path("/machine/root.qcow2")]
    chain = nodes(layers)
    assert [node["file"]["filename"] for node in chain] == [
        "/machine/root.qcow2",
        "/template/root.qcow2",
        "/images/a,b.raw",
    ]
    assert [node["driver"] for node in chain] == ["qcow2", "qcow2", "raw"]
    assert [node["read-only"] for node in chain] == [False, True, True]
    assert [node["file"]["read-only"] for node in chain] == [False, True, True]


def test_the_device_is_known_by_its_serial_number() -> None:
    words = root.options(IMAGE, [Path("/machine/root.qcow2")])
    device = json.loads(words[words.index("-device") + 1])
    assert device["serial"] == "kernelfs-image"
    assert device["drive"] == nodes([Path("/machine/root.qcow2")])[0]["node-name"]


def test_a_layer_is_as_large_as_the_image(tmp_path: Path) -> None:
    layer = root.make_layer(IMAGE, tmp_path)
    assert DiskImage.read(layer).size == IMAGE.size


def test_a_layer_that_is_shared_outlives_the_template(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"content")
    (tmp_path / "machine").mkdir()
    shared = root.share_layer(tmp_path / "layer", tmp_path / "machine")
    (tmp_path / "layer").unlink()
    assert shared.read_bytes() == b"content"


def test_a_layer_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_paths: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "layer").write_bytes(b"content")
    assert root.share_layer(tmp_path / "layer", tmp_path).read_bytes() == b"content"


def test_the_kernel_is_told_of_the_image(launch: Launch) -> None:
    told = " ".join(qemu_command(replace(launch, image=IMAGE, partition="2"), Path("/m")))
    assert "kernelfs.root=serial:kernelfs-image kernelfs.partition=2" in told
    assert "kernelfs.root" not in " ".join(qemu_command(launch, Path("/m")))


def test_each_image_and_partition_has_templates_of_its_own(launch: Launch) -> None:
    launches = [
        launch,
        replace(launch, image=IMAGE),
        replace(launch, image=replace(IMAGE, identity="another")),
        replace(launch, image=IMAGE, partition="2"),
    ]
    assert len({template_key(each) for each in launches}) == len(launches)
