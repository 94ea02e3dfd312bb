"""pytest-testinfra's modules through ``vm.host``, on the machines of whatever provider the run uses.

On a machine that is a distribution, what needs one is tested, too: pytest --kernelfs-provider ssh ...
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_kernelfs import VM, Disk, Kernel, NetnsPair, Sysctl, Tmpfs
from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.fixtures.machines import RUN

CONTENT = "café\n"


@pytest.fixture(autouse=True)
def newest_of_the_run(kernel: Kernel, request: pytest.FixtureRequest) -> None:
    newest = max(candidate.version for candidate in request.config.stash[RUN].resolve())
    if kernel.version != newest:
        pytest.skip("does not depend on the kernel: it runs on the newest of the run")


@pytest.fixture
def host(vm: VM) -> Any:
    """Takes the place of testinfra's own ``host``, as the documents tell."""
    return vm.host


@pytest.fixture
def distribution(host: Any) -> str | None:
    """None for the guest that is made of the host's programs."""
    found: str = host.system_info.distribution
    return None if found == "kernelfs" else found


@pytest.fixture
def folder(vm: VM) -> Iterator[str]:
    path = vm.run(["mktemp", "-d"], check=True).stdout.strip()
    yield path
    vm.run(["rm", "-r", path], check=True)


@pytest.fixture
def started(vm: VM) -> Iterator[Callable[[int], int]]:
    """Processes to be ended after the test."""
    numbers: list[int] = []

    def note(pid: int) -> int:
        numbers.append(pid)
        return pid

    yield note
    for pid in numbers:
        vm.run(["kill", "-9", str(pid)], check=True)


def listen(address: str, name: str) -> tuple[int, int, int]:
    """Leave behind a process that listens on TCP, and on a Unix socket if a name is given.

    It has one connection, to itself. Gives its number, its port, and the port of its client.
    """
    listener = socket.create_server((address, 0))
    port = listener.getsockname()[1]
    client = socket.create_connection((address, port))
    client_port = client.getsockname()[1]
    local = socket.socket(socket.AF_UNIX)
    if name:
        local.bind(name)
        local.listen()
    child = os.fork()
    if not child:
        os.setsid()
        while True:
            signal.pause()
    for mine in (listener, client, local):
        mine.close()
    return child, port, client_port


def test_commands(host: Any) -> None:
    done = host.run("echo %s; echo err >&2; exit 255", "it's; $HOME")
    assert (done.rc, done.stdout, done.stderr) == (255, "it's; $HOME\n", "err\n")
    assert host.run("kill -9 $$").rc == -signal.SIGKILL
    assert host.check_output("printf '\\303\\251'") == "é"
    assert host.run("printf '\\377'").stdout_bytes == b"\xff"
    assert host.command("true").succeeded
    assert host.run_test("false").rc == 1
    with pytest.raises(AssertionError, match="Unexpected exit code 3"):
        host.check_output("exit 3")
    with pytest.raises(GuestTimeout, match=r"'sleep 1234' did not end within 0\.5 s"):
        host.run("sleep 1234", timeout=0.5)
    assert host.exists("ls")
    assert not host.exists("no-such-command")
    assert host.find_command("ls").endswith("/ls")


def test_environment(host: Any) -> None:
    assert "/usr/bin" in host.environment()["PATH"].split(":")


def test_files(host: Any, vm: VM, folder: str) -> None:
    path = f"{folder}/a file"
    vm.put(CONTENT.encode(), path, mode=0o640)
    vm.run('ln -s "a file" link && mkfifo pipe', cwd=folder, check=True)
    file, link = host.file(path), host.file(f"{folder}/link")
    assert file.exists
    assert file.is_file
    assert not file.is_directory
    assert not file.is_executable
    assert (file.user, file.uid, file.group, file.gid) == ("root", 0, "root", 0)
    assert (file.mode, file.size) == (0o640, 6)
    assert file.content == CONTENT.encode()
    assert file.content_string == CONTENT
    assert file.contains("^caf")
    assert not file.contains("tea")
    assert file.md5sum == hashlib.md5(CONTENT.encode()).hexdigest()
    assert file.sha256sum == hashlib.sha256(CONTENT.encode()).hexdigest()
    assert abs(file.mtime.timestamp() - float(host.check_output("date +%s"))) < 600
    assert link.is_symlink
    assert link.linked_to == path
    assert link.inode == file.inode
    assert host.file(f"{folder}/pipe").is_pipe
    assert sorted(host.file(folder).listdir()) == ["a file", "link", "pipe"]
    assert not host.file(f"{folder}/nothing").exists


