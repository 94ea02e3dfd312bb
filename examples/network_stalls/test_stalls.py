"""Is it the network that stands still, and which part of it?

Services on some nodes saw connections take 100 ms and more, now and then. A
probe every 10 ms, sent by the clock, showed slow round trips in groups, like
a backlog that is worked off: a queue was not served for a while. SYN packets
told more than echo requests did. Echo requests are one flow, which takes one
queue; each SYN comes from another port and is a flow of its own.

No test asks how quick a network is. Each plants a stall of a second, and
looks for its shape.
"""

from __future__ import annotations

import pytest

from pytest_kernelfs import AssertRttUnder, NetnsPair, NetnsPairFactory, RttBurst, RttRun

STALL = 1.0  # seconds: long beside what a busy host adds
SLOW = 0.25  # seconds from which on a round trip counts as slow
INTERVAL = 0.01  # seconds from one probe to the next
KINDS = ("icmp", "tcp")


@pytest.fixture
def node(netns_pair_factory: NetnsPairFactory) -> NetnsPair:
    """A client (left) and a node (right); each packet takes one of two queues, which its flow decides."""
    return netns_pair_factory(queues=2)


def longest(run: RttRun) -> RttBurst:
    """The stall that held back the most probes."""
    return max(run.bursts, key=lambda burst: burst.slow)


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_node_has_no_stalls(node: NetnsPair, kind: str) -> None:
    """The clean run.

    A busy host may stop the whole machine. The probe is late then, too, so that is none of ``stalls``.
    """
    run = node.rtt(kind=kind, duration=1.0, threshold=SLOW, patience=30)
    assert run.lost == 0
    assert run.stalls == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_backlog_is_one_stall_in_order(
    node: NetnsPair, assert_rtt_under: AssertRttUnder, kind: str
) -> None:
    """When nothing is served, all packets wait behind one another, and the failure says so."""
    with node.rtt_watch(kind=kind, interval=INTERVAL, threshold=SLOW) as watch:
        node.stall(STALL)
    assert longest(watch.run).in_order
    assert max(sample.waited or 0 for sample in watch.run.samples) > STALL - 2 * INTERVAL
    with pytest.raises(AssertionError, match=r"stall at .* slow, up to .* answered in order"):
        assert_rtt_under(SLOW, run=watch.run)


def test_one_queue_of_two_stalls_some_connections_only(
    node: NetnsPair, assert_rtt_under: AssertRttUnder
) -> None:
    """SYN packets that hash to the other queue overtake those that wait: the answers are interleaved."""
    with node.rtt_watch(kind="tcp", interval=INTERVAL, threshold=SLOW) as watch:
        node.stall(STALL, queue=1)
    assert longest(watch.run).quick > 0
    assert not longest(watch.run).in_order
    with pytest.raises(AssertionError, match=r"quick .*between them, answers interleaved"):
        assert_rtt_under(SLOW, run=watch.run)


def test_echo_requests_all_wait_or_none_does(node: NetnsPair) -> None:
    """They are one flow: when their queue stands still all of them wait, and when another does, none."""
    slow = []
    for queue in (0, 1):
        with node.rtt_watch(kind="icmp", interval=INTERVAL, threshold=SLOW) as watch:
            node.stall(STALL, queue=queue)
        slow.append(max((burst.slow for burst in watch.run.bursts), default=0))
    assert min(slow) < 5 < 25 < max(slow)
