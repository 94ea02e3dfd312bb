"""What kept ksoftirqd from its processor stalled the network of that processor, on older kernels."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from pytest_kernelfs import VM, NetnsPair, Sysctl
from pytest_kernelfs.errors import GuestCommandError

# How long packets wait for a processor that they do not get.
STALLED_S = 2.5


def occupy(processor: int) -> int:
    """Leave behind a process that no other takes a processor from, and that ends by itself at last."""
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.alarm(120)
        os.sched_setaffinity(0, {processor})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        while True:
            pass
    while os.sched_getscheduler(child) != os.SCHED_FIFO:
        time.sleep(0.01)
    return child


def flood(address: str) -> None:
    """Send more packets than one round of softirq takes on, so that the rest is left to ksoftirqd."""
    os.sched_setaffinity(0, {0})
    handle = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    handle.settimeout(3)
    for _ in range(10000):
        try:
            handle.sendto(b"x", (address, 9999))
        except ConnectionRefusedError:
            continue
        except TimeoutError:
            return  # so many wait already that there is no room for more


@pytest.mark.usefixtures("oldest_or_newest")
@pytest.mark.vm(cpus=2)
def test_a_starved_ksoftirqd_stalls_the_network_of_older_kernels(
    vm: VM, netns_pair: NetnsPair, sysctl: Sysctl
) -> None:
    old = vm.kernel.version.matches("<6.0")
    # All the time: else the scheduler would give other tasks a twentieth of each second, and so ksoftirqd.
    sysctl["kernel.sched_rt_runtime_us"] = -1
    netns_pair.right.steer(1)
    with netns_pair.rtt_watch(threshold=0.1) as watch:
        busy = vm.call(occupy, 1)
        netns_pair.left.call(flood, netns_pair.right.address)
        # Asked for answers while the processor is taken, and not how quick they are: the host may be busy.
        meanwhile = netns_pair.rtt(duration=0.1, patience=STALLED_S if old else 60.0)
        vm.run(["kill", "-9", str(busy)], check=True)
    if old:
        # Whatever came was left to ksoftirqd, once it had been woken.
        assert meanwhile.lost == len(meanwhile.samples)
        run = watch.run
        burst = max(run.bursts, key=lambda burst: burst.slow)
        assert burst.worst > STALLED_S
        assert burst.in_order
        assert burst.slow > 40
        assert run.softirq.waited > STALLED_S
        with pytest.raises(AssertionError, match=r"waited \d{4,}\.\d ms for a processor"):
            netns_pair.assert_rtt_under(0.3, run=run)
    else:
        assert meanwhile.lost == 0
    netns_pair.right.steer(None)
    with pytest.raises(GuestCommandError, match="has no processor 7"):
        netns_pair.right.steer(7)
