"""A pair of network namespaces that was prepared once is there in every fork."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Checkpoint, NetnsPairFactory, Preparer


@pytest.fixture(scope="module")
def checkpoint(prepare: Preparer) -> Checkpoint:
    machine = prepare()
    return machine.checkpoint(pair=machine.netns_pair_factory(delay="200ms"))


@pytest.mark.usefixtures("newest_only")
def test_a_fork_has_the_pair_and_makes_its_own(vm: VM, netns_pair_factory: NetnsPairFactory) -> None:
    kept = vm.kept["pair"]
    with pytest.raises(AssertionError, match="netem on netns-1-left: delay 200 ms"):
        kept.assert_rtt_under(0.15, duration=0.2)
    kept.netem()
    own = netns_pair_factory()
    assert own.left.name == "fork-netns-1-left"
    for pair in (kept, own):
        pair.assert_rtt_under(30.0, duration=0.2)