def test_processes(host: Any, vm: VM, started: Callable[[int], int]) -> None:
    command = "sleep 98765"
    pid = started(int(vm.run(f"{command} >/dev/null 2>&1 & echo $!", check=True).stdout))
    vm.run(f"until grep -q sleep /proc/{pid}/comm; do sleep 0.01; done", check=True)
    process = host.process.get(comm="sleep", args=command)
    assert process.pid == pid
    assert (process.user, process.args) == ("root", command)
    assert process.pid in [found.pid for found in host.process.filter(user="root")]
    with pytest.raises(RuntimeError, match="No process found"):
        host.process.get(comm="no-such-process")


def test_mount_points(host: Any, tmpfs: Tmpfs) -> None:
    mount = host.mount_point(tmpfs.path)
    assert mount.exists
    assert (mount.filesystem, mount.options[0]) == ("tmpfs", "rw")
    assert tmpfs.path in [found.path for found in mount.get_mountpoints()]
    assert host.mount_point("/proc").device == "proc"
    tmpfs.umount()
    assert not host.mount_point(tmpfs.path).exists


def test_sysctls(host: Any, vm: VM, sysctl: Sysctl) -> None:
    assert host.sysctl("kernel.osrelease") == vm.kernel.release
    sysctl.set("vm.swappiness", 17)
    assert host.sysctl("vm.swappiness") == 17


def test_users_and_groups(host: Any) -> None:
    root, nobody = host.user("root"), host.user("nobody")
    assert host.user().name == "root"
    assert (root.uid, root.gid, root.group) == (0, 0, "root")
    assert root.home == "/root"
    assert isinstance(root.gecos, str)
    assert 0 in root.gids
    assert "root" in root.groups
    assert nobody.exists
    assert nobody.shell
    assert isinstance(nobody.password, str)
    assert nobody.password_max_days is None or nobody.password_max_days > 0
    assert nobody.password_min_days in (None, 0)
    assert nobody.expiration_date is None
    assert {"root", "nobody"} <= set(root.get_all_users) & set(root.get_local_users)
    assert not host.user("no-such-user").exists
    group = host.group("root")
    assert (group.exists, group.gid) == (True, 0)
    assert isinstance(group.members, list)
    assert "root" in set(group.get_all_groups) & set(group.get_local_groups)
    assert not host.group("no-such-group").exists


def test_other_users(host: Any, folder: str, distribution: str | None) -> None:
    with host.sudo("nobody"):
        assert host.user().name == "nobody"
        assert host.run("echo x > %s/file", folder).failed
        assert host.check_output("echo %s $USER", "it's") == "it's nobody"
    with host.sudo():
        assert host.check_output("id -un") == "root"
        with host.sudo("nobody"):
            assert host.check_output("id -un") == "nobody"
    assert host.user().name == "root"
    if distribution is None:
        with host.sudo("nobody"), host.sudo():
            # As where sudo is not told to let nobody become root.
            assert "Operation not permitted" in host.run("id -un").stderr


def test_interfaces(host: Any) -> None:
    interface = host.interface("lo")
    assert interface.exists
    assert "127.0.0.1" in interface.addresses
    assert host.interface("lo", "inet").addresses == ["127.0.0.1"]
    assert "LOOPBACK" in interface.link[0]["flags"]
    assert isinstance(interface.routes(), list)
    assert "lo" in interface.names()
    assert interface.default("inet").name is None or interface.default("inet").exists
    assert not host.interface("nosuch0").exists


