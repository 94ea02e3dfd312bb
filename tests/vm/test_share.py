"""Folders of the host in machines."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kernelfs import VM, Kernel
from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Provider
from pytest_kernelfs.machines.shares import parse_shares
from pytest_kernelfs.machines.sharing import SharingProvider
from tests.vm.inner import InnerRun

pytestmark = pytest.mark.usefixtures("newest_only")

Share = Callable[..., SharingProvider]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a script, a large file, links, and what stays at home."""
    root = tmp_path / "project"
    (root / "bin").mkdir(parents=True)
    (root / "bin/tool").write_text("#!/bin/sh\necho tool $(dirname $0)\n")
    (root / "bin/tool").chmod(0o750)
    (root / "data").write_bytes(bytes(range(256)) * (3 << 12))
    (root / "link").symlink_to("bin/tool")
    (root / ".git").mkdir()
    return root


@pytest.fixture
def share(provider: Provider) -> Iterator[Share]:
    made: list[SharingProvider] = []

    def share(*texts: str) -> SharingProvider:
        made.append(SharingProvider(provider, parse_shares(texts)))
        return made[-1]

    yield share
    for each in made:
        each.close()


@pytest.fixture
def start(kernel: Kernel, spec: MachineSpec) -> Iterator[Callable[[SharingProvider], VM]]:
    machines: list[Machine] = []

    def start(provider: SharingProvider) -> VM:
        machines.append(provider.start(kernel, spec))
        return VM(machines[-1])

    yield start
    for machine in machines:
        machine.destroy()


def test_a_folder_is_there_and_stays_as_it_was_on_the_host(
    share: Share, start: Callable[[SharingProvider], VM], folder: Path
) -> None:
    provider = share(f"{folder}:/opt/project")
    vm = start(provider)
    assert vm.get("/opt/project/data") == (folder / "data").read_bytes()
    assert vm.run("stat -c '%A %U %Y' /opt/project/bin/tool").stdout.split() == [
        *("-rwxr-x---", "root"),
        str(int((folder / "bin/tool").stat().st_mtime)),
    ]
    assert vm.run("/opt/project/link", check=True).stdout == "tool /opt/project\n"
    assert vm.run("ls -A /opt/project").stdout.split() == ["bin", "data", "link"]
    assert vm.run([vm.shared(folder / "bin/tool")], check=True).stdout == "tool /opt/project/bin\n"
    with pytest.raises(UsageError, match="is not shared with the machine"):
        vm.shared("/etc/passwd")
    vm.run("rm -r /opt/project/*; echo new > /opt/project/new", check=True)
    assert sorted(path.name for path in folder.iterdir()) == [".git", "bin", "data", "link"]
    again = start(provider)
    assert again.run("ls -A /opt/project").stdout.split() == ["bin", "data", "link"]


def test_prepared_machines_and_those_after_a_power_cut_have_it(
    share: Share, kernel: Kernel, spec: MachineSpec, folder: Path
) -> None:
    provider = share(str(folder))
    machine = provider.start_writable(kernel, spec)
    try:
        assert VM(machine).run("/run/kernelfs/share/project/bin/tool").succeeded
        machine = provider.power_cut(machine, "flushed", kernel, lambda: None)
        assert VM(machine).run("/run/kernelfs/share/project/bin/tool").succeeded
    finally:
        machine.destroy()


def test_what_does_not_fit_is_told(
    share: Share, start: Callable[[SharingProvider], VM], folder: Path, spec: MachineSpec
) -> None:
    with (folder / "huge").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, spec.memory)
    with pytest.raises(
        GuestCommandError, match=r"/project cannot be shared: 1\d\d\d\.\d MiB do not fit into"
    ):
        start(share(str(folder)))


def test_a_path_that_is_taken_is_told(
    share: Share, start: Callable[[SharingProvider], VM], folder: Path
) -> None:
    with pytest.raises(GuestCommandError, match="cannot share a folder at /tmp in this machine: File exists"):
        start(share(f"{folder}:/tmp"))


def test_the_documents_example(inner: InnerRun) -> None:
    """Each block names its file in its first line; the last is the test."""
    document = Path(__file__).parents[2] / "docs" / "sharing.md"
    blocks = re.findall(r"^```py\n(.*?)^```", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    project = inner.folder / "project"
    for block in blocks:
        path = project / block.partition("\n")[0].lstrip("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    inner.write(blocks[-1])
    code, output = inner.run(
        f"--kernelfs-share={project}:/opt/project", f"--override-ini=pythonpath={project}"
    )
    assert code == 0, output
    assert f"sharing {project} at /opt/project" in output
    assert inner.leftovers() == []
