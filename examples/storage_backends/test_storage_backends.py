"""What do ten containers cost, on each kind of storage that the kernel has for them?

Ten containers start from one image and write a little. Each is committed, and
ten more start from the commits. Every step is timed, and the room that it took
is counted, where the backend keeps them apart for data and metadata. The
figures are recorded; what is demanded holds on any machine, fast or slow.

Seen in the figures: a commit costs an overlay a copy of what was written, and
the others next to nothing; a thin volume with ext4 takes a block or two to be
mounted, and one with XFS (choose "thin-xfs") 2 MiB.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import pytest

from pytest_kernelfs import VM, Measurement, Probes, StorageBackend, StorageBackendFactory, StorageUsage

# One machine for all: what it did before is warm, and each backend finds it as the one before.
pytestmark = pytest.mark.isolation("module")

T = TypeVar("T")

KIB, MIB = 1 << 10, 1 << 20
APP = bytes(range(256)) * (10 * KIB)  # 2.5 MiB, as much as a small set of tools
WRITTEN = 64 * KIB
COUNT = 10


class Steps:
    """The steps of a test: how long each call took, and how much room all calls of a step."""

    def __init__(self, backend: StorageBackend, record: Callable[[Measurement], None]) -> None:
        self._backend = backend
        self._record = record

    def take(self, name: str, calls: Iterable[Callable[[], T]]) -> tuple[list[T], StorageUsage]:
        """Make the calls one after another; gives what each gave, and what all of them took.

        The first call is kept apart, because it is slower: the kernel does some things only once.
        """
        before = self._backend.used()
        results, seconds = [], []
        for call in calls:
            start = time.monotonic()
            results.append(call())
            seconds.append(time.monotonic() - start)
        taken = self._backend.used() - before
        self._record(Measurement.of(f"{name}, the first", "s", seconds[:1]))
        self._record(Measurement.of(name, "s", seconds[1:]))
        for kind in ("data", "metadata", "backing"):
            if getattr(taken, kind) is not None:
                self._record(Measurement.of(f"{name}, {kind}", "B", [getattr(taken, kind)]))
        return results, taken


@pytest.fixture
def steps(storage_backend: StorageBackend, record_measurement: Callable[[Measurement], None]) -> Steps:
    """Steps on the test's storage backend, recorded with the test's report."""
    return Steps(storage_backend, record_measurement)


def files_below(folder: str) -> list[str]:
    return sorted(name for _, _, names in os.walk(folder) for name in names)


def test_ten_containers(vm: VM, storage_backend: StorageBackend, steps: Steps, probes: Probes) -> None:
    backend = storage_backend
    image = backend.image({"bin/app": APP})
    empty = backend.used()
    with probes.sampling("meminfo", interval=0.5):
        containers, started = steps.take("start", [partial(backend.container, image)] * COUNT)
        calls = [partial(one.write, f"data{n}", WRITTEN) for n, one in enumerate(containers)]
        _, wrote = steps.take("write", calls)
        commits, _ = steps.take("commit", [one.commit for one in containers])
        again, restarted = steps.take(
            "start from commits", [partial(backend.container, one) for one in commits]
        )

    # What nobody wrote is shared.
    assert started.total < COUNT * len(APP)
    assert restarted.total < COUNT * len(APP)
    # What was written is not.
    assert wrote.data >= COUNT * WRITTEN
    for n, (one, other) in enumerate(zip(containers, again, strict=True)):
        one.write("late", "4K")
        assert vm.call(files_below, one.path) == ["app", f"data{n}", "late"]
        assert vm.call(files_below, other.path) == ["app", f"data{n}"]

    steps.take("remove", [one.remove for one in [*again, *containers, *commits]])
    assert backend.used().data < empty.data + COUNT * WRITTEN


@pytest.mark.parametrize(
    ("storage_backend", "copied"),
    [
        ("overlay-ext4", True),  # a file is copied up as a whole
        ("overlay-xfs", False),  # too, but XFS lets the copy share its blocks
        ("btrfs", False),
        ("thin-ext4", False),
        ("thin-xfs", False),
    ],
    indirect=["storage_backend"],
)
def test_a_small_write_to_a_large_file(storage_backend: StorageBackend, copied: bool) -> None:
    container = storage_backend.container(storage_backend.image({"bin/app": APP}))
    before = storage_backend.used()
    container.write("bin/app", WRITTEN, offset=MIB)
    taken = storage_backend.used() - before
    assert (taken.total >= len(APP)) is copied
    assert taken.total >= WRITTEN


@pytest.mark.kernel_needs("module:dm_thin_pool")
@pytest.mark.parametrize("discard", [True, False])
def test_sparse_files_get_room_back_only_by_discards(
    storage_backend_factory: StorageBackendFactory, discard: bool
) -> None:
    backend = storage_backend_factory("thin-loop-ext4", discard=discard)
    container = backend.container(backend.image({}))
    container.write("data", "8M")
    full = backend.used()
    container.remove()
    freed = full - backend.used()
    assert freed.data >= 8 * MIB
    assert freed.backing is not None
    assert (freed.backing >= 8 * MIB) is discard