def test_addresses(host: Any, netns_pair: NetnsPair) -> None:
    local = host.addr("localhost")
    assert local.is_resolvable
    assert not host.addr("no-such-host.invalid").is_resolvable
    _, port, _ = netns_pair.right.call(listen, netns_pair.right.address, "")
    there = host.addr(netns_pair.right.address, netns_pair.left.name)
    assert there.namespace_exists
    # Where there is no address but loopback's, the C library finds none of one family.
    assert "127.0.0.1" in host.addr("localhost", netns_pair.left.name).ipv4_addresses
    if host.exists("ping"):
        assert there.is_reachable
    if host.exists("nc"):
        assert there.port(port).is_reachable
        assert not there.port(port + 1).is_reachable
    else:
        with pytest.raises(NotImplementedError, match="nc command not available"):
            _ = there.port(port).is_reachable


def test_sockets(host: Any, vm: VM, folder: str, started: Callable[[int], int]) -> None:
    name = f"{folder}/socket"
    pid, port, client = vm.call(listen, "127.0.0.1", name)
    started(pid)
    heard = host.socket(f"tcp://127.0.0.1:{port}")
    assert heard.is_listening
    assert heard.clients == [("127.0.0.1", client)]
    assert not host.socket("tcp://127.0.0.1:1").is_listening
    assert host.socket(f"unix://{name}").is_listening
    assert {f"tcp://127.0.0.1:{port}", f"unix://{name}"} <= set(heard.get_listening_sockets())
    assert host.addr("127.0.0.1").port(port).is_reachable
    assert host.file(name).is_socket


def test_block_devices(host: Any, disk: Disk) -> None:
    device = host.block_device(disk.path)
    assert device.size == disk.size
    assert device.sector_size == 512
    assert device.block_size >= 512
    assert device.ra >= 0
    assert device.is_writable
    assert not device.is_partition
    with pytest.raises(RuntimeError, match=r"No data from|Failed to gather data"):
        _ = host.block_device("/dev/null").size


def test_system_information(host: Any, distribution: str | None) -> None:
    assert host.system_info.type == "linux"
    assert host.system_info.arch == host.check_output("uname -m")
    if distribution is not None:
        assert host.system_info.release


def test_packages(host: Any, distribution: str | None) -> None:
    if distribution is None:
        with pytest.raises(NotImplementedError):
            host.package("coreutils")
        return
    package = host.package("coreutils")
    assert package.is_installed
    assert package.version[0].isdigit()
    assert not host.package("no-such-package").is_installed


def test_services(host: Any) -> None:
    if host.file("/run/systemd/system").is_directory:
        service = host.service("systemd-journald")
        assert service.exists
        assert service.is_running
        assert service.is_enabled
        assert not service.is_masked
        assert service.systemd_properties["ActiveState"] == "active"
        assert not host.service("no-such-service").exists
    elif host.exists("service"):
        assert not host.service("no-such-service").is_running
    else:
        with pytest.raises(ValueError, match='cannot find "service" command'):
            _ = host.service("no-such-service").is_running


def test_packet_filters(host: Any, vm: VM, distribution: str | None) -> None:
    if not host.exists("iptables"):
        with pytest.raises(AssertionError, match="Unexpected exit code 127"):
            host.iptables.rules()
        return
    if distribution is None:
        vm.modprobe("nf_tables")
        if vm.kernel.config_option("NFT_COUNTER") == "m":
            vm.modprobe("nft_counter")
        vm.run("iptables -A INPUT -p tcp --dport 7777 -j DROP", check=True)
        assert host.iptables.rules("filter", "INPUT")[1:] == ["-A INPUT -p tcp -m tcp --dport 7777 -j DROP"]
    assert host.iptables.rules("filter", "INPUT")[0].startswith("-P INPUT ")
    assert any(rule.startswith("-P OUTPUT ") for rule in host.iptables.rules(version=6))
