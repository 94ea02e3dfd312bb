"""Space that was freed is there again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import space
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.resources.loop import LoopDevice
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.sizes import Size, format_size, parse_size

_GRACE_S = 60.0
# What dirty data may take on its way to a slow disk: as for Mount.sync().
_SYNC_GRACE_S = 300.0


@dataclass
class Reclaimed:
    """What came back: ``before`` and ``after`` are used bytes, ``seconds`` the time it took after the block.

    Filled in once the block has ended.
    """

    path: str
    before: int = 0
    after: int = 0
    seconds: float = 0.0

    @property
    def reclaimed(self) -> int:
        """Bytes; below 0 if more is used than before."""
        return self.before - self.after


@contextmanager
def space_reclaimed(
    vm: VM,
    target: Mount | LoopDevice | str,
    *,
    at_least: Size,
    within: float = 10.0,
    sync: bool = True,
    record: Callable[[Measurement], None] | None = None,
) -> Iterator[Reclaimed]:
    """Demand that what the block deletes comes back: ``at_least`` so many bytes, ``within`` seconds after it.

    ``target`` is a mount, or a folder on one, which the block may delete: the file system's used space counts
    (statfs). Or it is a loop device, or the path of a file: the space that is allocated to the (backing) file
    counts, which shrinks only when what lies on it discards. ``sync`` writes dirty data back before it
    counts. ``record`` is told the bytes that came back and the time it took, also of a failure.

    Raises: AssertionError with what was seen, and who has deleted files open; UsageError; GuestCommandError.
    """
    __tracebackhide__ = True
    path = _path(target)
    wanted = parse_size(at_least, "assert_space_reclaimed: at_least")
    if wanted < 1 or within < 0:
        raise UsageError(
            "assert_space_reclaimed: give at_least in bytes above 0, within in seconds from 0 on"
        )
    grace = _SYNC_GRACE_S if sync else _GRACE_S
    start = vm.guest(space.used, path, sync, timeout=grace)
    if start["used"] < wanted:
        raise UsageError(
            f"assert_space_reclaimed: only {format_size(start['used'])} are used by {path} "
            f"({start['how']}), so {format_size(wanted)} cannot come back; enter the block when the data is "
            "there, and delete it inside"
        )
    seen = Reclaimed(path, before=start["used"])
    yield seen
    asked = (start["place"], seen.before - wanted, within, sync, start["device"])
    end = vm.guest(space.wait_until_used, *asked, timeout=within + grace)
    seen.after, seen.seconds = end["used"], end["seconds"]
    if record is not None:
        record(Measurement.of(f"reclaimed on {path}", "B", [seen.reclaimed]))
        # No duration of the kind that budgets are for: it is mostly how often we looked.
        record(Measurement.of(f"reclaimed on {path} after", "ms", [1000 * seen.seconds]))
    if seen.reclaimed < wanted:
        raise AssertionError(_describe(seen, wanted, start["how"], end["held"], str(vm.kernel.version)))


def _path(target: Mount | LoopDevice | str) -> str:
    if isinstance(target, LoopDevice):
        if target.backing.startswith("/dev/"):
            raise UsageError(
                f"assert_space_reclaimed: {target} is on a device, of which nobody in the machine knows "
                "what is allocated; use a loop device on a file"
            )
        return target.backing
    if not isinstance(target, (str, Mount)):
        raise UsageError(
            f"assert_space_reclaimed: {target!r} does not tell what is used of it; give a mounted file "
            "system, the path of a folder or file, or a loop device on a file. To see what a stack of "
            "devices uses, make it on a loop device (loop_device_factory()), and give that"
        )
    return target if isinstance(target, str) else target.path


def _describe(seen: Reclaimed, wanted: int, how: str, held: list[tuple[int, str, str]], kernel: str) -> str:
    """The failure text of space that did not come back."""
    came = (
        format_size(seen.reclaimed)
        if seen.reclaimed >= 0
        else f"nothing ({format_size(-seen.reclaimed)} more are used)"
    )
    lines = [
        f"{came} of at least {format_size(wanted)} came back on {seen.path} within {seen.seconds:.1f} s "
        f"(kernel {kernel})",
        f"  used before: {format_size(seen.before)}, after: {format_size(seen.after)} ({how})",
    ]
    lines += [
        f"  deleted, but open in {holder}: {path}, {format_size(size)}" for size, path, holder in held[:10]
    ]
    if how != "statfs":
        lines.append(
            "  a file behind a device shrinks only by discards: mount what lies on it with '-o discard', or "
            "run fstrim; each layer between must pass them on (a thin pool without no_discard_passdown)"
        )
    elif not held:
        lines.append("  no process has a deleted file open there")
    return "\n".join(lines)
