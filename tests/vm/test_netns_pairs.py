"""Pairs of network namespaces: joined to each other, apart from all else, and gone after the test."""

from __future__ import annotations

import os
import socket

from pytest_kernelfs import VM, NetnsPair, NetnsPairFactory
from pytest_kernelfs.resources.stack import Resources

PORT = 7777


def answer_in_background(port: int) -> int:
    """Leave behind a process that greets who connects; gives its number."""
    listener = socket.socket()
    listener.bind(("0.0.0.0", port))
    listener.listen()
    child = os.fork()
    if child:
        listener.close()
        return child
    os.setsid()
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"hello")
        connection.close()


def hear(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=60) as connection:
        return connection.recv(5).decode()


def interfaces() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def test_they_reach_each_other_and_nothing_else(
    vm: VM, netns_pair_factory: NetnsPairFactory, kernelfs_resources: Resources
) -> None:
    before = vm.call(interfaces)
    first, second = netns_pair_factory(), netns_pair_factory()
    child = first.right.call(answer_in_background, PORT)
    assert first.left.call(hear, first.right.address, PORT) == "hello"
    assert first.left.call(interfaces) == ["lo", first.left.interface]
    assert vm.call(interfaces) == before
    # The same address, in a pair of its own.
    alone = second.left.run(["ip", "route", "get", second.right.address], check=True).stdout
    assert f"dev {second.left.interface}" in alone
    assert str(PORT) not in second.right.run("cat /proc/net/tcp | wc -l; ss -ltn").stdout
    assert first.right.name in vm.run(["ip", "netns", "list"], check=True).stdout
    first.right.run("ip address add 10.9.0.1/32 dev lo", check=True)
    for way in (first.reversed, first):
        assert way.rtt(duration=0.1).lost == 0
    assert first.rtt(address="10.9.0.1", duration=0.1).lost == 10
    first.left.run(f"ip route add 10.9.0.1 via {first.right.address}", check=True)
    assert first.rtt(address="10.9.0.1", duration=0.1, kind="tcp").lost == 0

    kernelfs_resources.close()
    left = vm.run(f"cat /proc/self/mounts; ls /run/netns; test -e /proc/{child}/fd/0 && echo alive").stdout
    assert "netns" not in left
    assert "nsfs" not in left
    assert "alive" not in left


def test_what_the_test_removed_itself_is_no_problem(
    vm: VM, netns_pair: NetnsPair, kernelfs_resources: Resources
) -> None:
    vm.run(["ip", "netns", "del", netns_pair.left.name], check=True)
    kernelfs_resources.close()
    assert vm.run("ls /run/netns").stdout == ""


def test_netem_is_what_the_kernel_says_it_is(netns_pair_factory: NetnsPairFactory) -> None:
    pair = netns_pair_factory(delay="150ms", jitter="20ms", loss="25%", rate="1M")
    shown = "tc qdisc show dev veth0"
    said = pair.left.run(shown, check=True).stdout
    assert all(word in said for word in ("netem", "delay 150", "20", "loss 25%", "rate 8388"))
    pair.netem(delay="1ms")
    said = pair.left.run(shown, check=True).stdout
    assert "delay 1" in said
    assert "loss" not in said
    assert "rate" not in said
    pair.netem()
    assert "netem" not in pair.left.run(shown, check=True).stdout
