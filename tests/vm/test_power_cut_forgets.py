"""What a machine that lost its power had is not asked of the next, and can be made there again."""

from __future__ import annotations

import pytest

from pytest_kernelfs import (
    VM,
    BrdFactory,
    CgroupFactory,
    DmDevice,
    DmFactory,
    NetnsPairFactory,
    Probes,
    Sysctl,
)
from pytest_kernelfs.errors import UsageError


def test_what_spans_a_power_cut_ends_with_it_and_all_can_be_made_again(
    vm: VM,
    dm_factory: DmFactory,
    cgroup_factory: CgroupFactory,
    brd_factory: BrdFactory,
    netns_pair_factory: NetnsPairFactory,
    sysctl: Sysctl,
    probes: Probes,
    newest_only: None,
) -> None:
    def make_all() -> DmDevice:
        sysctl["vm.swappiness"] = 3
        cgroup_factory(controllers=["pids"])
        brd_factory(size="8M")
        return dm_factory.zero(size="1M")

    pair = netns_pair_factory()
    with (
        probes.sampling("meminfo") as sampled,
        pair.rtt_watch() as watch,
        make_all().suspended(),
        sysctl.changed({"vm.dirty_ratio": 7}),
    ):
        vm.power_cut()
    assert not sampled.complete
    with pytest.raises(UsageError, match="loses its power"):
        watch.run  # noqa: B018
    assert (sysctl["vm.swappiness"], sysctl["vm.dirty_ratio"]) == (60, 20)
    make_all()
    assert netns_pair_factory().rtt(duration=0.2, patience=30).lost == 0
