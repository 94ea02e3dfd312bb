"""Which partition of a disk is the root, told from the disk and from what the kernel shows of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_kernelfs.guest import root_disk
from pytest_kernelfs.guest.root_disk import Root, RootNotFound
from tests.disks import MIB, ROOT_X86_64, SECTOR, Partition, empty_file, make_filesystem, write_gpt, write_mbr
from tests.guest.test_patience import stand_still

XFS_MIN = 300 * MIB


@dataclass
class Machine:
    """Folders in place of /sys/class/block and /dev."""

    folder: Path

    def add(self, name: str, content: Path, serial: str = "") -> None:
        """Add a disk, as the kernel shows one without partitions."""
        self._show(self.folder / "block" / name, content)
        (self.folder / "block" / name / "serial").write_text(f"{serial}\n")
        (self.folder / "block" / name / "queue").mkdir()
        (self.folder / "block" / name / "queue/logical_block_size").write_text("512\n")

    def add_partition(self, disk: str, number: int, content: Path) -> None:
        folder = self.folder / "block" / disk / f"{disk}{number}"
        self._show(folder, content)
        (folder / "partition").write_text(f"{number}\n")
        (self.folder / "block" / folder.name).symlink_to(folder)

    def _show(self, folder: Path, content: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{content.stat().st_size // SECTOR}\n")
        dev = self.folder / "dev"
        dev.mkdir(exist_ok=True)
        (dev / folder.name).symlink_to(content)

    def find(self, where: str, partition: str = "") -> Root:
        found = root_disk.find(where, partition, 0.0, f"{self.folder}/block", f"{self.folder}/dev")
        return Root(found.device.rpartition("/")[2], found.kind)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file with each kind of content."""
    folder = tmp_path_factory.mktemp("contents")
    return {
        "boot": make_filesystem(folder / "boot", "ext4", 4 * MIB, "-L", "boot"),
        "ext4": make_filesystem(folder / "ext4", "ext4", 8 * MIB, "-L", "first"),
        "xfs": make_filesystem(folder / "xfs", "xfs", XFS_MIN, "-L", "second"),
        "btrfs": make_filesystem(folder / "btrfs", "btrfs", 128 * MIB, "-L", "third"),
        "swap": make_filesystem(folder / "swap", "swap", 16 * MIB),
        "nothing": empty_file(folder / "nothing", 16 * MIB),
    }


def partitioned(machine: Machine, tmp_path: Path, *partitions: Partition) -> None:
    """The disk vda with these partitions."""
    machine.add("vda", write_gpt(tmp_path / "disk", partitions), "image")
    for number, partition in enumerate(partitions, 1):
        machine.add_partition("vda", number, partition.content)


@pytest.mark.parametrize(("kind", "label"), [("ext4", "first"), ("xfs", "second"), ("btrfs", "third")])
def test_a_disk_may_be_the_root_itself(
    machine: Machine, contents: dict[str, Path], kind: str, label: str
) -> None:
    content = root_disk.identify(str(contents[kind]))
    assert content[:2] == (kind, label)
    assert len(uuid.UUID(content.uuid).bytes) == 16
    machine.add("vda", contents[kind])
    assert machine.find("/dev/vda") == ("vda", kind)


def test_a_disk_is_found_by_its_serial_number(machine: Machine, contents: dict[str, Path]) -> None:
    machine.add("vda", contents["nothing"], "other")
    machine.add("vdb", contents["ext4"], "image")
    assert machine.find("serial:image") == ("vdb", "ext4")


def test_a_partition_may_be_named_as_the_device(
    machine: Machine, contents: dict[str, Path], tmp_path: Path
) -> None:
    partitioned(machine, tmp_path, Partition(contents["xfs"]), Partition(contents["boot"]))
    assert machine.find("/dev/vda2") == ("vda2", "ext4")


def test_the_largest_partition_that_can_be_a_root_is_it(
    machine: Machine, contents: dict[str, Path], tmp_path: Path
) -> None:
    names = ("boot", "ext4", "swap")
    partitioned(machine, tmp_path, *(Partition(contents[name]) for name in names))
    assert machine.find("/dev/vda") == ("vda2", "ext4")


def test_a_partition_that_is_marked_as_the_root_goes_before_larger_ones(
    machine: Machine, contents: dict[str, Path], tmp_path: Path
) -> None:
    partitioned(machine, tmp_path, Partition(contents["xfs"]), Partition(contents["ext4"], ROOT_X86_64))
    assert machine.find("/dev/vda") == ("vda2", "ext4")


