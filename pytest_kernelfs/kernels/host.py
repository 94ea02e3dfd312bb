"""Which of Debian's suites the host itself is."""

from __future__ import annotations

from pathlib import Path

from pytest_kernelfs.kernels.mirrors import CODENAMES

OS_RELEASE = Path("/etc/os-release")


def host_suite() -> str:
    """The code name of the host's Debian release; ``stable`` on a host that is none."""
    try:
        text = OS_RELEASE.read_text(errors="replace")
    except OSError:
        return "stable"
    fields = dict(line.partition("=")[::2] for line in text.splitlines())
    # Derivatives name the release they are made from in a field of its own.
    for name in ("DEBIAN_CODENAME", "VERSION_CODENAME"):
        value = fields.get(name, "").strip().strip("\"'")
        if value in CODENAMES:
            return value
    return "stable"
