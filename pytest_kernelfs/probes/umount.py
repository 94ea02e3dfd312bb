"""Unmount times, with what was written back meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pytest_kernelfs.guest import mounts
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement

_DEADLINE_S = 600.0


class Unmountable(Protocol):
    """What can be unmounted: ``path`` is where it is, ``backing`` lies on what it writes back to."""

    path: str
    backing: str

    def forget(self) -> None:
        """Told once it is unmounted."""


@dataclass(frozen=True)
class UmountRun:
    """One measured round of unmounts.

    ``seconds`` and ``errors`` ("" for none) are in the order of ``paths``; ``written`` is device -> bytes;
    ``dirty`` and ``writeback`` are samples in bytes, the first before and the last after.
    """

    parallel: bool
    paths: tuple[str, ...]
    seconds: tuple[float, ...]
    errors: tuple[str, ...]
    written: dict[str, int]
    dirty: tuple[int, ...]
    writeback: tuple[int, ...]

    @property
    def measurement(self) -> Measurement:
        return Measurement.of("umount", "s", self.seconds)


def umount_timed(vm: VM, targets: Sequence[Unmountable], parallel: bool) -> UmountRun:
    """Unmount and measure; see ``guest.mounts.umount_timed``."""
    paths = [target.path for target in targets]
    raw = vm.guest(
        mounts.umount_timed, paths, [target.backing for target in targets], parallel, timeout=_DEADLINE_S
    )
    for target, error in zip(targets, raw["errors"], strict=True):
        if not error:
            target.forget()
    return UmountRun(
        parallel=parallel,
        paths=tuple(paths),
        seconds=tuple(raw["seconds"]),
        errors=tuple(raw["errors"]),
        written=dict(raw["written"]),
        dirty=tuple(sample[1] for sample in raw["watch"]),
        writeback=tuple(sample[2] for sample in raw["watch"]),
    )