NAMED = uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")


@pytest.mark.parametrize(
    "which", ["1", "LABEL=boot", "PARTLABEL=the small one", f"PARTUUID={NAMED}", f"partuuid={NAMED}".upper()]
)
def test_a_partition_can_be_named(
    machine: Machine, contents: dict[str, Path], tmp_path: Path, which: str
) -> None:
    small = Partition(contents["boot"], label="the small one", uuid=NAMED)
    partitioned(machine, tmp_path, small, Partition(contents["ext4"]))
    assert machine.find("/dev/vda", which) == ("vda1", "ext4")


def test_a_partition_can_be_named_by_the_uuid_of_its_file_system(
    machine: Machine, contents: dict[str, Path], tmp_path: Path
) -> None:
    partitioned(machine, tmp_path, Partition(contents["boot"]), Partition(contents["ext4"]))
    wanted = root_disk.identify(str(contents["boot"])).uuid
    assert machine.find("/dev/vda", f"UUID={wanted}") == ("vda1", "ext4")


def test_a_disk_with_a_boot_record_has_numbers_and_file_systems_only(
    machine: Machine, contents: dict[str, Path], tmp_path: Path
) -> None:
    names = ("boot", "ext4")
    disk = write_mbr(tmp_path / "disk", [Partition(contents[name]) for name in names])
    machine.add("vda", disk)
    for number, name in enumerate(names, 1):
        machine.add_partition("vda", number, contents[name])
    assert machine.find("/dev/vda") == ("vda2", "ext4")
    assert machine.find("/dev/vda", "1") == ("vda1", "ext4")


def test_a_disk_that_is_not_there_is_told_with_those_that_are(
    machine: Machine, contents: dict[str, Path]
) -> None:
    machine.add("vdb", contents["ext4"])
    with pytest.raises(RootNotFound, match="there is no disk /dev/vda after 0 s; there is vdb"):
        machine.find("/dev/vda")


def test_a_disk_that_comes_late_because_the_machine_stood_still_is_found(
    machine: Machine, contents: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_still(monkeypatch)
    looks: list[str] = []
    named = root_disk._named

    def look(where: str, block: str) -> str:
        looks.append(where)
        if len(looks) == 3:
            machine.add("vda", contents["ext4"])
        return named(where, block)

    monkeypatch.setattr(root_disk, "_named", look)
    assert root_disk._wait_for("/dev/vda", 15.0, str(machine.folder / "block")) == "vda"


def test_a_disk_without_a_root_is_told_with_what_it_holds(
    machine: Machine, contents: dict[str, Path], tmp_path: Path
) -> None:
    partitioned(machine, tmp_path, Partition(contents["swap"]), Partition(contents["nothing"]))
    with pytest.raises(RootNotFound) as caught:
        machine.find("/dev/vda")
    assert str(caught.value) == (
        "no file system on /dev/vda can be a root, which is ext4, xfs or btrfs; "
        "there is vda1 (16 MiB, swap), vda2 (16 MiB, unknown)"
    )


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"LUKS\xba\xbe", "LUKS"), (b"\0" * 512 + b"LABELONE", "LVM"), (b"hsqs", "squashfs"), (b"?", "unknown")],
)
def test_other_content_is_told_by_its_name(machine: Machine, tmp_path: Path, head: bytes, kind: str) -> None:
    path = tmp_path / "content"
    path.write_bytes(head.ljust(MIB, b"\0"))
    machine.add("vda", path)
    with pytest.raises(RootNotFound, match=rf"there is vda \(1 MiB, {kind}\)"):
        machine.find("/dev/vda")


def test_a_partition_that_is_not_there_is_told_with_those_that_are(
    machine: Machine, contents: dict[str, Path], tmp_path: Path
) -> None:
    partitioned(machine, tmp_path, Partition(contents["boot"]), Partition(contents["swap"]))
    with pytest.raises(
        RootNotFound, match=r"no partition 'LABEL=root'; it has vda1 \(4 MiB, ext4 \"boot\"\)"
    ):
        machine.find("/dev/vda", "LABEL=root")
    with pytest.raises(RootNotFound, match=r"'2' is vda2 \(16 MiB, swap\), and no ext4, xfs or btrfs"):
        machine.find("/dev/vda", "2")
