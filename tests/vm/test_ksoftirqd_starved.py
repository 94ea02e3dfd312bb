"""What kept ksoftirqd from its processor stalled the network of that processor, on older kernels."""

from __future__ import annotations

import os
import socket
import time

import pytest

from pytest_kernelfs import VM, NetnsPair
from pytest_kernelfs.errors import GuestCommandError

BUSY_S = 2.0
# The scheduler may give other tasks a twentieth of each second, and with it ksoftirqd.
STALLED_S = 0.6


def occupy(processor: int, seconds: float) -> None:
    """Leave behind a process that no other takes a processor from."""
    if os.fork():
        return
    os.setsid()
    os.sched_setaffinity(0, {processor})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    os._exit(0)


def flood(address: str, seconds: float) -> None:
    """Send more packets than one round of softirq takes on, so that the rest is left to ksoftirqd."""
    os.sched_setaffinity(0, {0})
    handle = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            handle.sendto(b"x", (address, 9999))
        except ConnectionRefusedError:
            continue


@pytest.mark.usefixtures("oldest_or_newest")
@pytest.mark.vm(cpus=2)
def test_a_starved_ksoftirqd_stalls_the_network_of_older_kernels(vm: VM, netns_pair: NetnsPair) -> None:
    netns_pair.right.steer(1)
    with netns_pair.rtt_watch(threshold=0.1) as watch:
        vm.call(occupy, 1, BUSY_S)
        netns_pair.left.call(flood, netns_pair.right.address, BUSY_S / 4)
        time.sleep(BUSY_S)
    run = watch.run
    worst = run.measurement.max
    if vm.kernel.version.matches("<6.0"):
        # Whatever came was left to ksoftirqd, once it had been woken.
        (burst,) = [burst for burst in run.bursts if burst.worst == worst]
        assert burst.worst > STALLED_S
        assert burst.in_order
        assert burst.slow > 40
        assert run.softirq.waited > STALLED_S
        with pytest.raises(AssertionError, match=r"waited \d{3,4}\.\d ms for a processor"):
            netns_pair.assert_rtt_under(0.3, run=run)
    else:
        # Where the probe was late as well, it was the host that stood still.
        assert [burst for burst in run.bursts_from(STALLED_S) if burst.late < burst.worst / 2] == []
    netns_pair.right.steer(None)
    with pytest.raises(GuestCommandError, match="has no processor 7"):
        netns_pair.right.steer(7)
