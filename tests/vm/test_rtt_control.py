"""Round trips: slow ways, stalls and losses are seen and told apart, and a healthy way passes."""

from __future__ import annotations

import re
import socket
import time

import pytest

from pytest_kernelfs import VM, AssertRttUnder, NetnsPair, NetnsPairFactory

# A host may let the machine stand still while a packet is on its way.
GENEROUS = 30.0
KINDS = ("icmp", "tcp")


def listen_for_ever(port: int) -> None:
    """Have a listening socket that lasts as long as the machine."""
    listener = socket.socket()
    listener.bind(("0.0.0.0", port))
    listener.listen()
    listener.detach()


def test_a_healthy_way_passes(assert_rtt_under: AssertRttUnder, netns_pair: NetnsPair) -> None:
    for kind in KINDS:
        run = assert_rtt_under(GENEROUS, kind=kind, duration=0.5)
        assert (len(run.samples), run.lost) == (50, 0)
        assert 0 < run.measurement.max < GENEROUS
        assert run.bursts == ()
    netns_pair.right.call(listen_for_ever, 7777)
    assert netns_pair.rtt(kind="tcp", port=7777, duration=0.2, patience=30).lost == 0


def test_a_slow_way_is_caught(
    vm: VM, assert_rtt_under: AssertRttUnder, netns_pair_factory: NetnsPairFactory
) -> None:
    pair = netns_pair_factory(delay="100ms")
    for kind in KINDS:
        with pytest.raises(AssertionError) as caught:
            assert_rtt_under(0.09, pair, kind=kind, duration=0.3, patience=20)
        text = str(caught.value)
        assert re.match(r"30 of 30 round trips took longer than 90.0 ms, at most \d{3,}\.\d ms", text), text
        assert f"({kind.upper()}, netns-1-left to netns-1-right, netem on netns-1-left: delay 100 ms" in text
        assert re.search(r"stall at \d+\.\d{3} s for", text)
        assert "most probes were slow: the way as a whole" in text
    run = pair.rtt(duration=0.3, patience=20)
    assert min(run.measurement.samples) >= 0.1
    with pytest.raises(
        AssertionError, match="netns-1-left to netns-1-right, netem on netns-1-left: delay 100"
    ):
        assert_rtt_under(0.09, run=run)
    # To judge a run, no other pair was made.
    assert vm.run("ls /run/netns").stdout.split() == ["netns-1-left", "netns-1-right"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stall_is_one_burst_in_order(
    netns_pair: NetnsPair, assert_rtt_under: AssertRttUnder, kind: str
) -> None:
    for _ in range(5):
        with netns_pair.rtt_watch(kind=kind, patience=20) as watch:
            netns_pair.stall("400ms")
        # A crowded host makes stalls of its own, for what is on its way just then; the planted one is for
        # many, unless the machine stood still at its begin. Then probes are late, too, and sent when the
        # stall is almost over: they wait for less of it.
        burst = max(watch.run.bursts, key=lambda burst: burst.slow)
        if burst.slow > 20 and burst.worst > 0.3:
            break
    assert burst.slow > 20
    assert (burst.in_order, burst.lost) == (True, 0)
    assert burst.worst > 0.3
    with pytest.raises(AssertionError, match=r"stall at .* slow, up to .* answered in order"):
        assert_rtt_under(0.2, run=watch.run)


def test_what_overtakes_is_interleaved(netns_pair: NetnsPair) -> None:
    netns_pair.netem(delay="150ms", jitter="100ms")
    with pytest.raises(AssertionError) as caught:
        netns_pair.assert_rtt_under("150ms", duration=0.6, patience=30)
    assert re.search(r"\d+ quick between them, answers interleaved", str(caught.value))


def test_losses_are_counted(netns_pair: NetnsPair) -> None:
    netns_pair.right.netem(loss="40%")
    with pytest.raises(
        AssertionError, match=r"\d+ of 100 probes were lost .*netem on netns-1-right: loss 0.4"
    ):
        netns_pair.assert_rtt_under(0.2, duration=1.0, patience=0.1)
    assert 0 < netns_pair.rtt(duration=0.5, patience=0.5).lost < 50


def test_a_link_that_is_down_is_a_row_of_losses(netns_pair: NetnsPair) -> None:
    with netns_pair.rtt_watch(patience=1.0) as watch:
        netns_pair.right.run("ip link set veth0 down && sleep 0.3 && ip link set veth0 up", check=True)
        wait_for_an_answer(netns_pair)
    assert watch.run.lost_in_a_row >= 15
    assert watch.run.lost < len(watch.run.samples)


def wait_for_an_answer(pair: NetnsPair) -> None:
    deadline = time.monotonic() + 120
    while pair.rtt(duration=0.05, patience=0.2).lost:
        assert time.monotonic() < deadline, "the link did not come up again"
