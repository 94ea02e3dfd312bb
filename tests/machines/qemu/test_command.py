"""QEMU's command line."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.qemu.command import DISK_PORTS, Launch, Memory, port_name, qemu_command

FOLDER = Path("/tmp/kernelfs-0/1-abc")


def options(command: list[str], name: str) -> list[str]:
    """The values of an option, in their order."""
    return [value for key, value in pairwise(command) if key == name]


def line(launch: Launch) -> list[str]:
    return qemu_command(launch, FOLDER)


def test_nothing_of_the_hosts_configuration_is_used(launch: Launch) -> None:
    command = line(launch)
    assert command[0] == "/usr/bin/qemu-system-x86_64"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(command)
    assert options(command, "-display") == ["none"]


def test_kernel_and_initial_ramdisk_are_booted_directly(launch: Launch) -> None:
    command = line(launch)
    assert options(command, "-kernel") == ["/cache/vmlinuz"]
    assert options(command, "-initrd") == ["/cache/key/initramfs"]


def test_a_panic_ends_the_machine_and_is_seen_on_the_console(launch: Launch) -> None:
    (arguments,) = options(line(launch), "-append")
    assert {"console=ttyS0", "panic=-1"} <= set(arguments.split())


def test_an_emulated_clock_is_trusted_and_that_of_a_host_judged_by_the_kernel(launch: Launch) -> None:
    found = [options(line(replace(launch, accel=accel)), "-append")[0] for accel in ("tcg", "kvm")]
    assert ["tsc=reliable" in arguments.split() for arguments in found] == [True, False]


def test_sysrq_keys_are_allowed_whatever_the_distribution_says(launch: Launch) -> None:
    (arguments,) = options(line(launch), "-append")
    assert "sysrq_always_enabled" in arguments.split()


def test_size_and_processors_are_those_of_the_spec(launch: Launch) -> None:
    command = line(replace(launch, spec=MachineSpec(768 << 20, 3)))
    assert options(command, "-m") == ["768M"]
    assert options(command, "-smp") == ["3"]


def test_nothing_listens_on_the_network(launch: Launch) -> None:
    command = " ".join(line(launch))
    assert not re.search(r"\b(tcp|telnet|vnc|spice|netdev|hostfwd)\b", command)
    sockets = re.findall(r"(?:unix:|socket,id=\w+,path=)([^, ]+)", command)
    assert sorted(sockets) == [f"{FOLDER}/agent", f"{FOLDER}/qmp"]


def test_the_console_is_kept_in_the_machines_folder(launch: Launch) -> None:
    command = line(launch)
    assert f"pipe,id=console,path={FOLDER}/console" in options(command, "-chardev")
    assert options(command, "-serial") == ["chardev:console"]


def test_kvm_has_the_hosts_processor(launch: Launch) -> None:
    command = line(replace(launch, accel="kvm"))
    assert (options(command, "-accel"), options(command, "-cpu")) == (["kvm"], ["host"])


def test_tcg_has_all_that_can_be_emulated(launch: Launch) -> None:
    command = line(launch)
    assert (options(command, "-accel"), options(command, "-cpu")) == (["tcg,tb-size=128"], ["max"])


def test_every_port_has_a_name_chassis_and_address_of_its_own(launch: Launch) -> None:
    ports = [value for value in options(line(launch), "-device") if value.startswith("pcie-root-port")]
    assert len(ports) == DISK_PORTS
    for key in ("id", "chassis", "addr"):
        values = [match[1] for port in ports if (match := re.search(rf"\b{key}=([^,]+)", port))]
        assert len(set(values)) == DISK_PORTS


def test_the_first_port_of_each_slot_says_that_others_share_it(launch: Launch) -> None:
    ports = [value for value in options(line(launch), "-device") if value.startswith("pcie-root-port")]
    first = {port for port in ports if ".0x0" in port}
    assert {port for port in ports if "multifunction=on" in port} == first
    assert len(first) == DISK_PORTS // 8


def test_ports_are_called_as_disks_ask_for_them(launch: Launch) -> None:
    command = " ".join(line(launch))
    assert all(f"id={port_name(index)}," in command for index in range(DISK_PORTS))


def test_without_a_file_memory_is_anonymous(launch: Launch) -> None:
    command = line(launch)
    assert "-object" not in command
    assert "-incoming" not in command


def test_a_template_writes_its_memory_to_a_file(launch: Launch) -> None:
    command = line(replace(launch, memory=Memory(Path("/cache/memory"), shared=True)))
    assert options(command, "-object") == [
        "memory-backend-file,id=ram,size=1024M,mem-path=/cache/memory,share=on"
    ]
    assert options(command, "-machine")[0].endswith(",memory-backend=ram")


def test_a_fork_keeps_what_it_writes_to_itself_and_waits(launch: Launch) -> None:
    command = line(replace(launch, memory=Memory(Path("/cache/memory"), shared=False), incoming=True))
    assert options(command, "-object")[0].endswith("share=off")
    assert options(command, "-incoming") == ["defer"]


def test_fork_and_template_are_the_same_machine(launch: Launch) -> None:
    memory = Memory(Path("/cache/memory"), shared=True)
    template = line(replace(launch, memory=memory))
    fork = line(replace(launch, memory=replace(memory, shared=False), incoming=True))
    for name in ("-machine", "-m", "-smp", "-accel", "-cpu", "-device", "-chardev", "-serial"):
        assert options(template, name) == options(fork, name)


def test_a_fork_reads_no_more_of_the_kernel_than_it_must(launch: Launch) -> None:
    command = line(replace(launch, memory=Memory(Path("/cache/memory"), shared=False), incoming=True))
    assert options(command, "-kernel") == ["/cache/kernel-head"]
    assert "-initrd" not in command
