"""Pressure stall information: how much of the time tasks waited for a processor, memory or disks."""

from __future__ import annotations

from pytest_kernelfs.guest.dispatch import GuestError

RESOURCES = ("cpu", "memory", "io")


def parse(text: str) -> dict[str, dict[str, float]]:
    """The content of a pressure file: "some" and "full" -> ``avg10``, ``avg60``, ``avg300``, ``total``.

    The averages are percentages of the last 10, 60 and 300 seconds; ``total`` is in seconds since the
    machine, or the cgroup, was started (the file has microseconds). cpu has no "full" before 5.13.
    """
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        figures = {name: float(value) for name, _, value in (pair.partition("=") for pair in pairs)}
        figures["total"] /= 1e6
        found[kind] = figures
    return found


def read(resource: str, path: str = "") -> dict[str, dict[str, float]]:
    """What /proc/pressure says of a resource, or the file at ``path``; see ``parse``.

    Raises: GuestError if this kernel keeps no such account.
    """
    path = path or f"/proc/pressure/{resource}"
    try:
        with open(path) as file:
            return parse(file.read())
    except OSError as error:
        raise GuestError(
            f"no pressure stall information in {path} ({error.strerror}): the kernel needs CONFIG_PSI=y, "
            "and with CONFIG_PSI_DEFAULT_DISABLED=y the boot parameter psi=1"
        ) from None
