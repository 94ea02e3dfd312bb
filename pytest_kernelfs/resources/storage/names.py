"""The storage backends by name, and what each needs of the kernel and of the machine."""

from __future__ import annotations

from pytest_kernelfs.errors import UsageError

# Name: kind, and the file system that containers lie on.
BACKENDS = {
    "overlay-xfs": ("overlay", "xfs"),
    "overlay-ext4": ("overlay", "ext4"),
    "btrfs": ("btrfs", "btrfs"),
    "thin-ext4": ("thin", "ext4"),
    "thin-xfs": ("thin", "xfs"),
    "thin-loop-ext4": ("thin-loop", "ext4"),
    "thin-loop-xfs": ("thin-loop", "xfs"),
}
# What a test runs on that does not choose.
CHOSEN = ("overlay-xfs", "overlay-ext4", "btrfs", "thin-ext4", "thin-loop-ext4")
# The needs of each kind, as for the marker kernel_needs, beside those of the file system.
_NEEDS = {
    "overlay": ("filesystem:overlay",),
    "btrfs": (),
    "thin": ("module:dm_thin_pool",),
    "thin-loop": ("module:dm_thin_pool", "module:loop"),
}


def parse(name: object) -> tuple[str, str]:
    """Kind and file system of a backend. Raises: UsageError if there is none of that name."""
    if not isinstance(name, str) or name not in BACKENDS:
        import difflib  # not needed otherwise, and this module is imported by all of pytest's runs

        near = difflib.get_close_matches(str(name), BACKENDS, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"there is no storage backend {name!r}{hint}; there are {', '.join(BACKENDS)}")
    return BACKENDS[name]


def needs(name: object) -> tuple[str, ...]:
    """What it needs, as for the marker kernel_needs. Raises: UsageError."""
    kind, filesystem = parse(name)
    return (*_NEEDS[kind], f"filesystem:{filesystem}", f"command:mkfs.{filesystem}")
