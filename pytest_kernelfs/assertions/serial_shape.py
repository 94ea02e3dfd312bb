"""The shape of umounts one after another: the first pays for all."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.probes.umount import UmountRun

FIRST_SHARE = 0.75
REST_AT_MOST = 0.1


def serial_shape(
    run: UmountRun | Sequence[float],
    *,
    first_share: float = FIRST_SHARE,
    rest_at_most: float = REST_AT_MOST,
    kernel: str = "",
) -> None:
    """Demand the shape of a first umount that writes back all that is dirty, for the others too.

    The first takes at least ``first_share`` of the time of all (75 %), and each of the others takes at most
    ``rest_at_most`` of the first one's (10 %). ``run`` is what ``assert_umount_under`` gave, not in
    parallel, or its seconds; at least two of them.

    Raises: AssertionError with all times; UsageError for what has no such shape.
    """
    __tracebackhide__ = True
    if isinstance(run, UmountRun) and run.parallel:
        raise UsageError("assert_serial_shape: these were unmounted at once; unmount them one after another")
    seconds = tuple(run.seconds if isinstance(run, UmountRun) else run)
    if len(seconds) < 2:
        raise UsageError(
            f"assert_serial_shape: the shape of {len(seconds)} umount says nothing; give two or more"
        )
    if not (0 < first_share < 1 and 0 < rest_at_most < 1):
        raise UsageError("assert_serial_shape: first_share and rest_at_most lie between 0 and 1")
    errors = run.errors if isinstance(run, UmountRun) else ("",) * len(seconds)
    share = seconds[0] / sum(seconds) if sum(seconds) else 0.0
    slow = [value > rest_at_most * seconds[0] for value in seconds[1:]]
    if any(errors) or share < first_share or any(slow):
        raise AssertionError(_describe(seconds, errors, share, slow, first_share, rest_at_most, kernel))


def _describe(
    seconds: Sequence[float],
    errors: Sequence[str],
    share: float,
    slow: Sequence[bool],
    first_share: float,
    rest_at_most: float,
    kernel: str,
) -> str:
    """The failure text of umounts of another shape."""
    on = f" (kernel {kernel})" if kernel else ""
    faults = []
    if share < first_share:
        faults.append(
            f"the first of {len(seconds)} umounts took {share:.0%} of the time of all, "
            f"less than {first_share:.0%}"
        )
    if any(slow):
        limit = rest_at_most * seconds[0]
        faults.append(
            f"{sum(slow)} of the {len(slow)} others took longer than {limit:.3f} s, "
            f"{rest_at_most:.0%} of the first"
        )
    if any(errors):
        faults.append(f"{sum(map(bool, errors))} failed")
    lines = [f"the first umount does not pay for all: {'; '.join(faults)}{on}"]
    for number, (value, error) in enumerate(zip(seconds, errors, strict=True)):
        note = error or ("over" if number and slow[number - 1] else "")
        lines.append(f"  {number + 1:>3}. {value:8.3f} s  {note}".rstrip())
    if sum(slow) == len(slow):
        lines.append("  each pays for itself, or there was hardly anything to write back")
    return "\n".join(lines)
